"""What the engine will do with a table, in one line, before it does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nearfar._errors import ShapeError
from nearfar.engine.passes import Passes
from nearfar.engine.rules import Rule
from nearfar.engine.strips import passes_of, tall
from nearfar.relations import Aligned, Labels


@dataclass(frozen=True)
class Plan:
    """How a table is run.

    Attributes:
        way: In words.
        units: Matrix products of the table's size, forward and backward; one is 2 · anchors · references · features
            operations.
        megabytes: Memory beside the embeddings, about.
    """

    way: str
    units: float
    megabytes: float

    def __str__(self) -> str:
        """One line."""
        return f"{self.way}: {self.units:g} products of the table's size, about {self.megabytes:.0f} MB"


def explain(
    loss: Any,
    embeddings: Any,
    references: Any = None,
    *,
    labels: Any = None,
    both: bool = False,
    rows: int | None = None,
) -> Plan:
    """Which way a loss takes on float32 embeddings of this shape.

    Args:
        loss: A loss.
        embeddings: The embeddings or their shape.
        references: The references or their shape; None for a batch against itself.
        labels: One label an item; without them two items a class are assumed.
        both: Whether two aligned batches are asked in both directions, as :meth:`~nearfar.PairLoss.aligned` does.
        rows: Height of the strips, where the caller chose it.

    Returns:
        The plan; ``str`` of it is one line.

    Raises:
        ShapeError: Not (items, features).

    Example:
        >>> import nearfar as nf
        >>> print(nf.engine.explain(nf.SupConLoss(), (8192, 128)))
        half tiles of 512: 2 products of the table's size, about 20 MB
        >>> print(nf.engine.explain(nf.SupConLoss(), (8192, 128), (1024, 128)))
        strips of 512: 3 products of the table's size, about 23 MB
    """
    (n, d), m = _shape(embeddings), _shape(embeddings if references is None else references)[0]
    executor = None if rows is not None else _executor(loss, (n, m, d), references is None, labels, both)
    if executor is not None:
        side = 4 * d * (n if references is None else n + m)
        # Sorted rows, unit rows, two gradients.
        return Plan(executor.way, executor.units, (4 * side + 4 * executor.elements) / 1e6)
    height = min(rows or tall(m), n)
    side = 4 * d * (n if references is None else n + m)
    way = f"strips of {height}" if height < n else "one block"
    units = _products(loss, labels, references is None, height == n)
    if both and (passes_of(loss) is not None or height < n or rows is not None):
        units *= 2
    return Plan(way, float(units), (3 * side + 16 * height * m) / 1e6)


def _products(loss: Rule, labels: Any, is_self: bool, one_block: bool) -> int:
    """Of the table's size, in strips; of a block against itself the gradients of both its sides are one product."""
    passes = passes_of(loss) or Passes
    if passes.each_positive:
        # Of labels that are not known two items a class are assumed; an anchor is no positive of its own.
        largest = 2 if labels is None else int(np.unique(np.asarray(labels), return_counts=True)[1].max(initial=1))
        return 3 * (largest - is_self)
    return passes.tables + passes.pulls * (1 if is_self and one_block else 2)


def _executor(loss: Rule, shape: tuple[int, int, int], is_self: bool, labels: Any, both: bool) -> Any:
    """What the loss itself would choose on empty rows of this shape."""
    n, m, d = shape
    anchors = np.zeros((n, d), np.float32)
    a = loss.measure.prepare(np, anchors, None)
    if is_self:
        relation = Labels(np.arange(n) // 2 if labels is None else labels)
        return loss.executor(np, relation.bind(np, anchors, None), (a, a))
    if not both or n != m:
        return None
    other = np.zeros((m, d), np.float32)
    return loss.executor(np, Aligned().bind(np, anchors, other), (a, loss.measure.prepare(np, other, None)))


def _shape(given: Any) -> tuple[int, int]:
    shape = tuple(getattr(given, "shape", given))
    if len(shape) != 2 or not all(isinstance(k, int) for k in shape):
        raise ShapeError(f"expected embeddings of shape (items, features), got {shape}; give both numbers")
    return shape[0], shape[1]
