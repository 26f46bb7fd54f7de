"""How a loss is run over the table of pairs. Same value and same gradient, whichever way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from nearfar._errors import InputError
from nearfar.engine.strips import Outcome, Task

# Elements of one strip. A strip and its few temporaries then stay near the caches of a core, while its matrix
# products are large enough to run at full speed.
STRIP = 1 << 20


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


def height(engine: Engine, task: Task) -> int:
    """How many anchors a strip takes: ``"auto"`` by size, ``"dense"`` all at once, or :class:`Strips`."""
    anchors = max(int(task.anchors.shape[0]), 1)
    if isinstance(engine, Strips):
        return engine.rows
    if engine == "dense":
        return anchors
    if engine == "auto":
        references = anchors if task.references is None else max(int(task.references.shape[0]), 1)
        return min(anchors, max(16, STRIP // references))
    raise InputError(f"expected engine to be 'auto', 'dense' or engine.Strips(rows), got {engine!r}; leave it out")


__all__ = ["Engine", "Outcome", "Strips", "Task", "height"]
