"""NumPy's binding to the differentiation of others: arrays that hand a gradient back to where they came from.

A framework that lets NumPy compute for it (TensorFlow) brings plain arrays and wants value and gradients of any call
form. The engine computes both; the tape only knows what a call form does to its arguments before and after: cut,
stack, scale, add. Anything else is refused, so that no gradient is ever lost silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nearfar._arrays import Array, narrow
from nearfar._errors import BackendError
from nearfar.engine.moments import MOMENTS, refusal, slope, with_values

Pull = Callable[[Array], None]


class Watched(np.ndarray[Any, Any]):
    """An array with a ``pull``, which takes its gradient to where it came from."""

    pull: Pull | None = None

    def __getitem__(self, key: Any) -> Any:
        def pull(gradient: Array) -> None:
            whole = np.zeros(self.shape, self.dtype)
            whole[key] = gradient  # A slice or a new axis, so no place is taken twice.
            _hand_back(self, gradient=whole)

        parts = key if isinstance(key, tuple) else (key,)
        if not all(part is None or isinstance(part, slice | int) for part in parts):
            raise _unknown("an index that is no slice")
        return _watched(np.asarray(self)[key], pull)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func not in (np.concatenate, np.stack):
            raise _unknown(func.__name__)
        arrays, axis = args[0], args[1] if len(args) > 1 else kwargs.get("axis", 0)

        def pull(gradient: Array) -> None:
            if func is np.stack:
                parts = list(np.moveaxis(gradient, axis, 0))
            else:
                parts = np.split(gradient, np.cumsum([a.shape[axis] for a in arrays])[:-1], axis=axis)
            for array, part in zip(arrays, parts, strict=True):
                _hand_back(array, gradient=part)

        return _watched(func([np.asarray(a) for a in arrays], axis=axis), pull)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [np.asarray(x) if isinstance(x, Watched) else x for x in inputs]
        factors = _factors(ufunc, plain)
        if method != "__call__" or kwargs or factors is None or any(np.ndim(x) for x in plain):
            raise _unknown(f"{ufunc.__name__} of arrays")

        def pull(gradient: Array) -> None:
            for x, factor in zip(inputs, factors, strict=True):
                _hand_back(x, gradient=gradient * factor)

        return _watched(np.asarray(ufunc(*plain)), pull)


def _factors(ufunc: Any, values: list[Any]) -> tuple[Any, ...] | None:
    """The derivatives of a function of two numbers."""
    if ufunc is np.add:
        return 1, 1
    if ufunc is np.multiply:
        return values[1], values[0]
    # Only ever divided by a plain number.
    return (1 / values[1], 0) if ufunc is np.true_divide else None


def _watched(values: Array, pull: Pull) -> Watched:
    found = np.asarray(values).view(Watched)
    found.pull = pull
    return found


def _hand_back(array: Any, *, gradient: Array) -> None:
    if not isinstance(array, Watched):
        return
    if array.pull is None:
        raise _unknown("a method of arrays")
    array.pull(gradient)


def _unknown(what: str) -> BackendError:
    return BackendError(f"expected a call form of a loss, got {what}; do it outside, in the framework")


def learned(loss: Any) -> dict[str, Watched]:
    """The hyper-parameters of a loss that are watched."""
    values = {name: value for name, value in vars(loss).items() if isinstance(value, Watched)}
    for name in values:
        if name not in loss.learnable:
            raise refusal(loss, name)
    return values


def asked_of(task: Any, values: dict[str, Watched]) -> Any:
    """The task that gives their moments, with plain numbers in their place."""
    if not values:
        return task
    moments = {MOMENTS[task.loss.learnable[name]] for name in values}
    loss = with_values(task.loss, {name: float(value) for name, value in values.items()})
    return replace(task, loss=loss, moments=tuple(sorted(moments)))


def apply(
    run: Callable[[bool, Array | None], Any],
    anchors: Array,
    references: Any,
    per_anchor: bool,
    loss: Any = None,
    values: dict[str, Watched] | None = None,
) -> Array:
    """The loss (or each anchor's loss) as an array that hands its gradient back; ``run`` as of the torch binding.

    ``values`` are hyper-parameters of ``loss`` that have a gradient too.
    """
    outcome = run(not per_anchor, None)

    def pull(upstream: Array) -> None:
        found = run(True, upstream) if per_anchor else outcome
        given = [*zip((anchors, references), found.gradients, strict=True)]
        for name, value in (values or {}).items():
            shift = None if found.shift is None else np.sum(found.shift, dtype=np.float64)
            temperature = float(getattr(loss, "temperature", 1.0))
            given.append(
                (value, np.asarray(slope(loss.learnable[name], float(value), found.scale, shift, temperature)))
            )
        for array, gradient in given:
            if gradient is not None:
                _hand_back(array, gradient=narrow(gradient if per_anchor else gradient * upstream, array))

    return _watched(narrow(outcome.per_anchor if per_anchor else outcome.value, anchors), pull)


def value_and_grad(function: Callable[..., Array], *arrays: Array) -> tuple[Array, tuple[Array, ...]]:
    """A function of arrays, made of call forms of losses, and its gradients.

    Args:
        function: For example ``lambda left, right: loss.pairs(left, right, same)``.
        *arrays: Its arguments.

    Returns:
        The value and one gradient an argument; of the sum, where the value is no scalar.
    """
    totals = [np.zeros(a.shape, a.dtype) for a in arrays]

    def into(total: Array) -> Pull:
        def add(gradient: Array) -> None:
            np.add(total, gradient, out=total)

        return add

    value = function(*(_watched(a, into(total)) for a, total in zip(arrays, totals, strict=True)))
    _hand_back(value, gradient=np.ones(value.shape, value.dtype))
    return np.asarray(value), tuple(totals)


__all__ = ["Watched", "apply", "asked_of", "learned", "value_and_grad"]
