"""What accelerate touches, what it leaves and says, and that revert gives everything back."""

from __future__ import annotations

import copy
import io
import json

import pytest
import torch
from foreign_networks import (
    PatchGAN,
    ResNetDiscriminator,
    ResNetGenerator,
    TutorialDiscriminator,
    TutorialGenerator,
    Unet,
    tutorial_weights_init,
)
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from fastgan.acceleration import accelerate, report, revert
from fastgan.errors import FastganError
from fastgan.ops.norm import modules as fastgan_norm

NETWORKS = {
    "dcgan-g": (lambda: TutorialGenerator(nz=5, ngf=2), (2, 5, 1, 1)),
    "dcgan-d": (lambda: TutorialDiscriminator(ndf=2), (2, 3, 64, 64)),
    "unet": (lambda: Unet(downs=3, ngf=2), (2, 3, 16, 16)),
    "unet-instance": (lambda: Unet(downs=3, ngf=2, norm_layer=nn.InstanceNorm2d), (2, 3, 16, 16)),
    "patchgan": (lambda: PatchGAN(ndf=2, n_layers=2), (2, 6, 32, 32)),
    "sngan-d": (lambda: ResNetDiscriminator(4, "parametrization"), (2, 3, 8, 8)),
    "sngan-d-hook": (lambda: ResNetDiscriminator(4, "hook"), (2, 3, 8, 8)),
    "sngan-g": (lambda: ResNetGenerator(4, nz=5), (3, 5)),
}


def network(name, dtype=torch.float32):
    make, shape = NETWORKS[name]
    torch.manual_seed(3)
    net = make().to(dtype)
    return net, torch.randn(shape, dtype=dtype)


def small(*layers):
    torch.manual_seed(1)
    return (
        nn.Sequential(*layers)
        if layers
        else nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True))
    )


def rows(module, status):
    return [row for row in report(module).rows if row.status == status]


def image(channels=3):
    torch.manual_seed(2)
    return torch.randn(4, channels, 8, 8)


def fingerprint(module):
    """Everything revert has to give back, by identity."""
    return [
        (
            path,
            type(m),
            sorted(k for k in m.__dict__),
            [(k, id(v)) for k, v in m._modules.items()],
            [(k, id(v)) for k, v in m._parameters.items()],
            [(k, id(v)) for k, v in m._buffers.items()],
            [(k, id(v), type(v)) for k, v in m._forward_pre_hooks.items()],
            [(k, id(v)) for k, v in m._forward_hooks.items()],
        )
        for path, m in module.named_modules()
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_accelerate_works_in_place_and_revert_restores_everything(name):
    net, x = network(name)
    before = fingerprint(net)
    keys = list(net.state_dict())
    assert accelerate(net) is net
    assert list(net.state_dict()) == keys
    assert [id(p) for p in net.parameters()] == [
        i for *_, ps, _, _, _ in before for _, i in ps if i != id(None)
    ]
    net(x)
    assert revert(net) is net
    assert fingerprint(net) == before


@pytest.mark.parametrize("name", NETWORKS)
def test_twice_is_harmless(name):
    net, _ = network(name)
    once = fingerprint(accelerate(net))
    first = report(net).to_dict()
    assert fingerprint(accelerate(net)) == once
    assert report(net).to_dict() == first
    revert(net)
    assert revert(net) is net


def test_class_names_and_isinstance_survive():
    net = accelerate(TutorialGenerator(nz=5, ngf=2))
    norm, conv = net.main[1], net.main[0]
    assert type(norm) is not nn.BatchNorm2d
    assert isinstance(norm, nn.BatchNorm2d)
    assert "BatchNorm" in type(norm).__name__
    assert isinstance(conv, nn.ConvTranspose2d)
    assert "Conv" in type(conv).__name__
    assert isinstance(net.main, nn.Sequential)
    net.apply(tutorial_weights_init)
    assert abs(norm.weight.mean().item() - 1.0) < 0.1
    assert torch.equal(norm.bias, torch.zeros_like(norm.bias))


def test_runs_inside_sequential_fuse_and_lone_modules_are_swapped():
    net = accelerate(TutorialGenerator(nz=5, ngf=2))
    assert [row.module for row in rows(net, "fused")] == [
        "ConvTranspose2d > BatchNorm2d > ReLU"
    ] * 4 + ["ConvTranspose2d > Tanh"]
    assert [row.path for row in rows(net, "fused")][:2] == ["main.0..2", "main.3..5"]
    net = accelerate(ResNetGenerator(4, nz=5))
    doubled = [f"blocks.{i}.shortcut.0" for i in range(3)]
    assert [row.path for row in rows(net, "swapped")] == [*doubled, "bn"]
    assert "BatchNorm2d > ReLU" in [row.module for row in rows(net, "fused")]


def test_an_activation_that_opens_a_container_is_never_part_of_a_run():
    net = accelerate(Unet(downs=4, ngf=2))
    assert rows(net, "fused")
    assert not any(row.module.startswith(("LeakyReLU", "ReLU")) for row in rows(net, "fused"))


def test_linear_batchnorm1d_runs_fuse():
    net = accelerate(small(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LeakyReLU(0.2), nn.Linear(4, 2)))
    assert [row.module for row in rows(net, "fused")] == ["Linear > BatchNorm1d > LeakyReLU"]


def test_a_lone_norm_and_a_bare_conv_as_the_root():
    norm = accelerate(nn.BatchNorm2d(3))
    assert type(norm) is not nn.BatchNorm2d
    assert type(revert(norm)) is nn.BatchNorm2d
    assert report(accelerate(nn.Conv2d(3, 4, 3))).count("kept") == 1


class Tail(nn.Sequential):
    """A subclass of nn.Sequential that keeps its forward."""

    def __init__(self, width=4):
        super().__init__(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.width = width


class Squeezed(nn.Sequential):
    def forward(self, x):
        return super().forward(x).mean((2, 3))


def test_a_subclass_of_sequential_that_keeps_its_forward_fuses():
    net = Tail()
    expected = copy.deepcopy(net)(image())
    accelerate(net)
    assert isinstance(net, Tail)
    assert type(net).__name__ == "Tail"
    assert report(net).count("fused") == 1
    assert torch.equal(net(image()), expected)
    again = copy.deepcopy(net)
    assert type(again) is type(net)
    assert again.width == 4
    assert type(revert(again)) is Tail


def test_whole_modules_can_still_be_saved():
    for net in (Tail(), small()):
        accelerate(net)
        stored = io.BytesIO()
        torch.save(net, stored)
        stored.seek(0)
        back = torch.load(stored, weights_only=False)
        assert type(back) is type(net)
        assert torch.equal(back(image()), copy.deepcopy(net)(image()))


def test_a_container_with_a_forward_of_its_own_is_left_but_its_children_are_swapped():
    net = Squeezed(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    expected = copy.deepcopy(net)(image())
    accelerate(net)
    assert type(net) is Squeezed
    assert [row.path for row in rows(net, "swapped")] == ["1"]
    assert "overrides forward" in rows(net, "left")[0].why
    assert torch.equal(net(image()), expected)


# Left, with the reason.


class OwnNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


def with_forward_hook(net):
    net[1].register_forward_hook(lambda module, args, out: None)


def with_pre_hook(net):
    net[1].register_forward_pre_hook(lambda module, args: None)


def with_backward_hook(net):
    net[1].register_full_backward_hook(lambda module, before, after: None)


def with_own_forward(net):
    net[1].forward = lambda x: x


def with_parametrization(net):
    parametrize.register_parametrization(net[1], "weight", nn.Softplus())


def with_shared_weight(net):
    net.append(nn.BatchNorm2d(4))
    net[3].weight = net[1].weight


def with_subclass(net):
    net[1] = OwnNorm(4)


def with_synchronised_norm(net):
    net[1] = nn.SyncBatchNorm(4)


def with_lazy(net):
    net[1] = nn.LazyBatchNorm2d()


UNSURE = {
    with_forward_hook: "forward hook",
    with_pre_hook: "forward pre-hook",
    with_backward_hook: "backward hook",
    with_own_forward: "forward was replaced",
    with_parametrization: "its weight is parametrized by Softplus",
    with_shared_weight: "its weight is shared with another module",
    with_subclass: "a subclass of BatchNorm2d",
    with_synchronised_norm: "not in the table",
    with_lazy: "lazy",
}


@pytest.mark.parametrize("change", UNSURE, ids=lambda change: change.__name__)
def test_what_is_unsure_is_left_with_a_reason_and_strict_raises(change):
    net = small()
    change(net)
    before, kind = fingerprint(net), type(net[1])
    with pytest.raises(FastganError, match="strict=True") as error:
        accelerate(net, strict=True)
    assert UNSURE[change] in str(error.value)
    assert "\n" not in str(error.value)
    assert fingerprint(net) == before  # nothing was touched
    accelerate(net)
    assert type(net[1]) is kind
    reasons = [row.why for row in rows(net, "left") if row.path == "1"]
    assert reasons
    assert UNSURE[change] in reasons[0]


def test_strict_passes_where_nothing_is_left():
    for name in ("dcgan-g", "dcgan-d", "unet", "patchgan", "sngan-d", "sngan-d-hook", "sngan-g"):
        net, _ = network(name)
        accelerate(net, strict=True)


def test_resampling_by_two_is_swapped_and_other_settings_are_left_with_the_reason():
    kinds = {
        nn.Upsample(scale_factor=2): "",
        nn.Upsample(scale_factor=(2.0, 2.0)): "",
        nn.Upsample(scale_factor=3): "nearest, by 2",
        nn.Upsample(size=16): "nearest, by 2",
        nn.Upsample(scale_factor=2, mode="bilinear"): "nearest, by 2",
        nn.AvgPool2d(2, count_include_pad=False): "",
        nn.AvgPool2d((2, 2), 2, (0, 0)): "",
        nn.AvgPool2d(3, 2): "2x2 without padding",
        nn.AvgPool2d(2, 1): "2x2 without padding",
        nn.AvgPool2d(2, padding=1): "2x2 without padding",
        nn.AvgPool2d(2, ceil_mode=True): "2x2 without padding",
        nn.AvgPool2d(2, divisor_override=3): "2x2 without padding",
    }
    for module, why in kinds.items():
        x = image()
        expected = module(x)
        net = accelerate(nn.ModuleDict({"it": module}))
        (row,) = report(net).rows
        assert row.status == ("left" if why else "swapped"), module
        assert why in row.why
        assert torch.equal(net["it"](x), expected)
        assert torch.equal(revert(net)["it"](x), expected)


def test_ops_restricts_the_families():
    net = accelerate(small(), ops=["norm"])
    assert [row.module for row in rows(net, "fused")] == ["BatchNorm2d > ReLU"]
    net = accelerate(small(), ops="conv")
    assert type(net[1]) is nn.BatchNorm2d
    assert [row.status for row in report(net).rows] == ["kept", "not swapped"]
    with pytest.raises(FastganError, match="choose from conv, norm, resample, spectral"):
        accelerate(small(), ops=["batchnorm"])


def test_narrowing_ops_later_keeps_what_was_swapped_and_all_families_widen_it():
    net = accelerate(small(), ops=["norm"])
    accelerate(net)
    assert [row.module for row in rows(net, "fused")] == ["Conv2d > BatchNorm2d > ReLU"]


def test_accelerate_takes_modules_only():
    with pytest.raises(FastganError, match="takes an nn"):
        accelerate(torch.zeros(2))


# The container looks again on each call.


def seen_by(net, x):
    expected = copy.deepcopy(net)
    revert(expected)
    return net(x), expected(x)


def test_a_hook_registered_later_sees_what_it_would_have_seen():
    net = accelerate(small())
    seen = []
    handle = net[1].register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    plain = revert(copy.deepcopy(net))
    net(image())
    y = nn.functional.batch_norm(
        plain[0](image()), None, None, plain[1].weight, plain[1].bias, True
    )
    assert torch.equal(seen[0], y)
    assert "hook on child 1" in rows(net, "left")[0].why
    handle.remove()
    assert not rows(net, "left")
    net(image())
    assert len(seen) == 1


@pytest.mark.parametrize("which", [0, 1, 2])
def test_hooks_that_change_values_keep_doing_so(which):
    net = accelerate(small())
    net[which].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    net[which].register_forward_hook(lambda module, args, out: out + 1)
    got, expected = seen_by(net, image())
    assert torch.equal(got, expected)


def test_backward_hooks_registered_later_fire():
    net = accelerate(small(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    seen = []
    net[2].register_full_backward_hook(lambda module, before, after: seen.append(after[0].shape))
    net(image()).sum().backward()
    assert seen == [torch.Size([4, 4, 6, 6])]


def test_global_hooks_see_every_child():
    net = accelerate(small())
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, out: seen.append(type(module).__name__)
    )
    try:
        net(image())
    finally:
        handle.remove()
    assert seen[:3] == ["Conv2d", "BatchNorm2d", "ReLU"]


def test_children_changed_later():
    net = accelerate(small())
    net[2] = nn.Tanh()
    got, expected = seen_by(net, image())
    assert torch.equal(got, expected)
    assert "call accelerate again" in rows(net, "left")[0].why
    accelerate(net)
    assert [row.module for row in rows(net, "fused")] == ["Conv2d > BatchNorm2d > Tanh"]
    net.append(nn.Conv2d(4, 2, 3))
    got, expected = seen_by(net, image())
    assert torch.equal(got, expected)
    del net[1]
    got, expected = seen_by(net, image())
    assert torch.equal(got, expected)


def test_slices_and_sums_of_a_fused_container_are_plain_containers():
    net = accelerate(small())
    assert torch.equal(net[:2](image()), nn.Sequential(*net[:2])(image()))
    longer = net + nn.Sequential(nn.Conv2d(4, 2, 3))
    assert longer(image()).shape == (4, 2, 4, 4)
    for part in (net[:2], longer):
        for module in part.modules():
            assert not (isinstance(module, nn.Sequential) and "_fastgan_plan" in module.__dict__)


@pytest.mark.parametrize("frozen", [False, True])
def test_training_flags_of_single_children_count(frozen):
    net = accelerate(small())
    if frozen:
        net[1].eval()
    got, expected = seen_by(net, image())
    assert torch.equal(got, expected)
    assert int(net[1].num_batches_tracked) == (0 if frozen else 1)


def test_a_slope_changed_later_counts():
    net = accelerate(small(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2)))
    for slope in (0.5, 0.0, -0.3):
        net[2].negative_slope = slope
        got, expected = seen_by(net, image())
        assert torch.equal(got, expected)


def test_parametrized_later_keeps_working_and_revert_says_what_to_undo():
    net = accelerate(small())
    parametrize.register_parametrization(net[1], "weight", nn.Softplus())
    got = net(image())
    assert got.shape == (4, 4, 6, 6)
    with pytest.raises(FastganError, match="ParametrizedBatchNorm2d"):
        revert(net)
    parametrize.remove_parametrizations(net[1], "weight")
    revert(net)
    assert type(net[1]) is nn.BatchNorm2d


def test_norm_errors_are_pytorchs():
    net = accelerate(small(nn.BatchNorm2d(3), nn.ReLU()))
    with pytest.raises(ValueError, match="4D"):
        net(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="more than 1 value"):
        net(torch.zeros(1, 3, 1, 1))


# Reports.


def test_the_report_is_a_table_and_a_dictionary():
    net = TutorialDiscriminator(ndf=2)
    net.main[3].register_forward_hook(lambda module, args, out: None)
    accelerate(net)
    told = report(net)
    text = str(told)
    assert repr(told) == text
    assert text.splitlines()[0].startswith("TutorialDiscriminator: 3 fused")
    line = next(line for line in text.splitlines() if "main.3" in line)
    assert "left" in line
    assert "forward hook" in line
    as_dict = json.loads(json.dumps(told.to_dict()))
    assert as_dict["counts"]["fused"] == 3
    assert as_dict["counts"]["left"] == 1
    assert as_dict["rows"][0] == {
        "path": "main.0..1",
        "module": "Conv2d > LeakyReLU",
        "status": "fused",
        "engine": "PyTorch",
        "why": "",
    }
    assert (
        "cpu" in as_dict["engine"] or "Triton" in as_dict["engine"] or "triton" in as_dict["engine"]
    )


def test_the_report_of_an_untouched_module_changes_nothing():
    net, _ = network("dcgan-g")
    before = fingerprint(net)
    assert report(net).count("not swapped") == 4
    assert fingerprint(net) == before
    assert "nothing to accelerate" in str(report(nn.ReLU()))


def test_spectral_norm_is_recognised_both_ways():
    for wrap in (parametrizations.spectral_norm, nn.utils.spectral_norm):
        net = accelerate(
            small(
                wrap(nn.Conv2d(3, 4, 3)),
                nn.LeakyReLU(0.1),
                wrap(nn.ConvTranspose2d(4, 4, 3)),
                nn.BatchNorm2d(4),
                nn.ReLU(),
            )
        )
        kinds = [row.module for row in rows(net, "fused")]
        assert kinds == ["Conv2d > LeakyReLU", "ConvTranspose2d > BatchNorm2d > ReLU"]
        assert not rows(net, "left")
        assert [row.module for row in rows(net, "swapped")] == [
            "Conv2d's spectral norm",
            "ConvTranspose2d's spectral norm",
        ]
        assert [row.path for row in rows(net, "swapped")] == ["0", "2"]
        assert not rows(accelerate(revert(net), ops=["conv", "norm"]), "swapped")


def test_converting_to_synchronised_norm_afterwards():
    net = accelerate(small())
    nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert type(net[1]) is nn.SyncBatchNorm
    assert net.eval()(image()).shape == (4, 4, 6, 6)
    assert [row.why for row in rows(net, "left") if row.path == "1"] == [
        "not in the table of patterns"
    ]


def test_a_norm_of_ours_with_an_activation_of_its_own_keeps_both_activations():
    norm = fastgan_norm.BatchNorm2d(4)
    norm.activation = "tanh"
    net = small(nn.Conv2d(3, 4, 3), norm, nn.LeakyReLU(0.2))
    plain = nn.Sequential(net[0], nn.BatchNorm2d(4), nn.Tanh(), nn.LeakyReLU(0.2))
    x = image().requires_grad_()
    expected = torch.autograd.grad(plain(x).square().sum(), [x, *net[0].parameters()])
    accelerate(net)
    assert report(net).count("fused") == 1
    for a, b in zip(
        torch.autograd.grad(net(x).square().sum(), [x, *net[0].parameters()]), expected, strict=True
    ):
        torch.testing.assert_close(a, b)


def test_modules_used_in_several_places_fuse_in_each_of_them():
    act, head = nn.ReLU(True), nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.Tanh())
    torch.manual_seed(1)
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), act, head, nn.Conv2d(4, 4, 3), act, head
    )
    net = accelerate(copy.deepcopy(plain))
    assert [row.path for row in rows(net, "fused")] == ["0..2", "4..5", "3.0..2"]
    assert torch.equal(net(image()), plain(image()))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), plain.buffers()))
