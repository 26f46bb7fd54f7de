"""Where a rank's blocks of references come from, as :class:`nearfar.engine.columns.Source` has it.

Either they travel round the ranks, or each rank keeps its own and sees the anchors of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from nearfar._arrays import Namespace, working_copy
from nearfar.engine.columns import Block, Counts
from nearfar.measures.base import Prepared
from nearfar.torch._collectives import Collectives


@dataclass
class Ring:
    """References that travel: every rank has one block and the next one, never all.

    Attributes:
        codes: Labels of this rank's anchors.
        labels: Labels of each rank's references.
        rows: This rank's references, as they were given.
        are_anchors: Whether these are the anchors themselves.
        asked: Whether the gradient of the references travels with them.
    """

    among: Collectives
    xp: Namespace
    codes: torch.Tensor
    counts: Counts
    labels: list[torch.Tensor]
    rows: torch.Tensor
    are_anchors: bool
    asked: bool
    gradient: torch.Tensor = field(init=False)

    def lap(self, home: Prepared, prepare: Callable[[torch.Tensor], Prepared], gradient: bool) -> Iterator[Block]:
        """At step k the block of the rank k before this one.

        Its gradient is begun by the next rank, goes on with it, and comes home from the rank before.
        """
        size, rank, rows, travels = self.among.size, self.among.rank, self.rows, gradient and self.asked
        self.gradient = torch.zeros_like(home.rows)
        block = Block(home, self.labels[rank], self.gradient, self.are_anchors)
        for k in range(size):
            here, before = (rank - k) % size, (rank - k - 1) % size
            coming = self.among.passed_on(rows, len(self.labels[before])) if k < size - 1 else None
            if k:
                block.side = home  # lets go of the one before
                block.side, block.codes = prepare(working_copy(self.xp, rows)), self.labels[here]
                block.are_anchors = False
            if k == 1 or (k and not travels):
                block.into = torch.zeros_like(block.side.rows)
            yield block
            if k and travels:
                block.into = self.among.passed_on(block.into, len(self.labels[before]), tag=1)()
            if coming is not None:
                rows = coming()
        if size > 1 and travels:
            self.gradient += block.into


@dataclass
class Shard:
    """References that stay: this rank's rows of the class weights, against the anchors of all ranks.

    Attributes:
        codes: Labels of the anchors of all ranks.
        labels: The classes whose weights are here.
    """

    codes: torch.Tensor
    counts: Counts
    labels: torch.Tensor
    gradient: torch.Tensor = field(init=False)

    def lap(self, home: Prepared, prepare: Callable[[torch.Tensor], Prepared], gradient: bool) -> Iterator[Block]:
        """The one block."""
        self.gradient = torch.zeros_like(home.rows)
        yield Block(home, self.labels, self.gradient)
