"""Methods of tensors, and functions that make them, as on a machine with a GPU: where they lie
(memory.py) is what they say and go by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mock_cuda import streams
from mock_cuda.memory import ATEN, BASE, CPU, CUDA, _below, followed, place, untouched

REAL_TO = BASE.to


def to(self: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    """Tensor.to, between a host and a GPU that are one."""
    other = args[0] if args and isinstance(args[0], Tensor) else kwargs.pop("other", None)
    if other is not None:
        args = (other.device, other.dtype, *args[1:])
    copy = copy or (len(args) > 3 and bool(args[3]))
    device, dtype, non_blocking, form = torch._C._nn._parse_to(*args[:3], **kwargs)
    here = self.device
    if device is None or device.type == here.type or device.type == "meta":
        rest: dict[str, Any] = {"memory_format": form} if form is not None else {}
        if device is not None and device.type == "meta":
            rest["device"] = device
        return REAL_TO(
            self, dtype=dtype or self.dtype, non_blocking=non_blocking, copy=copy, **rest
        )
    with followed():
        _below.leaves = device.type == "cpu"
        try:
            return ATEN._to_copy(
                self,
                dtype=dtype,
                device=CUDA if device.type == "cuda" else CPU,
                non_blocking=non_blocking,
                memory_format=form,
            )
        finally:
            _below.leaves = False


def _device(self: Tensor) -> torch.device:
    return CUDA if place(self) == "cuda" else BASE.device.__get__(self)


def _pin(self: Tensor, device: Any = None) -> Tensor:
    if place(self) == "cuda":
        raise RuntimeError(
            "cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned"
        )
    if place(self) == "pinned":
        return self
    with followed():
        return torch.empty_like(self, pin_memory=True).copy_(self)


def _on_host(name: str) -> Any:
    real = getattr(BASE, name)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if place(self) == "cuda":
            if name == "numpy":
                raise TypeError(
                    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first."
                )
            streams.current().host_waits(name)
        untouched(self)
        return real(self, *args, **kwargs)

    return method


def _lifted(make: Any) -> Any:
    """torch.tensor and its like with device=: made on the host, then moved, as CUDA does it."""

    def function(*args: Any, device: Any = None, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        if device is None or torch.device(device).type != "cuda":
            made = make(*args, **kwargs) if device is None else make(*args, device=device, **kwargs)
            return made.pin_memory() if pin_memory else made
        needs = kwargs.pop("requires_grad", False)
        made = make(*args, **kwargs).to(device)
        return made.requires_grad_() if needs else made

    return function


def install() -> None:
    attributes = {
        "device": property(_device),
        "is_cuda": property(lambda self: place(self) == "cuda"),
        "is_cpu": property(lambda self: place(self) != "cuda" and BASE.is_cpu.__get__(self)),
        "get_device": lambda self: 0 if place(self) == "cuda" else BASE.get_device(self),
        "to": to,
        "cuda": lambda self, device=None, non_blocking=False, memory_format=torch.preserve_format: (
            self.to(CUDA, non_blocking=non_blocking, memory_format=memory_format)
        ),
        "cpu": lambda self, memory_format=torch.preserve_format: self.to(
            CPU, memory_format=memory_format
        ),
        "pin_memory": _pin,
        "is_pinned": lambda self, device=None: place(self) == "pinned",
        "record_stream": lambda self, stream: None,
        "new_tensor": lambda self, data, **how: torch.tensor(
            data, **{"dtype": self.dtype, "device": self.device, **how}
        ),
        "numpy": _on_host("numpy"),
        "tolist": _on_host("tolist"),
    }
    for name, value in attributes.items():
        setattr(torch.Tensor, name, value)
    torch.tensor, torch.as_tensor, torch.asarray = (
        _lifted(f) for f in (torch.tensor, torch.as_tensor, torch.asarray)
    )
