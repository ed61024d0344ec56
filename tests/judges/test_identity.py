"""The embedding that tells persons apart: persons it never saw, at other ages; what is kept of it."""

import numpy as np
import pytest
import torch

from fastgan.data import Dataset
from fastgan.data.rendered import are_faces, faces
from fastgan.errors import FastganError
from fastgan.judges import identity
from fastgan.judges.identity import Identity, fit, fitted

KINDS = {"image": "image", "identity": "label"}


def at(age, first, count, side=16):
    """uint8 (count, 3, side, side): drawn persons from `first` on, at one age."""
    who = np.arange(first, first + count)
    drawn = faces(first + count, side, age=age, index=who)["image"]
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(identity, "STEPS", 40)
    monkeypatch.setattr(identity, "PERSONS", 24)


def two_ages(count=60):
    images = torch.cat([at(0, 0, count), at(4, 0, count)])
    return images, torch.arange(count).repeat(2)


def found_again(judge, count=30):
    """The share of persons never seen whose old face is nearest to their child's."""
    young, old = (judge(at(age, 500, count).float() / 255) for age in (0, 4))
    return float((torch.cdist(young, old).argmin(1) == torch.arange(count)).float().mean())


def test_persons_never_seen_are_found_again_as_old_people(short):
    judge = fit(*two_ages())
    assert judge.held_out == 6
    assert judge.accuracy > 0.5
    assert found_again(judge) > 0.5, "chance is one of thirty"
    untrained = Identity(identity.Network(3, identity.WIDTH), 0.0, 0)
    assert found_again(untrained) < found_again(judge)


def test_embeddings_are_of_length_one_and_carry_a_gradient(short, monkeypatch):
    monkeypatch.setattr(identity, "STEPS", 2)
    judge = fit(*two_ages(20))
    images = torch.rand(3, 3, 48, 48, requires_grad=True)
    made = judge(images)
    torch.testing.assert_close(made.norm(dim=1), torch.ones(3))
    (gradient,) = torch.autograd.grad(made[:, 0].sum(), images)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    assert all(not weight.requires_grad for weight in judge.network.parameters())


def test_the_seed_decides_the_fit(short, monkeypatch):
    monkeypatch.setattr(identity, "STEPS", 3)
    images, who = two_ages(20)
    state = torch.get_rng_state()
    first, again, other = (fit(images, who, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [judge.network.head.weight for judge in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_persons_with_one_image_do_not_count(short, monkeypatch):
    monkeypatch.setattr(identity, "STEPS", 2)
    images, who = two_ages(20)
    alone = torch.cat([who, torch.arange(100, 110)])
    assert fit(torch.cat([images, at(2, 100, 10)]), alone).held_out == 5
    with pytest.raises(FastganError, match="19 persons with two images"):
        fit(images[1:], who[1:])


def test_a_fit_is_kept_and_a_damaged_one_made_anew(short, monkeypatch, tmp_path):
    monkeypatch.setattr(identity, "STEPS", 2)
    images, who = two_ages(20)
    pixels = images.permute(0, 2, 3, 1).numpy()
    data = Dataset("mine.npz", {"image": pixels, "identity": who.numpy()}, KINDS)
    first = fitted(data, tmp_path)
    (path,) = tmp_path.glob("identity-*.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(identity, "fit", None)
        again = fitted(data, tmp_path)
    assert (again.accuracy, again.held_out, again.key) == (first.accuracy, 5, first.key)
    some = torch.rand(2, 3, 16, 16)
    assert torch.equal(again(some), first(some))
    path.write_bytes(path.read_bytes()[:100])
    assert fitted(data, tmp_path).key == first.key
    assert len(path.read_bytes()) > 100


def test_drawn_faces_are_drawn_at_every_age(short, monkeypatch, tmp_path):
    """Each is there once: as they are, nobody would have two images."""
    monkeypatch.setattr(identity, "MOST", 30)
    seen = {}

    def looked(images, who, *, seed):
        seen["images"], seen["who"] = images, who
        return Identity(identity.Network(3, identity.WIDTH), 0.0, 3)

    monkeypatch.setattr(identity, "fit", looked)
    arrays = faces(40, 16)
    kinds = {"image": "image", "label": "label", "identity": "label"}
    data = Dataset("faces", arrays, kinds)
    assert are_faces(data)
    fitted(data, tmp_path)
    assert seen["who"].tolist() == [*range(30)] * 5
    assert torch.equal(seen["images"][120:], at(4, 0, 30))
    assert not are_faces(Dataset("faces", {"image": arrays["image"]}, kinds))


def test_data_without_persons_are_one_line(tmp_path):
    arrays = {"image": np.zeros((4, 8, 8, 1), np.uint8)}
    data = Dataset("clothes", arrays, {"image": "image"})
    with pytest.raises(FastganError, match="clothes does not say who is shown: name --data"):
        fitted(data, tmp_path)
    shares = {**arrays, "identity": np.zeros((4, 2), np.float32)}
    data = Dataset("clothes", shares, {"image": "image", "identity": "tensor"})
    with pytest.raises(FastganError, match="does not say who is shown"):
        fitted(data, tmp_path)
