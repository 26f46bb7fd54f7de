"""A call of a loss as one operator, which ``torch.compile`` keeps whole and ``torch.func`` transforms.

Neither can follow the engine, whose loops depend on values. The operator is given the tensors of the call as they are
and all else as text (:mod:`nearfar.torch._told`); it returns the value and, where they are asked for, the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from nearfar._arrays import compute_dtype, narrow
from nearfar._errors import InputError
from nearfar.engine import Given, Outcome
from nearfar.engine.moments import MOMENTS
from nearfar.torch._autograd import outcome_of
from nearfar.torch._learned import Learned, learned
from nearfar.torch._told import Told, read

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Call:
    """All that the operator is told.

    Attributes:
        loss: A loss on pairs or of features.
        given: What its call form was given, or the batches of a loss of features.
        engine: How to run it.
        gradient: Whether the gradients are asked for.
        per_anchor: Whether each anchor's loss is.
    """

    loss: Any
    given: Given | tuple[torch.Tensor, ...]
    engine: Any = "auto"
    gradient: bool = False
    per_anchor: bool = False

    @property
    def sides(self) -> list[torch.Tensor]:
        """The batches that have gradients."""
        if not isinstance(self.given, Given):
            return list(self.given)
        return [side for side in (self.given.anchors, self.given.references) if side is not None]

    @property
    def hyper(self) -> Learned:
        """The hyper-parameters that are learned."""
        return learned(self.loss)

    @property
    def slots(self) -> list[torch.Tensor]:
        """Everything that has a gradient, in the order in which the operator returns them."""
        return [*self.sides, *self.hyper.values.values()]

    def check(self) -> None:
        """Refuse shapes, dtypes and devices as a call outside does."""
        if not isinstance(self.given, Given):
            self.loss._namespace(self.given, None)
            return
        g = self.given
        task = self.loss._task(g.anchors, g.references, g.relation, g.both)
        if hasattr(g.relation, "codes"):
            g.relation.codes(task.xp, task.anchors, task.references)

    def outcome(self, upstream: torch.Tensor | None) -> Outcome:
        """What the engine makes of it."""
        if not isinstance(self.given, Given):
            value, gradients = self.loss._run(self.loss._namespace(self.given, None), self.given)
            return Outcome(value, None, gradients)
        _, task, rows = self.loss._ready(self.given, self.engine)
        hyper = self.hyper
        asked = {MOMENTS[self.loss.learnable[name]] for name in hyper.values if self.gradient}
        return outcome_of(replace(hyper.asked_of(task), moments=tuple(sorted(asked))), rows, self.gradient, upstream)


def _ran(text: str, tensors: Tensors, numbers: Sequence[int], upstream: torch.Tensor | None) -> list[torch.Tensor]:
    """The value and the gradients, in memory of their own."""
    call = Call(*read(text, [tensor.detach() for tensor in tensors], numbers))
    wide = None if upstream is None else upstream.detach().to(compute_dtype(torch, upstream)).contiguous()
    outcome = call.outcome(wide)
    shown = outcome.per_anchor if call.per_anchor and not call.gradient else outcome.value
    found = [narrow(shown, call.sides[0]).clone()]
    if call.gradient:
        gradients = [*outcome.gradients[: len(call.sides)], *call.hyper.gradients(outcome)]
        for gradient, slot in zip(gradients, call.slots, strict=True):
            whole = torch.zeros_like(slot) if gradient is None else narrow(gradient, slot)
            found.append(whole.clone(memory_format=torch.contiguous_format))
    return found


_operator = torch.library.custom_op(
    "nearfar::loss",
    _ran,
    mutates_args=(),
    tags=(torch.Tag.cudagraph_unsafe,),  # it waits for the device
    schema="(str text, Tensor[] tensors, SymInt[] numbers, Tensor? upstream) -> Tensor[]",
)


@_operator.register_fake
def _fake(text: str, tensors: Tensors, numbers: Sequence[int], upstream: torch.Tensor | None) -> list[torch.Tensor]:
    """Shapes and dtypes, checked; what is to be said against numbers is said when the operator runs."""
    call = Call(*read(text, [tensor.detach() for tensor in tensors], numbers))
    call.check()
    first = call.sides[0]
    shown = first.new_empty(first.shape[:1] if call.per_anchor and not call.gradient else ())
    return [shown, *(slot.new_empty(slot.shape) for slot in call.slots if call.gradient)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Sequence[torch.Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.text, tensors, ctx.numbers, _ = inputs
    ctx.count = len(tensors)
    ctx.save_for_backward(*tensors, *output[1:])


def _pulled(ctx: Any, upstream: Sequence[torch.Tensor | None], again: Callable[..., Any]) -> list[torch.Tensor | None]:
    """The gradient of each tensor; ``again`` runs the call for the upstream of each anchor."""
    value, *twice = upstream
    if any(gradient is not None for gradient in twice):
        raise InputError(
            "expected one backward pass through a loss, got a second one through its gradient; "
            "detach the gradient, or leave the loss out of the penalty"
        )
    saved = ctx.saved_tensors
    tensors, gradients = saved[: ctx.count], saved[ctx.count :]
    pulled: list[torch.Tensor | None] = [None] * ctx.count
    if value is None:
        return pulled
    call = Call(*read(ctx.text, tensors, ctx.numbers))
    if call.per_anchor:
        told = _told(replace(call, gradient=True))
        gradients = again(told.text, told.tensors, told.numbers, value)[1:]
    else:
        gradients = [gradient * value.to(gradient.dtype) for gradient in gradients]
    places = {id(tensor): place for place, tensor in enumerate(tensors)}
    for slot, gradient in zip(call.slots, gradients, strict=True):
        place = places[id(slot)]
        # One tensor may be given twice, as both batches.
        pulled[place] = gradient if pulled[place] is None else pulled[place] + gradient
    return pulled


def _backward(ctx: Any, upstream: Sequence[torch.Tensor | None]) -> tuple[Any, ...]:
    # Only an empty list has the shape of a list to PyTorch, which compares shapes.
    numbers: list[None] | None = None if ctx.numbers else []
    return None, _pulled(ctx, upstream, _operator), numbers, None


_operator.register_autograd(_backward, setup_context=_keep)


class _Followed(torch.autograd.Function):
    """The operator under ``torch.func``, which asks for a function of its own kind.

    Its arguments are the text, the whole numbers, the upstream of each anchor or None, and the tensors.
    """

    @staticmethod
    def forward(text: str, numbers: list[int], upstream: torch.Tensor | None, *tensors: torch.Tensor) -> Any:
        return tuple(_ran(text, tensors, numbers, upstream))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        text, numbers, upstream, *tensors = inputs
        _keep(ctx, (text, tensors, numbers, upstream), output)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor | None) -> tuple[Any, ...]:
        return None, None, None, *_pulled(ctx, upstream, _follow_again)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise InputError(
            "expected a derivative in reverse (backward, torch.func.grad, jacrev), got one in forward mode (jvp, "
            "jacfwd, hessian), which losses do not have; use the reverse"
        )

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *given: Any) -> tuple[Any, Any]:
        """Batch by batch, each with its own labels."""
        runs = []
        for k in range(info.batch_size):
            own = [
                value.select(dim, k) if isinstance(dim, int) else value for value, dim in zip(given, dims, strict=True)
            ]
            runs.append(_follow(*own))
        found = tuple(torch.stack(parts) for parts in zip(*runs, strict=True))
        return found, (0,) * len(found)


def _follow(text: str, numbers: Sequence[int], upstream: torch.Tensor | None, *tensors: torch.Tensor) -> Any:
    function: Any = _Followed
    return function.apply(text, numbers, upstream, *tensors)


def _follow_again(text: str, tensors: Tensors, numbers: Sequence[int], upstream: torch.Tensor | None) -> Any:
    return _follow(text, numbers, upstream, *tensors)


def _told(call: Call) -> Told:
    told = Told()
    told.write((call.loss, call.given, call.engine, call.gradient, call.per_anchor))
    return told


def _called(call: Call, group: Any) -> list[torch.Tensor]:
    """What the operator returns for a call."""
    if group is not None:
        raise InputError(
            "expected no group inside torch.compile or torch.func, got one; "
            "call the loss outside, for example in a function that torch.compiler.disable marks"
        )
    if not all(isinstance(side, torch.Tensor) for side in call.sides):
        raise InputError(
            "expected PyTorch tensors inside torch.compile or torch.func, got other arrays; call the loss outside"
        )
    told = _told(call)
    if torch.compiler.is_compiling():
        if torch._C._are_functorch_transforms_active():
            raise InputError(
                "expected torch.compile or torch.func around a loss, got torch.func inside torch.compile; "
                "take the gradient by backward or value_and_grad, or transform outside the compiled function"
            )
        return cast("list[torch.Tensor]", _operator(told.text, told.tensors, told.numbers, None))
    return cast("list[torch.Tensor]", _follow(told.text, told.numbers, None, *told.tensors))


def evaluate(loss: Any, given: Any, engine: Any, group: Any, per_anchor: bool = False) -> torch.Tensor:
    """The loss, or each anchor's; what it is given as :class:`Call` has it."""
    asked = torch.is_grad_enabled() and not per_anchor
    return _called(Call(loss, given, engine, asked, per_anchor), group)[0]


def value_and_grad(loss: Any, given: Any, engine: Any, group: Any) -> tuple[torch.Tensor, Any]:
    """The value and the gradients of the batches."""
    call = Call(loss, given, engine, True)
    with torch.no_grad():
        value, *gradients = _called(call, group)
    gradients = gradients[: len(call.sides)]
    return value, gradients[0] if len(gradients) == 1 else tuple(gradients)
