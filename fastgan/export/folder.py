"""A folder with a run's averaged generator: weights, config, model card and samples."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import fastgan
from fastgan import files
from fastgan.errors import FastganError
from fastgan.monitor import pictures
from fastgan.reports.reading import read_story
from fastgan.runs.checkpoint import pack
from fastgan.trainer.reuse.load import load
from fastgan.trainer.reuse.restoring import CONFIG, EXPORT_FORMAT, WEIGHTS, OpenRun, open_run

if TYPE_CHECKING:
    from fastgan.data import Dataset


def export_folder(
    run: str | Path, out: Path, *, given: Mapping[str, Dataset] | None = None, trust: bool = False
) -> float:
    """Write the folder; returns the largest difference between images of the run and of what was
    written, in [0, 1].

    given: data by stream, of a run that makes images from images. trust: as for `load`. Raises
    FastganError where something lies at `out` already.
    """
    files.refuse_existing(out)
    opened = open_run(run, device="cpu", trust=trust)
    opened.datasets.update(given or {})
    stage = opened.facts["stages"][-1]
    if "G" not in opened.nets:
        raise FastganError(f"{run} has no network 'G' that could be exported")
    net, story = opened.nets["G"], read_story(run)
    images = opened.images(64)
    config = {
        "format": EXPORT_FORMAT,
        "fastgan": fastgan.__version__,
        "network": stage["nets"]["G"]["spec"],
        "inputs": {
            name: {"shape": list(spec.shape), "kind": spec.kind}
            for name, spec in opened.objective.noise.items()
        },
        "image": list(images.shape[1:]),
        "range": [-1, 1],
        "classes": opened.classes,
        "step": opened.step,
    }
    picture = io.BytesIO()
    medium = opened.objective.medium
    pictures.save_grid(picture, medium.picture(images))
    card = _card(out.name, story.config, opened, story.evaluation)
    with files.explained(f"can't write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
    files.make_folder(
        out,
        {
            WEIGHTS: pack(net.state_dict()),
            CONFIG: json.dumps(config, indent=1).encode(),
            "README.md": card.encode(errors="backslashreplace"),
            "samples.png": picture.getvalue(),
        },
    )
    opened.nets["G"] = load(out, trust=trust)
    return float((opened.images(64) - images).abs().max())


def _card(name: str, config: dict, opened: OpenRun, evaluation: dict) -> str:
    medium, classes = opened.objective.medium, opened.classes
    gives = "images in [-1, 1]" if medium.drawn_by_pixel else f"{medium.noun}, before `sample`"
    lines = [
        f"# {name}",
        "",
        f"The averaged generator of a GAN ({config.get('recipe', 'own networks')}), trained with "
        f"fastgan for {opened.step:,} steps.",
        "",
        f"- data: {Path(str(config.get('data', 'not recorded'))).name}; their licence is yours to "
        "add",
    ]
    if classes:
        lines.append(f"- classes: {', '.join(classes)}")
    measured = {
        key: value for key, value in evaluation.items() if isinstance(value, (int, float, str))
    }
    lines.append(f"- measured: {json.dumps(measured) if measured else 'not yet'}")
    lines += [
        "",
        "    import fastgan, torch",
        f"    G = fastgan.load({name!r})   # {gives}; config.json names its inputs",
        "",
        f"It must not be used to pass its {medium.noun} off as real ones or as evidence, to "
        "imitate people without their consent, or where an error of one could harm anybody. It "
        "shows what its data hold, their gaps and prejudices included, and may repeat single ones "
        "of them.",
        "",
    ]
    return "\n".join(lines)
