"""The binding to PyTorch's autograd: the engine computes value and gradient, autograd passes them on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

from nearfar._arrays import narrow
from nearfar._errors import InputError
from nearfar.engine import Outcome, Task
from nearfar.torch import _small
from nearfar.torch._learned import Learned

Run = Callable[[bool, "torch.Tensor | None"], Outcome]
"""``run(gradient, upstream)``: the engine on the detached arrays of one call."""


class _Once(torch.autograd.Function):
    """A gradient that knows what it depends on, so that differentiating it is refused and never silently 0."""

    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor, upstream: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Any, ...]:
        raise InputError(
            "expected one backward pass through a loss, got a second one through its gradient (create_graph=True); "
            "detach the gradient, or leave the loss out of the penalty"
        )


class _Value(torch.autograd.Function):
    """The scalar loss; its gradients are ready when the forward pass ends."""

    @staticmethod
    def forward(ctx: Any, run: Run, hyper: Learned, *given: torch.Tensor | None) -> torch.Tensor:
        outcome = run(any(ctx.needs_input_grad), None)
        ctx.save_for_backward(*given, *outcome.gradients, *hyper.gradients(outcome))
        return cast("torch.Tensor", narrow(outcome.value, given[0]))

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[Any, ...]:
        count = len(ctx.saved_tensors) // 2
        given, gradients = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        if upstream.device.type != "cpu" or upstream.item() != 1:  # A plain backward() hands on what is there.
            with torch.no_grad():
                gradients = [None if g is None else g * upstream.to(g.dtype) for g in gradients]
        return (None, None, *_of(ctx, gradients, upstream, given))


class _PerAnchor(torch.autograd.Function):
    """One loss an anchor; the gradient needs the upstream of each, so the backward pass runs the table again."""

    @staticmethod
    def forward(ctx: Any, run: Run, hyper: Learned, *given: torch.Tensor | None) -> torch.Tensor:
        ctx.run, ctx.hyper = run, hyper
        ctx.save_for_backward(*given)
        return cast("torch.Tensor", narrow(run(False, None).per_anchor, given[0]))

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[Any, ...]:
        wide = upstream.detach().to(torch.float64 if upstream.dtype == torch.float64 else torch.float32)
        outcome = ctx.run(True, wide)
        gradients = [*outcome.gradients, *ctx.hyper.gradients(outcome)]
        return (None, None, *_of(ctx, gradients, upstream, ctx.saved_tensors))


def _of(ctx: Any, gradients: list[Any], upstream: torch.Tensor, given: tuple[Any, ...]) -> list[Any]:
    """The gradients that autograd asked for, in the dtype of what was given."""
    # Without create_graph nothing can differentiate the gradient.
    once: Any = _Once.apply if torch.is_grad_enabled() else lambda gradient, *_: gradient
    return [
        None if gradient is None or not needed else once(narrow(gradient, array), upstream, array)
        for gradient, needed, array in zip(gradients, ctx.needs_input_grad[2:], given, strict=True)
    ]


@contextmanager
def exactly(tensor: torch.Tensor) -> Iterator[None]:
    """Without autocast, which would make the products of a float32 table in bfloat16, and without a graph."""
    with torch.no_grad(), torch.autocast(tensor.device.type, enabled=False):
        yield


def outcome_of(task: Task, rows: int | None, gradient: bool, upstream: torch.Tensor | None) -> Outcome:
    """What a task gives: small tables by NumPy, others by torch."""
    small = _small.fits(task, rows)
    if small and not torch.is_autocast_enabled("cpu"):
        return _small.run(task, gradient, upstream)
    with exactly(task.anchors):
        return _small.run(task, gradient, upstream) if small else task.run(rows, gradient, upstream)


def apply(
    run: Run, anchors: torch.Tensor, references: torch.Tensor | None, per_anchor: bool, hyper: Learned
) -> torch.Tensor:
    """The loss (or each anchor's loss) as a tensor of the caller's graph."""
    function: Any = _PerAnchor if per_anchor else _Value
    given = [anchors, references, *hyper.values.values()]
    if not torch.is_grad_enabled():
        # ``needs_input_grad`` looks at the inputs only: without this a validation pass would compute gradients.
        given = [tensor if tensor is None else tensor.detach() for tensor in given]
    return cast("torch.Tensor", function.apply(run, hyper, *given))
