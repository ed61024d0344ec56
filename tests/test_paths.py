"""Where caches and tuning tables of a user lie."""

import sys
from pathlib import Path

import pytest

from fastgan import paths
from fastgan.errors import FastganError

OURS = ("FASTGAN_CACHE", "FASTGAN_CONFIG_DIR")
PLATFORMS = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA")
PLACES = {
    "linux": (".cache/fastgan", ".config/fastgan/tuning"),
    "darwin": ("Library/Caches/fastgan", "Library/Application Support/fastgan/tuning"),
    "win32": ("AppData/Local/fastgan/cache", "AppData/Local/fastgan/config/tuning"),
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in OURS + PLATFORMS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("platform", PLACES)
def test_the_folders_follow_the_platform(platform, home, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    assert [paths.cache_dir(), paths.config_dir()] == [home / place for place in PLACES[platform]]


def test_variables_go_first(home, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "c"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "d"))
    assert paths.cache_dir() == home / "c" / "fastgan"
    assert paths.config_dir() == home / "d" / "fastgan" / "tuning"
    monkeypatch.setenv("FASTGAN_CACHE", str(home / "mine"))
    monkeypatch.setenv("FASTGAN_CONFIG_DIR", str(home / "tables"))
    assert (paths.cache_dir(), paths.config_dir()) == (home / "mine", home / "tables")


@pytest.mark.parametrize(("find", "variable"), [*zip((paths.cache_dir, paths.config_dir), OURS)])
def test_a_user_without_a_home_is_told_the_variable(find, variable, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(FastganError, match=f"no home directory here: set {variable}"):
        find()
