"""Networks and objectives as JSON: class and constructor arguments, so that a run can be loaded
without the script that made it and without pickle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn.utils import parametrizations

from fastgan.errors import FastganError, printable
from fastgan.objectives.base import Objective
from fastgan.runs import imports

CONTAINERS = {nn.Sequential: "Sequential", nn.ModuleList: "ModuleList", nn.ModuleDict: "ModuleDict"}


MOVED = {
    "fastgan.objectives.objective": "fastgan.objectives.base",
    "fastgan.engine.optim": "fastgan.trainer.optimization.optimizers",
    "fastgan.nn.norm": "fastgan.ops.norm.modules",
    "fastgan.nn.conv": "fastgan.ops.conv.modules",
    "fastgan.nn.sync_norm": "fastgan.ops.norm.sync",
}
"""Modules under their names of before version 0.2, as runs of that time have them."""

OURS = (
    "fastgan.models.",
    "fastgan.ops.norm.modules",
    "fastgan.ops.norm.sync",
    "fastgan.ops.conv.modules",
    "fastgan.ops.resample",
    "fastgan.objectives.",
    "fastgan.media.",
    "fastgan.data.tables.columns",
)
"""Packages whose networks, objectives, media and schedules are made from any run."""

LAYERS = frozenset(
    """
    Identity Linear Bilinear Flatten Unflatten Embedding EmbeddingBag Fold Unfold
    Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d
    BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d
    GroupNorm LayerNorm RMSNorm
    LocalResponseNorm CrossMapLRN2d
    ReLU ReLU6 LeakyReLU PReLU RReLU ELU CELU SELU GELU GLU SiLU Mish Sigmoid Tanh Softplus
    Softsign Softmax Softmax2d Softmin
    LogSoftmax LogSigmoid Softshrink Hardshrink Tanhshrink Hardtanh Hardsigmoid Hardswish
    Threshold
    Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout
    MaxPool1d MaxPool2d MaxPool3d AvgPool1d AvgPool2d AvgPool3d LPPool1d LPPool2d
    AdaptiveAvgPool1d AdaptiveAvgPool2d
    AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d
    ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d
    ReplicationPad3d ZeroPad1d ZeroPad2d
    ZeroPad3d ConstantPad1d ConstantPad2d ConstantPad3d CircularPad1d CircularPad2d CircularPad3d
    PixelShuffle PixelUnshuffle ChannelShuffle Upsample UpsamplingNearest2d UpsamplingBilinear2d
    CosineSimilarity
    """.split()  # noqa: SIM905  (a table that is read by eye)
)
"""Classes of torch.nn that are made from any run: their constructors take plain values, and call
none of them."""


class NotSerializable(Exception):
    """Why an object can't be rebuilt from its class and attributes."""


def serialize(value: Any) -> Any:
    """JSON for a module, dataclass, function or plain value. Raises NotSerializable.

    A constructor argument is read from the attribute of the same name (as torch.nn's own modules
    keep them), falling back to its default.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return {"$tuple" if isinstance(value, tuple) else "$list": [serialize(v) for v in value]}
    if isinstance(value, dict):
        return {"$dict": [[serialize(k), serialize(v)] for k, v in value.items()]}
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if type(value) in CONTAINERS:
        children = list(value.named_children())
        return {
            "$container": CONTAINERS[type(value)],
            "children": [[name, serialize(child)] for name, child in children],
        }
    if inspect.isfunction(value) or inspect.isclass(value):
        if "<" in value.__qualname__:
            raise NotSerializable(f"{value.__qualname__} is a local function or class")
        return {"$name": f"{value.__module__}:{value.__qualname__}"}
    if isinstance(value, nn.Module) and torch.nn.utils.parametrize.is_parametrized(value):
        raise NotSerializable(f"{type(value).__name__} is parametrized (such as by spectral_norm)")
    return {"$object": _name(type(value)), "args": _arguments(value)}


def _name(cls: type) -> str:
    if "<" in cls.__qualname__:
        raise NotSerializable(f"class {cls.__qualname__} is local to a function")
    return f"{cls.__module__}:{cls.__qualname__}"


def _arguments(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: serialize(getattr(value, f.name))
            for f in dataclasses.fields(value)
            # of a field that runs from before it do not have, the default says nothing
            if f.init and not (f.metadata.get("later") and getattr(value, f.name) == f.default)
        }
    arguments = {}
    for name, parameter in inspect.signature(type(value).__init__).parameters.items():
        if (
            name == "self"
            or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            or name in ("device", "dtype")
        ):
            continue
        if hasattr(value, name) and not inspect.ismethod(getattr(value, name)):
            kept = getattr(value, name)
            if name == "bias" and (kept is None or isinstance(kept, torch.Tensor)):
                kept = kept is not None
            elif name == "output_padding" and not getattr(value, "transposed", True):
                continue
            if isinstance(kept, torch.Tensor):
                raise NotSerializable(f"{type(value).__name__}.{name} is a tensor")
            arguments[name] = serialize(kept)
        elif parameter.default is parameter.empty:
            raise NotSerializable(
                f"{type(value).__name__}.__init__ takes {name!r}, but the object keeps no "
                "attribute of that name"
            )
    return arguments


class Untrusted(FastganError):
    """A run names code that is neither fastgan's nor on the list of layers."""


def find(name: Any, folders: Mapping[str, str] | None = None) -> Any:
    """The class named "module:qualified.name": of fastgan or LAYERS; of any module only for those
    who trust the run.

    folders: None: not trusted. Else where its modules lay when it was trained, see imports.find.
        Raises FastganError.
    """
    module, _, path = str(name).partition(":")
    module = MOVED.get(module, module)
    if module.startswith("torch.nn.") and path in LAYERS:
        return getattr(nn, path)
    if module.startswith(OURS):
        cls = vars(importlib.import_module(module)).get(path)
        if isinstance(cls, type) and cls.__module__ == module and makeable(cls):
            return cls
    if folders is None:
        raise Untrusted(
            f"run.json names {printable(str(name))}, code that is neither fastgan's nor a layer of "
            "torch.nn. If you know"
            " where the run comes from, trust it (add --trust to the command, or trust=True to "
            "load and sample),"
            " or pass the network itself, load(path, generator=net)"
        )
    try:
        return imports.find(str(name), folders)
    except FastganError:
        raise
    except Exception as error:  # importing runs the user's own code
        was = folders.get(module.partition(".")[0])
        raise FastganError(
            f"can't find {printable(str(name))} "
            f"({' '.join(str(error).split())}){f', which lay in {was}' if was else ''}:"
            " put the folder that has it on PYTHONPATH, or pass the network itself, load(path, "
            "generator=net)"
        ) from error


def makeable(cls: type) -> bool:
    return issubclass(cls, (nn.Module, Objective)) or dataclasses.is_dataclass(cls)


def rebuild(spec: Any, folders: Mapping[str, str] | None = None) -> Any:
    """The inverse of `describe`; modules come with fresh weights.

    folders: None makes nothing but fastgan's own classes and LAYERS; a mapping, as for `find`,
    whatever the description names. Raises FastganError, also for what `describe` never gives.
    """
    try:
        return _rebuild(spec, folders)
    except FastganError:
        raise
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise FastganError(
            f"run.json is damaged: a description can't be followed ({type(error).__name__}: {why})"
        ) from error


def _rebuild(spec: Any, folders: Mapping[str, str] | None) -> Any:
    if not isinstance(spec, dict):
        return spec
    if "$tuple" in spec:
        return tuple(_rebuild(v, folders) for v in spec["$tuple"])
    if "$list" in spec:
        return [_rebuild(v, folders) for v in spec["$list"]]
    if "$dict" in spec:
        return {_rebuild(k, folders): _rebuild(v, folders) for k, v in spec["$dict"]}
    if "$dtype" in spec:
        if not isinstance(dtype := getattr(torch, spec["$dtype"]), torch.dtype):
            raise TypeError(f"{spec['$dtype']} is no dtype")
        return dtype
    if "$name" in spec:
        return find(spec["$name"], folders)
    if "$container" in spec:
        made = {name: cls for cls, name in CONTAINERS.items()}[spec["$container"]]()
        for name, child in spec["children"]:
            made.add_module(name, _rebuild(child, folders))
        return made
    cls = find(spec["$object"], folders)
    if not (isinstance(cls, type) and makeable(cls)):
        raise FastganError(
            f"{printable(spec['$object'])} is no network, objective or dataclass: it is not made "
            "from a file"
        )
    arguments = {name: _rebuild(value, folders) for name, value in spec["args"].items()}
    try:
        return cls(**arguments)
    except Exception as error:  # the constructor may be the user's own
        raise FastganError(
            f"can't make {printable(spec['$object'])} again: {' '.join(str(error).split())}"
        ) from error


def foreign(value: Any) -> Iterator[str]:
    """Names in a JSON tree of the modules of classes and functions that only those who trust a run
    may have imported."""
    if isinstance(value, dict):
        for key in ("$object", "$name"):
            if key in value:
                try:
                    find(value[key])
                except Untrusted:
                    yield value[key].partition(":")[0]
    for inner in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from foreign(inner)


def import_named(spec: Any, folders: Mapping[str, str] | None) -> None:
    """Imports what `rebuild` of this would: a module that is imported within `shapes_alone` keeps
    tensors without memory. What can't be imported is left for `rebuild` to say."""
    if isinstance(spec, dict):
        for key in ("$object", "$name"):
            if key in spec:
                with contextlib.suppress(Exception):
                    find(spec[key], folders)
    inside = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ()
    for value in inside:
        import_named(value, folders)


_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
    """Within it networks are made without memory, on the meta device, and without what orthogonal
    weights and spectral norm would compute there: a second a network, in Python. Nor is drawn or
    normalised what is Python there and imports torch.compile's parts, for three seconds."""
    with (
        _one_at_a_time,
        torch.device("meta"),
        _left_out(nn.init, "orthogonal_", result=lambda weight: weight),
        _left_out(torch.Tensor, "normal_", result=lambda weight: weight),
        _left_out(nn.functional, "normalize", result=torch.Tensor.clone),
        _left_out(parametrizations._SpectralNorm, "_power_method", result=lambda weight: None),
        _left_out(parametrizations._SpectralNorm, "forward", result=torch.Tensor.clone),
    ):
        yield


@contextlib.contextmanager
def _left_out(owner: Any, name: str, result: Callable[[torch.Tensor], Any]) -> Iterator[None]:
    """A function of `owner` does nothing to tensors that have no memory."""
    real = getattr(owner, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        tensor = next((a for a in args if isinstance(a, torch.Tensor)), None)
        if tensor is None or not tensor.is_meta or kwargs.get("out") is not None:
            return real(*args, **kwargs)
        return result(tensor)

    with mock.patch.object(owner, name, function):
        yield


def serialize_network(module: nn.Module) -> dict[str, Any]:
    """{"spec": ...} where the module can be made again with the same state_dict keys and shapes,
    else {"why_not": reason}."""
    try:
        spec = serialize(module)
        with shapes_alone():
            again = rebuild(spec, {})
    except Exception as error:
        return {"why_not": str(error).splitlines()[0] if str(error) else type(error).__name__}
    mine = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    if mine != {key: tuple(value.shape) for key, value in again.state_dict().items()}:
        return {
            "why_not": f"{type(module).__name__}(...) made from its attributes has other "
            "parameters than this one"
        }
    if (difference := unlike(module, again)) is not None:
        return {
            "why_not": f"{type(module).__name__}(...) made from its attributes differs in "
            f"{difference}"
        }
    return {"spec": spec}


def unlike(mine: nn.Module, again: nn.Module, prefix: str = "") -> str | None:
    """The first place where two modules differ in class, children or a plain attribute, or None.

    A constructor argument that is kept under another name, and so was rebuilt from its default,
    shows itself here.
    """
    if class_name(mine) != class_name(again):
        return f"{prefix or 'class'}: {type(again).__name__} for {type(mine).__name__}"
    children, others = dict(mine.named_children()), dict(again.named_children())
    if list(children) != list(others):
        return f"the parts of {prefix or type(mine).__name__}"
    for key, value in vars(mine).items():
        if (
            key != "training"
            and not key.startswith("_")
            and is_plain(value)
            and vars(again).get(key, value) != value
        ):
            return f"{prefix}{key}: {vars(again).get(key)!r} for {value!r}"
    for name, child in children.items():
        if (found := unlike(child, others[name], f"{prefix}{name}.")) is not None:
            return found
    return None


def class_name(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's class and its bases: parametrized modules have a class of their own each,
    with the same name."""
    return tuple(f"{cls.__module__}.{cls.__qualname__}" for cls in type(module).__mro__)


def is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str)) or (
        isinstance(value, (tuple, list)) and all(map(is_plain, value))
    )
