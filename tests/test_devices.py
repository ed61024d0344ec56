"""Which device a run uses."""

import pytest
import torch
from run_support import generator, tiny
from torch import nn

import fastgan
from fastgan.devices import pick_device


def test_a_gpu_given_by_number_becomes_the_current_one(monkeypatch):
    """Kernels are launched, and graphs captured, on torch's current device, whatever device their
    tensors are on."""
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


@pytest.mark.parametrize("where", ["networks", "data"])
def test_memory_that_runs_out_before_the_first_step_says_what_to_lower(
    where, tmp_path, monkeypatch
):
    class Hungry(nn.Conv2d):
        def forward(self, x):
            if where == "networks":
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."
                )
            return super().forward(x)

    def full(*_):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"
        )

    if where == "data":
        monkeypatch.setattr("fastgan.data.streaming._tensor", full)
    with pytest.raises(
        fastgan.FastganError, match=r"^out of memory at batch size 8: lower --batch-size \(try 4\)"
    ):
        tiny(tmp_path / "run", nets={"G": generator(), "D": Hungry(1, 1, 8)})
    assert list(tmp_path.iterdir()) == []
