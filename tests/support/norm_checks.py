"""What the tests of normalisation compare: outputs and gradients of both orders, within a bound."""

import torch


def channels_last(x):
    return x.contiguous(
        memory_format={4: torch.channels_last, 5: torch.channels_last_3d}.get(
            x.dim(), torch.contiguous_format
        )
    )


def close(a, b, bound=2e-5):
    assert (a is None) == (b is None)
    if a is not None:
        assert a.shape == b.shape
        assert b.dtype in (a.dtype, torch.float64)
        a, b = a.detach().double(), b.detach().double()
        assert (a - b).norm() <= bound * max(b.norm().item(), 1e-3 * b.numel() ** 0.5), (
            (a - b).norm() / b.norm()
        ).item()


def run(fn, tensors, order=2):
    """Output, first and second order gradients of a penalty that mixes all of them; absent
    gradients are zero."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    z = fn(*leaves)
    cotangent = torch.randn(z.shape, generator=torch.Generator().manual_seed(7)).to(z.dtype)
    first = torch.autograd.grad(z, leaves, cotangent, create_graph=order > 1)
    out = [z, *first]
    if order > 1:
        penalty = sum(g.square().sum() for g in first)
        second = (
            torch.autograd.grad(penalty, leaves, allow_unused=True)
            if penalty.requires_grad
            else [None] * len(leaves)
        )
        out += [torch.zeros_like(t) if g is None else g for g, t in zip(second, leaves)]
    return out


def wide(*tensors):
    return [t.double() for t in tensors]
