"""A process of a run of every recipe, tiny: `python each_recipe.py FILE` writes what each logged, of
all processes together; those must end with equal weights.

Started by tests/distributed/test_each_recipe.py, once alone and once with another.
"""

import json
import sys

import torch
import torch.distributed as dist
from tiny_recipes import MEDIA, tiny

from fastgan import recipes
from fastgan.data import rendered
from fastgan.recipes.training import make_trainer
from fastgan.recipes.translation.base import FromImage
from fastgan.trainer.callbacks import Callbacks

COMMON = {"batch_size": 8, "log_every": 1, "device": "cpu", "precision": "fp32", "progress": False}
COMMON |= {"sync_bn": True, "watch": False, "steps": 2}


class Rows:
    """What is logged after each step."""

    def __init__(self):
        self.rows = []

    def on_log(self, trainer, row):
        self.rows.append({k: v for k, v in row.items() if k.startswith("loss/")})


def train(name):
    cls = recipes.find(name)
    own = {"width": 4} if issubclass(cls, FromImage) else tiny(name)
    size = {} if name in MEDIA else {"size": 16}
    config = cls(**{**size, **COMMON, **own})
    rows, apart = Rows(), []
    with make_trainer(config, resume=False, log=None, out=None) as trainer:
        trainer.callbacks = Callbacks([rows])
        trainer.fit(2)
        if trainer.ranks.world > 1:
            nets = [*trainer.nets.items(), *trainer.ema.items()]
            # a history of fakes is each process's own: docs/many-gpus.md says so
            for net in (net for kind, net in nets if not kind.startswith("pool")):
                for key, value in net.state_dict().items():
                    first = value.clone()
                    dist.broadcast(first, 0)
                    if not torch.equal(first, value):
                        apart.append(f"{name}: {key}")
    assert not apart, f"differ between the processes: {apart}"
    return rows.rows


def main():
    torch.set_num_threads(1)
    for name, (draw, _) in rendered.RENDERED.items():
        rendered.RENDERED[name] = (draw, 12 if name == "sprites" else 40)
    names = [name for name in recipes.RECIPES if name != "projected"]
    found = {name: train(name) for name in names}
    if not dist.is_initialized() or dist.get_rank() == 0:
        with open(sys.argv[1], "w") as f:
            json.dump(found, f)


main()
