"""Fixtures of the mocked tests."""

import pytest
import torch

from fastgan.kernels import tuning


@pytest.fixture
def settings_of_its_own(monkeypatch, tmp_path):
    """No table of a test's is another's, and what Inductor would compile runs as it is written."""
    monkeypatch.setenv("FASTGAN_CONFIG_DIR", str(tmp_path / "config"))
    tuning.forget()
    monkeypatch.setattr(
        torch, "compile", lambda f=None, **options: f if f is not None else lambda g: g
    )
    yield
    tuning.forget()
