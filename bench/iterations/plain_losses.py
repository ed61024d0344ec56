"""The networks, images and losses of a plain row, in PyTorch alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastgan.bench.iterations.pieces import Decoded, Options, d_loss, empty_inputs, flags, g_loss
from fastgan.bench.iterations.suites import Suite


class Losses:
    """A suite's networks, images and losses as a plain row has them: what an iteration calls.

    store: the images on the device, unless they come from `loader`, on the host. inputs: for each
    round what :meth:`draw` fills. given: instead of those, where a gradient is asked for. call: the
    networks as they are called.
    """

    def __init__(
        self,
        suite: Suite,
        options: Options,
        arrays: Mapping[str, np.ndarray],
        device: torch.device,
        dropout: bool,
    ) -> None:
        self.suite, self.options, self.device = suite, options.here(device), device
        self.dtype = torch.float64 if options.precision == "fp64" else torch.float32
        self.autotune = options.autotune
        torch.manual_seed(0)
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        self.nets = {
            name: net.to(device=device, dtype=self.dtype, memory_format=layout).train()  # type: ignore[call-overload]  # torch's stub lacks it
            for name, net in suite.networks(suite.dropout if dropout else 0.0).items()
        }
        self.store = (
            {name: torch.from_numpy(rows).to(device) for name, rows in arrays.items()}
            if not options.host_data
            else {}
        )
        self._arrays = arrays
        self.inputs = empty_inputs(suite, device, self.dtype)
        self.given: list[dict[str, Tensor]] | None = None
        self.draws = True
        self.loader = self._batches() if options.host_data else None
        self.call: dict[str, Callable[..., Tensor]] = dict(self.nets)

    def flags(self) -> contextlib.AbstractContextManager[None]:
        """The process-wide switches of this row."""
        return flags(self.options.precision, self.autotune)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bf16 where the row wants it."""
        return (
            torch.autocast(self.device.type, torch.bfloat16)
            if self.options.precision == "bf16"
            else contextlib.nullcontext()
        )

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        loader = torch.utils.data.DataLoader(
            Decoded(self._arrays),
            batch_size=self.suite.batch,
            shuffle=True,
            drop_last=True,
            num_workers=2
            if self.device.type == "cuda"
            else 0,  # the tutorial's two, unless they would share our cores
            persistent_workers=self.device.type == "cuda",
        )
        while True:
            yield from loader

    def draw(self) -> None:
        """New indices and noise into the input buffers, on the device."""
        count = len(next(iter(self._arrays.values())))
        for given in self.inputs:
            torch.randint(0, count, given["index"].shape, out=given["index"])
            if "z" in given:
                given["z"].normal_()
            if "epsilon" in given:
                given["epsilon"].uniform_()

    def batch(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Images in [-1, 1] by stream: the rows of "index", or the loader's next."""
        if self.given is None and self.loader is not None:
            return {name: rows.to(self.device) for name, rows in next(self.loader).items()}
        store = self.store or {
            name: torch.from_numpy(rows).to(self.device) for name, rows in self._arrays.items()
        }
        found = {}
        for name, rows in store.items():
            images = (
                rows.index_select(0, given["index"])
                .to(self.dtype)
                .div(127.5)
                .sub(1.0)
                .permute(0, 3, 1, 2)
            )
            found[name] = images if self.options.channels_last else images.contiguous()
        return found

    def generate(self, batch: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Tensor:
        """G's images, of "z" or of the sources."""
        return self.call["G"](batch["source"] if self.suite.paired else given["z"])

    def _judge(self, images: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        return self.call["D"](
            torch.cat([batch["source"], images], 1) if self.suite.paired else images
        )

    def d_terms(
        self, batch: Mapping[str, Tensor], fake: Tensor, given: Mapping[str, Tensor]
    ) -> Iterator[Tensor]:
        """Each term of D's loss, computed as it is asked for."""
        suite, real, fake = self.suite, batch["image"], fake.detach()
        yield d_loss(suite.loss, self._judge(real, batch), True)
        yield d_loss(suite.loss, self._judge(fake, batch), False)
        if suite.r1:
            yield (
                0.5 * suite.r1 * self._input_gradient(real, batch).square().flatten(1).sum(1).mean()
            )
        if suite.gp:
            fake = fake.to(real.dtype)
            norm = (
                self._input_gradient(fake + given["epsilon"] * (real - fake), batch)
                .square()
                .flatten(1)
                .sum(1)
            )
            yield suite.gp * ((norm + 1e-12).sqrt() - 1.0).square().mean()

    def d_total(
        self, batch: Mapping[str, Tensor], fake: Tensor, given: Mapping[str, Tensor]
    ) -> Tensor:
        """D's loss."""
        return torch.stack(list(self.d_terms(batch, fake, given))).sum()

    def _input_gradient(self, images: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        images = images.detach().requires_grad_(True)
        logits = self._judge(images, batch)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        gradient = torch.autograd.grad(logits.sum(), images, create_graph=True)[0]
        return gradient if gradient.dtype == torch.float64 else gradient.float()

    def g_terms(self, batch: Mapping[str, Tensor], fake: Tensor) -> Tensor:
        """G's loss."""
        total = g_loss(self.suite.loss, self._judge(fake, batch))
        if self.suite.l1:
            total = (
                total
                + self.suite.l1 * (batch["image"].to(self.dtype) - fake.to(self.dtype)).abs().mean()
            )
        return total
