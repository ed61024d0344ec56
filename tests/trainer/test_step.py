"""What a step computes and what it must not: host reads, wasted gradients, shared randomness."""

import numpy as np
import pytest
import torch
from step_support import CPU, inputs, nets_behind, runner_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import fastgan
from fastgan.graphs.host_reads import HostRead, NoHostReads
from fastgan.models.dcgan import (
    ConditionalDiscriminator,
    ConditionalGenerator,
    Discriminator,
    Generator,
)
from fastgan.monitor import statistics as stats_module
from fastgan.monitor.statistics import Statistics
from fastgan.objectives import Adversarial, Noise
from fastgan.objectives.base import draw


def test_dcgan64_step_counts_the_flops_of_a_frozen_discriminator():
    """2.2746 GFLOP an image: G forward, D forward three times, no gradient of D's weights in the
    generator's phase; the tutorial's loop does 2.4823.
    """
    G, D = Generator(64, 3), Discriminator(64, 3)
    runner = runner_of(Adversarial(), {"G": G, "D": D}, 2)
    batch = {"image": torch.randn(2, 3, 64, 64)}
    with FlopCounterMode(display=False) as counted:
        runner.run(*inputs(runner, batch))
    assert counted.get_total_flops() / 2 / 1e9 == pytest.approx(2.2746, abs=5e-5)

    with FlopCounterMode(display=False) as tutorial:
        fake = G(torch.randn(2, 100, 1, 1))
        (
            torch.nn.functional.softplus(-D(batch["image"])).mean()
            + torch.nn.functional.softplus(D(fake.detach())).mean()
        ).backward()
        torch.nn.functional.softplus(-D(fake)).mean().backward()
    assert tutorial.get_total_flops() / 2 / 1e9 == pytest.approx(2.4823, abs=5e-5)


OBJECTIVES = {
    **{
        loss: Adversarial(loss, (8, 1, 1))
        for loss in (
            "non-saturating",
            "minimax",
            "hinge",
            "wasserstein",
            "least-squares",
            "relativistic",
        )
    },
    "r1": Adversarial(latent_shape=(8, 1, 1), r1=1.0, lazy_r1=2),
    "r1+r2": Adversarial(latent_shape=(8, 1, 1), r1=1.0, r2=1.0),
    "gp": Adversarial("wasserstein", (8, 1, 1), gp=10.0, n_critic=2),
    "conditional": Adversarial(latent_shape=(8, 1, 1), conditional=True),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_step_reads_the_device(name):
    if name == "conditional":
        nets = {
            "G": ConditionalGenerator(16, 1, 8, 2, 10),
            "D": ConditionalDiscriminator(16, 1, 2, 10),
        }
    else:
        nets = {"G": Generator(16, 1, 8, 2), "D": Discriminator(16, 1, 2)}
    runner = runner_of(OBJECTIVES[name], nets, 4)
    batch = {"image": torch.randn(4, 1, 16, 16), "label": torch.arange(4)}
    for step in range(2):
        given = inputs(runner, batch, step)
        with NoHostReads():
            logged = runner.run(*given)
        assert all(value.dim() == 0 and value.isfinite() for value in logged.values())


def test_host_reads_are_found_and_named():
    with (
        pytest.raises(HostRead, match=r"test_step\.py:\d+: the step reads the device \(\.item\(\)"),
        NoHostReads(),
    ):
        torch.ones(()).item()
    with pytest.raises(HostRead, match="boolean index"), NoHostReads():
        torch.ones(3)[torch.tensor([True, False, True])]
    device = torch.ones(
        3, device="meta"
    )  # stands for a GPU: nothing is computed, the copies are what counts
    with (
        pytest.raises(HostRead, match=r"test_step\.py:\d+: the step reads the device \(\.cpu\(\)"),
        NoHostReads(),
    ):
        device.cpu()
    with pytest.raises(HostRead, match=r"reads the device \(\.cpu\(\)"), NoHostReads():
        torch.zeros(3).copy_(device)
    with pytest.raises(HostRead, match="copies from the host"), NoHostReads():
        torch.ones(3).to("meta")
    with NoHostReads():
        assert device.double().to("meta", torch.float32).dtype == torch.float32
        assert torch.ones(3).double().to("cpu").dtype == torch.float64


@pytest.mark.parametrize("reuse", [True, False])
def test_only_the_phase_networks_get_gradients(reuse):
    G, D = Generator(16, 1, 8, 2), Discriminator(16, 1, 2)
    seen = []

    class Spy(Adversarial):
        def g_loss(self, step):
            terms = super().g_loss(step)
            seen.append([p.requires_grad for p in D.parameters()])
            seen.append(nets_behind(terms["adv"], {"G": G, "D": D}))
            return terms

        def d_loss(self, step):
            terms = super().d_loss(step)
            seen.append(nets_behind(terms["adv"], {"G": G, "D": D}))
            return terms

    runner = runner_of(Spy(latent_shape=(8, 1, 1), reuse=reuse), {"G": G, "D": D}, 4)
    runner.run(*inputs(runner, {"image": torch.randn(4, 1, 16, 16)}))
    on_d, frozen, on_g = seen
    assert on_d == {"D"}
    assert not any(frozen)
    assert on_g == {"G"}
    assert all(p.requires_grad for net in (G, D) for p in net.parameters())


def test_parameters_the_user_froze_stay_frozen():
    G, D = Generator(16, 1, 8, 2), Discriminator(16, 1, 2)
    G[0].weight.requires_grad_(False)
    before = G[0].weight.clone()
    runner = runner_of(Adversarial(latent_shape=(8, 1, 1)), {"G": G, "D": D}, 4)
    runner.run(*inputs(runner, {"image": torch.randn(4, 1, 16, 16)}))
    assert not G[0].weight.requires_grad
    assert torch.equal(G[0].weight, before)


def test_a_step_equals_the_plain_loop():
    """DCGAN's tutorial loop, written out with torch alone, gives the same weights bit for bit."""
    torch.manual_seed(0)
    G, D = Generator(16, 1, 8, 2), Discriminator(16, 1, 2)
    torch.manual_seed(0)
    G2, D2 = Generator(16, 1, 8, 2), Discriminator(16, 1, 2)
    adam_g, adam_d = (
        torch.optim.Adam(G2.parameters(), 2e-4, (0.5, 0.999)),
        torch.optim.Adam(D2.parameters(), 2e-4, (0.5, 0.999)),
    )
    runner = runner_of(Adversarial(latent_shape=(8, 1, 1)), {"G": G, "D": D}, 4)
    for step in range(3):
        batch = {"image": torch.randn(4, 1, 16, 16)}
        runner.run(*inputs(runner, batch, step))
        z = draw({"z": Noise((8, 1, 1))}, 0, torch.tensor(step * 4), 4).z
        softplus, fake = torch.nn.functional.softplus, G2(z)
        adam_d.zero_grad()
        (softplus(-D2(batch["image"])).mean() + softplus(D2(fake.detach())).mean()).backward()
        adam_d.step()
        adam_g.zero_grad()
        softplus(-D2(fake)).mean().backward()
        adam_g.step()
    for mine, theirs in zip(
        [*G.parameters(), *D.parameters()], [*G2.parameters(), *D2.parameters()], strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_ranks_draw_what_one_would_have_drawn():
    noise = {
        "z": Noise((5,)),
        "u": Noise((2,), "uniform", 0.0, 3.0),
        "c": Noise((), "categorical", classes=7),
    }
    whole = draw(noise, 11, torch.tensor(100), 8)
    halves = [draw(noise, 11, torch.tensor(100 + 4 * rank), 4) for rank in range(2)]
    for name in noise:
        assert torch.equal(whole[name], torch.cat([h[name] for h in halves]))
    assert whole.c.dtype == torch.int64
    assert 0 <= int(whole.c.min()) <= int(whole.c.max()) < 7
    assert 0 <= float(whole.u.min()) <= float(whole.u.max()) < 3


def test_lazy_terms_appear_when_due_with_their_interval_as_weight():
    G, D = Generator(16, 1, 8, 2), Discriminator(16, 1, 2)
    weights = []

    class Spy(Adversarial):
        def d_loss(self, step):
            weights.append(step.due("r1"))
            return super().d_loss(step)

    runner = runner_of(Spy(latent_shape=(8, 1, 1), r1=2.0, lazy_r1=3), {"G": G, "D": D}, 4)
    names = [
        set(runner.run(*inputs(runner, {"image": torch.randn(4, 1, 16, 16)}, step)))
        for step in range(4)
    ]
    assert weights == [3, 0, 0, 3]
    assert ["loss/D/r1" in n for n in names] == [True, False, False, True]


def test_loss_terms_must_be_numbers():
    class Wrong(Adversarial):
        def d_loss(self, step):
            return {"adv": torch.ones(2)}

    runner = runner_of(Wrong(latent_shape=(8,)), {"G": nn.Linear(8, 1), "D": nn.Linear(1, 1)}, 4)
    with pytest.raises(fastgan.FastganError, match=r"loss term 'adv' has shape \(2,\)"):
        runner.run(*inputs(runner, {"image": torch.ones(4, 1)}))


def test_networks_that_view_train_contiguous_and_others_channels_last():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 4, 2, 1), nn.Linear(4 * 64, 1)

        def forward(self, x):
            return self.head(self.conv(x).view(len(x), -1))

    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)
    options = {"data": images, "latent_shape": (8, 1, 1), "batch_size": 4, "progress": False}
    viewing = fastgan.Trainer(Generator(16, 3, 8, 2), Viewing(), **options)
    viewing.fit(1)
    assert viewing.active.memory_format == torch.contiguous_format
    plain = fastgan.Trainer(Generator(16, 3, 8, 2), Discriminator(16, 3, 2), **options)
    assert plain.active.memory_format == torch.channels_last


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_mixed_precision_trains_in_that_type_with_fp32_weights(name, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 1), np.uint8)
    seen = set()

    class Spy(Adversarial):
        def g_loss(self, step):
            terms = super().g_loss(step)
            seen.add((step.fake.dtype, terms["adv"].dtype))
            return terms

    def make(**options):
        torch.manual_seed(0)
        nets = Generator(16, 1, 8, 2), Discriminator(16, 1, 2)
        common = {
            "data": images,
            "batch_size": 4,
            "progress": False,
            "out": tmp_path / "run",
            "log_every": 1,
        }
        return fastgan.Trainer(
            *nets, objective=Spy(latent_shape=(8, 1, 1)), precision=name, **common, **options
        )

    with make() as trainer:
        before = trainer.nets["G"][0].weight.clone()
        trainer.fit(3)
        assert trainer.nets["G"][0].weight.dtype == torch.float32
        scales = {
            phase: scaler.get_scale() for phase, scaler in trainer.active.runner.scalers.items()
        }
        assert bool(scales) == (name == "fp16")
        if name == "bf16":
            assert not torch.equal(before, trainer.nets["G"][0].weight)
    assert seen == {({"bf16": torch.bfloat16, "fp16": torch.float16}[name], torch.float32)}
    with make(resume=True) as again:
        assert {
            phase: scaler.get_scale() for phase, scaler in again.active.runner.scalers.items()
        } == scales


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Noise((2,), "gaussian"), "unknown kind of noise 'gaussian'"),
        (lambda: Noise((), "categorical"), "needs classes="),
        (lambda: Adversarial(lazy_r1=0), "lazy_r1 must be at least 1"),
        (lambda: Adversarial(n_critic=0), "n_critic must be at least 1"),
        (lambda: fastgan.Phase("D/real", ("D",), dict), "a phase can't be named 'D/real'"),
        (lambda: fastgan.Phase("", ("D",), dict), "a phase can't be named ''"),
        (
            lambda: fastgan.Phase("D", ("D",), dict, repeat=0),
            "phase 'D' must be repeated at least once",
        ),
    ],
)
def test_objectives_that_cannot_be_are_refused(make, named):
    with pytest.raises(fastgan.FastganError, match=named):
        make()


def test_rows_with_lazy_terms_bring_nothing_to_the_device_each_step(monkeypatch):
    """A host list made a tensor waits for the device, which a step must not."""
    stats, brought = Statistics(8, CPU), []
    monkeypatch.setattr(
        stats_module.torch,
        "tensor",
        lambda *a, make=torch.tensor, **k: brought.append(a) or make(*a, **k),
    )
    one = torch.ones(())
    for step in range(8):
        stats.add(
            {"a": one, "r1": one * step, "b": one} if step % 4 == 0 else {"a": one, "b": one * 2}
        )
    assert len(brought) == 1
    assert stats.take() == {"a": 1.0, "r1": 2.0, "b": 1.75}


@pytest.mark.parametrize("graph", ["auto", "off"])
def test_a_machine_without_a_gpu_is_not_told_of_graphs(graph, capsys):
    if torch.cuda.is_available():
        pytest.skip("checks the machine without a GPU")
    images = np.zeros((8, 16, 16, 1), np.uint8)
    nets = Generator(16, 1, 8, 2), Discriminator(16, 1, 2)
    fastgan.Trainer(
        *nets, data=images, latent_shape=(8, 1, 1), batch_size=4, graph=graph, watch=False
    ).fit(1)
    assert "graph" not in capsys.readouterr().err


def test_rows_keep_their_columns_when_names_come_in_another_order():
    stats, one = Statistics(3, CPU), torch.ones(())
    stats.add({"a": one, "b": one * 2})
    stats.add({"b": one * 4, "a": one * 3})
    stats.add({"a": one * 5, "b": one * 6, "c": one.double()})
    assert stats.take() == {"a": 3.0, "b": 4.0, "c": 1.0}
