"""How a loss is run over the table of pairs. Same value and same gradient, whichever way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from nearfar._errors import InputError
from nearfar.engine.given import Given
from nearfar.engine.plan import Plan, explain
from nearfar.engine.rules import Executor
from nearfar.engine.task import Outcome, Task


@dataclass(frozen=True)
class Strips:
    """Strips of a chosen height.

    Args:
        rows: Anchors in a strip.
    """

    rows: int

    def __post_init__(self) -> None:
        """Refuse a height that is none."""
        if self.rows < 1:
            raise InputError(f"expected rows >= 1, got {self.rows}; give the number of anchors in a strip")


Engine: TypeAlias = "str | Strips"


def height(engine: Engine, task: Task) -> int | None:
    """How many anchors a strip takes: all at once for ``"dense"``, or :class:`Strips`; None leaves it to the engine."""
    if isinstance(engine, Strips):
        return engine.rows
    if engine == "dense":
        return max(int(task.anchors.shape[0]), 1)
    if engine == "auto":
        return None
    raise InputError(f"expected engine to be 'auto', 'dense' or engine.Strips(rows), got {engine!r}; leave it out")


__all__ = ["Engine", "Executor", "Given", "Outcome", "Plan", "Strips", "Task", "explain", "height"]
