"""Which library carries a call: the engine alone, or the binding to PyTorch, to JAX, to a tape or to ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from nearfar import _tape
from nearfar._arrays import Array, followed, is_jax, is_torch, narrow
from nearfar._errors import InputError
from nearfar.engine import Engine, Given, Outcome, Task
from nearfar.losses.hyper import expect_no_tensor
from nearfar.losses.inputs import checked

Ready: TypeAlias = tuple[Given, Task, int | None]
"""What a call is given, its task and the height of its strips."""


def value_of(
    loss: Any, given: Callable[[], Given], engine: Engine, group: Any = None, per_anchor: bool = False
) -> Array:
    """The loss of what a call form is given, whose checks all ranks hear of."""

    def ready() -> Ready:
        return _ready(loss, given, engine, group)

    if followed():
        from nearfar.torch._compiled import evaluate

        return evaluate(loss, given(), engine, group, per_anchor)
    # A str or a tuple names axes of JAX.
    if group is not None and not isinstance(group, str | tuple):
        from nearfar.torch.ranks import value_of as of_ranks

        return of_ranks(loss, ready, group)
    called, task, rows = ready()
    if is_jax(called.anchors):
        from nearfar.jax._call import apply as traced

        return traced(called, task, rows, group, per_anchor)
    if group is not None:
        raise InputError(f"expected a group of torch.distributed, got {group!r}; an axis is for JAX arrays")

    def run(gradient: bool, upstream: Array | None) -> Outcome:
        return _run(task, rows, gradient, upstream)

    if is_torch(called.anchors):
        from nearfar.torch._autograd import apply
        from nearfar.torch._learned import learned

        hyper = learned(loss)
        task = hyper.asked_of(task)
        return apply(run, called.anchors, called.references, per_anchor, hyper)
    if isinstance(called.anchors, _tape.Watched):
        values = _tape.learned(loss)
        task = _tape.asked_of(task, values)
        return _tape.apply(run, called.anchors, called.references, per_anchor, loss, values)
    outcome = run(False, None)
    return narrow(outcome.per_anchor if per_anchor else outcome.value, called.anchors)


def gradients_of(
    loss: Any, anchors: Array, given: Callable[[], Given], engine: Engine, group: Any = None
) -> tuple[Array, Any]:
    """The loss and the gradient of the anchors, or those of anchors and references."""

    def ready() -> Ready:
        return _ready(loss, given, engine, group)

    if followed():
        from nearfar.torch._compiled import value_and_grad

        return value_and_grad(loss, given(), engine, group)
    if is_jax(anchors):
        from nearfar.jax._call import outcome_of as traced

        outcome = traced(*ready(), group)
    elif group is None:
        _, task, rows = ready()
        outcome = _run(task, rows, gradient=True)
    else:
        from nearfar.torch.ranks import outcome_of

        outcome = outcome_of(loss, ready, group)
    first, second = outcome.gradients
    value = narrow(outcome.value, anchors)
    if second is None:
        return value, narrow(first, anchors)
    return value, (narrow(first, anchors), narrow(second, anchors))


def _ready(loss: Any, given: Callable[[], Given], engine: Engine, group: Any) -> Ready:
    ready: Ready = loss._ready(checked(loss, given(), group), engine)
    return ready


def _run(task: Task, rows: int | None, gradient: bool, upstream: Array | None = None) -> Outcome:
    """Run in the precision of the arrays, whatever the caller's framework would lower it to."""
    if not is_torch(task.anchors):
        expect_no_tensor(task.loss)
        return task.run(rows, gradient, upstream)
    from nearfar.torch._autograd import outcome_of

    return outcome_of(task, rows, gradient, upstream)
