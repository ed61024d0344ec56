"""The live pages: who gets in, what they show of a stranger's run, what the buttons do."""

import io
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
import torch
from browser import CHROMIUM, MISSING, Browser
from PIL import Image
from run_support import in_a_hurry, tiny
from tiny_recipes import flags

from fastgan.cli import main as cli
from fastgan.ui.runs import Playground, Wish, trainer_of
from fastgan.ui.server import Server

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    for name in ("one", EVIL.replace("/", "")):
        with tiny(tmp_path / "runs" / name, sample_every=1) as trainer:
            trainer.fit(2)
    return tmp_path / "runs"


@pytest.fixture
def server(runs):
    made = Server(runs)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    yield made
    made.close()
    thread.join()


def get(address, method="GET", **headers):
    request = urllib.request.Request(address, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_pages_pictures_and_playground(server):
    listed = json.loads(get(server.address + "list.json")[1])
    assert {run["name"] for run in listed} == {"one", EVIL}
    assert all(run["step"] == 2 and not run["running"] for run in listed)
    assert get(server.address)[0] == 200
    page = server.address + next(run["address"] for run in listed if run["name"] == EVIL)
    code, text = get(page)
    assert code == 200
    assert b"<img src=x" not in text
    assert get(page + "grid.png")[1].startswith(b"\x89PNG")
    about = json.loads(get(page + "play.json")[1])
    assert about["sliders"] == 4
    pictures = {
        get(page + "play.png?" + query)[1]
        for query in (
            "seed=1",
            "seed=2",
            "seed=1&moves=3",
            "seed=1&truncation=0.2",
            "seed=1&to=2&at=0.5",
        )
    }
    assert len(pictures) == 5
    assert get(page + "play.png?seed=1&to=2&at=1") == get(page + "play.png?seed=2")
    assert Image.open(io.BytesIO(pictures.pop())).size == (8, 8)


def test_others_stay_outside(server):
    for address, headers in (
        (f"http://{server.host}/", {}),
        (f"http://{server.host}/wrong/list.json", {}),
        (server.address + "list.json", {"Host": "evil.example"}),
        (server.address + "list.json", {"Origin": "http://evil.example"}),
        (server.address + "run/..%2F..%2Fetc/", {}),
        (server.address + "run/one/run.json", {}),
    ):
        assert get(address, **headers)[0] == 404
    assert get(server.address + "run/one/stop", "POST", Origin="http://evil.example")[0] == 404
    for query in (
        "seed=x",
        "seed=-1",
        "truncation=-1",
        "moves=nan",
        "moves=1e9",
        "at=2",
        "text=a+bird",
    ):
        code, body = get(server.address + "run/one/play.png?" + query)
        assert code == 400
        assert json.loads(body)["error"]


@pytest.mark.slow
def test_a_caption_changes_the_image(tmp_path):
    small = ["--recipe=text-to-image", "--size=16", "--batch-size=4", "--steps=2"]
    with pytest.raises(SystemExit):
        cli.main(["train", *small, *flags("text-to-image"), f"--out={tmp_path / 'run'}"])
    playground = Playground(tmp_path / "run")
    about = playground.about()
    assert about["text"]
    assert about["sliders"] == 4
    assert not torch.equal(
        *(playground.image(Wish(text=text)) for text in ("a red square", "a blue circle"))
    )


HOLD = """
import signal, sys, time
from pathlib import Path
from fastgan import files
lock = files.Lock(Path(sys.argv[1]))
lock.sign()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("held", flush=True)
time.sleep(60)
"""


def test_stop_ends_the_process_that_holds_the_lock_and_no_other(server, runs):
    stop = server.address + "run/one/stop"
    assert get(stop, "POST")[0] == 400
    lock = runs / "one" / "run.lock"
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        held.stdout.readline()
        assert trainer_of(runs / "one") == held.pid
        signed = lock.read_bytes()
        lock.write_bytes(f"\n{bystander.pid}".encode())
        assert get(stop, "POST")[0] == 400
        lock.write_bytes(signed)
        assert get(stop, "POST")[0] == 200
        assert held.wait(20) == 7
        assert bystander.poll() is None
    finally:
        for process in (held, bystander):
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_a_run_goes_on_by_a_button(server, runs):
    small = ["--recipe=gan", "--hidden-g=8", "--hidden-d=8", "--batch-size=4", "--steps=2"]
    with pytest.raises(SystemExit):
        cli.main(["train", *small, f"--out={runs / 'two'}"])
    page = server.address + "run/two/"
    assert get(page + "resume?steps=1000000", "POST")[0] == 200
    while not json.loads(get(page + "status.json")[1])["running"]:
        assert server.trainings[runs / "two"].running
        time.sleep(0.1)
    assert get(page + "stop", "POST")[0] == 200
    server.trainings[runs / "two"].process.wait(60)
    stopped = json.loads(get(page + "status.json")[1])
    assert (stopped["running"], stopped["starting"], stopped["why"]) == (False, False, "")
    for steps in ("", "x", "-1", "0"):
        assert get(server.address + f"run/two/resume?steps={steps}", "POST")[0] == 400
    assert get(server.address + "run/two/resume?steps=3")[0] == 404
    reached = stopped["step"] + 1
    for name, steps in (("two", reached), ("one", 3)):
        page = server.address + f"run/{name}/"
        assert get(page + f"resume?steps={steps}", "POST")[0] == 200
        assert get(page + f"resume?steps={steps}", "POST")[0] == 400  # one at a time
        server.trainings[runs / name].process.wait(120)
        said = json.loads(get(page + "status.json")[1])
        assert not said["starting"]
        if name == "two":
            assert (said["step"], said["why"]) == (reached, "")
        else:
            assert "Trainer" in said["why"]  # made in Python, so the command can't go on with it


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
@pytest.mark.slow
def test_in_a_browser(server):
    browser = Browser()
    wait = "new Promise((done) => { const look = () => (%s) ? done(true) : setTimeout(look, 50); look() })"
    try:
        browser.open(server.address)
        browser.run(wait % "document.querySelectorAll('.run').length === 2")
        assert browser.run("document.querySelectorAll('img[alt=\"\"]').length") == 2
        assert (
            browser.run("document.querySelectorAll('img').length") == 2
        )  # none of the names is one
        browser.open(server.address + "run/one/")
        image = "document.getElementById('image')"
        browser.run(wait % f"{image}.naturalWidth === 8")
        before = browser.run(f"{image}.src")
        browser.run("document.getElementById('another').click()")
        browser.run(wait % f"{image}.src !== '{before}' && {image}.naturalWidth === 8")
        assert browser.run("document.querySelectorAll('#controls input[type=range]').length") == 5
        browser.run("document.getElementById('walk').click()")
        seed = "document.getElementById('seed').value"
        before = browser.run(seed)
        browser.run(wait % f"{seed} !== '{before}'")
        assert "step 2" in browser.run("document.getElementById('status').textContent")
        assert browser.problems == []
    finally:
        browser.close()


def test_bad_input_is_one_line(server, runs, capsys):
    port = server.host.rpartition(":")[2]
    for argv in ([str(runs / "nope")], [str(runs), "--port", port]):
        with pytest.raises(SystemExit) as done:
            cli.main(["ui", *argv])
        assert done.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_damaged_run_is_a_line_in_the_list(server, runs):
    (runs / "one" / "run.json").write_text("[]")
    listed = json.loads(get(server.address + "list.json")[1])
    assert "damaged" in next(run["error"] for run in listed if run["name"] == "one")
