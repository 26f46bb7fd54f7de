"""Cross-entropy: a softmax loss whose references are class weights, and its binary form on pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, integers, namespace, sigmoid, softplus, times
from nearfar._errors import InputError, ShapeError
from nearfar.engine import Engine
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.class_rows import class_labels, classes_of
from nearfar.losses.inputs import given_measures, given_pairs
from nearfar.losses.softmax import check_temperature, logit, with_positives
from nearfar.measures import Dot, Similarity
from nearfar.relations import Classes, Pair, Relation, Rows
from nearfar.relations.labels import expect_classes, ignored


@dataclass(frozen=True)
class CrossEntropyLoss(PairLoss):
    r"""Cross-entropy over classes; over the two answers to "same?" with :meth:`pairs`.

    .. math::
        \ell_i = \log \sum_c e^{s_{ic} / \tau} - s_{i y_i} / \tau

    ``loss(logits, labels)`` takes one column a class; ``loss(embeddings, labels, class_weights=W)`` one row of ``W``
    a class (with ``Cosine()`` and a small temperature: the normalised softmax). An item whose label is no class
    counts for nothing.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity.
        measure: A similarity of embeddings and class weights.

    Raises:
        InputError: A temperature that is not positive, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> logits = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0]])
        >>> float(nf.CrossEntropyLoss()(logits, [0, 1]).round(4))
        1.2047

    Memory: a strip of the table.

    References:
        Bishop, "Pattern Recognition and Machine Learning", 2006, eq. (4.108); Zhai & Wu, "Classification is a Strong
        Baseline for Deep Metric Learning", BMVC 2019 (normalised softmax).
    """

    temperature: float = 1.0
    measure: Similarity = Dot()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    has_class_weights: ClassVar[bool] = True
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Temperature."""
        check_temperature(self.temperature)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """LSE over the classes minus the own class; weight: probability minus one-hot."""
        return pooled(self, xp, s, pair)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """The logit."""
        return logit(s, self.temperature)

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """The own class among all."""
        loss, by_pool, by_logit = own_among_all(xp, positive / self.temperature, pool, pair)
        return loss, by_pool, by_logit / self.temperature

    def pairs(self, left: Array, right: Array, same: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """Binary cross-entropy of given pairs: :meth:`BinaryCrossEntropyLoss.pairs`."""
        return self._binary().pairs(left, right, same, engine=engine, group=group)

    def similarities(self, similarity: Array, same: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """Binary cross-entropy of given logits: :meth:`BinaryCrossEntropyLoss.similarities`."""
        return self._binary().similarities(similarity, same, engine=engine, group=group)

    def _binary(self) -> BinaryCrossEntropyLoss:
        return BinaryCrossEntropyLoss(self.temperature, self.measure)

    def _table(
        self,
        embeddings: Array,
        labels: Any,
        references: Array | None,
        reference_labels: Any,
        class_weights: Array | None,
        ignore_label: int | str | None,
    ) -> tuple[Array | None, Relation | Rows]:
        """Class weights are the references; without either the embeddings are the logits themselves."""
        xp = namespace(embeddings=embeddings, class_weights=class_weights)
        if class_weights is not None:
            own = class_labels(xp, labels, embeddings, ignore_label)
            return class_weights, classes_of(xp, own, references, class_weights, ignore_label)
        if references is not None:
            return super()._table(embeddings, labels, references, reference_labels, None, ignore_label)
        if embeddings.ndim != 2:
            raise ShapeError(f"expected logits of shape (items, classes), got {tuple(embeddings.shape)}; stack them")
        ignore_label = ignored(ignore_label)
        if isinstance(ignore_label, str):
            raise InputError(f"expected integer labels of logits' columns, got {ignore_label!r}; number the classes")
        own = integers(xp, labels, "labels", embeddings, {})
        if own.shape[0] != embeddings.shape[0]:
            raise ShapeError(f"expected {embeddings.shape[0]} labels, got {own.shape[0]}; give one label an item")
        expect_classes(xp, own, embeddings.shape[1], ignore_label)
        if ignore_label is not None:
            own = xp.where(own != ignore_label, own, -xp.ones_like(own))
        return None, Classes(own)


def own_among_all(xp: Namespace, logits: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
    """LSE over the pool and the listed positives minus the mean positive logit, and its derivatives by both."""
    own, among, added, others = with_positives(xp, logits, pool, pair)
    loss = added + (own - xp.sum(times(xp, pair.share, logits), axis=1, keepdims=True))
    return loss, others, (among - pair.share) - among * others


@dataclass(frozen=True)
class BinaryCrossEntropyLoss(PairLoss):
    r"""Cross-entropy of the answer to "same?", whose logit is the pair's similarity.

    .. math::
        \ell = y \log(1 + e^{-s / \tau}) + (1 - y) \log(1 + e^{s / \tau})

    with :math:`y = 1` for similar pairs; the mean over all pairs.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity.
        measure: A similarity.

    Raises:
        InputError: A temperature that is not positive, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> float(nf.BinaryCrossEntropyLoss().similarities(np.array([2.0, -1.0]), [1, 0]).round(4))
        0.2201

    Memory: a strip of the table.

    Reference:
        Bishop, "Pattern Recognition and Machine Learning", 2006, eq. (4.90), with a logit.
    """

    temperature: float = 1.0
    measure: Similarity = Dot()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    learnable: ClassVar[Mapping[str, str]] = {"temperature": "divisor"}

    def check(self) -> None:
        """Temperature."""
        check_temperature(self.temperature)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Log-loss of each pair."""
        z = s / self.temperature
        positive = pair.take(z)
        z = pair.negatives(z, -float("inf"))
        pull = times(xp, pair.weight, sigmoid(xp, -positive))
        loss = xp.sum(times(xp, pair.weight, softplus(xp, -positive)), axis=1)
        loss = loss + xp.sum(pair.weigh(softplus(xp, z)), axis=1)
        return loss, pair.add(pair.weigh(sigmoid(xp, z)), -pull) / self.temperature

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Each pair is a term."""
        return pair.positive_count + pair.negative_count

    def pairs(self, left: Array, right: Array, same: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of given pairs.

        Args:
            left: One side of each pair; shape (pairs, features).
            right: The other side; shape (pairs, features).
            same: 1 for similar, 0 for dissimilar; shape (pairs,).
            engine: Accepted for uniformity; given pairs make no table.
            group: Ranks over whose pairs the mean is taken.
        """
        return self._evaluate(lambda: given_pairs(left, right, same), engine, group)

    def similarities(self, similarity: Array, same: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of pairs whose similarity (logit) is already computed.

        Args:
            similarity: Logit of each pair; shape (pairs,).
            same: 1 for similar, 0 for dissimilar; shape (pairs,).
            engine: Accepted for uniformity; given similarities make no table.
            group: Ranks over whose pairs the mean is taken.
        """
        return self._evaluate(lambda: given_measures("similarity", similarity, same), engine, group)
