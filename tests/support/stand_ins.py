"""Networks in the place of Inception."""

from torch import nn
from torch.nn.functional import avg_pool2d


class StandIn(nn.Module):
    """Block means as features, and some of them as logits."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1)

    def forward(self, images):
        features = avg_pool2d(images.float() / 64, 4).flatten(1)
        return features, features[:, :5]
