"""Triton's interpreter without work that changes nothing: kernels run there in a third of the
time."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any


def lighten() -> None:
    """Takes out of the interpreter what costs most of a kernel's time and changes nothing."""
    from triton.runtime import interpreter

    _unread_overflow_checks(interpreter)
    _repeated_patches(interpreter)
    _types_made_again(interpreter)
    _repeated_looks(interpreter)


def _unread_overflow_checks(interpreter: Any) -> None:
    """Each sum, difference and product of integers is computed again in int64 and compared with
    the type's range (TritonSemantic.binary_op_sanitize_overflow_impl); what is found goes to
    device_assert, which does nothing unless `options.debug` is set. With it the check stays."""
    options = interpreter.interpreter_builder.options
    if getattr(options, "sanitize_overflow", False) and not options.debug:
        interpreter.interpreter_builder.options = dataclasses.replace(
            options, sanitize_overflow=False
        )


def _repeated_patches(interpreter: Any) -> None:
    """Each call of a device function replaces the functions of triton.language again, which the
    launch has replaced already: once a launch is enough."""
    patch = getattr(interpreter, "_patch_lang", None)
    empty = getattr(interpreter, "_LangPatchScope", None)
    if patch is None or empty is None or isinstance(patch, _OnceALaunch):  # another Triton, or done
        return
    interpreter._patch_lang = _OnceALaunch(
        patch, empty, frozenset({id(interpreter.tl), id(interpreter.tl.core)})
    )


def _repeated_looks(interpreter: Any) -> None:
    """Each launch looks through all of triton.language for the functions to replace, which are the
    same every time."""
    look = getattr(interpreter, "_patch_builtin", None)
    if look is None or not hasattr(interpreter, "_patch_attr") or look.__module__ == __name__:
        return  # another Triton, or done
    known: dict[int, list[tuple[str, Any]]] = {}

    def patch_builtin(package: Any, *rest: Any) -> None:
        if (members := known.get(id(package))) is None:
            builtin = interpreter.tl.core.is_builtin
            members = [one for one in inspect.getmembers(package) if builtin(one[1])]
            known[id(package)] = members
        for name, member in members:
            interpreter._patch_attr(package, name, member, *rest)

    interpreter._patch_builtin = patch_builtin


class _OnceALaunch:
    """The interpreter's `patch` for the first function of a launch, an empty scope for what that
    one calls."""

    def __init__(
        self, patch: Callable[..., Any], empty: Callable[[], Any], languages: frozenset[int]
    ) -> None:
        self.patch, self.empty, self.languages = patch, empty, languages
        self.replaced: set[int] = set()

    def __call__(self, fn: Any) -> Any:
        seen = self.languages.intersection(map(id, fn.__globals__.values()))
        if seen <= self.replaced:
            return self.empty()
        scope = self.patch(fn)
        if not self.replaced:  # the launch itself, which takes all back when it ends
            restore = scope.restore

            def restored() -> None:
                self.replaced.clear()
                restore()

            scope.restore = restored
        self.replaced.update(seen)
        return scope


def _types_made_again(interpreter: Any) -> None:
    """Each operation makes the type and the shape of its result anew, and a table of all NumPy
    types to look one up: a kernel has a few dozen of them, which are made once and kept."""
    core = interpreter.tl.core
    if core.block_type.__init__.__module__ == __name__:  # done
        return
    core.block_type.__init__ = _kept_block_types(core, core.block_type.__init__)
    core.tensor.__init__ = _kept_shapes(core, core.tensor.__init__)
    if look_up := getattr(interpreter, "_get_np_dtype", None):
        interpreter._get_np_dtype = _kept_numpy_types(core, look_up)


def _kept_block_types(core: Any, make: Callable[..., None]) -> Callable[..., None]:
    """block_type.__init__(self, element_ty, shape); what it sets is never changed."""
    known: dict[Any, dict[str, Any]] = {}
    shapes = (list, core.tuple)

    def init(self: Any, element_ty: Any, shape: Any) -> None:
        sides = [side.value if isinstance(side, core.constexpr) else side for side in shape]
        if not (type(shape) in shapes and all(type(side) is int for side in sides)):
            make(self, element_ty, shape)  # which refuses what is no shape
            return
        key = element_ty.name, getattr(element_ty, "address_space", None), *sides
        if (found := known.get(key)) is None:
            make(self, element_ty, shape)
            known[key] = dict(self.__dict__)
        else:
            self.__dict__.update(found)

    return init


def _kept_shapes(core: Any, make: Callable[..., None]) -> Callable[..., None]:
    """tensor.__init__(self, handle, type): shape and numel follow from the type's shape."""
    known: dict[Any, tuple[Any, Any]] = {}
    whole = {"handle", "shape", "numel", "type", "dtype"}

    def init(self: Any, handle: Any, type: Any) -> None:
        key = (*type.shape,) if type.is_block() else ()
        if (found := known.get(key)) is None:
            make(self, handle, type)
            if self.__dict__.keys() == whole:  # another Triton's tensors may hold more
                known[key] = self.shape, self.numel
        else:
            self.handle, self.type, self.dtype = handle, type, type.scalar
            self.shape, self.numel = found

    return init


def _kept_numpy_types(core: Any, look_up: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: dict[str, Any] = {}

    def numpy_type(dtype: Any) -> Any:
        name = dtype.element_ty.name if isinstance(dtype, core.block_type) else dtype.name
        if (found := known.get(name)) is None:
            known[name] = found = look_up(dtype)
        return found

    return numpy_type
