"""Outside loggers: only where asked for, one line where not installed, never a prompt."""

import sys
import types

import pytest

from fastgan.engine.loggers import open_logger
from fastgan.errors import FastganError


def test_nothing_is_logged_unless_asked_for(tmp_path):
    assert open_logger(None, tmp_path) is None


def test_wandb_is_offline_unless_its_own_variable_says_otherwise(tmp_path, monkeypatch):
    calls, rows = [], []
    run = types.SimpleNamespace(log=lambda row, step: rows.append((step, row)), finish=lambda: rows.append("finished"))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **options: calls.append(options) or run))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    logger = open_logger("wandb", tmp_path / "mine")
    logger.row(50, {"loss/D": 1.0})
    logger.close()
    assert calls[0]["mode"] == "offline"
    assert calls[0]["name"] == "mine"
    assert rows == [(50, {"loss/D": 1.0}), "finished"]
    monkeypatch.setenv("WANDB_MODE", "online")
    open_logger("wandb", tmp_path / "mine")
    assert calls[1]["mode"] == "online"


@pytest.mark.parametrize(("name", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")])
def test_a_missing_package_is_one_line_with_the_remedy(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(FastganError, match=rf"pip install 'fastgan\[{name}\]'"):
        open_logger(name, tmp_path)


def test_unknown_loggers_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(FastganError, match="unknown log 'comet'"):
        open_logger("comet", tmp_path)
    with pytest.raises(FastganError, match="needs out="):
        open_logger("wandb", None)
