"""What rounding does inside a loss: its measure, off by one unit in what it hands to the loss and gets back from it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nearfar.losses import LossSum, Matryoshka
from nearfar.measures import Measure, Similarity


def shaken(loss: Any, eps: float, draw: int, floor: float) -> Any:
    """The loss on a measure that is off: its tables, the weights it pulls with and the gradients of its rows.

    Args:
        loss: A loss with a measure, or a combination of such.
        eps: One unit of rounding.
        draw: Which errors.
        floor: A weight that the error of every weight is relative to at least, as that of a probability is to 1.
    """
    return _with_measures(loss, lambda measure: _as(measure, _shaken_class(type(measure), eps, draw, floor)))


def weight_scale(loss: Any, run: Callable[[Any], Any]) -> float:
    """The largest weight of a pair in a run of the loss."""
    seen = [0.0]
    run(_with_measures(loss, lambda measure: _as(measure, _watching_class(type(measure), seen))))
    return max(seen)


def _with_measures(loss: Any, change: Callable[[Measure], Any]) -> Any:
    if isinstance(loss, LossSum):
        return LossSum(tuple((factor, _with_measures(part, change)) for factor, part in loss.parts))
    if isinstance(loss, Matryoshka):
        return replace(loss, loss=_with_measures(loss.loss, change))
    other = copy.copy(loss)
    if hasattr(loss, "measure"):
        object.__setattr__(other, "measure", change(loss.measure))
    return other


def _as(measure: Measure, kind: Any) -> Any:
    """The measure, as an instance of a subclass of its own class."""
    other = copy.copy(measure)
    object.__setattr__(other, "__class__", kind)
    return other


def _shaken_class(base: Any, eps: float, draw: int, floor: float) -> Any:
    def error(like: Any) -> Any:
        return eps * np.random.default_rng(draw).uniform(-1, 1, size=like.shape)

    def off(values: Any) -> Any:
        """A distance is right to a share of itself, a similarity to a share of the largest."""
        size = np.abs(values)
        return error(values) * (max(1.0, size.max(initial=0.0)) if issubclass(base, Similarity) else size)

    class Shaken(base):  # type: ignore[misc]
        def table(self, *args: Any, **options: Any) -> Any:
            table = super().table(*args, **options)
            table.values += off(table.values)
            return table

        def rows(self, *args: Any) -> Any:
            values = super().rows(*args)
            return values + off(values)

        def pull(self, xp: Any, table: Any, weight: Any, *args: Any) -> None:
            super().pull(xp, table, self._weighed(weight), *args)

        def pull_rows(self, xp: Any, values: Any, weight: Any, *args: Any) -> Any:
            return super().pull_rows(xp, values, self._weighed(weight), *args)

        def unprepare(self, xp: Any, side: Any, gradient: Any) -> Any:
            return super().unprepare(xp, side, gradient * (1 + error(gradient)))

        @staticmethod
        def _weighed(weight: Any) -> Any:
            return weight + error(weight) * np.where(weight != 0, np.maximum(np.abs(weight), floor), 0.0)

    return Shaken


def _watching_class(base: Any, seen: list[float]) -> Any:
    class Watching(base):  # type: ignore[misc]
        def pull(self, xp: Any, table: Any, weight: Any, *args: Any) -> None:
            seen.append(float(np.abs(weight).max(initial=0.0)))
            super().pull(xp, table, weight, *args)

        def pull_rows(self, xp: Any, values: Any, weight: Any, *args: Any) -> Any:
            seen.append(float(np.abs(weight).max(initial=0.0)))
            return super().pull_rows(xp, values, weight, *args)

    return Watching
