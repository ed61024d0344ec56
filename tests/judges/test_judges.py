"""Scores against their formulas written out in NumPy, on sets whose answer is known, and the
general feature network."""

import math

import numpy as np
import pytest
import torch

from fastgan.errors import FastganError
from fastgan.judges import efficientnet
from fastgan.judges.distances import frechet_distance
from fastgan.judges.neighbours import copies, distances, prdc, radii
from fastgan.judges.scores import Reference, scores


def normal(n, d, seed, shift=0.0):
    dice = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=dice, dtype=torch.float64) + shift


def test_prdc_is_its_definition_written_out():
    fakes, reals, k = normal(13, 3, 0, 0.8), normal(17, 3, 1), 2
    f, r = fakes.numpy(), reals.numpy()

    def ball(x):
        return [sorted(np.linalg.norm(x - one, axis=1))[k] for one in x]

    rr, rf = ball(r), ball(f)
    near = [[np.linalg.norm(a - b) for b in r] for a in f]
    n, m = len(f), len(r)
    precision = np.mean([any(near[i][j] < rr[j] for j in range(m)) for i in range(n)])
    recall = np.mean([any(near[i][j] < rf[i] for i in range(n)) for j in range(m)])
    density = sum(near[i][j] < rr[j] for i in range(n) for j in range(m)) / (k * n)
    coverage = np.mean([min(near[i][j] for i in range(n)) < rr[j] for j in range(m)])
    balls = radii(distances(reals, reals), k), radii(distances(fakes, fakes), k)
    found = prdc(distances(fakes, reals), *balls, k)
    assert found == pytest.approx((precision, recall, density, coverage), rel=1e-12)
    assert min(found) > 0
    assert max(found) < 1  # none is trivial here


def test_identical_sets_are_perfect_and_far_ones_share_nothing():
    x = normal(60, 4, 0)
    same, far = scores(x, x), scores(x + 50, x)
    assert same.fd == pytest.approx(0, abs=1e-9)
    assert same.kd < 0  # unbiased, and pairs of equals stand in the cross term alone
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(1, abs=0.05)
    assert far.fd == pytest.approx(4 * 50**2)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


def test_a_collapse_is_precise_and_covers_nothing():
    reals = normal(200, 4, 0)
    found = scores(reals[:1] + 0.01 * normal(200, 4, 1), reals)
    assert found.precision == 1
    assert found.recall < 0.1
    assert found.coverage < 0.1


def test_frechet_distance_of_few_samples_is_that_of_the_full_matrices():
    a, b = normal(7, 20, 0), 2 * normal(30, 20, 1) + 1
    x, y = a.numpy(), b.numpy()
    product = np.linalg.eigvals(np.cov(x.T) @ np.cov(y.T))
    root = np.sqrt(np.maximum(product.real, 0)).sum()
    mean = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected = mean + np.trace(np.cov(x.T)) + np.trace(np.cov(y.T)) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_the_spread_is_how_far_scores_of_fresh_samples_scatter():
    reference = Reference(normal(400, 3, 0))
    told = [reference.spread(normal(100, 3, seed, 0.5)) for seed in range(1, 9)]
    fresh = [reference.scores(normal(100, 3, seed, 0.5)) for seed in range(20, 60)]
    for name in ("fd", "kd", "precision", "density"):
        scatter = np.std([getattr(one, name) for one in fresh])
        mean = np.mean([getattr(one, name) for one in told])
        assert 0.6 * scatter < mean < 1.6 * scatter, name


def test_a_planted_copy_is_found_and_fresh_samples_are_none():
    reals, fresh = normal(300, 16, 0), normal(100, 16, 1)
    planted = fresh.clone()
    planted[7], planted[42] = reals[11] + 1e-3, reals[250]
    found = copies(planted, reals)
    assert {pair[:2] for pair in found.worst[:2]} == {(7, 11), (42, 250)}
    assert found.worst[1][2] < 0.01 < 0.3 < found.worst[2][2]
    assert found.near == pytest.approx(0.02)
    assert copies(fresh, reals).near == 0
    # What a perfect generator gets depends on the dimension: the floor is fresh reals, not 0.
    assert 0.2 < copies(normal(1000, 16, 2), reals).closer < 0.4
    assert copies(normal(1000, 2, 2), normal(300, 2, 0)).closer > 0.45


def test_copies_are_counted_as_written_out():
    samples, reals = normal(20, 2, 3), normal(15, 2, 4)
    closer = 0
    for s in samples:
        j = int((reals - s).norm(dim=1).argmin())
        own = sorted((reals - reals[j]).norm(dim=1).tolist())[1]
        closer += bool((reals[j] - s).norm() < own)
    assert copies(samples, reals).closer == pytest.approx(closer / 20)
    assert len({pair[1] for pair in copies(samples, reals).worst}) == len(
        copies(samples, reals).worst
    )


def test_copies_of_twins_count():
    reals = normal(50, 8, 0)
    reals[1] = reals[0]
    found = copies(torch.cat([reals[:1], normal(30, 8, 9)]), reals)
    assert found.worst[0][0] == 0
    assert found.worst[0][2] < 0.01


def test_sets_too_small_for_neighbours_have_distances_alone():
    found = scores(normal(4, 3, 0), normal(4, 3, 1))
    assert math.isfinite(found.kd)
    assert math.isnan(found.precision)
    with pytest.raises(FastganError, match="measure more"):
        radii(distances(normal(5, 3, 0), normal(5, 3, 0)))


def test_the_general_network_has_the_published_shape_and_pads_as_tensorflow():
    net = efficientnet.EfficientNetLite0().eval()
    # 4,652,008 trained numbers: the paper's 4.7 million.
    assert sum(p.numel() for p in net.parameters()) == 4_652_008
    conv = efficientnet.SameConv(1, 1, 3, 2)
    torch.nn.init.ones_(conv.weight)
    # TensorFlow pads an even image right and below alone, an odd one on both sides.
    assert conv(torch.ones(1, 1, 4, 4)).tolist() == [[[[9, 6], [6, 4]]]]
    assert conv(torch.ones(1, 1, 3, 3)).tolist() == [[[[4, 4], [4, 4]]]]
    found = efficientnet.features(net, torch.rand(2, 1, 8, 8))
    assert found.shape == (2, 1280)
    with pytest.raises(FastganError, match="grey or RGB"):
        efficientnet.features(net, torch.rand(2, 4, 8, 8))


def test_other_weights_are_refused_and_a_missing_package_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_here")
    assert efficientnet.load() is None
    (tmp_path / "weights_of_a_stranger" / "models").mkdir(parents=True)
    (tmp_path / "weights_of_a_stranger" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "weights_of_a_stranger" / efficientnet.FILE).write_bytes(b"not the weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(efficientnet, "PACKAGE", "weights_of_a_stranger")
    with pytest.raises(FastganError, match="not the file that is known"):
        efficientnet.load()


@pytest.mark.skipif(efficientnet.installed() is None, reason="needs the extra: metrics")
def test_the_weights_are_imagenets():
    """Weights in other places than their own give activations out of all proportion."""
    net = efficientnet.load()
    dice = torch.Generator().manual_seed(0)
    found = efficientnet.features(net, torch.rand(4, 3, 96, 96, generator=dice))
    assert 0.05 < float(found.mean()) < 1
    assert float(found.max()) < 6.001
