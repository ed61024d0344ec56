"""The standard network: its size and scaling, whose numbers are known, and files that are not it."""

import pytest
import torch

from fastgan.errors import FastganError
from fastgan.judges import inception


def test_the_network_is_the_published_one():
    with torch.device("meta"):
        net = inception.InceptionV3().eval()
        features, logits = net(torch.empty(1, 3, 20, 30, dtype=torch.uint8))
    # torchvision's inception_v3 has 27,161,264, of which 3,326,696 are its auxiliary head's, and
    # 1000 classes instead of 1008.
    assert sum(p.numel() for p in net.parameters()) == 27_161_264 - 3_326_696 + 8 * 2049
    assert features.shape == (1, 2048)
    assert logits.shape == (1, 1008)
    names = net.state_dict()
    assert names["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)
    assert names["Mixed_6b.branch7x7dbl_4.bn.running_var"].shape == (128,)
    assert names["Mixed_5b.branch_pool.conv.weight"].shape == (32, 192, 1, 1)


def test_images_are_scaled_as_tensorflow_1_did():
    image = torch.tensor([[0.0, 4.0], [8.0, 12.0]])[None, None]
    across = [0, 2, 4, 4]  # the first pixels lie upon each other, the last one is repeated
    expected = [[x + y for x in across] for y in (0, 4, 8, 8)]
    assert inception.resize(image, 4)[0, 0].tolist() == expected
    assert inception.resize(torch.arange(8.0).reshape(1, 1, 1, 8), 4)[0, 0, 0].tolist() == [
        0,
        2,
        4,
        6,
    ]


def test_padding_is_not_averaged():
    """A mean pool of equal pixels is that pixel at the border, too."""
    block = inception.Mixed(2, [], "mean", 3).eval()
    made = block(torch.ones(1, 2, 4, 4))
    assert torch.equal(made, made[:, :, :1, :1].expand_as(made))


def test_another_file_is_refused(tmp_path):
    with pytest.raises(FastganError, match=r"no file at .*: --fid takes .* does not download"):
        inception.load(tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes(b"other weights")
    with pytest.raises(FastganError, match="not the standard file"):
        inception.load(tmp_path / "weights.pth")
