"""Networks and objectives as JSON: class and constructor arguments, so that a run can be loaded without the script that made
it and without pickle.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from typing import Any

import torch
from torch import nn

from fastgan.errors import FastganError
from fastgan.objectives.objective import Objective

CONTAINERS = {nn.Sequential: "Sequential", nn.ModuleList: "ModuleList", nn.ModuleDict: "ModuleDict"}


class NotDescribable(Exception):
    """Why an object can't be rebuilt from its class and attributes."""


def describe(value: Any) -> Any:
    """JSON for a module, dataclass, function or plain value. Raises NotDescribable.

    A constructor argument is read from the attribute of the same name (as torch.nn's own modules keep them), falling back to
    its default.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return {"$tuple" if isinstance(value, tuple) else "$list": [describe(v) for v in value]}
    if isinstance(value, dict):
        return {"$dict": [[describe(k), describe(v)] for k, v in value.items()]}
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if type(value) in CONTAINERS:
        children = list(value.named_children())
        return {"$container": CONTAINERS[type(value)], "children": [[name, describe(child)] for name, child in children]}
    if inspect.isfunction(value) or inspect.isclass(value):
        if "<" in value.__qualname__:
            raise NotDescribable(f"{value.__qualname__} is a local function or class")
        return {"$name": f"{value.__module__}:{value.__qualname__}"}
    if isinstance(value, nn.Module) and torch.nn.utils.parametrize.is_parametrized(value):
        raise NotDescribable(f"{type(value).__name__} is parametrized (such as by spectral_norm)")
    return {"$object": _name(type(value)), "args": _arguments(value)}


def _name(cls: type) -> str:
    if "<" in cls.__qualname__:
        raise NotDescribable(f"class {cls.__qualname__} is local to a function")
    return f"{cls.__module__}:{cls.__qualname__}"


def _arguments(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    arguments = {}
    for name, parameter in inspect.signature(type(value).__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in ("device", "dtype"):
            continue
        if hasattr(value, name) and not inspect.ismethod(getattr(value, name)):
            kept = getattr(value, name)
            if name == "bias" and (kept is None or isinstance(kept, torch.Tensor)):
                kept = kept is not None
            elif name == "output_padding" and not getattr(value, "transposed", True):
                continue
            if isinstance(kept, torch.Tensor):
                raise NotDescribable(f"{type(value).__name__}.{name} is a tensor")
            arguments[name] = describe(kept)
        elif parameter.default is parameter.empty:
            raise NotDescribable(
                f"{type(value).__name__}.__init__ takes {name!r}, but the object keeps no attribute of that name"
            )
    return arguments


def find(name: str) -> Any:
    """The object named "module:qualified.name". Raises FastganError."""
    module, _, path = name.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise FastganError(
            f"can't find {name} ({error}): run from the folder that has it, or pass the network itself, load(path, generator=net)"
        ) from error
    return found


def rebuild(spec: Any) -> Any:
    """The inverse of `describe`; modules come with fresh weights.

    Imports the modules that the description names. Raises FastganError.
    """
    if isinstance(spec, dict):
        if "$tuple" in spec:
            return tuple(rebuild(v) for v in spec["$tuple"])
        if "$list" in spec:
            return [rebuild(v) for v in spec["$list"]]
        if "$dict" in spec:
            return {rebuild(k): rebuild(v) for k, v in spec["$dict"]}
        if "$dtype" in spec:
            return getattr(torch, spec["$dtype"])
        if "$name" in spec:
            return find(spec["$name"])
        if "$container" in spec:
            made: nn.Module = nn.ModuleDict() if spec["$container"] == "ModuleDict" else getattr(nn, spec["$container"])()
            for name, child in spec["children"]:
                made.add_module(name, rebuild(child))
            return made
        cls = find(spec["$object"])
        if not (isinstance(cls, type) and (issubclass(cls, (nn.Module, Objective)) or dataclasses.is_dataclass(cls))):
            raise FastganError(f"{spec['$object']} is no network, objective or dataclass: it is not made from a file")
        arguments = {name: rebuild(value) for name, value in spec["args"].items()}
        try:
            return cls(**arguments)
        except Exception as error:  # the constructor is the user's own
            raise FastganError(f"can't make {spec['$object']} again: {error}") from error
    return spec


def describe_network(module: nn.Module) -> dict[str, Any]:
    """{"spec": ...} where the module can be made again with the same state_dict keys and shapes, else {"why_not": reason}."""
    try:
        spec = describe(module)
        with torch.device("meta"):
            again = rebuild(spec)
    except Exception as error:
        return {"why_not": str(error).splitlines()[0] if str(error) else type(error).__name__}
    mine = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    if mine != {key: tuple(value.shape) for key, value in again.state_dict().items()}:
        return {"why_not": f"{type(module).__name__}(...) made from its attributes has other parameters than this one"}
    if (difference := unlike(module, again)) is not None:
        return {"why_not": f"{type(module).__name__}(...) made from its attributes differs in {difference}"}
    return {"spec": spec}


def unlike(mine: nn.Module, again: nn.Module, prefix: str = "") -> str | None:
    """The first place where two modules differ in class, children or a plain attribute, or None.

    A constructor argument that is kept under another name, and so was rebuilt from its default, shows itself here.
    """
    if class_name(mine) != class_name(again):
        return f"{prefix or 'class'}: {type(again).__name__} for {type(mine).__name__}"
    children, others = dict(mine.named_children()), dict(again.named_children())
    if list(children) != list(others):
        return f"the parts of {prefix or type(mine).__name__}"
    for key, value in vars(mine).items():
        if key != "training" and not key.startswith("_") and is_plain(value) and vars(again).get(key, value) != value:
            return f"{prefix}{key}: {vars(again).get(key)!r} for {value!r}"
    for name, child in children.items():
        if (found := unlike(child, others[name], f"{prefix}{name}.")) is not None:
            return found
    return None


def class_name(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's class and its bases: parametrized modules have a class of their own each, with the same name."""
    return tuple(f"{cls.__module__}.{cls.__qualname__}" for cls in type(module).__mro__)


def is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str)) or (isinstance(value, (tuple, list)) and all(map(is_plain, value)))
