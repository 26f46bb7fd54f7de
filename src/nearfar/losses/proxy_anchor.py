"""Proxy anchor: the table turned, its two means taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nearfar._arrays import (
    Array,
    Namespace,
    arange,
    at_least,
    expect_matrix,
    namespace,
    sigmoid,
    softplus,
    times,
    zeros,
)
from nearfar._errors import InputError
from nearfar.engine import Engine, Given
from nearfar.engine.passes import Passes
from nearfar.engine.rules import pooled
from nearfar.losses.base import PairLoss
from nearfar.losses.class_rows import class_labels
from nearfar.losses.pools import positive_pool
from nearfar.measures import Cosine, Similarity
from nearfar.relations import Labels, Pair
from nearfar.relations.labels import expect_classes, ignored


@dataclass(frozen=True)
class _Balanced(PairLoss):
    """Proxy anchor as one mean over all anchors; ``share`` is their number over that of those with a positive."""

    alpha: float
    margin: float
    measure: Similarity
    share: Array

    kind: ClassVar[str] = "similarity"

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Softplus of two LSEs."""
        return pooled(self, xp, s, pair)

    def exponent(self, xp: Namespace, s: Array) -> tuple[Array, float]:
        """α (s + δ)."""
        s += self.margin
        s *= self.alpha
        return s, self.alpha

    def combine(self, xp: Namespace, positive: Array, pool: Array, pair: Pair) -> tuple[Array, Array, Array]:
        """1 + Σ exp is the exponential of the softplus."""
        share = xp.astype(self.share, pool.dtype)
        own, among = positive_pool(xp, -self.alpha * (positive - self.margin), pair)
        loss = share * softplus(xp, own) + softplus(xp, pool)
        return loss, sigmoid(xp, pool), times(xp, among, -self.alpha * share * sigmoid(xp, own))

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """Every anchor counts."""
        return xp.ones_like(pair.positive_count)


class CountedAnchors(Passes):
    """A proxy anchor's table in strips of ``height`` of the anchors ``own``; the anchors are counted first."""

    def run(self, upstream: Array | None, gradient: bool, into: tuple[Array, Array]) -> tuple[Array, Array]:
        """Losses and terms of the own anchors; their gradient is added to ``into``."""
        xp, measure = self.xp, self.loss.measure
        rule = self.loss.counted(self._share())
        losses = [zeros(xp, (0,), self.a.rows)]
        for start, stop in self.strips():
            table = self.table(start, stop)
            value, weight = pooled(rule, xp, table.own(xp, measure), self.bound.strip(start, stop))
            losses.append(xp.reshape(value, (-1,)))
            if gradient:
                if upstream is not None:
                    weight = weight * upstream[self.part(start, stop), None]
                self.pull(table, weight, start, stop, into)
        return xp.concat(losses), xp.ones_like(xp.astype(xp.concat(losses), xp.float64))

    def _share(self) -> Array:
        """Anchors over anchors with a positive."""
        xp, own = self.xp, self.own
        counts = self.bound.strip(own.start, own.stop).positive_count
        found = xp.stack([xp.sum(some, dtype=xp.float64) for some in (counts >= 0, counts > 0)])
        found = found if self.peers is None else self.peers.total(found)
        return found[0] / at_least(xp, found[1], 1.0)


@dataclass(frozen=True)
class ProxyAnchorLoss(PairLoss):
    r"""Proxy anchor (Kim 2020): the proxies are the anchors, the embeddings what they are compared with.

    With :math:`X_p^+` the items of proxy p's class, :math:`X_p^-` the others, :math:`P^+` the proxies that have items,

    .. math::
        L = \frac{1}{|P^+|} \sum_{p \in P^+} \log\Big(1 + \sum_{x \in X_p^+} e^{-\alpha (s_{px} - \delta)}\Big)
        + \frac{1}{|P|} \sum_{p \in P} \log\Big(1 + \sum_{x \in X_p^-} e^{\alpha (s_{px} + \delta)}\Big)

    ``loss(embeddings, labels, class_weights=W)`` takes one proxy a class. An item whose label is no class is a negative
    of every proxy; one of ``ignore_label`` takes part in nothing. Without class weights the anchors of the call are the
    proxies. The two means are taken apart, so :meth:`per_anchor` (one number a proxy) has the first sum times
    :math:`|P| / |P^+|`, and its mean is the loss.

    Args:
        alpha: :math:`\alpha > 0`, how much the hardest items stand out.
        margin: :math:`\delta \geq 0`.
        measure: A similarity; the cosine in the paper.

    Raises:
        InputError: A hyper-parameter outside its range, or a distance as measure.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x, proxies = np.array([[0.8, 0.6], [0.6, 0.8]]), np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> float(nf.ProxyAnchorLoss(alpha=1.0)(x, [0, 1], class_weights=proxies).round(4))
        1.5064

    Memory: a strip of the table.

    Reference:
        Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020. arXiv 2003.13911
    """

    alpha: float = 32.0
    margin: float = 0.1
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"
    has_class_weights: ClassVar[bool] = True
    # How many anchors have a positive is not in a strip: the loss runs its table itself.
    passes: ClassVar[Any] = CountedAnchors

    def check(self) -> None:
        """Scale and margin."""
        if not 0 < self.alpha < float("inf"):
            raise InputError(f"expected alpha > 0, got {self.alpha}; 32 in the paper")
        if not 0 <= self.margin < float("inf"):
            raise InputError(f"expected margin >= 0, got {self.margin}; 0.1 in the paper")

    def counted(self, share: Array) -> _Balanced:
        """The loss as one mean, once it is known how many anchors there are for each with a positive."""
        return _Balanced(self.alpha, self.margin, self.measure, share)

    def value_and_grad(
        self,
        embeddings: Array,
        labels: Any,
        *,
        references: Array | None = None,
        reference_labels: Any = None,
        class_weights: Array | None = None,
        ignore_label: int | str | None = None,
        engine: Engine = "auto",
        group: Any = None,
    ) -> tuple[Array, Any]:
        """The loss and its exact gradient; with class weights the pair (of the embeddings, of the class weights)."""
        value, gradients = super().value_and_grad(
            embeddings,
            labels,
            references=references,
            reference_labels=reference_labels,
            class_weights=class_weights,
            ignore_label=ignore_label,
            engine=engine,
            group=group,
        )
        return value, gradients if class_weights is None else gradients[::-1]

    def _given(self, embeddings: Array, labels: Any, *options: Any) -> Given:
        """The table turned: class weights as anchors."""
        references, _, class_weights, ignore_label = options
        if class_weights is None:
            return super()._given(embeddings, labels, *options)
        if references is not None:
            raise InputError("expected references or class_weights, got both; class c is row c of class_weights")
        xp = namespace(embeddings=embeddings, class_weights=class_weights)
        own = class_labels(xp, labels, embeddings, ignore_label)
        nobody = None
        if ignore_label is not None:
            # A name of their own, so that the proxy of an ignored class stays.
            nobody = int(xp.iinfo(xp.int64).min)
            own = xp.where(own == ignored(ignore_label), xp.full_like(own, nobody), own)
        expect_matrix("class_weights", class_weights)
        expect_classes(xp, own, class_weights.shape[0], nobody)
        classes = arange(xp, class_weights.shape[0], class_weights)
        return Given(class_weights, embeddings, Labels(classes, own, nobody))


__all__ = ["ProxyAnchorLoss"]
