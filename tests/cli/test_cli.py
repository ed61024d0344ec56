"""The command line as a user meets it."""

import json
import os
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_support import assert_same_run, commands, images, in_a_hurry, leftovers, newest, rows

from fastgan.cli import main as cli

HERE = Path(__file__).parents[1] / "support"
SHORT = ["--steps", "2", "--device", "cpu"]
TINY = [
    *SHORT,
    "--data",
    "images.npy",
    "--hidden-g",
    "8",
    "--hidden-d",
    "4",
    "--latent",
    "4",
    "--batch-size",
    "8",
]
TRAIN = ["train", "--recipe", "gan", *TINY]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A user's folder: some images, and a file that is in the way."""
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    np.save("images.npy", images(30))
    Path("file").write_text("precious")
    return tmp_path


@pytest.fixture
def fastgan(capfd):
    """fastgan(args...) -> (exit code, standard output, standard error)."""
    return commands(capfd)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 7 steps that tests only read."""
    folder = tmp_path_factory.mktemp("finished")
    np.save(folder / "images.npy", images(30))
    argv = [a if a != "images.npy" else str(folder / a) for a in TRAIN]
    with pytest.raises(SystemExit) as done:
        cli.main([*argv, "--out", str(folder / "run"), "--steps", "7", "--log-every", "3"])
    assert not done.value.code
    return folder / "run"


def process(*args):
    """Output of a real process, and the processor seconds it took: the time of an idle machine,
    whatever else runs on this."""
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before, environment = used(), {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "fastgan", *args], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, used() - before


def test_help_is_fast():
    text, seconds = process("--help")
    assert seconds < 0.3
    for name in ("demo", "train", "sample", "info"):
        assert f"  {name}" in text


def test_train_help_is_fast_and_shows_every_option_with_its_default():
    text, seconds = process("train", "--recipe", "gan", "--help")
    assert seconds < 2
    words = " ".join(text.split())
    for shown in (
        "--hidden-g",
        "[default: 1200]",
        "--lr",
        "[default: 0.1]",
        "--steps",
        "--flip / --no-flip",
        "--resume RUN",
    ):
        assert shown in words


def test_help_needs_no_torch():
    code = (
        "import sys; from fastgan.cli import train; from fastgan import recipes; "
        "[recipes.find(r) for r in recipes.RECIPES]"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"])
    assert done.returncode == 0


def test_train_sample_resume(fastgan, place):
    code, out, err = fastgan(*TRAIN, "--out", "run", "--steps", 7, "--log-every", 3)
    assert code == 0, err
    assert "30 images 8x8x1" in out
    assert out.splitlines()[-1].startswith("done: pictures in run/samples")
    assert "step 7/7" in err
    code, out, _ = fastgan("sample", "run", "--n", 9, "--out", "grid.png")
    assert (code, out) == (0, "9 images in grid.png\n")
    with Image.open("grid.png") as picture:
        assert picture.format == "PNG"
    code, out, _ = fastgan("train", "--resume", "run", "--steps", 11)
    assert code == 0
    assert "going on at step 7" in out
    before = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    code, _, err = fastgan("train", "--resume", "run", "--steps", 9)
    assert (code, err.count("\n"), "has done 11 steps already" in err) == (2, 1, True)
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == before
    assert tomllib.loads(Path("run/config.toml").read_text())["steps"] == 11
    code, out, _ = fastgan("train", "--resume", "run", "--graph", "off", "--impl", "reference")
    assert (code, out.splitlines()[-1]) == (0, "run has its 11 steps: give --steps to go on")
    assert fastgan(*TRAIN, "--out", "straight", "--steps", 11, "--log-every", 3)[0] == 0
    assert_same_run(place / "run", place / "straight")
    assert leftovers(place) == []


def test_config_toml_is_what_was_trained_and_trains_it_again(fastgan, place):
    assert fastgan(*TRAIN, "--out", "run", "--steps", 4, "--log-every", 2, "--lr", 0.05)[0] == 0
    config = tomllib.loads(Path("run/config.toml").read_text())
    expected = {
        "recipe": "gan",
        "size": 8,
        "channels": 1,
        "precision": "fp32",
        "lr": 0.05,
        "steps": 4,
        "hidden_g": 8,
        "seed": 0,
    }
    assert {key: config.get(key) for key in expected} == expected
    assert fastgan("train", "--config", "run/config.toml", "--out", "again")[0] == 0
    assert_same_run(place / "run", place / "again")


def test_defaults_give_way_to_the_file_and_the_file_to_flags(fastgan):
    Path("options.toml").write_text(
        'recipe = "gan"\nhidden-g = 9\nhidden_d = 5\nlatent = 4\nbatch_size = 8\nlr = 1\nflip = '
        "true\n"
    )
    argv = [
        "train",
        "--config",
        "options.toml",
        "--data",
        "images.npy",
        "--hidden-d",
        6,
        "--no-flip",
        "--dry-run",
    ]
    code, out, err = fastgan(*argv)
    assert code == 0, err
    for line in (
        "hidden_g = 9",
        "hidden_d = 6",
        "pieces = 5",
        "lr = 1.0",
        "flip = false",
        'recipe = "gan"',
    ):
        assert line in out.splitlines()


def test_dry_run_shows_everything_and_writes_nothing(fastgan, place):
    before = sorted(place.rglob("*"))
    code, out, _ = fastgan(*TRAIN, "--out", "run", "--dry-run")
    assert code == 0
    # G: 4*8+8 + 8*8+8 + 8*64+64; D: 2 maxout layers of 5 pieces, 64*20+20 + 4*20+20, and 4+1
    for shown in (
        "hidden_g = 8",
        "network G: 688 parameters",
        "network D: 1,405 parameters",
        "8x64",
        "MiB",
    ):
        assert shown in out
    assert sorted(place.rglob("*")) == before


def test_own_networks_by_name(fastgan, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    base = [
        "train",
        "--recipe",
        "dcgan",
        "--data",
        "images.npy",
        "--latent",
        4,
        "--batch-size",
        8,
        "--device",
        "cpu",
        "--steps",
        3,
    ]
    for name in ("build", "build_named"):
        code, _, err = fastgan(*base, "--model", f"own_networks:{name}", "--out", name)
        assert code == 0, err
        assert fastgan("sample", name, "--n", 2, "--device", "cpu", "--trust")[0] == 0
        assert (
            fastgan("train", "--resume", name, "--steps", 5, "--model", f"own_networks:{name}")[0]
            == 0
        )


SAY = {
    # what is wrong: (arguments, what the line must say)
    "no such command": (["trian"], "no command 'trian': did you mean 'train'?"),
    "no such flag": ([*TRAIN, "--hiden-g", "3"], "--hidden-g"),
    "no such recipe": (
        ["train", "--recipe", "dcgna"],
        "unknown recipe 'dcgna': did you mean 'dcgan'?",
    ),
    "stray argument": ([*TRAIN, "more"], "unexpected extra argument (more)"),
    "flag without value": (["train", "--resume"], "'--resume' requires an argument"),
    "no whole number": ([*TRAIN, "--steps", "many"], "'many' is not a valid integer"),
    "negative steps": ([*TRAIN, "--steps", "-3"], "--steps must be at least 1, not -3"),
    "no steps": ([*TRAIN, "--steps", "0"], "--steps must be at least 1, not 0"),
    "no batch": ([*TRAIN, "--batch-size", "0"], "--batch-size must be at least 1"),
    "too large a batch": ([*TRAIN, "--batch-size", "31"], "lower --batch-size to 30"),
    "negative rate": ([*TRAIN, "--lr", "-1"], "--lr must be at least 0"),
    "rate is no number": ([*TRAIN, "--lr", "nan"], "--lr must be a finite number"),
    "beta above 1": (["train", "--data", "fashion-mnist", "--beta1", "1.5"], "beta"),
    "dropout above 1": ([*TRAIN, "--dropout", "3"], "dropout"),
    "no latent": ([*TRAIN, "--latent", "0"], "--latent must be at least 1"),
    "no width": ([*TRAIN, "--hidden-g", "0"], "--hidden-g must be at least 1"),
    "no size": ([*TRAIN, "--size", "0"], "size"),
    "odd channels": ([*TRAIN, "--channels", "2"], "channels must be"),
    "negative seed": ([*TRAIN, "--seed", "-1"], "seed"),
    "large seed": ([*TRAIN, "--seed", "4294967296"], "--seed must be at most 4294967295"),
    "ema": ([*TRAIN, "--ema-decay", "2"], "--ema-decay must be below 1"),
    "keep none": ([*TRAIN, "--keep", "0"], "--keep must be at least 1"),
    "no such device": ([*TRAIN, "--device", "banana"], "unknown device 'banana'"),
    "wrong device": ([*TRAIN, "--device", "meta"], "unknown device 'meta'"),
    "no such precision": ([*TRAIN, "--precision", "fp8"], "'fp8' is not one of"),
    "out is taken": ([*TRAIN, "--out", "file"], "file exists already"),
    "out below a file": ([*TRAIN, "--out", "file/run"], "can't write to file/run"),
    "out is a system folder": (
        [*TRAIN, "--out", "/proc/nothing/run"],
        "can't write to /proc/nothing/run",
    ),
    "no data": (["train", "--data", "nowhere"], "no data at nowhere"),
    "empty data": (["train", "--data", ""], "--data is empty"),
    "empty out": ([*TRAIN, "--out", ""], "--out is empty"),
    "sample of empty data": (["sample", "RUN", "--data", ""], "--data is empty"),
    "no images": (["train", "--data", "file"], "file"),
    "no labels": (["train", "--recipe", "cgan", "--data", "images.npy"], "needs labels"),
    "size a recipe can't make": (
        ["train", "--recipe", "dcgan", "--data", "images.npy", "--size", "9"],
        "can't make 9x9",
    ),
    "no module": ([*TRAIN, "--model", "nothing_there:build"], "No module named 'nothing_there'"),
    "no function": ([*TRAIN, "--model", "json:build"], "has no attribute 'build'"),
    "no colon": ([*TRAIN, "--model", "json"], "write it as pkg.mod:build"),
    "build fails": (
        [*TRAIN, "--model", "own_networks:build_wrongly"],
        "ValueError: no network for 8 (own_networks.py line",
    ),
    "build returns nothing": (
        [*TRAIN, "--model", "own_networks:build_nothing"],
        "returned NoneType",
    ),
    "no config": (["train", "--config", "none.toml"], "can't read none.toml"),
    "config is a folder": (["train", "--config", "."], "can't read ."),
    "no run to resume": (["train", "--resume", "nope"], "nope is not a run"),
    "no run to sample": (["sample", "nope"], "nope is not a run"),
    "nothing to sample": (["sample", "RUN", "--n", "0"], "at least one"),
    "no such checkpoint": (["sample", "RUN", "--step", "99"], "there are 0, 7"),
    "label of a run without": (["sample", "RUN", "--label", "1"], "trained without labels"),
    "negative sampling seed": (["sample", "RUN", "--seed", "-1"], "seed must be at least 0"),
    "sample below a file": (
        ["sample", "RUN", "--out", "file/grid.png"],
        "can't write file/grid.png",
    ),
    "a format that is none": (["sample", "RUN", "--out", "grid.bmp"], "grid.bmp ends in .bmp"),
    "seeds that are none": (["sample", "RUN", "--seeds", "1-x"], "numbers and ranges"),
    "seeds backwards": (["sample", "RUN", "--seeds", "9-5"], "backwards"),
    "too many seeds": (["sample", "RUN", "--seeds", "0-99999999"], "more than 10000 numbers"),
    "seeds and a number": (["sample", "RUN", "--seeds", "1", "--n", "2"], "leave --n out"),
    "size 0": (["sample", "RUN", "--size", "0"], "from 1 to 4096 pixels"),
    "a size beyond all": (["sample", "RUN", "--size", "99999"], "from 1 to 4096 pixels"),
    "too large a picture": (["sample", "RUN", "--size", "4096"], "ends in /"),
    "no truncation": (["sample", "RUN", "--truncation", "0"], "above 0"),
    "sample on no device": (["sample", "RUN", "--device", "banana"], "unknown device"),
    "resume another recipe": (
        ["train", "--resume", "RUN", "--recipe", "dcgan"],
        "can't be changed",
    ),
    "resume another width": (
        ["train", "--resume", "RUN", "--hidden-g", "9"],
        "--hidden-g can't be changed",
    ),
    "resume other data": (
        ["train", "--resume", "RUN", "--data", "fashion-mnist", "--steps", "9"],
        "was",
    ),
    "weights of nothing": ([*TRAIN, "--init-from", "nope"], "nope: give a run, one of"),
    "more layers frozen than there are": ([*TRAIN, "--freeze-d", "9"], "it has 3, and the last"),
    "log what is not there": ([*TRAIN, "--log", "paper"], "'paper' is not one of"),
}


@pytest.mark.parametrize("case", SAY)
def test_bad_input_is_one_line_and_exit_code_2(case, fastgan, finished, place, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    argv, said = SAY[case]
    looked_at = lambda: {
        p: p.stat().st_mtime_ns
        for root in (place, finished)
        for p in root.rglob("*")
        if p.name != "run.lock"
    }
    before = looked_at()
    short = (
        SHORT if argv[:1] == ["train"] and "--resume" not in argv else []
    )  # what wrongly passes must not train for long
    code, _, err = fastgan(
        *argv[:1], *short, *(str(finished) if a == "RUN" else a for a in argv[1:])
    )
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("fastgan: ")
    assert said in err
    assert looked_at() == before


TOML = {
    "unknown": ("stpes = 3", "unknown option 'stpes'; did you mean 'steps'?"),
    "far off": ("zzz = 3", "unknown option 'zzz'; the options of dcgan are"),
    "text for number": ('steps = "many"', "steps must be a whole number, not 'many'"),
    "fraction": ("steps = 2.5", "steps must be a whole number"),
    "true for number": ("steps = true", "steps must be a whole number"),
    "choice": ('loss = "hinj"', "loss must be one of"),
    "table": ("[dcgan]\nsteps = 3", "unknown option 'dcgan'"),
    "recipe": ('recipe = "dcgna"', "did you mean 'dcgan'?"),
    "recipe number": ("recipe = 5", "recipe must be a text"),
    "negative": ("steps = -3", "steps must be at least 1"),
    "broken": ("steps = [", "is not TOML"),
    "bytes": ("\udcff", "is not TOML"),
}


@pytest.mark.parametrize("case", TOML)
def test_a_bad_file_is_named(case, fastgan):
    text, said = TOML[case]
    Path("options.toml").write_bytes(text.encode(errors="surrogateescape"))
    code, _, err = fastgan("train", "--config", "options.toml")
    assert (code, err.count("\n")) == (2, 1), err
    assert said in err


def test_an_existing_run_is_found_before_the_data_are_read(fastgan, finished):
    code, _, err = fastgan("train", "--data", "nowhere", "--out", finished)
    assert (code, "exists already" in err, str(finished) in err) == (2, True, True)


def test_a_python_run_is_resumed_in_python(fastgan, finished, place):
    import shutil

    shutil.copytree(finished, place / "python")
    config = place / "python" / "config.toml"
    config.write_text(config.read_text().replace('recipe = "gan"', 'recipe = "python"'))
    code, _, err = fastgan("train", "--resume", "python")
    assert (code, "resume=True" in err) == (2, True)


def test_a_moved_run_goes_on_where_it_lies(fastgan, finished, place):
    import shutil

    shutil.copytree(finished, place / "moved")
    assert fastgan("train", "--resume", "moved", "--steps", 9)[0] == 0
    assert newest(place / "moved")[1][1]["step"] == 9
    assert newest(finished)[1][1]["step"] == 7
    assert tomllib.loads((place / "moved" / "config.toml").read_text())["out"] == str(
        place / "moved"
    )


def test_sampling_into_a_folder_and_by_seed(fastgan, finished, place):
    assert fastgan("sample", finished, "--n", 3, "--out", "many/")[0] == 0
    assert sorted(p.name for p in (place / "many").iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
    ]
    with Image.open("many/000000.png") as picture:
        assert picture.size == (8, 8)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert (
            fastgan("sample", finished, "--n", 3, "--seed", seed, "--out", f"deep/{name}.png")[0]
            == 0
        )
    a, b, c = (Path(f"deep/{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_images_are_written_at_another_size(fastgan, finished, place):
    assert fastgan("sample", finished, "--n", 1, "--out", "as-made/")[0] == 0
    made = Image.open("as-made/000000.png")
    for size, filtering in ((20, Image.Resampling.LANCZOS), (4, Image.Resampling.BOX)):
        assert fastgan("sample", finished, "--n", 1, "--size", size, "--out", f"{size}/")[0] == 0
        with Image.open(f"{size}/000000.png") as written:
            expected = made.resize((size, size), filtering)
            assert np.array_equal(np.asarray(written), np.asarray(expected))
    assert fastgan("sample", finished, "--n", 4, "--size", 20, "--out", "grid.png")[0] == 0
    with Image.open("grid.png") as grid, Image.open("20/000000.png") as first:
        assert grid.size == (46, 46), "two padded cells of 20 pixels a side, not magnified"
        assert np.array_equal(np.asarray(grid)[2:22, 2:22], np.asarray(first))
    assert fastgan("sample", finished, "--seeds", "1,5", "--size", 20, "--out", "two.png")[0] == 0
    traverse = ("--traverse", "z.0", "--size", 5, "--out", "walk.png")
    assert fastgan("sample", finished, *traverse)[0] == 0
    with Image.open("walk.png") as walk:
        assert walk.size == (72, 72)


def test_the_name_says_the_format(fastgan, finished, place):
    for name, kind in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP")):
        assert fastgan("sample", finished, "--seeds", "1,5-6", "--out", name)[0] == 0
        with Image.open(place / name) as picture:
            assert picture.format == kind


def test_no_arguments_show_the_help(fastgan):
    code, out, err = fastgan()
    assert code in (0, 2)
    assert "Commands:" in out + err


def test_metrics_of_the_command_line_are_rows(finished):
    assert [row["step"] for row in rows(finished / "metrics.jsonl")] == [3, 6]
    assert json.loads((finished / "run.json").read_text())["fastgan"]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory.\nTried"), MemoryError()]
)
def test_sampling_out_of_memory_is_one_line(error, fastgan, finished, place, monkeypatch):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("fastgan.trainer.sampling.generate", full)
    code, _, err = fastgan("sample", str(finished), "--n", "100000")
    assert (code, err) == (
        2,
        "fastgan: out of memory while sampling 100000 images on auto: ask for fewer at a time, or "
        "use another device\n",
    )


def test_more_steps_stretch_the_schedule_and_say_so(fastgan, place):
    """sngan's and wgan-gp's learning rate falls to 0 over --steps: further steps at a rate of 0
    would be no use."""
    options = [
        "--size",
        8,
        "--channels",
        3,
        "--width",
        2,
        "--latent",
        4,
        "--batch-size",
        4,
        "--n-critic",
        1,
        "--log-every",
        1,
    ]
    start = [
        "train",
        "--recipe",
        "wgan-gp",
        "--data",
        "images.npy",
        "--device",
        "cpu",
        *options,
        "--lr",
        1e-3,
    ]
    assert fastgan(*start, "--out", "run", "--steps", 4)[0] == 0
    code, out, err = fastgan("train", "--resume", "run", "--steps", 8)
    assert code == 0, err
    assert "changed from step 4 on, of 8: G and D: lr goes on with 0.0005 instead of 0\n" in out
    rates = [row["lr/G"] for row in rows(place / "run" / "metrics.jsonl")]
    expected = [1e-3 * (1 - step / 4) for step in range(4)] + [
        1e-3 * (1 - step / 8) for step in range(4, 8)
    ]
    assert rates == pytest.approx(expected)
    code, out, _ = fastgan("train", "--resume", "run")
    assert (code, out.splitlines()[-1]) == (0, "run has its 8 steps: give --steps to go on")
    assert "changed" not in out


MAGIC = {"png": b"\x89PNG", "jpg": b"\xff\xd8\xff", "JPEG": b"\xff\xd8\xff", "webp": b"RIFF"}


@pytest.mark.parametrize("ending", [*MAGIC, "gif", "xyz", "pt", ""])
def test_a_picture_is_what_its_name_says(ending, fastgan, finished, place):
    name = f"deep/x.{ending}" if ending else "deep/x"
    for argv in (("sample", finished, "--n", 1, "--out", name), ("data", "--preview", name)):
        code, _, err = fastgan(*argv)
        if ending in MAGIC:
            assert code == 0, err
            assert Path(name).read_bytes().startswith(MAGIC[ending])
        else:
            assert (code, err.count("\n"), ".png, .jpg or .webp" in err) == (2, 1, True), err
            assert not Path("deep").exists()


def test_a_run_finds_its_data_from_any_folder_and_says_where_they_were(fastgan, place, monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    np.savez("mine.npz", images=pictures)
    quick = ("--steps", 1, "--batch-size", 2, "--base-width", 2, "--latent", 2, "--size", 8)
    assert fastgan("train", "--data", "mine.npz", *quick, "--out", "run")[0] == 0
    (place / "other").mkdir()
    monkeypatch.chdir(place / "other")
    assert fastgan("train", "--resume", "../run", "--steps", 2)[0] == 0
    (place / "mine.npz").rename(place / "moved.npz")
    for argv in (("train", "--resume", "../run", "--steps", 3), ("evaluate", "../run")):
        code, _, err = fastgan(*argv)
        assert (code, err.count("\n")) == (2, 1)
        assert f"was trained on {place / 'mine.npz'}, where nothing is now" in err
        assert "--data" in err
    again = ("train", "--resume", "../run", "--steps", 3, "--data", "../moved.npz")
    assert fastgan(*again)[0] == 0
    assert fastgan("train", "--resume", "../run", "--steps", 4)[0] == 0  # it knows now


@pytest.mark.parametrize("flag", ["--resume", "--config", "--recipe", "--data", "--out", "--model"])
def test_an_empty_value_is_not_no_value(flag, fastgan, place):
    for argv in ((flag, ""), (f"{flag}=",)):
        code, _, err = fastgan("train", *argv, "--steps", 1)
        assert (code, err.count("\n"), f"{flag} is empty" in err) == (2, 1, True), err
    assert not Path("runs").exists()


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_options_from_a_text_file_of_windows(mark, fastgan, place):
    Path("bom.toml").write_bytes("steps = -1\r\n".encode(mark))
    assert "bom.toml: steps must be at least 1" in fastgan("train", "--config", "bom.toml")[2]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("exp", {"export"}),
        ("train --recipe prog", {"progressive"}),
        ("train --recipe r3gan --anneal", {"--anneal-steps"}),
        ("sample ru", {"ru"}),  # of type file: the shell finds what there is
        ("train --data my", {"my"}),
        ("train --resume nowhere --st", set()),
        ("nonsense x", set()),
    ],
)
def test_completion_offers_words_and_no_message(words, offered, monkeypatch, capsys):
    typed = f"fastgan {words}"
    monkeypatch.setenv("_FASTGAN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    with pytest.raises(SystemExit):
        cli.main([])
    said = capsys.readouterr()
    assert {line.partition(",")[2] for line in said.out.splitlines() if line} == offered
    assert said.err == ""


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    said = " ".join(capsys.readouterr().out.replace("`", "").split())
    assert re.search(rf"xamples?: fastgan {command}", said)
