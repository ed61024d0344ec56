"""One file with a run's generator for others to call: a program of torch.export, or ONNX."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan import files
from fastgan.errors import FastganError
from fastgan.export.tracing import Traced, exported, refuse_complex, trace
from fastgan.trainer.reuse.restoring import open_run

COUNT = 5
"""Images that a file is compared by; not the batch it was traced with."""

OPSET = 18


def export_program(
    run: str | Path, out: Path, kind: str, *, uint8: bool = False, trust: bool = False
) -> tuple[Traced, float]:
    """Write a "torch" or "onnx" file; returns what it holds and the largest difference of its
    images to those of the networks as trained, on the images' own scale.

    uint8: images in 0 ... 255 instead of [-1, 1]. trust: as for `load`. Raises FastganError where
    something lies at `out` already, a package is missing, or a layer has no place in the format.
    """
    files.refuse_existing(out)
    write = {"torch": _torch, "onnx": _onnx}[kind]
    opened = open_run(run, device="cpu", trust=trust)
    if uint8:
        opened.objective.medium.only_images("--uint8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exporters, about their own future
        traced = trace(opened, uint8=uint8)
        data, call = write(traced)
    noise = opened.noise(COUNT, seed=1)
    if "label" in traced.inputs:
        noise["label"] = torch.arange(COUNT) % len(opened.classes or [0])
    with torch.no_grad():
        wanted = traced.whole(*noise.values())
        made = call(noise)
    if made.shape != wanted.shape or made.dtype != wanted.dtype:
        raise FastganError(f"the {kind} file gives {tuple(made.shape)} {made.dtype}: not written")
    with files.explained(f"can't write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
    files.replace(out, data)
    return traced, float((made.double() - wanted.double()).abs().max())


Call = Callable[[dict[str, Tensor]], Tensor]


def _torch(traced: Traced) -> tuple[bytes, Call]:
    program = exported(traced)
    program._example_inputs = None  # they are random numbers, which torch.load would have to read
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    again = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    return buffer.getvalue(), lambda given: again(*given.values())


def _onnx(traced: Traced) -> tuple[bytes, Call]:
    refuse_complex(traced, "ONNX")
    try:
        import onnx
    except ImportError as error:
        raise FastganError("no package onnx here: pip install 'fastgan[onnx]'") from error
    names = list(traced.inputs)
    buffer: Any = io.BytesIO()
    try:
        torch.onnx.export(
            traced.module,
            tuple(traced.inputs.values()),
            buffer,
            dynamo=False,  # the graph is plain by now; the other way wants a second package
            opset_version=OPSET,
            input_names=names,
            output_names=["images"],
            dynamic_axes={name: {0: "batch"} for name in (*names, "images")},
        )
    except Exception as error:  # the exporter raises errors of many kinds, RuntimeError among them
        why = " ".join(str(error).split())[:200]
        raise FastganError(f"ONNX can't hold this generator: {why}") from error
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    return buffer.getvalue(), _runner(buffer.getvalue(), model)


def _runner(data: bytes, model: Any) -> Call:
    """onnxruntime where it is there, else onnx's own reference."""
    try:
        import onnxruntime

        session: Any = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(model)
    return lambda given: torch.from_numpy(
        session.run(None, {name: value.numpy() for name, value in given.items()})[0]
    )
