"""Batches are a function of (seed, stream name, position): any size, any rank, resident or
streamed, any day."""

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgan
import fastgan.data as data
from fastgan.data import Stream, order, streaming
from fastgan.data.permutation import Order, permutation, stable_argsort
from fastgan.errors import FastganError

torch.set_num_threads(1)
quick = settings(max_examples=50, deadline=None)


def dataset(count: int = 37, side: int = 5) -> data.Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side + 1, 3), dtype=np.uint8)
    return data.open(
        data.Aligned(
            image=data.open(images, labels=np.arange(count) % 7), text=rng.normal(size=(count, 4))
        )
    )


def stream(name: str = "image", source: data.Dataset | None = None, **options) -> Stream:
    return Stream(
        source or dataset(), name=name, **{"seed": 3, "batch_size": 8, "device": "cpu", **options}
    )


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )


@quick
@given(
    seed=st.integers(-5, 2**64),
    name=st.text(max_size=5),
    n=st.integers(1, 300),
    epoch=st.integers(0, 10**9),
)
def test_an_epoch_is_a_true_permutation(seed, name, n, epoch):
    assert np.array_equal(np.sort(order(seed, name, n, epoch * n, n)), np.arange(n))


@quick
@given(
    n=st.integers(1, 50),
    position=st.integers(0, 400),
    cuts=st.lists(st.integers(0, 30), max_size=8),
)
def test_the_order_does_not_depend_on_batches(n, position, cuts):
    whole = order(1, "image", n, position, sum(cuts))
    parts, at = [], position
    for count in cuts:
        parts.append(order(1, "image", n, at, count))
        at += count
    assert np.array_equal(np.concatenate([np.empty(0, np.int64), *parts]), whole)
    assert whole.dtype == np.int64


def test_the_order_never_changes_between_versions():
    assert permutation(0, "image", 12, 0).tolist() == GOLDEN_0
    assert order(1, "label", 1000, 123_456_789, 6).tolist() == GOLDEN_1
    assert order(2**63, "bild ü", 10**5, 10**12, 3).tolist() == GOLDEN_2


GOLDEN_0 = [2, 10, 5, 7, 11, 4, 3, 6, 8, 1, 9, 0]
GOLDEN_1 = [882, 687, 997, 30, 983, 777]
GOLDEN_2 = [95996, 97303, 44319]


@quick
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=60))
def test_equal_hashes_are_ordered_by_index(values):
    keys = np.array(values, dtype=np.uint64)
    assert np.array_equal(stable_argsort(keys), np.argsort(keys, kind="stable"))


def test_seeds_names_and_epochs_give_unrelated_orders():
    n = 2000
    base = permutation(0, "image", n, 0)
    for other in (
        permutation(1, "image", n, 0),
        permutation(0, "a", n, 0),
        permutation(0, "image", n, 1),
    ):
        assert (base == other).sum() < 10  # one is expected; ten has probability 1e-7
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / np.sqrt(n)


def test_permutations_are_uniform():
    n, epochs = 6, 3000
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), permutation(5, "image", n, epoch)] += 1
    chi2 = ((counts - epochs / n) ** 2 / (epochs / n)).sum()
    assert chi2 < 60  # 25 degrees of freedom: p < 1e-4


def test_only_two_epochs_are_kept_and_a_switch_is_quick():
    sequence = Order(0, "image", 1_000_000)
    times = []
    for epoch in range(4):
        start = (
            time.thread_time()
        )  # the processor's time: other work on the machine is not the switch's
        sequence(epoch * 1_000_000, 64)
        times.append(time.thread_time() - start)
        assert len(sequence._kept) <= 2
    assert min(times) < 0.3


def test_a_batch_has_the_right_samples_types_and_layout():
    source = dataset()
    batch = stream(source=source).batch(35)  # over the end of the first epoch of 37
    index = order(3, "image", 37, 35, 8)
    assert batch["image"].shape == (8, 3, 5, 6)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    expected = torch.from_numpy(source.array("image")[index]).permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.allclose(batch["image"], expected, atol=1e-6)
    assert batch["image"].min() >= -1
    assert batch["image"].max() <= 1
    assert batch["label"].dtype == torch.int64
    assert np.array_equal(batch["label"], source.array("label")[index])
    assert np.array_equal(batch["text"], source.array("text")[index])
    assert batch["text"].dtype == torch.float64
    assert stream(dtype=torch.bfloat16).batch(0)["image"].dtype == torch.bfloat16


@quick
@given(
    positions=st.lists(st.integers(0, 500), min_size=1, max_size=6),
    hints=st.lists(st.integers(0, 500), max_size=6),
    flip=st.booleans(),
)
def test_streamed_batches_are_bit_identical_to_resident_ones(positions, hints, flip):
    source = dataset()
    resident = stream(source=source, flip=flip)
    streamed = stream(source=source, flip=flip, resident_bytes=source.nbytes - 1)
    assert resident.resident
    assert not streamed.resident
    for hint in [*hints, *positions]:
        streamed.prefetch(hint)
    for i, position in enumerate(positions):
        if i % 2:
            streamed.prefetch(positions[(i + 1) % len(positions)])
        assert same(streamed.batch(position), resident.batch(position))
    streamed.close()


@quick
@given(position=st.integers(0, 200), world=st.sampled_from([1, 2, 4, 8]), flip=st.booleans())
def test_ranks_together_see_what_one_would(position, world, flip):
    whole = stream(flip=flip).batch(position)
    parts = [stream(flip=flip, rank=r, world=world).batch(position) for r in range(world)]
    assert same({k: torch.cat([p[k] for p in parts]) for k in whole}, whole)


def test_flips_mirror_about_half_and_are_a_function_of_the_position():
    source = dataset(200)
    plain, flipped = (
        stream(source=source, batch_size=200),
        stream(source=source, batch_size=200, flip=True),
    )
    a, b = plain.batch(400)["image"], flipped.batch(400)["image"]
    mirrored = (b != a).flatten(1).any(1)
    assert torch.equal(b, torch.where(mirrored.view(-1, 1, 1, 1), a.flip(3), a))
    assert 60 < mirrored.sum() < 140
    shifted = flipped.batch(401)["image"]
    assert torch.equal(shifted[:199], b[1:])
    assert not torch.equal(flipped.batch(600)["image"], b)


def test_images_of_one_sample_flip_together():
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
    batch = stream(
        source=data.open(data.Aligned(image=images, source=images)), batch_size=50, flip=True
    ).batch(0)
    assert torch.equal(batch["image"], batch["source"])


def test_names_key_fields_order_and_flips():
    source = dataset()
    a, b = stream("image", source), stream("real", source)
    assert set(a.batch(0)) == {"image", "label", "text"}
    assert set(b.batch(0)) == {"real", "real_label", "real_text"}
    assert not torch.equal(a.batch(0)["label"], b.batch(0)["real_label"])
    assert not torch.equal(stream(seed=4, source=source).batch(0)["label"], a.batch(0)["label"])


@pytest.mark.parametrize("resident_bytes", [2**31, 0])
def test_refilled_slots_give_the_same_batches_at_the_same_addresses(resident_bytes):
    a = stream(flip=True, rank=1, world=2, resident_bytes=resident_bytes)
    slots = a.slots()
    places = {key: value.data_ptr() for key, value in slots.items()}
    for position in (0, 40, 32):
        a.fill(slots, position)
        assert same(a.assemble(slots), a.batch(position))
    assert {key: value.data_ptr() for key, value in slots.items()} == places
    a.close()


def test_resident_images_on_the_cpu_are_not_copied(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    source = data.open(tmp_path / "a.npy")
    held = stream(source=source)._held["image"]
    assert held.data_ptr() == source.array("image").ctypes.data


def test_too_few_samples_and_uneven_ranks_are_one_line():
    with pytest.raises(
        FastganError,
        match="has 37 readable samples, fewer than one batch of 64: lower --batch-size to 37",
    ):
        stream(batch_size=64)
    with pytest.raises(FastganError, match="multiple of 3"):
        stream(world=3)


def test_an_error_in_the_worker_reaches_the_caller(monkeypatch):
    source = dataset()
    streamed = stream(source=source, resident_bytes=0)

    def fail(index):
        raise OSError("the disk is gone")

    monkeypatch.setattr(source, "read", fail)
    streamed.prefetch(0)
    with pytest.raises(OSError, match="the disk is gone"):
        streamed.batch(0)
    streamed.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_slots_give_the_same_bits_on_a_gpu():
    source = dataset(1000, 32)
    resident = stream(source=source, device="cuda", batch_size=64, flip=True)
    streamed = stream(source=source, device="cuda", batch_size=64, flip=True, resident_bytes=0)
    for position in range(0, 64 * 40, 64):
        batch = streamed.batch(position)
        streamed.prefetch(position + 64)
        assert same(batch, resident.batch(position))
        assert torch.equal(
            batch["image"].cpu(),
            stream(source=source, batch_size=64, flip=True).batch(position)["image"],
        )


def test_as_many_batches_are_kept_ready_as_a_share_of_memory_holds(monkeypatch):
    """Two rounds ahead starve five critic steps; sixteen batches of large images would fill the
    memory."""
    source = dataset()
    assert stream(source=source, resident_bytes=0).depth == streaming.AHEAD
    monkeypatch.setattr(streaming, "AHEAD_BYTES", 5 * 8 * source.nbytes // len(source) + 100)
    streamed = stream(source=source, resident_bytes=0)
    assert streamed.depth == 5
    for position in range(0, 8 * 9, 8):
        streamed.prefetch(position)
    assert list(streamed._ahead) == [8 * i for i in range(4, 9)]
    assert torch.equal(streamed.batch(32)["image"], stream(source=source).batch(32)["image"])
    streamed.close()
    monkeypatch.setattr(streaming, "AHEAD_BYTES", 1)
    assert stream(source=source, resident_bytes=0).depth == 2


@pytest.mark.parametrize("ahead", [2**25, 1])
def test_no_round_of_a_step_waits_for_its_rows(ahead, monkeypatch):
    """WGAN-GP reads six batches a step: all of the next step's are on their way before it
    begins."""
    from fastgan.precision import resolve
    from fastgan.trainer.stages.active import ActiveStage
    from fastgan.trainer.stages.stage import Stage

    monkeypatch.setattr(streaming, "AHEAD_BYTES", ahead)
    net = lambda *layers: torch.nn.Sequential(torch.nn.Flatten(), *layers)
    nets = {
        "G": net(torch.nn.Linear(4, 90), torch.nn.Unflatten(1, (3, 5, 6))),
        "D": net(torch.nn.Linear(90, 1)),
    }
    objective = fastgan.Adversarial("wasserstein", (4,), n_critic=5)
    cpu = torch.device("cpu")
    common = {
        "memory_format": torch.contiguous_format,
        "resident_bytes": 0,
        "flip": False,
        "ema_decay": 0.9,
        "index": 0,
    }
    stage = ActiveStage(
        Stage(nets, objective),
        {"image": dataset()},
        seed=3,
        batch_size=8,
        device=cpu,
        precision=resolve("fp32", cpu),
        **common,
    )
    (source,), read = stage.streams, []
    prepare = source._prepare
    source._prepare = lambda position: (
        read.append((threading.current_thread().name, position)) or prepare(position)
    )
    for step in range(4):
        stage.train_step(step)
    stage.close()
    own = [position for name, position in read if not name.startswith("fastgan-data")]
    assert own == [8 * i for i in range(6)]  # the first step's alone
    assert len({position for _, position in read}) == len(read)  # nothing is read twice
