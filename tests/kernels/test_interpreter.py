"""What the interpreter leaves out: only work whose answer it drops."""

from __future__ import annotations

import dataclasses

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
