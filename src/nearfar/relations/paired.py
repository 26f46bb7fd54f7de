"""The table of queries and documents: row i of both belongs together, other rows are the negatives of each."""

from __future__ import annotations

from dataclasses import dataclass

from nearfar._arrays import Array, Namespace, arange, where, zeros
from nearfar.relations.pair import Pair

INF = float("inf")


@dataclass(frozen=True)
class Paired:
    """Anchors: queries, then sources of documents. References: documents, extra negatives, perhaps queries.

    A query's positive is its document; its negatives are all other references but itself. The further anchors
    (documents and extra negatives, where documents meet their kind) have no positive; their negatives are the documents
    of other queries.

    Args:
        items: How many queries and documents there are.
        extra: How many negatives stand behind the documents, in runs of one for each query.
        queries_too: Whether the references end with the queries.
    """

    items: int
    extra: int = 0
    queries_too: bool = False

    def kept(self, xp: Namespace, anchors: Array, references: Array | None) -> tuple[Paired, None, None]:
        """All items stay."""
        return self, None, None

    def bind(self, xp: Namespace, anchors: Array, references: Array | None) -> BoundPaired:
        """Tie to a table of its own making."""
        columns = 0 if references is None else int(references.shape[0])
        return BoundPaired(self, xp, anchors, int(anchors.shape[0]), columns)


@dataclass
class BoundPaired:
    """The relation on a table."""

    relation: Paired
    xp: Namespace
    like: Array
    rows: int
    columns: int

    def strip(self, start: int, stop: int) -> PairedPair:
        """Cut for some anchors."""
        return PairedPair(self, arange(self.xp, self.rows, self.like)[start:stop])


class PairedPair(Pair):
    """A strip of the anchors at ``places``: at most one positive, and at most two references that are no pair."""

    uniform = True

    def __init__(self, bound: BoundPaired, places: Array) -> None:
        xp, relation, like = bound.xp, bound.relation, bound.like
        self.xp, items = xp, relation.items
        query, item = places[:, None] < items, places[:, None] % max(items, 1)
        self.index = item
        self.weight = xp.astype(query, like.dtype)
        column = arange(xp, bound.columns, like)[None, :]
        stays = column != item
        if relation.queries_too:
            stays = stays & (column != item + items + relation.extra)
        # A further anchor meets documents only.
        self.stays = stays & (query | (column < items))
        self.positive_count = self.weight
        self.negative_count = xp.sum(xp.astype(self.stays, like.dtype), axis=1, keepdims=True)
        self._valid = self.stays | (query & (column == item))
        width = bound.columns - 1 - int(relation.queries_too)
        self.positive_total = zeros(xp, (), like, xp.float64) + items
        self.negative_total = self.positive_total * width + (bound.rows - items) * (items - 1)

    def negatives(self, table: Array, otherwise: float) -> Array:
        """Another number where there is no negative."""
        return where(self.xp, self.stays, table, otherwise)

    def weigh(self, table: Array) -> Array:
        """Every negative weighs 1."""
        return table

    def negative_logits(self, logits: Array) -> Array:
        """−inf where there is no negative."""
        return self.negatives(logits, -INF)

    def valid_logits(self, logits: Array) -> Array:
        """−inf where there is no pair."""
        return where(self.xp, self._valid, logits, -INF)
