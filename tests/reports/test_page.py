"""report.html: what is on it, what a stranger's run folder can't put there, how it behaves."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import CHROMIUM, MISSING, Browser
from PIL import Image
from run_support import tiny

import fastgan
from fastgan.cli import main as cli
from fastgan.reports import page, plots, reading

EVIL = """"><img src=x onerror=alert(1)></script><script>alert(2)</script>'"""


class Reader(HTMLParser):
    """Elements, text and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "mine"
    with tiny(path, log_every=1, sample_every=5, watch=False) as trainer:
        trainer.fit(12)
    return path


@pytest.fixture
def copy(run, tmp_path):
    import shutil

    return shutil.copytree(run, tmp_path / "copy")


def test_a_run_ends_with_its_page(run):
    text = (run / "report.html").read_text("utf-8")
    found = Reader(text)
    assert found.tags.count("img") == 1 + 4, "reals, steps 0, 5, 10 and 12"
    assert found.tags.count("script") == 2
    for word in ("ndarray, 12 steps", "loss/D", "D/acc_real", "batch_size", "fastgan 0.1.0"):
        assert word in found.text, word
    assert "Trainer(..., out=..., resume=True)" in found.text
    assert all(re.match("data:|#", address) for address in found.addresses)
    assert "://" not in text


def test_events_stand_on_the_curves(copy):
    alert = {"step": 6, "cause": "collapse", "evidence": "all the same", "remedy": "more data"}
    (copy / "alerts.jsonl").write_text(json.dumps(alert) + "\n")
    page.write(copy)
    found = Reader((copy / "report.html").read_text("utf-8"))
    panels = found.tags.count("svg")
    assert panels == found.addresses.count("#event-1") >= 4
    assert "collapse" in found.text
    assert "more data" in found.text


def test_nothing_from_a_file_becomes_code(copy):
    """Options, alerts, names of metrics, classes and evaluations of a stranger."""
    config = (copy / "config.toml").read_text()
    quoted = json.dumps(EVIL)
    (copy / "config.toml").write_text(f"{quoted} = {quoted}\nrecipe = {quoted}\n" + config[20:])
    facts = json.loads((copy / "run.json").read_text())
    facts |= {"classes": [EVIL], "fastgan": EVIL, "versions": {EVIL: EVIL}}
    facts["changes"] = [{"step": EVIL, "what": EVIL}]
    facts["identity"]["stages"][0]["networks"] = {EVIL: {"w": [3]}}
    (copy / "run.json").write_text(json.dumps(facts))
    row = {"step": 3, f"loss/{EVIL}": 1.0, "loss/D": 10**400, "time": 10**400}
    rows = [row, {"step": -1, "loss/D": 1.0}, {"step": 10**30, "loss/D": 1.0}]
    rows += [{"step": 4, "loss/D": float("nan"), "loss/G": float("inf")}]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    alert = {"step": 3, "cause": EVIL, "evidence": EVIL, "remedy": EVIL}
    (copy / "alerts.jsonl").write_text(json.dumps(alert) + "\n")
    (copy / "evaluation.json").write_text(json.dumps({EVIL: EVIL, "n": 10**400}))
    (copy / "samples" / "00000005.png").write_text(EVIL)
    (copy / "samples" / f"{9**20}.png").write_text(EVIL)
    text = page.build(reading.read_story(copy))
    found = Reader(text)
    assert found.tags.count("script") == 2
    assert all(address.startswith(("data:", "#")) for address in found.addresses)
    assert found.text.count("alert(2)") > 10, "all of it is there, as text"
    assert text.count("<script>alert(2)") == 0


def test_a_run_without_rows_and_pictures_has_a_page(copy):
    import shutil

    shutil.rmtree(copy / "samples")
    for name in ("metrics.jsonl", "reals.png", "config.toml"):
        (copy / name).unlink()
    text = Reader(page.build(reading.read_story(copy))).text
    assert "No metrics yet" in text
    assert "No pictures yet" in text


def test_the_page_stays_under_5_megabytes(copy):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    Image.fromarray(noise).save(copy / "reals.png")
    for step in range(100, 110):
        (copy / "samples" / f"{step:08d}.png").write_bytes((copy / "reals.png").read_bytes())
    assert len(page.build(reading.read_story(copy))) < 5_000_000


def test_long_curves_are_thinned():
    points = [(step, 1.0 if step < 5000 else float("nan")) for step in range(10000)]
    thin = plots.thinned(points)
    assert len(thin) == plots.POINTS
    assert thin[0][1] == 1.0
    assert np.isnan(thin[-1][1])


@pytest.mark.parametrize("argv", [["report", "nope"], ["report", "RUN", "--out", "RUN/run.json"]])
def test_bad_input_is_one_line(argv, run, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main([word.replace("RUN", str(run)) for word in argv])
    assert done.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_report_writes_elsewhere(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["report", str(run), "--out", str(tmp_path / "deep" / "page.html")])
    assert not done.value.code
    assert (tmp_path / "deep" / "page.html").stat().st_size > 10000
    with pytest.raises(fastgan.FastganError):
        page.write(run, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_in_a_browser(copy):
    alert = {"step": 6, "cause": "collapse", "evidence": "x", "remedy": "</script>"}
    (copy / "alerts.jsonl").write_text(json.dumps(alert) + "\n")
    browser = Browser()
    try:
        browser.window(390, 800, dark=True)
        browser.open(page.write(copy).resolve().as_uri())
        assert browser.run("document.documentElement.scrollWidth") == 390, "nothing sticks out"
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 28)"
        shown = "document.querySelector('#grids img:not([hidden])').dataset.step"
        assert browser.run(shown) == "12"
        browser.run("document.getElementById('grid').focus()")
        browser.press("ArrowLeft")
        assert browser.run(shown) == "10"
        browser.run("document.querySelector('.plot').focus()")
        browser.press("ArrowLeft")
        moved = float(browser.run("document.querySelector('.plot').getAttribute('aria-valuenow')"))
        assert moved < 12
        browser.run("document.getElementById('play').click()")
        assert browser.run("document.getElementById('play').textContent") == "stop"
        assert browser.problems == []
    finally:
        browser.close()
