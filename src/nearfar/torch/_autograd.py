"""The binding to PyTorch's autograd: the engine computes value and gradient, autograd passes them on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch.autograd.function import once_differentiable

from nearfar._arrays import narrow
from nearfar.engine import Outcome

Run = Callable[[bool, "torch.Tensor | None"], Outcome]
"""``run(gradient, upstream)``: the engine on the detached arrays of one call."""


class _Value(torch.autograd.Function):
    """The scalar loss; its gradient is ready when the forward pass ends."""

    @staticmethod
    def forward(ctx: Any, run: Run, anchors: torch.Tensor, references: torch.Tensor | None) -> torch.Tensor:
        outcome = run(any(ctx.needs_input_grad), None)
        ctx.save_for_backward(*outcome.gradients)
        return cast("torch.Tensor", narrow(outcome.value, anchors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[Any, ...]:
        gradients = (
            None if g is None or not needed else narrow(g * upstream.to(g.dtype), upstream)
            for g, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        )
        return (None, *gradients)


class _PerAnchor(torch.autograd.Function):
    """One loss an anchor; the gradient needs the upstream of each, so the backward pass runs the table again."""

    @staticmethod
    def forward(ctx: Any, run: Run, anchors: torch.Tensor, references: torch.Tensor | None) -> torch.Tensor:
        ctx.run = run
        return cast("torch.Tensor", narrow(run(False, None).per_anchor, anchors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[Any, ...]:
        wide = upstream.to(torch.float64 if upstream.dtype == torch.float64 else torch.float32)
        outcome = ctx.run(True, wide)
        gradients = (
            None if g is None or not needed else narrow(g, upstream)
            for g, needed in zip(outcome.gradients, ctx.needs_input_grad[1:], strict=True)
        )
        return (None, *gradients)


@contextmanager
def exactly(tensor: torch.Tensor) -> Iterator[None]:
    """Without autocast, which would make the products of a float32 table in bfloat16, and without a graph."""
    with torch.no_grad(), torch.autocast(tensor.device.type, enabled=False):
        yield


def apply(run: Run, anchors: torch.Tensor, references: torch.Tensor | None, per_anchor: bool) -> torch.Tensor:
    """The loss (or each anchor's loss) as a tensor of the caller's graph."""
    function: Any = _PerAnchor if per_anchor else _Value
    return cast("torch.Tensor", function.apply(run, anchors, references))
