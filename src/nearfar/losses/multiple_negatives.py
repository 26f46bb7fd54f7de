"""Multiple negatives ranking: queries and documents of a batch, in one softmax over the directions that are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, exp_pair, sigmoid, softplus, times
from nearfar._errors import InputError, ShapeError
from nearfar.engine import Engine, Given
from nearfar.losses.base import PairLoss
from nearfar.losses.inputs import expect_alike
from nearfar.losses.pools import has_both
from nearfar.losses.softmax import InfoNCELoss, check_temperature, logit
from nearfar.measures import Cosine, Similarity
from nearfar.relations import Aligned, Pair
from nearfar.relations.paired import Paired

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


@dataclass(frozen=True)
class MultipleNegativesRankingLoss(PairLoss):
    r"""Multiple negatives ranking loss: the documents of other queries are a query's negatives (Henderson 2017).

    With queries :math:`q`, their documents :math:`d` and :math:`z = s / \tau`,

    .. math::
        \ell_i = -z(q_i, d_i) + \log \Big(\sum_j e^{z(q_i, d_j)} + \sum_{j \ne i} e^{z(q_i, q_j)}
        + \sum_j e^{z(q_j, d_i)} + \sum_{j \ne i} e^{z(d_j, d_i)}\Big)

    and the mean over queries; the sums are those of ``directions``, in this order. Hard negatives of :meth:`aligned`
    stand among the documents :math:`d_j` of the first sum (a query's own among them) and of the last (but its own).
    With the first direction alone this is :class:`InfoNCELoss` one way, with all of them the loss of GTE, which has the
    positive in two of the sums. A softmax for each of two directions is ``InfoNCELoss().aligned``.

    Called with labels, each anchor is a query and its positives are documents: ``"doc_to_query"`` adds the positive's
    own negatives, and the batch holds the items of both kinds.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity; 1/20 in sentence-transformers.
        directions: Which sums are in the logarithm. ``"query_to_doc"`` always is; ``"doc_to_doc"`` comes with
            ``"doc_to_query"``.
        measure: A similarity.

    Raises:
        InputError: A temperature that is not positive, other directions, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> queries, documents = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.8, 0.6], [0.6, 0.8]])
        >>> hard = np.array([[0.96, 0.28], [0.28, 0.96]])
        >>> loss = nf.MultipleNegativesRankingLoss(temperature=0.5)
        >>> float(loss.aligned(queries, documents).round(4)), float(loss.aligned(queries, documents, hard).round(4))
        (0.513, 1.224)

    Memory: a strip of the table; four products of its size where a direction starts at the documents, else three.

    References:
        Henderson et al., "Efficient Natural Language Response Suggestion for Smart Reply", 2017, arXiv 1705.00652; Li
        et al., "Towards General Text Embeddings with Multi-stage Contrastive Learning" (GTE), 2023, arXiv 2308.03281.
    """

    temperature: float = 0.05
    directions: tuple[str, ...] = ("query_to_doc",)
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Temperature and directions."""
        check_temperature(self.temperature)
        asked = set(self.directions)
        if not asked <= set(DIRECTIONS) or "query_to_doc" not in asked:
            raise InputError(
                f"expected directions among {DIRECTIONS}, the first always, got {self.directions}; "
                "the paper has the first alone"
            )
        if "doc_to_doc" in asked and not self._back:
            raise InputError(f"expected 'doc_to_query' with 'doc_to_doc', got {self.directions}; add it")

    @property
    def _back(self) -> bool:
        return "doc_to_query" in self.directions

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The logit."""
        return logit(s, self.temperature)

    def couple(
        self, xp: Namespace, positive: Array, own: Array, others: Array, pair: Pair
    ) -> tuple[Array, Array, Array, Array]:
        """Each positive against the pool of the query's negatives and, asked back, that of the document's."""
        others = others if self._back else xp.zeros_like(others) - float("inf")
        pool, mine, theirs = exp_pair(xp, own, others)
        odds = pool - positive / self.temperature
        # In the sums of both directions the positive stands twice.
        shift = log(2) if self._back else 0.0
        loss = xp.sum(times(xp, pair.share, softplus(xp, odds - shift) + shift), axis=1, keepdims=True)
        missing = times(xp, pair.share, sigmoid(xp, odds - shift))
        by_own = xp.sum(missing * mine, axis=1, keepdims=True)
        return loss, by_own, missing * theirs, -missing / self.temperature

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Any:
        """1 where the query has a document and a negative."""
        return has_both(xp, pair, weight)

    def aligned(
        self, left: Array, right: Array, negatives: Array | None = None, *, engine: Engine = "auto", group: Any = None
    ) -> Array:
        """The loss of queries and their documents.

        Args:
            left: The queries; shape (items, features).
            right: The document of each; shape (items, features).
            negatives: Hard negatives of each query; shape (items, features) or (items, negatives, features).
            engine: How to run it.
            group: Ranks that share the loss, of directions between queries and documents without hard negatives.
        """
        rule = self if self._back else InfoNCELoss(self.temperature, self.measure)
        return rule._evaluate(lambda: self._batch(left, right, negatives), engine, group)

    def _batch(self, left: Array, right: Array, negatives: Array | None) -> Given:
        xp, queries_too = expect_alike(left=left, right=right), "query_to_query" in self.directions
        runs = [] if negatives is None else _runs(left, negatives)
        if not (runs or queries_too or "doc_to_doc" in self.directions):
            return Given(left, right, Aligned())
        anchors = [left, *([right, *runs] if "doc_to_doc" in self.directions else [])]
        references = [right, *runs, *([left] if queries_too else [])]
        items = int(left.shape[0])
        relation = Paired(items, items * len(runs), queries_too)
        return Given(xp.concat(anchors, axis=0), xp.concat(references, axis=0), relation)


def _runs(queries: Array, negatives: Array) -> list[Array]:
    """Hard negatives, one of each query at a time."""
    if negatives.ndim == 2:
        negatives = negatives[:, None, :]
    shape = tuple(negatives.shape)
    if len(shape) != 3 or (shape[0], shape[2]) != tuple(queries.shape):
        raise ShapeError(
            f"expected negatives of {queries.shape[0]} queries and {queries.shape[1]} features, got {shape}; "
            "give each query as many"
        )
    return [negatives[:, k, :] for k in range(shape[1])]
