"""Strings: written one a line, shown as a sheet of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from fastgan.data.strings.opening import decode
from fastgan.data.strings.smiles import fault
from fastgan.monitor.pictures.charts import shorten
from fastgan.objectives.medium import Medium

COLUMNS, WIDE, LINE, MARGIN = 4, 232, 20, 12
"""Of the sheet: columns, and pixels of a column, of a line and of the margin."""

GOOD, BAD = (26, 29, 33), (176, 181, 188)
"""Ink of strings, and of those that are no valid SMILES."""


@dataclass(frozen=True)
class Lines(Medium):
    """Samples are float32 (n, length, 1 + symbols), one-hot; the first stands for the end.

    Args:
        alphabet: The symbols.
        form: "smiles", where a sheet shows which strings are valid, or "text".
    """

    noun: ClassVar[str] = "strings"
    out: ClassVar[str] = "strings.txt"
    endings: ClassVar[tuple[str, ...]] = (".txt", ".smi")

    alphabet: tuple[str, ...] = ()
    form: str = "text"

    def finished(self, made: Tensor) -> Tensor:
        """Reals are numbers of symbols, uint8 (n, length), in the batch."""
        codes = made.argmax(2) if made.dim() == 3 else made.long()
        return F.one_hot(codes, 1 + len(self.alphabet)).float()

    def watched(self, samples: Tensor) -> Tensor:
        return samples[:, None] * 2 - 1

    def strings(self, samples: Tensor) -> list[str]:
        return decode(samples.argmax(2).numpy(), self.alphabet)

    def picture(self, samples: Tensor) -> Tensor:
        """One sheet (1, 3, H, W): strings in columns, grey where they are no valid SMILES."""
        strings = self.strings(samples)
        rows = max(1, -(-len(strings) // COLUMNS))
        size = (COLUMNS * WIDE + 2 * MARGIN, rows * LINE + 2 * MARGIN)
        sheet = Image.new("RGB", size, (255, 255, 255))
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
        for i, text in enumerate(strings):
            at = MARGIN + i // rows * WIDE, MARGIN + i % rows * LINE + LINE // 2
            ink = BAD if self.form == "smiles" and fault(text) else GOOD
            pen.text(at, shorten(text, font, WIDE - 12), ink, font, anchor="lm")
        return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)[None].float() / 255

    def encode(self, samples: Tensor, ending: str) -> bytes:
        return "".join(f"{text}\n" for text in self.strings(samples)).encode()
