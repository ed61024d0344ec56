"""Triton's interpreter without work that changes nothing: kernels run there in half the time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


def lighten() -> None:
    """Takes two things out of the interpreter that cost more than half of a kernel's time."""
    from triton.runtime import interpreter

    _unread_overflow_checks(interpreter)
    _repeated_patches(interpreter)


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
