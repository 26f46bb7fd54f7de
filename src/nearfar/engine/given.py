"""What a call form of a loss is given, before the engine prepares it."""

from __future__ import annotations

from dataclasses import dataclass

from nearfar._arrays import Array
from nearfar.relations import Relation, Rows


@dataclass(frozen=True)
class Given:
    """The arrays of a call, as the caller holds them, and who belongs together.

    Attributes:
        anchors: The embeddings.
        references: What they are compared with; None for the batch itself.
        relation: Which pairs are positive and negative.
        both: Whether the question is asked in both directions.
        numbered: Whether labels are places in this batch (views), which mean other items in another process.
        equal: Whether all processes hold the same references (class weights).
    """

    anchors: Array
    references: Array | None
    relation: Relation | Rows
    both: bool = False
    numbered: bool = False
    equal: bool = False
