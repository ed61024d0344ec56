"""sigma of all the spectral-normed layers of a network together, by PyTorch's own power iteration
on PyTorch's own buffers.

sigma leaves as a number a layer (and group). By the chain rule dW = (dWn - <dWn, Wn> u v^T) / sigma
for y = layer(x, Wn), Wn = W / sigma, with u and v constants, as in Miyato et al., "Spectral
normalization for generative adversarial networks", 2018; exact to second order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels.spectral import launch as kernels
from fastgan.ops.dispatch import Dispatcher, batched, eager, plain, pytorch_at_once
from fastgan.ops.spectral.reference import as_matrix, spectral_sigma_reference

__all__ = ["spectral_sigma"]

MOST = 128  # layers a launch: their pointers are kernel arguments, of which a launch takes 4 KiB


def _unsupported(
    engine: str, dtype: torch.dtype, types: bool, device: bool, strides: bool
) -> str | None:
    if engine != "triton":
        return None
    if not types:
        return "weights, u and v must all be fp32"
    if not device:
        return "weights, u and v lie on different devices"
    return (
        None
        if strides
        else "a weight is neither contiguous nor channels_last, or its rows are in another "
        "dimension than 0 or 1"
    )


_choose = Dispatcher("spectral_sigma", ("triton", "reference"), _unsupported)


def choose(
    impl: str,
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    dims: Sequence[int],
) -> str:
    """The engine for these layers. Raises FastganError where an engine that was asked for can't."""
    vectors = (*weights, *us, *vs)
    fits = all(t.dtype == torch.float32 for t in vectors)
    device = all(t.device == weights[0].device for t in vectors)
    strides = all(kernels.matrix(w, d) is not None for w, d in zip(weights, dims)) and all(
        t.is_contiguous() for t in (*us, *vs)
    )
    return _choose(impl, weights[0], fits, device, strides)


def matrices_of(weights: Sequence[Tensor], dims: Sequence[int]) -> tuple[kernels.Matrix, ...]:
    found = tuple(kernels.matrix(w, d) for w, d in zip(weights, dims))
    if any(m is None for m in found):
        raise FastganError(
            "spectral norm kernels: a weight is neither contiguous nor channels_last"
        )
    return tuple(m for m in found if m is not None)


@torch.library.custom_op("fastgan::spectral_power", mutates_args=("us", "vs"))
def spectral_power(
    weights: list[Tensor],
    us: list[Tensor],
    vs: list[Tensor],
    dims: list[int],
    iterations: int,
    eps: float,
    v_first: bool,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(sigma [groups, layers], unit u [groups, U], unit v [groups, V]); us and vs move in place."""
    return kernels.power(
        weights, us, vs, matrices_of(weights, dims), iterations, eps, v_first, groups
    )


@spectral_power.register_fake
def _(
    weights: list[Tensor],
    us: list[Tensor],
    vs: list[Tensor],
    dims: list[int],
    iterations: int,
    eps: float,
    v_first: bool,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    new = weights[0].new_empty
    return (
        new((groups, len(weights))),
        new((groups, sum(u.numel() for u in us))),
        new((groups, sum(v.numel() for v in vs))),
    )


def _launch_outer(
    dsigma: Tensor, unit_u: Tensor, unit_v: Tensor, like: list[Tensor], dims: list[int]
) -> list[Tensor]:
    return kernels.outer(dsigma.contiguous(), unit_u, unit_v, like, matrices_of(like, dims))


@torch.library.custom_op("fastgan::spectral_outer", mutates_args=())
def spectral_outer(
    dsigma: Tensor, unit_u: Tensor, unit_v: Tensor, like: list[Tensor], dims: list[int]
) -> list[Tensor]:
    """Sum over groups of dsigma u v^T, for every layer."""
    return _launch_outer(dsigma, unit_u, unit_v, like, dims)


@spectral_outer.register_fake
def _(
    dsigma: Tensor, unit_u: Tensor, unit_v: Tensor, like: list[Tensor], dims: list[int]
) -> list[Tensor]:
    return [torch.empty_like(w) for w in like]


def _outer_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, unit_u, unit_v, like, ctx.dims = inputs
    ctx.save_for_backward(unit_u, unit_v)
    ctx.sizes = [(w.shape[d], w.numel() // w.shape[d]) for w, d in zip(like, ctx.dims)]


def _outer_gradient(ctx: Any, grads: Sequence[Tensor | None]) -> Tensor:
    """<G, u v^T> of every group and layer."""
    unit_u, unit_v = ctx.saved_tensors
    us = unit_u.split([h for h, _ in ctx.sizes], 1)
    vs = unit_v.split([w for _, w in ctx.sizes], 1)
    columns = [
        unit_u.new_zeros(unit_u.shape[0]) if g is None else ((u @ as_matrix(g, d)) * v).sum(1)
        for g, d, u, v in zip(grads, ctx.dims, us, vs)
    ]
    return torch.stack(columns, 1)


spectral_outer.register_autograd(
    lambda ctx, grads: (_outer_gradient(ctx, grads), None, None, [None] * len(ctx.dims), None),
    setup_context=_outer_setup,
)


@torch.library.custom_op("fastgan::spectral_sigma", mutates_args=())
def _sigma_op(
    weights: list[Tensor], sigma: Tensor, unit_u: Tensor, unit_v: Tensor, dims: list[int]
) -> Tensor:
    """sigma, as the function u^T W v of the weights."""
    return sigma.clone()


@_sigma_op.register_fake
def _(
    weights: list[Tensor], sigma: Tensor, unit_u: Tensor, unit_v: Tensor, dims: list[int]
) -> Tensor:
    return torch.empty_like(sigma)


def _sigma_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weights, _, unit_u, unit_v, ctx.dims = inputs
    ctx.save_for_backward(unit_u, unit_v, *weights)


def _sigma_gradient(ctx: Any, dsigma: Tensor, outer: Any) -> Any:
    unit_u, unit_v, *weights = ctx.saved_tensors
    return outer(dsigma, unit_u, unit_v, [w.detach() for w in weights], ctx.dims)


def _outer_formula(
    dsigma: Tensor, unit_u: Tensor, unit_v: Tensor, like: list[Tensor], dims: list[int]
) -> list[Tensor]:
    """:func:`spectral_outer` by PyTorch's operators, which vmap knows."""
    us = unit_u.split([w.shape[d] for w, d in zip(like, dims)], 1)
    vs = unit_v.split([w.numel() // w.shape[d] for w, d in zip(like, dims)], 1)
    found = []
    for w, dim, d, u, v in zip(like, dims, dsigma.unbind(1), us, vs):
        matrix = (u * d[:, None]).t() @ v
        found.append(matrix.reshape(w.movedim(dim, 0).shape).movedim(0, dim))
    return found


_sigma_op.register_autograd(
    lambda ctx, d: (
        _sigma_gradient(ctx, d, _outer_formula if batched(d) else spectral_outer),
        None,
        None,
        None,
        None,
    ),
    setup_context=_sigma_setup,
)


class _Sigma(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, found: tuple[Tensor, Tensor, Tensor], dims: list[int], *weights: Tensor
    ) -> Tensor:
        """`found`, (sigma, unit u, unit v), is no argument of autograd's: sigma leaves as a tensor
        of its own."""
        _sigma_setup(ctx, (weights, *found, dims), found[0])
        return found[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        outer: Any = _launch_outer
        if batched(grads[0]):
            outer = _outer_formula
        elif torch.is_grad_enabled():  # twice differentiable through the registered op
            outer = spectral_outer
        return (None, None, *_sigma_gradient(ctx, grads[0], outer))


_eager_sigma = eager(_Sigma)


def spectral_sigma(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    dims: Sequence[int] | None = None,
    *,
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    v_first: bool = False,
    groups: int = 1,
    impl: str = "auto",
) -> Tensor:
    """sigma (groups, layers) of `weights` (fp32, two or more dimensions), differentiable in them to
    second order, u and v constants.

    `us[i]`, `vs[i]`: PyTorch's buffers, moved in place by `n_power_iterations` power iterations a
    group (0: eval, they stay). `dims[i]`: the dimension of output channels (0; 1 for transposed
    convolutions). `v_first` False iterates like torch.nn.utils.parametrizations.spectral_norm (u,
    then v), True like the older torch.nn.utils.spectral_norm (v, then u). `groups`: as many
    forwards in one call (2: real, then fake), each with a sigma of its own. 2 n groups + 1 launches
    whatever the number of layers (up to 128; 2 in eval). Raises FastganError where the lists do not
    match.
    """
    dims = [0] * len(weights) if dims is None else list(dims)
    if not weights or not len(weights) == len(us) == len(vs) == len(dims):
        raise FastganError(
            f"spectral norm of {len(weights)} weights, {len(us)} u, {len(vs)} v and {len(dims)} "
            "dims: give as many of each"
        )
    repeats = groups if n_power_iterations else 1  # in eval every group has the same sigma
    if not pytorch_at_once(impl, weights[0]) and (choose(impl, weights, us, vs, dims) == "triton"):
        parts = [
            _triton(
                weights[i : i + MOST],
                us[i : i + MOST],
                vs[i : i + MOST],
                dims[i : i + MOST],
                n_power_iterations,
                eps,
                v_first,
                repeats,
            )
            for i in range(0, len(weights), MOST)
        ]
        sigma = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return sigma.expand(groups, -1)
    return spectral_sigma_reference(
        weights, us, vs, dims, n_power_iterations, eps, v_first, repeats
    ).expand(groups, -1)


def _triton(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    dims: list[int],
    iterations: int,
    eps: float,
    v_first: bool,
    groups: int,
) -> Tensor:
    if plain(*weights, *us, *vs):
        detached = [w.detach() for w in weights]
        found = kernels.power(
            detached, us, vs, matrices_of(weights, dims), iterations, eps, v_first, groups
        )
        if iterations:
            torch.autograd.graph.increment_version([*us, *vs])
        return _eager_sigma(found, dims, *weights)
    with torch.no_grad():
        sigma, unit_u, unit_v = spectral_power(
            [w.detach() for w in weights],
            list(us),
            list(vs),
            dims,
            iterations,
            eps,
            v_first,
            groups,
        )
    return _sigma_op(list(weights), sigma, unit_u, unit_v, dims)
