"""The functions of torch.cuda, torch.accelerator, autocast and cuDNN's switch, as on a machine with
one H100."""

from __future__ import annotations

import types
from typing import Any

import torch

from mock_cuda import streams
from mock_cuda.memory import CUDA

NAME = "Mock H100"
PROPERTIES = types.SimpleNamespace(
    name=NAME,
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=80 << 30,
    L2_cache_size=50 << 20,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    warp_size=32,
    uuid="00000000-0000-0000-0000-000000000000",
    gcnArchName="",
)


def _set_states(states: Any) -> None:
    for state in states:
        streams.GENERATOR.set_state(state)


def _seed(seed: int) -> None:
    streams.GENERATOR.manual_seed(int(seed))


CUDA_FUNCTIONS: dict[str, Any] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "init": lambda: None,
    "_lazy_init": lambda: None,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "get_device_name": lambda device=None: NAME,
    "get_device_capability": lambda device=None: (9, 0),
    "get_device_properties": lambda device=None: PROPERTIES,
    "get_arch_list": lambda: ["sm_90"],
    "is_bf16_supported": lambda including_emulation=True: True,
    "Stream": streams.Stream,
    "Event": streams.Event,
    "CUDAGraph": streams.CUDAGraph,
    "stream": streams.stream,
    "current_stream": streams.current,
    "default_stream": lambda device=None: streams.DEFAULT,
    "synchronize": streams.synchronize,
    "is_current_stream_capturing": lambda: streams.current().capture is not None,
    "graph_pool_handle": streams.graph_pool_handle,
    "empty_cache": lambda: None,
    "reset_peak_memory_stats": lambda device=None: None,
    "memory_allocated": lambda device=None: 0,
    "max_memory_allocated": lambda device=None: 1 << 20,
    "memory_reserved": lambda device=None: 1 << 20,
    "max_memory_reserved": lambda device=None: 1 << 20,
    "mem_get_info": lambda device=None: (79 << 30, 80 << 30),
    "default_generators": (streams.GENERATOR,),
    "manual_seed": _seed,
    "manual_seed_all": _seed,
    "seed_all": lambda: streams.GENERATOR.seed(),
    "initial_seed": lambda: streams.GENERATOR.initial_seed(),
    "get_rng_state": lambda device=None: streams.GENERATOR.get_state(),
    "set_rng_state": lambda state, device=None: streams.GENERATOR.set_state(state),
    "get_rng_state_all": lambda: [streams.GENERATOR.get_state()],
    "set_rng_state_all": _set_states,
}

ACCELERATOR_FUNCTIONS: dict[str, Any] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_accelerator": lambda check_available=False: torch.device("cuda"),
    "current_device_index": lambda: 0,
    "current_stream": streams.current,
    "synchronize": streams.synchronize,
}


def _kind(device_type: str) -> str:
    return "cpu" if device_type == "cuda" else device_type


class Autocast(torch.autocast):
    """Autocast of the GPU is the CPU's, whose tensors these are."""

    def __init__(
        self, device_type: str, dtype: torch.dtype | None = None, *args: Any, **kwargs: Any
    ) -> None:
        if device_type == "cuda" and dtype is None:
            dtype = torch.float16
        super().__init__(_kind(device_type), dtype, *args, **kwargs)


def install() -> None:
    import torch._dynamo
    import torch._inductor
    import torch.utils.data
    import torch.utils.flop_counter

    for name, value in CUDA_FUNCTIONS.items():
        setattr(torch.cuda, name, value)
    for name, value in ACCELERATOR_FUNCTIONS.items():
        if hasattr(torch.accelerator, name):
            setattr(torch.accelerator, name, value)
    torch.Generator = streams.Generator
    torch._C._host_emptyCache = lambda: None
    torch._C._cuda_getDriverVersion = lambda: 13000
    torch.autocast = torch.amp.autocast = Autocast
    enabled, dtype = torch.is_autocast_enabled, torch.get_autocast_dtype
    torch.is_autocast_enabled = lambda device_type="cpu": enabled(_kind(device_type))
    torch.get_autocast_dtype = lambda device_type: dtype(_kind(device_type))
    torch.backends.cudnn.is_available = lambda: True
    torch.backends.cudnn.version = lambda: 91002
    assert torch.device("cuda") != CUDA
