"""Which device a run uses."""

import pytest
import torch

import fastgan
from fastgan.engine.devices import pick_device


def test_a_gpu_given_by_number_becomes_the_current_one(monkeypatch):
    """Kernels are launched, and graphs captured, on torch's current device, whatever device their tensors are on."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    assert current == [torch.device("cuda", 1)]
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    assert len(current) == 1
    with pytest.raises(fastgan.FastganError, match="'cuda:2' asked for, but torch sees 2 GPUs"):
        pick_device("cuda:2")


def test_devices_that_are_not_there_are_refused():
    with pytest.raises(fastgan.FastganError, match="unknown device 'tpu'"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(fastgan.FastganError, match="torch sees no GPU"):
            pick_device("cuda")
