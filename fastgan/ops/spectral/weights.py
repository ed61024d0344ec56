"""The spectral-normed weights of a network together: W / sigma of all layers in one launch, in the
type that the layers take them in, and their gradients in two.

With u and v constants (Miyato et al. 2018, section 2.2): sigma = u^T W v, and

    dW = (dWn - <dWn, W / sigma> u v^T) / sigma
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.spectral import launch as kernels
from fastgan.ops.dispatch import batched, eager, plain, pytorch_at_once
from fastgan.ops.spectral.functional import MOST, choose, matrices_of, spectral_sigma
from fastgan.ops.spectral.reference import as_matrix, spectral_sigma_reference


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        found: tuple[Tensor, Tensor, Tensor],
        dims: list[int],
        dtype: torch.dtype,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        """`found`: (sigma [1, layers], unit u, unit v), no arguments of autograd's."""
        ctx.found, ctx.dims = found, dims
        ctx.save_for_backward(*weights)
        matrices = matrices_of(weights, dims)
        return tuple(kernels.normalised(weights, found[0][0], matrices, dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        weights, (sigma, unit_u, unit_v) = ctx.saved_tensors, ctx.found
        if torch.is_grad_enabled() or any(map(batched, grads)):
            us, vs = (
                unit[0].split([matrix[i] for matrix in matrices_of(weights, ctx.dims)])
                for i, unit in enumerate((unit_u, unit_v))
            )
            return None, None, None, *map(_gradient, grads, weights, us, vs, ctx.dims)
        laid = [_as(g, w) for g, w in zip(grads, weights)]
        matrices = matrices_of(weights, ctx.dims)
        found = kernels.gradients(laid, weights, sigma[0], unit_u, unit_v, matrices)
        return None, None, None, *found


_eager_weights = eager(_Weights)


def _as(grad: Tensor, weight: Tensor) -> Tensor:
    """`grad` laid out as `weight`."""
    if grad.stride() == weight.stride():
        return grad
    return torch.empty_like(weight, dtype=grad.dtype).copy_(grad)


def _gradient(grad: Tensor, weight: Tensor, u: Tensor, v: Tensor, dim: int) -> Tensor:
    """dW of one layer by PyTorch's operators, differentiable in dWn and W."""
    rows = weight.movedim(dim, 0).shape
    sigma = torch.dot(u, torch.mv(as_matrix(weight, dim), v))
    direction = torch.outer(u, v).reshape(rows).movedim(0, dim)
    wide = grad.float()
    return (wide - (wide * (weight / sigma)).sum() * direction) / sigma


def _dense(weight: Tensor) -> bool:
    return weight.is_contiguous() or (
        weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    )


def spectral_weights(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    dims: Sequence[int] | None = None,
    *,
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    v_first: bool = False,
    dtype: torch.dtype = torch.float32,
    impl: str = "auto",
) -> tuple[Tensor, ...]:
    """weights[i] / sigma[i] in `dtype`, differentiable in the weights (fp32) to second order, u and
    v constants; the other arguments, and what happens to u and v, as of `spectral_sigma`.

    2 n + 2 launches whatever the number of layers, and 2 in backward. Raises FastganError where the
    lists do not match.
    """
    dims = [0] * len(weights) if dims is None else list(dims)
    options: Any = {"n_power_iterations": n_power_iterations, "eps": eps, "v_first": v_first}
    fits = (
        not pytorch_at_once(impl, weights[0])
        and len(weights) == len(us) == len(vs) == len(dims) <= MOST
        and choose(impl, weights, us, vs, dims) == "triton"
        and all(map(_dense, weights))
        and plain(*weights, *us, *vs)
    )
    if not fits:
        sigma = spectral_sigma(weights, us, vs, dims, **options, impl=impl)[0]
        return tuple((w / s).to(dtype) for w, s in zip(weights, sigma.unbind()))
    detached = [w.detach() for w in weights]
    matrices = matrices_of(weights, dims)
    found = kernels.power(detached, us, vs, matrices, n_power_iterations, eps, v_first, 1)
    if n_power_iterations:
        torch.autograd.graph.increment_version([*us, *vs])
    return _eager_weights(found, dims, dtype, *weights)


def spectral_weights_reference(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    dims: Sequence[int],
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    v_first: bool = False,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, ...]:
    """PyTorch's formulas, layer by layer; float64 stays so."""
    sigma = spectral_sigma_reference(weights, us, vs, dims, n_power_iterations, eps, v_first)[0]
    made = [w / s for w, s in zip(weights, sigma.unbind())]
    return tuple(w if w.dtype == torch.float64 else w.to(dtype) for w in made)
