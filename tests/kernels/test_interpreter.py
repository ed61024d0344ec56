"""What the interpreter leaves out: only work whose answer it drops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastgan.kernels.interpreter import lighten

pytest.importorskip("triton", reason="needs Triton")


@pytest.mark.parametrize("debug", [False, True])
def test_the_overflow_check_goes_only_where_nobody_reads_it(debug, monkeypatch):
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    options = dataclasses.replace(builder.options, debug=debug, sanitize_overflow=True)
    monkeypatch.setattr(builder, "options", options)
    semantic, asserted = interpreter.interpreter_semantic, []
    monkeypatch.setattr(builder, "create_assert", lambda *args: asserted.append(args))
    largest = semantic.to_tensor(2**31 - 1, False)
    assert semantic.add(largest, largest, True).handle.data == -2  # the sum wraps either way
    assert bool(asserted) == debug
    lighten()
    assert builder.options.sanitize_overflow == debug
    assert dataclasses.replace(builder.options, sanitize_overflow=True) == options
    assert semantic.add(largest, largest, True).handle.data == -2
    assert len(asserted) == 2 * debug


def test_the_language_is_replaced_once_a_launch_and_given_back():
    from triton import language
    from triton.runtime import interpreter

    def kernel():
        return language.program_id(0)

    lighten()
    kernel.__globals__["language_of_kernel"] = language  # what an interpreted function refers to
    try:
        plain = language.load
        launch = interpreter._patch_lang(kernel)
        replaced = language.load
        called = interpreter._patch_lang(kernel)
        assert language.load is replaced, "the call of a device function replaces nothing again"
        called.restore()
        assert language.load is replaced, "the launch still needs it"
        launch.restore()
        assert replaced is not plain
        assert language.load is plain
        again = interpreter._patch_lang(kernel)
        assert language.load is not plain, "the next launch replaces it anew"
        again.restore()
        assert language.load is plain
    finally:
        del kernel.__globals__["language_of_kernel"]


def test_types_and_shapes_that_are_kept_are_those_that_would_be_made(monkeypatch):
    from triton import language as tl
    from triton.runtime import interpreter

    for owner, name in (
        (tl.block_type, "__init__"),
        (tl.tensor, "__init__"),
        (interpreter, "_get_np_dtype"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # given back: others compile here
    lighten()
    lighten()  # a second time changes nothing
    floats, const = tl.float32, tl.pointer_type(tl.float32, const=True)
    for element in (floats, tl.int32, tl.pointer_type(floats), const):
        for shape in ([4], [tl.constexpr(4)], [2, 4], tl.tuple([4, 2])):
            sides = [getattr(side, "value", side) for side in shape]
            for made in (tl.block_type(element, shape), tl.block_type(element, shape)):
                assert made.element_ty == element
                assert list(made.shape) == sides
                assert made.numel == 2 ** (sum(sides) // 2)
                assert made.name == str(made)
                assert str(element) in made.name
    for wrong in ([3], [], [4.0], [np.int64(4)], [np.float64(4)], (4,)):
        for _ in range(2):
            with pytest.raises((AssertionError, AttributeError, TypeError, ValueError)):
                tl.block_type(floats, wrong)
    spaces = [tl.block_type(tl.pointer_type(floats, space), [4]) for space in (1, 3, 1)]
    assert [one.element_ty.address_space for one in spaces] == [1, 3, 1]
    for kind in (floats, tl.block_type(floats, [2, 4]), tl.block_type(tl.int32, [2, 4])):
        for _ in range(2):
            value = tl.tensor("handle", kind)
            assert (value.handle, value.type, value.dtype) == ("handle", kind, kind.scalar)
            assert [side.value for side in value.shape] == ([2, 4] if kind.is_block() else [])
            assert value.numel.value == (8 if kind.is_block() else 1)
    for kind, wanted in ((tl.bfloat16, "uint16"), (tl.int1, "bool"), (const, "uint64")):
        assert interpreter._get_np_dtype(kind) == wanted
        assert interpreter._get_np_dtype(tl.block_type(kind, [2])) == wanted
