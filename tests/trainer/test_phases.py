"""Which networks a phase trains, and by which fakes: phases of one's own, parameters that networks
share."""

import pytest
import torch
from step_support import CPU, inputs, nets_behind, runner_of
from torch import nn

import fastgan
from fastgan.models.dcgan import Discriminator, Generator
from fastgan.objectives import Adversarial
from fastgan.precision import resolve
from fastgan.trainer.step.runner import StepRunner


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
