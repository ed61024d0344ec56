"""A GPU that is not there: a training step runs through, launches are noted, nothing is computed.

Inside :class:`FakeGpu` every tensor says `cuda:0`. Operators only work out shapes (on PyTorch's
meta device) and hand out memory that nobody writes, so a step of any size takes seconds. Triton's
launches are noted; with a `target` each kernel is compiled for it as on the day, which shows
registers and spills and fills Triton's cache.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastgan.errors import FastganError
from fastgan.kernels.common import INTERPRET, has_triton
from fastgan.ops import dispatch
from fastgan.verify.aot import SHARED_LIMIT

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SEEN_AS = {
    80: ("NVIDIA A100", 108),
    89: ("NVIDIA L4", 58),
    90: ("NVIDIA H100", 132),
    100: ("NVIDIA B200", 148),
}
"""Name and multiprocessors that a target shows to launchers."""


@dataclass(frozen=True)
class Kernel:
    """A Triton launch: tensors are those among its arguments; compiled is Triton's own kernel, if
    it was compiled."""

    name: str
    module: str
    grid: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    compiled: Any = None


@dataclass(frozen=True)
class Operator:
    """A PyTorch operator that launches something. given, made: the tensors it reads and returns;
    written: those among given that it changes. result: as it was returned.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: tuple[Tensor, ...]
    written: tuple[Tensor, ...]
    made: tuple[Tensor, ...]
    result: Any


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dicts, and under Triton's descriptors."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif hasattr(value, "block_shape"):
        yield value.base


class _Hollow(TorchDispatchMode):
    """Operators give memory of the right shape, type and layout, and compute nothing."""

    def __init__(self, note: Callable[[Operator], None]) -> None:
        super().__init__()
        self.note = note
        self.bare = False  # while shapes are worked out, tensors say where they really are

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if "device" in kwargs:
            kwargs["device"] = CPU
        kwargs.pop("pin_memory", None)
        if func.namespace == "aten" and func.has_kernel_for_dispatch_key(
            torch._C.DispatchKey.CompositeImplicitAutograd
        ):
            # below autograd, inside registered operators, what is made of other operators comes
            # whole
            with self:
                return func.decompose(*args, **kwargs)
        if func.namespace == "fastgan":
            with self:  # product code: its own launches are seen
                return func.redispatch(
                    torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs
                )
        schema = func._schema
        name = schema.name.partition("::")[2]
        returns = [r.alias_info for r in schema.returns]
        if (
            func.namespace != "aten"
            or name in ("set_", "resize_", "lift_fresh", "_local_scalar_dense")
            or _views(returns)
        ):
            return func(*args, **kwargs)
        written = [
            args[i] if i < len(args) else kwargs.get(a.name)
            for i, a in enumerate(schema.arguments)
            if a.alias_info is not None and a.alias_info.is_write
        ]
        if returns and all(r is not None for r in returns):
            result = written[0] if len(written) == 1 else tuple(written)
        elif not returns:
            result = None
        else:
            result = self._shaped(func, args, kwargs)
        if not name.startswith(("empty", "new_empty", "_unsafe_view", "_reshape_alias")):
            made = tuple(tensors(result)) if result is not None and not written else ()
            given = tuple(tensors((args, kwargs)))
            self.note(Operator(func, args, kwargs, given, tuple(tensors(written)), made, result))
        return result

    def _shaped(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What the operator would return, unwritten."""
        last = any(
            t.dim() == 4
            and t.is_contiguous(memory_format=torch.channels_last)
            and not t.is_contiguous()
            for t in tensors(args)
        )
        meta = {**_meta(kwargs), **({"device": torch.device("meta")} if "device" in kwargs else {})}
        if "generator" in meta:
            meta["generator"] = None
        self.bare = True
        try:
            found = func(*_meta(args), **meta)
        finally:
            self.bare = False

        def real(value: Any) -> Any:
            if isinstance(value, Tensor):
                if value.dim() == 4 and last and func.__name__.startswith("convolution"):
                    value = value.contiguous(
                        memory_format=torch.channels_last
                    )  # as cuDNN lays it out
                return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
            if isinstance(value, (list, tuple)):
                return type(value)(real(v) for v in value)
            return value

        return real(found)


def _views(returns: list[Any]) -> bool:
    return bool(returns) and all(r is not None and not r.is_write for r in returns)


def _meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, (list, tuple)):
        return type(value)(_meta(v) for v in value)
    if isinstance(value, dict):
        return {k: _meta(v) for k, v in value.items()}
    return value


class _Utilities:
    """What Triton asks of a driver when it loads a kernel."""

    def __init__(self, number: int) -> None:
        self.number = number

    def load_binary(
        self, name: str, kernel: bytes, shared: int, device: int
    ) -> tuple[int, str, int, int, int]:
        return 1, name, 0, 0, 1024

    def unload_module(self, module: Any) -> None:
        return None

    def get_device_properties(self, device: int) -> dict[str, int]:
        shared = SHARED_LIMIT[f"sm_{self.number}"]
        return {
            "max_shared_mem": shared,
            "max_num_regs": 65536,
            "multiprocessor_count": SEEN_AS[self.number][1],
            "warpSize": 32,
        }


class _Launcher:
    def __init__(self, source: Any, metadata: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> None:
        return None


class _Driver:
    """Triton's driver of a target: it compiles, and launches nothing."""

    launcher_cls = _Launcher

    def __init__(self, number: int) -> None:
        self.number, self.utils = number, _Utilities(number)

    def get_current_device(self) -> int:
        return self.number  # Triton keeps compiled kernels by device: one a target

    def set_current_device(self, device: int) -> None:
        return None

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.number, 32)

    def get_active_torch_device(self) -> torch.device:
        return CUDA

    def get_device_interface(self) -> Any:
        return torch.cuda

    def map_python_to_cpp_type(self, name: str) -> str:
        from triton.backends.nvidia.driver import ty_to_cpp

        return str(ty_to_cpp(name))

    @classmethod
    def is_active(cls) -> bool:
        return True


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


class FakeGpu:
    """A context in which there is a GPU of this target and nothing runs on it. note: called with
    each Kernel and Operator.
    `capturing`: what torch.cuda.is_current_stream_capturing says.

    compile: every kernel is compiled for the target. Not for use beside real work: tensors of the
    whole process say `cuda`. Raises FastganError in Triton's interpreter, on a machine with a GPU,
    and for a target that is not known.
    """

    def __init__(
        self,
        note: Callable[[Kernel | Operator], None],
        target: str = "sm_90",
        compile: bool = False,
    ) -> None:
        if torch.cuda.is_available():
            raise FastganError(
                "launches are counted without a GPU: hide it with CUDA_VISIBLE_DEVICES="
            )
        if not has_triton or INTERPRET:
            raise FastganError(
                "launches are counted with Triton installed and TRITON_INTERPRET unset"
            )
        numbers = [f"sm_{n}" for n in SEEN_AS]
        if target not in numbers:
            raise FastganError(f"unknown target {target!r}: choose from {', '.join(numbers)}")
        self.note, self.number, self.compile = note, int(target.removeprefix("sm_")), compile
        self.capturing = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> FakeGpu:
        with contextlib.ExitStack() as stack:
            hollow = _Hollow(self.note)
            for where, name, value in self._changes(hollow):
                stack.enter_context(mock.patch.object(where, name, value, create=True))
            stack.callback(self._forget)
            self._forget()
            stack.enter_context(hollow)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @staticmethod
    def _forget() -> None:
        """Choices of engines are kept by device."""
        dispatch.missing.cache_clear()
        for chooser in dispatch.DISPATCHERS.values():
            chooser.forget()

    def _changes(self, hollow: _Hollow) -> list[tuple[Any, str, Any]]:
        import triton
        from triton.runtime import jit

        name, units = SEEN_AS[self.number]
        facts = types.SimpleNamespace(
            name=f"{name} (not there)",
            major=self.number // 10,
            minor=self.number % 10,
            multi_processor_count=units,
            shared_memory_per_block_optin=SHARED_LIMIT[f"sm_{self.number}"],
            L2_cache_size=50 << 20,
            total_memory=80 << 30,
        )
        generator = torch.Generator()
        enabled, autocast_type, depth = (
            torch.is_autocast_enabled,
            torch.get_autocast_dtype,
            torch._C._len_torch_dispatch_stack,
        )
        run = jit.JITFunction.run
        cuda: dict[str, Any] = {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "synchronize": lambda device=None: None,
            "get_device_capability": lambda device=None: (facts.major, facts.minor),
            "get_device_properties": lambda device=None: facts,
            "get_device_name": lambda device=None: facts.name,
            "default_generators": (generator,),
            "is_current_stream_capturing": lambda: self.capturing,
            "empty_cache": lambda: None,
            "get_rng_state": lambda device=None: generator.get_state(),
            "set_rng_state": lambda state, device=None: None,
            "manual_seed_all": lambda seed: None,
            "mem_get_info": lambda device=None: (facts.total_memory, facts.total_memory),
        }
        base: Any = torch._C.TensorBase

        def moved(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
            other = args[0] if args and isinstance(args[0], Tensor) else kwargs.pop("other", None)
            _, kind, waits, form = torch._C._nn._parse_to(
                *((other.dtype, *args[1:]) if other is not None else args), **kwargs
            )
            return base.to(
                tensor,
                dtype=kind or tensor.dtype,
                non_blocking=waits,
                copy=copy,
                memory_format=form,
            )

        def launch(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
            compiled = (
                run(kernel, *args, grid=grid, warmup=warmup, **kwargs) if self.compile else None
            )
            bound = dict(zip(kernel.arg_names, args)) | kwargs
            size = grid(bound) if callable(grid) else grid
            seen = tuple(tensors(list(bound.values())))
            self.note(Kernel(kernel.__name__, kernel.fn.__module__, tuple(size), seen, compiled))
            return compiled

        def here(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
            return lambda *args, device=None, pin_memory=False, **kwargs: make(*args, **kwargs)

        return [
            *(
                (torch, key, here(getattr(torch, key)))
                for key in ("tensor", "as_tensor", "asarray")
            ),
            *((torch.cuda, key, value) for key, value in cuda.items()),
            (torch.backends.cudnn, "is_available", lambda: True),
            (
                torch.Tensor,
                "device",
                property(lambda t: base.device.__get__(t) if hollow.bare else CUDA),
            ),
            (torch.Tensor, "is_cuda", property(lambda t: not hollow.bare)),
            (torch.Tensor, "is_cpu", property(lambda t: hollow.bare and base.is_cpu.__get__(t))),
            (torch.Tensor, "get_device", lambda t: base.get_device(t) if hollow.bare else 0),
            (torch.Tensor, "to", moved),
            (torch, "autocast", _Autocast),
            (torch, "is_autocast_enabled", lambda device_type="cpu": enabled("cpu")),
            (torch, "get_autocast_dtype", lambda device_type: autocast_type("cpu")),
            (torch._C, "_len_torch_dispatch_stack", lambda: max(0, depth() - 1)),
            (triton.runtime.driver, "_active", _Driver(self.number)),
            (jit.JITFunction, "run", launch),
        ]
