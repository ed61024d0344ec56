"""The watch names what goes wrong, and is silent on healthy runs. Traces:
tests/fixtures/health_traces.py."""

import base64
import itertools
import json
import math
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from fastgan.monitor.health import BUCKET, LIMITS, QUIET, REMEDIES, SPAN, Health, limits
from fastgan.ops.loss_table import LOSSES

TRACES = json.loads((Path(__file__).parents[1] / "fixtures" / "health_traces.json").read_text())
KEYS = ("loss/D", "loss/G", "D/logit_real", "D/logit_fake", "D/acc_real", "D/acc_fake")
HEALTHY = [name for name in TRACES if name.startswith("healthy")]


def images(packed):
    values = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(-1, 1, 8, 8)
    return torch.from_numpy(values.copy()).float() / 127.5 - 1


def replay(trace, log_every=25, look_every=100, reload_at=()):
    """Alerts of a trace. log_every: a multiple of 25, look_every: of 100; reload_at: where the
    state goes through JSON."""
    watch = Health(trace["settings"]["loss"])
    looks = {step: (images(fakes), images(fixed)) for step, fakes, fixed in trace["looks"]}
    reals, alerts, group = images(trace["reals"]), [], []
    for step, *values in trace["rows"]:
        group.append(values)
        if step % log_every == 0:
            alerts += watch.observe(step, dict(zip(KEYS, np.mean(group, axis=0).tolist())))
            group = []
        if step in looks and step % look_every == 0:
            alerts += watch.observe_samples(step, *looks[step], reals)
        if step in reload_at:
            state = json.loads(json.dumps(watch.state_dict(), allow_nan=False))
            watch = Health(trace["settings"]["loss"])
            watch.load_state_dict(state)
    return alerts


@pytest.mark.parametrize(("log_every", "look_every"), [(25, 100), (50, 100), (100, 200)])
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_trainings_are_left_in_peace(name, log_every, look_every):
    assert replay(TRACES[name], log_every, look_every) == []


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("D's learning rate cut, G's raised at 300", "collapse"),
        ("D's learning rate cut, G's raised at 300", "generator-too-strong"),
        ("G's learning rate 50 times", "generator-too-strong"),
        ("D with SGD at 1.0", "oscillation"),
        ("both with momentum SGD at 0.05", "discriminator-too-strong"),
        ("both with momentum SGD at 0.05", "collapse"),
    ],
)
def test_trainings_that_went_wrong_are_named(name, cause):
    found = [alert for alert in replay(TRACES[name]) if alert.cause == cause]
    assert found, f"{name}: no {cause}"
    line = str(found[0])
    assert line.startswith(f"step {found[0].step}: {cause}: ")
    assert "Try: " in line
    assert "\n" not in line
    assert any(character.isdigit() for character in found[0].evidence)


@pytest.mark.parametrize("name", list(TRACES))
def test_a_resumed_run_warns_exactly_like_a_straight_one(name):
    trace = TRACES[name]
    steps = [row[0] for row in trace["rows"]]
    straight = replay(trace)
    assert replay(trace, reload_at=steps) == straight
    assert replay(trace, reload_at=steps[7::13]) == straight


@pytest.mark.parametrize("name", list(TRACES))
def test_a_cause_is_named_once_in_a_thousand_steps(name):
    alerts = replay(TRACES[name])
    for cause in REMEDIES:
        steps = [alert.step for alert in alerts if alert.cause == cause]
        assert all(b - a >= QUIET for a, b in itertools.pairwise(steps))


def rows(watch, count, start=0, every=25, **values):
    alerts = []
    for step in range(start + every, start + count + 1, every):
        alerts += watch.observe(
            step, {key.replace("__", "/"): value for key, value in values.items()}
        )
    return alerts


STRONG = {"D__logit_real": 9.0, "D__logit_fake": -9.0, "D__acc_real": 1.0, "D__acc_fake": 1.0}
WEAK = {"D__logit_real": 0.01, "D__logit_fake": 0.0, "D__acc_real": 0.5, "D__acc_fake": 0.5}


def test_an_alert_that_persists_comes_again_after_the_pause():
    steps = [alert.step for alert in rows(Health(), 3000, **STRONG)]
    assert steps == [SPAN, SPAN + QUIET, SPAN + 2 * QUIET]


@pytest.mark.parametrize("every", [1, 10, 25, 50, 250])
def test_the_log_interval_does_not_matter(every):
    found = rows(Health(), 1000, every=every, **STRONG)
    assert [alert.cause for alert in found] == ["discriminator-too-strong"]
    assert SPAN <= found[0].step <= SPAN + max(every, BUCKET)


def test_one_good_interval_ends_the_evidence():
    watch = Health()
    assert rows(watch, 400, **STRONG) == []
    assert rows(watch, 50, start=400, **{**STRONG, "D__acc_fake": 0.9}) == []
    assert rows(watch, 400, start=450, **STRONG) == []


def test_what_outputs_mean_depends_on_the_loss():
    assert rows(Health("wasserstein"), 1000, **STRONG) == [], "a strong critic is the aim"
    assert rows(Health("relativistic"), 1000, **{**WEAK, "D__logit_real": 1.0}) == [], (
        "only differences count"
    )
    targets = {"D__logit_real": 0.8, "D__logit_fake": 0.2, "D__acc_real": 1.0, "D__acc_fake": 0.0}
    assert rows(Health("least-squares"), 1000, **targets) == [], (
        "accuracies at zero mean nothing for targets 1 and 0"
    )
    assert [
        a.cause
        for a in rows(
            Health("hinge"), 600, **{**STRONG, "D__logit_real": 2.0, "D__logit_fake": -2.0}
        )
    ] == ["discriminator-too-strong"]
    assert limits("minimax") == limits("a loss of one's own") == LIMITS["logits"]
    assert all(row.outputs in LIMITS for row in LOSSES.values())


def test_networks_that_never_move_are_a_stall_and_not_a_strong_generator():
    assert [a.cause for a in rows(Health(), 600, **WEAK, loss__D=1.386, loss__G=0.693)] == ["stall"]


def test_a_lead_that_changes_hands_is_an_oscillation():
    # D's accuracy, each 25 steps, of a DCGAN of width 32 whose D was trained with SGD at 0.5.
    lead = [
        0.88,
        0.93,
        0.86,
        0.92,
        1.0,
        0.77,
        0.80,
        0.88,
        1.0,
        0.71,
        1.0,
        0.69,
        0.73,
        0.91,
        1.0,
        0.62,
        0.76,
        0.72,
        0.78,
        0.80,
    ]
    watch, alerts = Health(), []
    for index, share in enumerate(lead, start=1):
        row = {"D/logit_real": 3.0, "D/logit_fake": -3.0, "D/acc_real": share, "D/acc_fake": share}
        alerts += watch.observe(25 * index, row)
    assert [alert.cause for alert in alerts] == ["oscillation"]
    swaying = [0.9 + 0.06 * (-1) ** i for i in range(40)]
    watch = Health()
    for index, share in enumerate(swaying, start=1):
        row = {"D/logit_real": 3.0, "D/logit_fake": -3.0, "D/acc_real": share, "D/acc_fake": share}
        assert watch.observe(25 * index, row) == [], (
            "noise between 0.84 and 0.96 is no change of the lead"
        )


def test_outputs_that_grow_without_bound_are_named_before_they_overflow():
    found = rows(Health(), 200, D__logit_real=1e6, D__logit_fake=-1e5)
    assert [alert.cause for alert in found] == ["oscillation"]
    assert "diverges" in found[0].evidence


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_values_are_named_at_once(value):
    (alert,) = Health().observe(7, {"loss/D": 1.0, "loss/G": value})
    assert (alert.cause, alert.step) == ("non-finite", 7)
    assert "loss/G" in alert.evidence
    assert "loss/D" not in alert.evidence


def test_non_finite_samples_are_named():
    fakes = torch.zeros(8, 3, 16, 16)
    fakes[3, 1, 2, 2] = math.nan
    assert [a.cause for a in Health().observe_samples(5, fakes)] == ["non-finite"]


def test_rows_may_lack_everything():
    watch = Health()
    for step in range(1, 2000, 10):
        assert watch.observe(step, {}) == []
        assert watch.observe(step, {"other": 1.0, "text": "x", "flag": True, "none": None}) == []


def test_repeated_samples_are_a_collapse_even_when_they_are_far_apart():
    dice = torch.Generator().manual_seed(0)
    reals = torch.rand(64, 3, 32, 32, generator=dice).round() * 2 - 1
    reals = torch.nn.functional.interpolate(reals[:, :, :4, :4], size=32)
    watch, alerts = Health(), []
    for step in range(100, 1001, 100):
        modes = 64 if step <= 300 else 5
        alerts += watch.observe_samples(
            step,
            reals[torch.randint(modes, (64,), generator=dice)] if modes < 64 else reals,
            None,
            reals,
        )
    assert [alert.cause for alert in alerts] == ["collapse"]
    assert watch.diversity > 0.5, "five modes are far apart: the nearest neighbours give them away"


def of_two_modes(reals, width, dice):
    """Samples about two of the reals, `width` of the way to the others."""
    near = reals[torch.randint(2, (64,), generator=dice)]
    return near + width * (reals - near)


@pytest.mark.parametrize(("growth", "named"), [(1.0, ["collapse"]), (1.7, [])])
def test_a_run_that_comes_apart_slowly_is_no_collapse(growth, named):
    dice = torch.Generator().manual_seed(0)
    reals = torch.rand(64, 1, 8, 8, generator=dice) * 2 - 1
    watch, alerts = Health(), []
    for look in range(1, 7):
        samples = of_two_modes(reals, min(0.02 * growth**look, 0.5), dice)
        alerts += watch.observe_samples(200 * look, samples, reals=reals)
    assert [alert.cause for alert in alerts] == named


@pytest.mark.parametrize(("share", "named"), [(0.1, ["collapse"]), (0.3, [])])
def test_samples_that_are_close_but_all_different_are_no_collapse(share, named):
    reals = torch.rand(64, 1, 8, 8) * 2 - 1
    watch, alerts = Health(), []
    for look in range(1, 7):
        samples = share * (reals + 0.1 * torch.randn(reals.shape))
        alerts += watch.observe_samples(200 * look, samples, reals=reals)
    assert [alert.cause for alert in alerts] == named


def test_the_state_stays_small():
    watch = Health()
    watch.observe_samples(100, *torch.rand(3, 64, 3, 64, 64))
    assert len(json.dumps(watch.state_dict())) < 100_000


@pytest.mark.parametrize(
    ("row", "causes"),
    [
        ({"D/logit_real": 3.0, "D/logit_fake": -3.0, "lr/G": 1e-3}, ["stall"]),
        ({}, ["stall"]),
        ({"D/logit_real": 0.01, "D/logit_fake": 0.0, "loss/G": 0.7}, []),  # nothing left to learn
    ],
)
def test_samples_that_stand_still_while_something_is_to_be_learned_are_a_stall(row, causes):
    dice = torch.Generator().manual_seed(0)
    watch, alerts = Health(), []
    fixed = torch.rand(32, 1, 28, 28, generator=dice) * 2 - 1
    for step in range(50, 1001, 50):
        jitter = 0.02 * (step // 50 % 7)  # D's outputs are alive
        watch.observe(step, {key: value + jitter * (key == "loss/G") for key, value in row.items()})
        fresh, reals = (torch.rand(2, 32, 1, 28, 28, generator=dice) * 2 - 1).unbind()
        alerts += watch.observe_samples(
            step, fresh, fixed + 1e-4 * torch.randn(fixed.shape, generator=dice), reals
        )
    assert [alert.cause for alert in alerts] == causes


def test_the_stillness_at_the_end_of_a_learning_rate_schedule_is_no_stall():
    dice = torch.Generator().manual_seed(0)
    watch = Health()
    images = torch.rand(32, 1, 28, 28, generator=dice) * 2 - 1
    for step in range(50, 2001, 50):
        watch.observe(
            step, {"D/logit_real": 3.0, "D/logit_fake": -3.0, "lr/G": 1e-3 if step < 500 else 1e-5}
        )
        moving = images.roll(step, 3) if step < 500 else images
        assert watch.observe_samples(step, images, moving, images) == []


def test_a_new_stage_starts_without_evidence():
    watch = Health()
    rows(watch, 450, **STRONG)
    watch.reset()
    assert rows(watch, 450, start=450, **STRONG) == []


def test_samples_of_another_size_do_not_compare_with_the_last():
    watch = Health()
    for step, side in enumerate((8, 16, 4, 32, 32, 32), start=1):
        assert watch.observe_samples(100 * step, *torch.rand(3, 8, 1, side, side)) == []


def test_a_look_is_cheap():
    batches = torch.rand(3, 64, 3, 64, 64) * 2 - 1
    watch, spent = Health(), []
    watch.observe_samples(100, *batches)
    for step in range(200, 1200, 100):
        began = time.thread_time()  # not the wall: other processes may have the core
        watch.observe_samples(step, *batches)
        spent.append(time.thread_time() - began)
    # 7 to 10 ms of CPU time were measured with eight other jobs on two cores; the pooling op it
    # once used took 25.
    assert min(spent) < 0.020


def test_illnesses_are_dated_to_where_all_was_well():
    """What a rescue goes back to; other warnings date nothing."""
    cut = {a.cause: a for a in replay(TRACES["D's learning rate cut, G's raised at 300"])}
    assert 200 <= cut["collapse"].since <= 400, "it was cut at 300"
    assert cut["generator-too-strong"].since is None
    grown = [a for a in replay(TRACES["D with SGD at 1.0"]) if "have grown" in a.evidence]
    assert [a.since < a.step - BUCKET for a in grown] == [True] * len(grown)
    watch = Health()
    reals = torch.rand(16, 1, 8, 8) * 2 - 1
    looks = [
        watch.observe_samples(step, torch.zeros(16, 1, 8, 8), reals=reals) for step in (50, 60)
    ]
    assert [a.since for a in looks[0]] == [0], "never anything else"
