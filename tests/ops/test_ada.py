"""ADA's pipe: what each draw does alone, how often it fires, gradients; its operations in turn are
the reference of `fastgan verify`."""

import math

import pytest
import torch

from fastgan.errors import FastganError
from fastgan.graphs.host_reads import NoHostReads
from fastgan.ops.augment.ada import GATES, SPREAD, ada, colours, draws, moved, plane
from fastgan.verify.cases.augment import ada_reference

SETTING = dict(seed=4, position=torch.tensor(2**32 - 1), stream=9)
P = torch.tensor(0.7)


def images(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def nothing(n=1):
    names = draws(P, 8, 8, 1, 0, torch.tensor(0), 1)
    return {name: torch.full((n,), float(name in SPREAD), dtype=torch.float64) for name in names}


def alone(x, **changed):
    d = {**nothing(), **{name: torch.tensor([float(v)]) for name, v in changed.items()}}
    return moved(x, plane({k: v.double() for k, v in d.items()}, x.new_zeros(1)))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(6, 3, 9, 7), (5, 1, 8, 8), (4, 4, 5, 6)])
def test_is_its_operations_in_turn(shape, p):
    x, p = images(*shape), torch.tensor(p)
    torch.testing.assert_close(
        ada(x, p=p, **SETTING), ada_reference(x, p, **SETTING), atol=1e-9, rtol=0
    )


def test_each_move_alone():
    x = images(1, 2, 10, 12)
    close = lambda a, b, atol=1e-9: torch.testing.assert_close(a, b, atol=atol, rtol=0)
    close(alone(x), x)
    close(alone(x, whole_x=2)[..., 2:], x[..., :-2])
    close(alone(x, whole_y=-3)[:, :, :-3], x[:, :, 3:])
    close(alone(x, whole_x=2)[..., 0], x[..., 2], 0.15)  # as in a mirror at the first pixel
    smooth = torch.linspace(-1, 1, 12, dtype=x.dtype).cos().expand(1, 1, 12, 12).cumsum(3) / 9
    close(alone(smooth, mirror=1), smooth.flip(3), 0.03)
    close(alone(smooth, quarter=1), smooth.rot90(1, (2, 3)), 0.03)
    close(alone(smooth, quarter=2), smooth.rot90(2, (2, 3)), 0.03)
    middle = lambda y: y[..., 4:8, 4:8]
    close(middle(alone(smooth, turn=math.pi / 2)), middle(smooth.rot90(1, (2, 3))), 0.03)
    close(middle(alone(smooth, turn=0.4, turn_again=-0.4)), middle(smooth), 0.03)
    close(alone(alone(smooth, aspect=2), aspect=0.5)[..., 4:8, 4:8], middle(smooth), 0.1)


def test_each_colour_alone():
    x = images(3, 20)

    def colour(**changed):
        d = {**nothing(), **{k: torch.tensor([v], dtype=torch.float64) for k, v in changed.items()}}
        linear, offset = colours(d, x.new_zeros(1))
        return linear[0] @ x + offset[0]

    torch.testing.assert_close(colour(), x)
    torch.testing.assert_close(colour(brightness=0.3), x + 0.3)
    torch.testing.assert_close(colour(contrast=3.0, brightness=0.2), 3 * (x + 0.2))
    torch.testing.assert_close(colour(saturation=0.0), x.mean(0).expand(3, -1))
    torch.testing.assert_close(colour(luma=1.0).mean(0), -x.mean(0))
    torch.testing.assert_close(colour(hue=2 * math.pi / 3), x.roll(1, 0))


def test_operations_fire_as_often_as_p_says_and_cover_their_ranges():
    n = 20000
    d = draws(P, 32, 64, n, 0, torch.tensor(0), 3)
    turning = 1 - math.sqrt(1 - 0.7)
    for name in GATES:
        value = d.get(name, d.get(f"{name}_x"))
        fired = (value != float(name in SPREAD)).double().mean().item()
        # of mirrors, luma flips, quarter turns and whole shifts some that fire change nothing
        share = {"mirror": 1 / 2, "luma": 1 / 2, "quarter": 3 / 4, "whole": 15 / 16}.get(name, 1)
        wanted = (turning if name.startswith("turn") else 0.7) * share
        assert fired == pytest.approx(wanted, abs=0.015), name
    assert (d["whole_x"].abs().max(), d["whole_y"].abs().max()) == (8, 4)
    for name, spread in SPREAD.items():
        exponents = d[name][d[name] != 1].log2()
        assert exponents.std().item() == pytest.approx(spread, rel=0.05), name
    assert d["fraction_x"][d["fraction_x"] != 0].std().item() == pytest.approx(8, rel=0.05)
    assert d["hue"].abs().max() == pytest.approx(math.pi, rel=0.01)


def test_gradients_are_exact():
    x = images(2, 1, 4, 3).requires_grad_()
    f = lambda x: ada(x, p=P, **SETTING)
    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(lambda x: f(x).square(), x)


def test_a_sample_depends_on_its_global_index_alone():
    x = images(6, 3, 8, 8)
    later = {**SETTING, "position": SETTING["position"] + 4}
    torch.testing.assert_close(ada(x[4:], p=P, **later), ada(x, p=P, **SETTING)[4:])


def test_nothing_is_read_from_the_device_and_low_precision_comes_back():
    x = images(2, 3, 8, 8).to(torch.bfloat16).requires_grad_()
    with NoHostReads(), torch.autocast("cpu", torch.bfloat16):
        y = ada(x, p=P, **SETTING)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), ada(x.float(), p=P, **SETTING), atol=0.05, rtol=0.01)


def test_bad_images_are_refused():
    for bad in (torch.zeros(3, 4, 4), torch.zeros(1, 5, 4, 4), torch.zeros(1, 3, 4, 4).byte()):
        with pytest.raises(FastganError, match="1 to 4 channels"):
            ada(bad, p=P, **SETTING)
    with pytest.raises(FastganError, match="2x2"):
        ada(torch.zeros(1, 3, 1, 4), p=P, **SETTING)
