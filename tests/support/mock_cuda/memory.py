"""Where a tensor lies: a table of storages, and the dispatch mode that keeps it. What tensors say of
it is in tensor_methods.py."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from mock_cuda import streams

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
ATEN = torch.ops.aten
BASE = torch._C.TensorBase


class Record:
    """A storage that is not plain host memory: `place` is "cuda" or "pinned"; who wrote and read it
    last, for the order."""

    def __init__(self, storage: torch.UntypedStorage, place: str) -> None:
        self.ref = StorageWeakRef(storage)
        self.place = place
        self.written: tuple[streams.Stream, int] | None = None
        self.read: dict[streams.Stream, int] = {}


_RECORDS: dict[int, Record] = {}
_LOCK = threading.Lock()
_below = threading.local()


def record(tensor: Tensor) -> Record | None:
    """The record of a tensor's storage; None for plain host memory and for tensors without
    storage."""
    if getattr(_below, "depth", 0):
        return None
    try:
        found = _RECORDS.get(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None
    return None if found is None or found.ref.expired() else found


def place(tensor: Tensor) -> str:
    found = record(tensor)
    return "host" if found is None else found.place


def _parts(func: Any, name: str, args: Any, kwargs: Any) -> Callable[[], Any] | None:
    """What an operator is made of, where the mode has to see that instead."""
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    if func.namespace == "aten" and func.has_kernel_for_dispatch_key(composite):
        # below autograd, inside registered operators, it comes whole
        return lambda: func.decompose(*args, **kwargs)
    if name == "convolution" and args[2] is not None and place(args[0]) == "cuda":
        # cuDNN leaves the bias to ATen: its result is rounded before it is added
        bias = args[2].reshape(-1, *[1] * (args[0].dim() - 2))
        return lambda: func(*args[:2], None, *args[3:]).add_(bias)
    return None


def mark(tensor: Tensor, where: str) -> Record | None:
    """Notes that a tensor's memory lies on the GPU or is pinned."""
    try:
        storage = tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None
    with _LOCK:
        if len(_RECORDS) % 4096 == 4095:
            for key in [key for key, kept in _RECORDS.items() if kept.ref.expired()]:
                del _RECORDS[key]
        made = _RECORDS[storage._cdata] = Record(storage, where)
    return made


@contextlib.contextmanager
def below() -> Iterator[None]:
    """What happens inside is the mock's own: tensors are the host tensors they really are."""
    _below.depth = getattr(_below, "depth", 0) + 1
    try:
        with _disable_current_modes():
            yield
    finally:
        _below.depth -= 1


def flat(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from flat(item)
    elif isinstance(value, dict):
        yield from flat(list(value.values()))


_CROSSING = {
    "copy_",
    "_to_copy",
    "set_",
    "_foreach_copy_",
    "index",
    "index_put",
    "index_put_",
    "_index_put_impl_",
}
_HOST_WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
}
_NOT_REPEATED = {"set_", "resize_", "lift_fresh", "detach", "alias"}


class Device(TorchDispatchMode):
    """Follows GPU tensors through operators, orders them on streams, and refuses what CUDA
    refuses."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.namespace in ("prim", "profiler"):
            return func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        parts = _parts(func, name, args, kwargs)
        if parts is not None:
            with self:
                return parts()
        pinned = kwargs.pop("pin_memory", False)
        asked = kwargs.get("device")
        given = [(t, record(t)) for t in flat((args, kwargs))]
        inside = any(r is not None and r.place == "cuda" for _, r in given)
        on_gpu = inside if asked is None else meant(asked, inside, bool(given)).type == "cuda"
        if given:
            _below.last = inside
        if asked is not None:
            kwargs["device"] = CPU
        if func.namespace == "fastgan" and on_gpu:
            with (
                self
            ):  # the body of a registered operator is product code: what it does is seen too
                return func.redispatch(
                    torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs
                )
        if not (inside or on_gpu or pinned):
            self._host_writes(func, given, args)
            return func(*args, **kwargs)
        stream = streams.current()
        if name in _CROSSING:
            self._cross(name, args, kwargs, on_gpu, stream)
        elif inside and any(t.dim() and (r is None or r.place != "cuda") for t, r in given):
            devices = (
                "Expected all tensors to be on the same device, but found at least two "
                "devices, cuda:0 and cpu!"
            )
            raise RuntimeError(f"{devices} ({func})")
        if inside and (name in _HOST_WAITS or (name == "index" and _by_mask(args[1]))):
            stream.host_waits(name)
        if pinned:
            streams.allocates(stream, "cudaHostAlloc")
        written = [t for t in _written(func, args, kwargs) if place(t) == "cuda"]
        stream.orders(
            [r for _, r in given if r is not None],
            [r for t in written if (r := record(t)) is not None],
        )
        capture = stream.capture
        if capture is not None:
            capture.keep(written)
        with _drawing(func, kwargs) if on_gpu else contextlib.nullcontext():
            result = func(*args, **kwargs)
        known = {r.ref.cdata for _, r in given if r is not None}
        fresh = []
        for t in flat(result):
            if (r := record(t)) is None or r.ref.cdata not in known:
                fresh.append(t)
        for t in fresh:
            if any(t is mine for mine, _ in given) or _shares(t, given) or not (pinned or on_gpu):
                continue
            if on_gpu:
                streams.allocates(stream, "cudaMalloc")
            made = mark(t, "pinned" if pinned else "cuda")
            if made is not None:
                made.written = (stream, stream.ticks)
                if capture is not None:
                    capture.written[made] = None
        if capture is not None and on_gpu and not _is_view(func) and name not in _NOT_REPEATED:
            capture.add(func, args, kwargs, result)
        return result

    def _host_writes(self, func: Any, given: list, args: Any) -> None:
        """Host code must not write pinned memory that a copy may still be reading."""
        if any(r is not None for _, r in given):
            for t in _written(func, args, {}):
                untouched(t)

    def _cross(
        self, name: str, args: Any, kwargs: Any, on_gpu: bool, stream: streams.Stream
    ) -> None:
        """A copy between host and GPU: asynchronous from or to pinned memory, else the host waits
        for it."""
        if name == "copy_":
            target, source = place(args[0]), place(args[1])
            waits = not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking")
        elif name == "_to_copy":
            target, source = "cuda" if on_gpu else "host", place(args[0])
            waits = not kwargs.get("non_blocking")
        elif name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            if place(args[0]) == "cuda" and any(
                i is not None and i.dim() and place(i) == "host" for i in args[1]
            ):
                stream.host_waits(f"{name} by an index in host memory")
            return
        else:
            return
        if (target == "cuda") == (source == "cuda"):
            return
        one_value = (
            name == "copy_" and target == "cuda" and args[1].dim() == 0 and args[1].numel() == 1
        )
        if "pinned" in (target, source) and not waits:
            stream.reads_host(args[1] if name == "copy_" else args[0])
        elif stream.capture is not None or not one_value:
            stream.host_waits(f"a copy from {source} to {target}")


def untouched(tensor: Tensor) -> None:
    """Raises where the host touches pinned memory before it waited for the copy that reads it."""
    found = record(tensor)
    if found is not None and found.place == "pinned":
        for stream, tick in found.read.items():
            if streams.host_knows(stream) < tick:
                raise RuntimeError(
                    "mock CUDA: the host takes pinned memory that a copy may still be reading"
                )


def _by_mask(indices: Any) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operator changes."""
    found = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += list(flat(args[i] if i < len(args) else kwargs.get(argument.name)))
    return found


def _is_view(func: Any) -> bool:
    """Whether results alias arguments that are not written: nothing is launched."""
    returns = func._schema.returns
    return bool(returns) and all(
        r.alias_info is not None and not r.alias_info.is_write for r in returns
    )


def _shares(tensor: Tensor, given: list) -> bool:
    try:
        mine = tensor.untyped_storage()._cdata
        return any(mine == t.untyped_storage()._cdata for t, _ in given)
    except (NotImplementedError, RuntimeError):
        return True


def _drawing(func: Any, kwargs: Any) -> contextlib.AbstractContextManager[None]:
    """Random operators on the GPU draw from the GPU's generator: it is given them, or takes the
    default one's place."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return contextlib.nullcontext()
    streams.GENERATOR.draws()
    if kwargs.get("generator") is not None:
        if streams.device_of(kwargs["generator"]).type != "cuda":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    elif any(a.name == "generator" for a in func._schema.arguments):
        kwargs["generator"] = streams.GENERATOR
    else:
        return streams.in_the_defaults_place()
    return contextlib.nullcontext()


def meant(asked: Any, inside: bool, given: bool) -> torch.device:
    """The device that is meant: C++ asks for memory where its arguments really lie, which is the
        host. In backward it does so
    without arguments too: there the operator before tells.
    """
    asked = torch.device(asked)
    if asked.type != "cpu" or getattr(_below, "leaves", False):
        return asked
    in_backward = (
        not given and torch._C._current_graph_task_id() != -1 and getattr(_below, "last", False)
    )
    return CUDA if inside or in_backward else asked


def _told(dispatch: Any) -> Any:
    """A dispatch mode of others, told the device that is meant."""

    def told(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kwargs and kwargs.get("device") is not None:
            places = [place(t) for t in flat((args, kwargs))]
            kwargs = {**kwargs, "device": meant(kwargs["device"], "cuda" in places, bool(places))}
        return dispatch(self, func, types, args, kwargs)

    told.__code__ = told.__code__.replace(
        co_filename="/torch/mock_cuda"
    )  # who looks for the caller's line skips torch
    return told


def _grouped(group: Any) -> Any:
    """Optimisers group tensors by device, in C++, which knows where they really lie."""

    def function(lists: Any, *rest: Any) -> Any:
        found = {}
        for (device, dtype), (columns, indices) in group(lists, *rest).items():
            on_gpu = any(t is not None and place(t) == "cuda" for t in columns[0])
            found[CUDA if on_gpu else device, dtype] = (columns, indices)
        return found

    return function


def _subclass(cls: type, **options: Any) -> None:
    super(TorchDispatchMode, cls).__init_subclass__(**options)
    if "__torch_dispatch__" in cls.__dict__:
        cls.__torch_dispatch__ = _told(cls.__dict__["__torch_dispatch__"])


MODE = Device()


@contextlib.contextmanager
def followed() -> Iterator[None]:
    """The mode, in threads that do not have it."""
    stack = torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    if getattr(_below, "depth", 0) or any(mode is MODE for mode in stack):
        yield
    else:
        with MODE:
            yield


def _deepcopy(self: torch.UntypedStorage, memo: dict) -> torch.UntypedStorage:
    made = _REAL_STORAGE_DEEPCOPY(self, memo)
    found = _RECORDS.get(self._cdata)
    if found is not None and not found.ref.expired():
        with _LOCK:
            _RECORDS[made._cdata] = Record(made, found.place)
    return made


_REAL_STORAGE_DEEPCOPY = torch.UntypedStorage.__deepcopy__


def install() -> None:
    torch.UntypedStorage.__deepcopy__ = _deepcopy
    # fastgan asks for a dispatch mode to keep its fast paths from tracers: this one is the machine,
    # not a tracer.
    depth = torch._C._len_torch_dispatch_stack
    torch._C._len_torch_dispatch_stack = lambda: (
        depth()
        - any(
            mode is MODE for mode in torch.utils._python_dispatch._get_current_dispatch_mode_stack()
        )
    )
    torch._C._group_tensors_by_device_and_dtype = _grouped(
        torch._C._group_tensors_by_device_and_dtype
    )
    TorchDispatchMode.__init_subclass__ = classmethod(_subclass)
    MODE.__enter__()
