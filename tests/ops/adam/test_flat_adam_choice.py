"""Where FlatAdam stands for an optimiser, what it averages, and what it leaves to others."""

import pytest
import torch
from flat_stages import CONV, CPU, is_flat, stage_of
from torch import nn

import fastgan
from fastgan.distributed import buckets, context
from fastgan.kernels import tuning
from fastgan.ops.adam.flat_parameters import FlatParameters
from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.trainer.optimization import fused


def test_the_averages_follow_the_networks_only_where_that_is_the_same(flattened):
    class Twice(fastgan.Adversarial):
        def phases(self):
            d, g = super().phases()
            return d, g, fastgan.Phase("again", ("G",), self.g_loss, fresh=False)

    inside = lambda stage: stage.optimizers["G"].ema is not None
    assert inside(stage_of())
    assert not inside(stage_of(Twice(latent_shape=(8, 1, 1))))
    assert not inside(stage_of(precision="fp16"))
    for options in ({"objective": Twice(latent_shape=(8, 1, 1))}, {"precision": "fp16"}):
        stage = stage_of(**options)
        before = [p.clone() for p in stage.ema.nets["G"].parameters()]
        stage.train_step(0)
        moved = [
            not torch.equal(a, b)
            for a, b in zip(before, stage.ema.nets["G"].parameters(), strict=True)
        ]
        assert any(moved) or options.get("precision") == "fp16"


def test_an_optimiser_with_parameters_of_its_own_averages_nothing(flattened):
    extra = nn.Parameter(torch.ones(2))
    stage = stage_of(optimizers={"G": lambda p: torch.optim.Adam([*p, extra])})
    assert is_flat(stage) == [True, True]
    assert stage.optimizers["G"].ema is None
    stage.train_step(0)


def own_adam():
    nets = {name: make(*arguments) for name, (make, arguments) in CONV.items()}
    return {"nets": nets, "optimizers": {"G": torch.optim.Adam(nets["G"].parameters())}}


def sharing():
    nets = {name: make(*arguments) for name, (make, arguments) in CONV.items()}
    nets["G"].shared = nets["D"].shared = nn.Linear(2, 2)
    return {"nets": nets}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [True, True]),
        ({"optimizers": {"D": lambda p: torch.optim.AdamW(p, 1e-3)}}, [True, True]),
        ({"optimizers": lambda p: torch.optim.Adam(p, amsgrad=True)}, [False, False]),
        ({"optimizers": lambda p: torch.optim.SGD(p, 1e-3)}, [False, False]),
        ({"optimizers": lambda p: torch.optim.Adam(p, torch.tensor(1e-3))}, [False, False]),
        (
            {"optimizers": lambda p: torch.optim.Adam([{"params": p[:1]}, {"params": p[1:]}])},
            [False, False],
        ),
        (own_adam, [False, True]),
        (sharing, [False, False]),
    ],
    ids=[
        "default",
        "AdamW",
        "amsgrad",
        "SGD",
        "tensor lr",
        "two groups",
        "somebody's own",
        "shared parameters",
    ],
)
def test_what_it_can_stand_for(flattened, options, expected):
    stage = stage_of(**(options() if callable(options) else options))
    assert is_flat(stage) == expected


def test_auto_takes_what_was_measured_and_never_guesses(monkeypatch):
    assert fused.engine_of("auto", 4096, CPU) is None
    assert fused.engine_of("reference", 4096, CPU) is None
    assert fused.engine_of("cudnn", 4096, CPU) is None
    assert fused.engine_of("triton", 4096, CPU) == "triton"
    asked = []
    for measured, expected in (("triton", "triton"), ("reference", None)):
        monkeypatch.setattr(tuning, "engine", lambda *a, answer=measured: asked.append(a) or answer)
        assert fused.engine_of("auto", 4096, CPU) == expected
    assert asked[0] == (
        "flat_adam",
        "fp32",
        {"n": 4096},
        CPU,
    )  # not the name under which tiles are looked up


def test_ranks_reduce_its_flat_gradients_where_they_lie(monkeypatch):
    """One buffer, no copy back: what the optimiser collects then are its own views."""
    net = nn.Linear(3, 2)
    adam = FlatAdam(FlatParameters(net), impl="reference")
    seen = []

    class Done:
        def wait(self):
            pass

    def all_reduce(value, async_op):
        seen.append(value.data_ptr())
        value.mul_(3)
        return Done()

    monkeypatch.setattr(buckets.dist, "all_reduce", all_reduce)
    reducing = buckets.GradientBuckets([], context.DistributedContext(0, 2), adam.flat)
    with reducing.during_backward():
        net(torch.ones(1, 3)).sum().backward()
    reducing.finish()
    assert seen == [adam.flat.grad.data_ptr()]
    for p, view in zip(adam.flat.parameters, adam.flat.grad_views, strict=True):
        assert p.grad.data_ptr() == view.data_ptr()
        assert torch.equal(p.grad, torch.full_like(p, 1.5))
    assert adam.flat.collect_grads_().data_ptr() == seen[0]
    assert torch.equal(net.weight.grad, torch.full((2, 3), 1.5))
