"""What samples show of their captions, by generators whose answer is known."""

import numpy as np
import pytest
import torch

from fastgan.data.sets.captions import Captioned, split, spoken
from fastgan.judges import classifier
from fastgan.metrics.captions import attributes, following, retrieval

TINTS = {"red": (200, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "grey": (99, 99, 99)}


def tiles(colours, seed):
    """uint8 (n, 8, 8, 3), one flat colour each, of varied brightness."""
    dice = np.random.default_rng(seed)
    tint = np.array([TINTS[colour] for colour in colours])
    return (
        (tint * dice.uniform(0.8, 1.1, (len(tint), 1)))[:, None, None]
        .repeat(8, 1)
        .repeat(8, 2)
        .astype(np.uint8)
    )


def colours(n=600):
    """Two in five are red."""
    return np.random.default_rng(0).choice(list(TINTS), n, p=[0.4, 0.2, 0.2, 0.2])


@pytest.fixture(scope="module")
def data():
    drawn = colours()
    captions = [f"{'gray' if c == 'grey' else c} tile" for c in drawn]
    return Captioned("tiles", tiles(drawn, 1), captions)


class Run:
    """A run whose samples are what `draw` makes of texts."""

    def __init__(self, reals, draw):
        self.reals, self.draw, self.asked = reals, draw, []

    def sample(self, n, text):
        assert len(text) == n
        self.asked.append(text)
        return torch.from_numpy(self.draw(text).copy()).permute(0, 3, 1, 2).float() / 255

    def load(self, network):
        assert network == "T"
        net = torch.nn.Module()
        net.words = self.reals.words
        return net


def obedient(text):
    return tiles([split(one)[0].replace("gray", "grey") for one in text], 2)


def deaf(text):
    """Colours as often as in the data, whatever is told."""
    return tiles(np.random.default_rng(3).choice(colours(), len(text)), 4)


def always_red(text):
    return tiles(["red"] * len(text), 5)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Few steps, and judges that are fitted once for all tests of the same data."""
    fit, kept = retrieval.fit, {}

    def once(images, tokens, *, words):
        if (key := (len(images), words)) not in kept:
            kept[key] = fit(images, tokens, words=words, steps=40)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(classifier, "EPOCHS", 1)
        patch.setattr(classifier, "MIN_STEPS", 60)
        patch.setattr(retrieval, "fit", once)
        yield


@pytest.mark.parametrize("draw", [obedient, deaf, always_red])
def test_generators_whose_answer_is_known(draw, data, quick):
    found = following.following(Run(data, draw))
    of = lambda key: (found[f"colour {key}, samples"], found[f"colour {key}, held-out reals"])
    told, reals = of("as told")
    swapped, reals_swapped = of("swapped")
    chance = found["colour as told, chance"]
    assert reals == reals_swapped == 1  # four flat colours are told apart without an error
    assert found["R-precision of held-out reals"] == 1
    assert found["chance"] == 1 / 4
    assert 0.3 < chance < 0.5  # a share of 60 captions, of which 0.4 are red: 0.063 a deviation
    if draw is obedient:
        assert told == swapped == found["R-precision of samples, 1 of 4"] == 1
    else:
        assert swapped == 0.5
    if draw is always_red:
        assert told == chance
    if draw is deaf:  # expected 0.28, deviation 0.058 of 60 captions
        assert told < 0.28 + 3 * 0.058


def test_swapped_captions_are_asked_in_the_places_of_their_own(data, quick):
    run = Run(data, obedient)
    following.following(run)
    own, swapped = run.asked
    for one, other in zip(own, swapped, strict=True):
        (colour, tile), (another, same) = split(one), split(other)
        assert tile == same == "tile"
        assert colour != another
        assert another in data.words


def test_what_has_no_captions_or_too_few_has_no_such_measures(data):
    few = Captioned("few", tiles(colours(50), 1), ["red tile"] * 50)
    for reals in (few, object()):
        assert following.following(Run(reals, obedient)) == {}


def test_groups_without_two_frequent_values_are_left_out(quick):
    plain = Captioned("plain", tiles(colours(200), 1), ["red tile", "red one"] * 100)
    assert list(following.following(Run(plain, always_red))) == [
        "R-precision of samples, 1 of 2",
        "R-precision of held-out reals",
        "chance",
    ]


def captioned(texts):
    return Captioned("x", np.zeros((len(texts), 1, 1, 1), np.uint8), texts)


def test_values_are_words_that_exclude_one_another():
    texts = ["a big red box"] * 60 + ["a large gray box"] * 30 + ["a grey hat, small"] * 50
    texts += [
        "red on grey",
        "a pink box",
        "a red and pink box",
        "a big huge box",
        "a box",
        "red red",
    ]
    data = captioned(texts)
    tokens = torch.from_numpy(data.array("tokens"))
    colour, size = attributes.find(tokens, data.words)
    assert (colour.name, colour.values) == ("colour", ("red", "grey"))
    assert (size.name, size.values) == ("size", ("big", "small"))
    named = colour.of(tokens).tolist()
    assert named == [0] * 60 + [1] * 80 + [-1, -1, -1, -1, -1, 0]
    assert size.of(tokens).tolist() == [0] * 90 + [1] * 50 + [-1, -1, -1, 0, -1, -1]
    fewer = captioned(texts[:109])
    rows = torch.from_numpy(fewer.array("tokens"))
    assert [
        one.name for one in attributes.find(rows, fewer.words)
    ] == []  # 49 of one, 60 of another


def test_one_word_is_swapped_for_every_other_value():
    texts = [f"a {colour} box" for colour in ("red", "blue", "green") for _ in range(60)] + [
        "a box"
    ]
    data = captioned(texts)
    tokens = torch.from_numpy(data.array("tokens"))
    (colour,) = attributes.find(tokens, data.words)
    other = colour.swapped(tokens)
    own, another = colour.of(tokens), colour.of(other)
    assert (other != tokens).sum(1).tolist() == [1] * 180 + [0]
    pairs = {(int(a), int(b)) for a, b in zip(own, another) if a >= 0}
    assert pairs == {(a, b) for a in range(3) for b in range(3) if a != b}


class Known:
    """A retriever of images that are their own text's number, or that of none."""

    def scores(self, images, tokens):
        return (images[:, 0, 0, :1] == tokens[:, 0][None]).float()

    def match(self, images, tokens):
        return (images[:, 0, 0, 0] == tokens[:, 0]).float()


def test_rank_and_preference():
    captions = torch.arange(1, 11)[:, None]
    images = captions.float()[..., None, None]
    assert retrieval.r_precision(Known(), images, captions, captions) == 1
    assert retrieval.r_precision(Known(), images.flip(0), captions, captions) == 0
    other = captions.roll(1, 0)
    assert retrieval.preferred(Known(), images, captions, other) == 1
    assert retrieval.preferred(Known(), images, other, captions) == 0
    assert retrieval.preferred(Known(), 0 * images, captions, other) == 0.5
    half = torch.where(captions[..., None, None] > 4, images, 0 * images)
    assert retrieval.preferred(Known(), half, captions, other) == pytest.approx(0.6 + 0.2)


def test_unknown_words_are_not_spoken():
    assert spoken("A red, Red dog.", {"a", "red", "dog"}) == "A red, Red dog."
    assert spoken("A red, odd dog.", {"a", "red", "dog"}) == "a red dog"
