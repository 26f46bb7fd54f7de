"""The ranks as the engine sees them, and the table of all ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch

from nearfar._arrays import working_copy
from nearfar.engine import Task
from nearfar.engine.columns import Counts
from nearfar.relations import Aligned, Labels
from nearfar.torch._blocks import Ring, Shard
from nearfar.torch._collectives import Collectives
from nearfar.torch._own import Own


@dataclass(frozen=True)
class RankPeers:
    """The ranks of a call; as :class:`nearfar.engine.peers.Peers` has it.

    Attributes:
        counts: How many anchors and how many references each rank holds.
        asked: Whether any rank asks for the gradient of the anchors' and of the references' side.
        shared: Whether the table holds the rows of all ranks on the anchors' and on the references' side.
    """

    among: Collectives
    counts: tuple[list[int], list[int]]
    asked: tuple[bool, bool]
    shared: tuple[bool, bool]

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.among.size

    @property
    def own(self) -> slice:
        """Places of this rank's anchors among the table's."""
        return self.places[0] or slice(0, self.counts[0][self.among.rank])

    @property
    def places(self) -> tuple[slice | None, slice | None]:
        """Places of this rank's rows on the shared sides."""
        return (self.at(0) if self.shared[0] else None), (self.at(1) if self.shared[1] else None)

    def at(self, side: int) -> slice:
        """Places of this rank's rows among everyone's."""
        start = sum(self.counts[side][: self.among.rank])
        return slice(start, start + self.counts[side][self.among.rank])

    def gathered(self, own: torch.Tensor, side: int) -> torch.Tensor:
        """Everyone's rows of a side."""
        return self.among.gathered(own, self.counts[side])

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks."""
        return self.among.total(values)

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """The largest over all ranks."""
        return self.among.largest(values)

    def scatter(
        self, left: torch.Tensor, right: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """One exchange, also where both sides are shared."""
        sides = [side if asked else None for side, asked in zip((left, right), self.asked, strict=True)]
        shared = [k for k in (0, 1) if sides[k] is not None and self.shared[k]]
        if not shared:
            return sides[0], sides[1]
        both = torch.cat([cast("torch.Tensor", sides[k]) for k in shared], dim=1)
        parts = self.among.scattered(both, self.counts[shared[0]]).chunk(len(shared), dim=1)
        for k, part in zip(shared, parts, strict=True):
            sides[k] = part
        return sides[0], sides[1]


def whole_table(own: Own, peers: RankPeers) -> Task:
    """The task on the rows of all ranks: gathers them and their labels, or makes ready what comes in blocks."""
    task, (left, right), xp = own.task, own.sides, own.task.xp
    task = replace(task, peers=peers)
    if own.labels is None:
        return task
    labels, others = own.labels
    if own.given.numbered or isinstance(own.task.relation, Aligned):
        labels, others = labels + peers.at(0).start, others + peers.at(0).start
    if task.origin is not None and own.kept[0] is not None:
        task = replace(task, origin=task.origin[own.kept[0]])
    if own.exchange == "ring":
        return _ring(own, peers, task, labels, others)
    if own.exchange == "shards":
        return _shards(own, peers, task, labels, others)
    if right is not None and own.given.both:
        rows = peers.gathered(torch.cat([left, right], dim=1), 0)
        left, right = (side.contiguous() for side in rows.chunk(2, dim=1))
        labels = others = peers.gathered(labels, 0)
    elif right is not None and peers.shared[1]:
        right, others = peers.gathered(right, 1), peers.gathered(others, 1)
    elif peers.shared[0]:
        left, labels = peers.gathered(left, 0), peers.gathered(labels, 0)
    return replace(
        task,
        anchors=working_copy(xp, left),
        references=None if right is None else working_copy(xp, right),
        relation=Labels(labels, None if right is None else others),
    )


def _ring(own: Own, peers: RankPeers, task: Task, labels: torch.Tensor, others: torch.Tensor) -> Task:
    """The task on this rank's rows, and references that travel: for each direction those of the other side."""
    (left, right), xp = own.sides, task.xp
    side = 0 if right is None else 1
    everyone = peers.gathered(others, side)
    held = list(torch.split(everyone, peers.counts[side]))
    counts = Counts.of(xp, labels, everyone, right is None, task.anchors, peers)

    def source(rows: torch.Tensor, side: int) -> Ring:
        return Ring(peers.among, xp, labels, counts, held, rows, right is None, peers.asked[side])

    ways = [source(left if right is None else right, side)]
    if own.given.both:
        # Row i of one side matches row i of the other: the same labels, counts and shares.
        ways.append(source(left, 0))
    anchors, references = working_copy(xp, left), None if right is None else working_copy(xp, right)
    return replace(task, anchors=anchors, references=references, columns=tuple(ways))


def _shards(own: Own, peers: RankPeers, task: Task, labels: torch.Tensor, others: torch.Tensor) -> Task:
    """The task on the anchors of all ranks and this rank's class weights, whose first class follows the last before."""
    (left, right), xp = own.sides, task.xp
    left, labels = peers.gathered(left, 0), peers.gathered(labels, 0)
    if task.origin is not None:
        task = replace(task, origin=peers.gathered(task.origin, 0))
    classes = sum(peers.counts[1])
    positives = ((labels >= 0) & (labels < classes)).to(torch.int64)
    counts = Counts.whole(xp, positives, classes - positives, None)
    source = Shard(labels, counts, others + peers.at(1).start)
    return replace(
        task,
        anchors=working_copy(xp, left),
        references=working_copy(xp, cast("torch.Tensor", right)),
        columns=(source,),
    )
