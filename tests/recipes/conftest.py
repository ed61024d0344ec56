import pytest
from stand_ins import Eye


@pytest.fixture(autouse=True)
def eyes(monkeypatch):
    """Recipe projected looks through a stand-in."""
    monkeypatch.setattr("fastgan.models.frozen.projected.eye", Eye)
