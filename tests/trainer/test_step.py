"""What a step computes and what it must not: host reads, wasted gradients, shared randomness."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import fastgan
from fastgan.graphs.host_reads import HostRead, NoHostReads
from fastgan.kernels.common import INTERPRET
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
from fastgan.precision import resolve
from fastgan.trainer.optimization.optimizers import adam
from fastgan.trainer.step.noise_buffer import NoiseBuffer
from fastgan.trainer.step.runner import StepRunner, parameters_behind

CPU = torch.device("cpu")


def runner_of(objective, nets, batch_size, **options):
    parameters = {name: list(net.parameters()) for name, net in nets.items()}
    optimizers = {name: adam()(p) for name, p in parameters.items() if p}
    return StepRunner(
        objective,
        nets,
        optimizers,
        seed=0,
        batch_size=batch_size,
        precision=resolve("fp32", CPU),
        **options,
    )


def nets_behind(output, nets):
    """Names of the networks whose parameters the autograd graph of `output` reaches."""
    behind = parameters_behind(output)
    return {name for name, net in nets.items() if any(id(p) in behind for p in net.parameters())}


def inputs(runner, batch, step=0):
    positions = [torch.tensor(p) for p in runner.positions(step)]
    scalar = {k: torch.tensor(v) for k, v in runner.objective.schedule(step).items()}
    return [batch] * runner.rounds, positions, scalar, runner.due(step)


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


class Chain(Adversarial):
    """D, then the generator twice on the same noise, in two phases or by repeating one."""

    def __init__(self, repeat):
        super().__init__(latent_shape=(8, 1, 1))
        self.repeats = repeat

    def phases(self):
        again = () if self.repeats > 1 else (fastgan.Phase("G2", ("G",), self.g_loss, fresh=False),)
        return (
            fastgan.Phase("D", ("D",), self.d_loss),
            fastgan.Phase("G", ("G",), self.g_loss, repeat=self.repeats, fresh=False),
            *again,
        )


@pytest.mark.parametrize("repeat", [1, 2])
def test_a_second_phase_of_the_generator_sees_the_images_it_makes_now(repeat):
    G, D = Generator(16, 1, 8, 2), Discriminator(16, 1, 2)
    seen = []

    class Spy(Chain):
        def g_loss(self, step):
            assert step.fake is step.fake
            seen.append((step.noise.z, step.fake.detach().clone(), G[0].weight.detach().clone()))
            return super().g_loss(step)

    runner = runner_of(Spy(repeat), {"G": G, "D": D}, 4)
    runner.run(*inputs(runner, {"image": torch.randn(4, 1, 16, 16)}))
    (z, first, weight), (z2, second, weight2) = seen
    assert torch.equal(z, z2)
    assert not torch.equal(weight, weight2)
    assert not torch.equal(first, second)
    assert not torch.equal(weight2, G[0].weight)


def test_a_phase_after_the_generator_keeps_the_images_it_was_trained_on():
    class Swapped(Adversarial):
        def phases(self):
            return (
                fastgan.Phase("G", ("G",), self.g_loss),
                fastgan.Phase("D", ("D",), self.d_loss, fresh=False),
            )

        def generate(self, step):
            made.append(1)
            return super().generate(step)

    made = []
    runner = runner_of(
        Swapped(latent_shape=(8, 1, 1)),
        {"G": Generator(16, 1, 8, 2), "D": Discriminator(16, 1, 2)},
        4,
    )
    runner.run(*inputs(runner, {"image": torch.randn(4, 1, 16, 16)}))
    assert len(made) == 1


@pytest.mark.parametrize("order", [("G", "D", "Q"), ("G", "Q", "D")])
def test_parameters_that_two_networks_share_are_trained_by_the_phases_of_both(order):
    """InfoGAN's Q is a head on D's trunk: whichever comes later must not freeze the trunk for the
    other."""
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU())
    nets = {
        "G": nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4))),
        "D": nn.Sequential(trunk, nn.Linear(8, 1)),
        "Q": nn.Sequential(trunk, nn.Linear(8, 3)),
    }
    nets = {name: nets[name] for name in order}
    seen = []

    class Sharing(Adversarial):
        def phases(self):
            return (
                fastgan.Phase("D", ("D",), self.d_loss),
                fastgan.Phase("Q", ("Q",), self.q_loss, fresh=False),
            )

        def d_loss(self, step):
            seen.append(
                [
                    p.requires_grad
                    for p in (trunk[1].weight, nets["D"][1].weight, nets["Q"][1].weight)
                ]
            )
            return super().d_loss(step)

        def q_loss(self, step):
            seen.append(
                [
                    p.requires_grad
                    for p in (trunk[1].weight, nets["D"][1].weight, nets["Q"][1].weight)
                ]
            )
            return {"code": step.nets.Q(step.fake).square().mean()}

    runner = runner_of(Sharing(latent_shape=(8,)), nets, 4)
    runner.run(*inputs(runner, {"image": torch.randn(4, 1, 4, 4)}))
    assert seen == [[True, True, False], [True, False, True]]
    assert all(p.requires_grad for net in nets.values() for p in net.parameters())
    assert nets_behind(nets["D"](torch.ones(1, 16)).sum(), nets) == {"D", "Q"}


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


def by_label(images=4, classes=3):
    """Conditional networks on one embedding, which may be part of both or a network of its own."""
    embed = nn.Embedding(classes, 8)

    class G(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body = embed, nn.Sequential(nn.Linear(16, images * images), nn.Tanh())

        def forward(self, z, label):
            return self.body(torch.cat([z, embed(label)], 1)).view(-1, 1, images, images)

    class D(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body = embed, nn.Linear(8 + images * images, 1)

        def forward(self, x, label):
            return self.body(torch.cat([x.flatten(1), embed(label)], 1))

    return embed, G(), D()


@pytest.mark.parametrize("n_critic", [1, 2])
@pytest.mark.parametrize("own_network", [False, True])
def test_a_network_that_both_players_share_gets_no_gradient_of_d_through_the_fakes(
    own_network, n_critic
):
    """What a loop with D(fake.detach()) does: the embedding learns in D's phase through D's own
    use, in G's from the fakes."""
    torch.manual_seed(0)
    embed, G, D = by_label()
    nets = {"G": G, "D": D}
    trains = {"D": ("D",), "G": ("G",)}
    if own_network:
        del G.embed, D.embed
        nets["E"] = embed
        trains = {"D": ("D", "E"), "G": ("G", "E")}
    label, images = torch.tensor([0, 1, 2, 0]), torch.randn(4, 1, 4, 4)
    softplus = torch.nn.functional.softplus
    seen, found = [], []

    class Sharing(Adversarial):
        def phases(self):
            d, g = super().phases()
            return (
                fastgan.Phase("D", trains["D"], d.loss, repeat=d.repeat),
                fastgan.Phase("G", trains["G"], g.loss, fresh=g.fresh),
            )

        def d_loss(self, step):
            terms = super().d_loss(step)
            fake = G(step.noise.z, label).detach()
            expected = torch.autograd.grad(
                softplus(-D(images, label)).mean() + softplus(D(fake, label)).mean(), embed.weight
            )[0]
            seen.append(("D", expected))
            return terms

        def g_loss(self, step):
            terms = super().g_loss(step)
            expected = torch.autograd.grad(
                softplus(-D(G(step.noise.z, label), label)).mean(), embed.weight
            )[0]
            seen.append(("G", expected))
            return terms

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            if any(p is embed.weight for group in self.param_groups for p in group["params"]):
                found.append(embed.weight.grad.clone())
            return super().step(closure)

    objective = Sharing(latent_shape=(8,), conditional=True, n_critic=n_critic)
    optimizers = {name: Watched(list(net.parameters()), lr=0.1) for name, net in nets.items()}
    runner = StepRunner(
        objective, nets, optimizers, seed=0, batch_size=4, precision=resolve("fp32", CPU)
    )
    for step in range(2):
        runner.run(*inputs(runner, {"image": images, "label": label}, step))
    assert [name for name, _ in seen] == (["D"] * n_critic + ["G"]) * 2
    for (name, expected), grad in zip(seen, found, strict=True):
        torch.testing.assert_close(
            grad, expected, rtol=1e-5, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_an_encoder_that_makes_the_fakes_learns_through_them_while_the_generator_rests():
    """VAE-GAN: a phase that trains only the encoder needs the fake's graph, though it does not
    train the generator."""
    nets = {
        "E": nn.Sequential(nn.Flatten(), nn.Linear(16, 8)),
        "G": nn.Sequential(nn.Linear(8, 16), nn.Unflatten(1, (1, 4, 4))),
        "D": nn.Sequential(nn.Flatten(), nn.Linear(16, 1)),
    }
    seen = []

    class Encoding(Adversarial):
        def phases(self):
            return (
                fastgan.Phase("D", ("D",), self.d_loss),
                fastgan.Phase("E", ("E",), self.e_loss, fresh=False),
                fastgan.Phase("G", ("E", "G"), self.g_loss, fresh=False),
            )

        def generate(self, step):
            return step.nets.G(step.nets.E(step.batch["image"]))

        def e_loss(self, step):
            seen.append((step.fake.requires_grad, nets["G"][0].weight.requires_grad))
            return {"rebuilt": (step.fake - step.batch["image"]).square().mean()}

    runner = runner_of(Encoding(latent_shape=(8,)), nets, 4)
    before = nets["E"][1].weight.clone()
    runner.run(*inputs(runner, {"image": torch.randn(4, 1, 4, 4)}))
    assert seen == [(True, False)]
    assert not torch.equal(before, nets["E"][1].weight)


def test_a_loss_may_look_at_the_fakes_without_gradients():
    class Peeking(Adversarial):
        def d_loss(self, step):
            with torch.no_grad():
                step.log("brightness", step.fake.mean())
            return super().d_loss(step)

    G, D = Generator(16, 1, 8, 2), Discriminator(16, 1, 2)
    before = G[0].weight.clone()
    runner = runner_of(Peeking(latent_shape=(8, 1, 1)), {"G": G, "D": D}, 4)
    runner.run(*inputs(runner, {"image": torch.randn(4, 1, 16, 16)}))
    assert not torch.equal(before, G[0].weight)


@pytest.mark.parametrize("rounds", [1, 3])
def test_noise_drawn_ahead_is_the_noise_of_each_step(rounds):
    noise = {
        "z": Noise((5,)),
        "u": Noise((2, 1), "uniform", 0.0, 3.0),
        "c": Noise((), "categorical", classes=7),
    }
    ahead = NoiseBuffer(noise, 11, 8, rounds)
    assert (ahead.steps == 1) == INTERPRET
    for step in (0, 1, ahead.steps - 1, ahead.steps, 5 * ahead.steps + 2, 1):
        drawn = ahead.of(step)
        assert len(drawn) == rounds
        for at, found in enumerate(drawn):
            expected = draw(noise, 11, torch.tensor((step * rounds + at) * 8), 8)
            assert all(torch.equal(found[name], expected[name]) for name in noise)
    assert NoiseBuffer({"z": Noise((128, 128))}, 0, 64, 6).steps == 1
    assert NoiseBuffer({}, 0, 64, 1).of(3) == [{}]


def test_rows_keep_their_columns_when_names_come_in_another_order():
    stats, one = Statistics(3, CPU), torch.ones(())
    stats.add({"a": one, "b": one * 2})
    stats.add({"b": one * 4, "a": one * 3})
    stats.add({"a": one * 5, "b": one * 6, "c": one.double()})
    assert stats.take() == {"a": 3.0, "b": 4.0, "c": 1.0}
