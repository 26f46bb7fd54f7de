"""Losses of pairs with graded scores: what is scored higher shall be more similar. Given pairs only, no table.

Every two pairs of different score make one term of one log-sum-exp over the batch. Sorted by score, the pairs below a
pair are a prefix, so that P pairs take O(P log P) time and O(P) memory instead of P².
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from nearfar._arrays import Array, Namespace, as_like, exp_sum, expect_matrix, namespace, sigmoid, softplus, where
from nearfar._errors import InputError, ShapeError
from nearfar.engine import Engine
from nearfar.losses.base import PairLoss
from nearfar.losses.inputs import given_measures, given_pairs
from nearfar.losses.softmax import check_temperature
from nearfar.measures import Cosine, Similarity
from nearfar.measures.base import normalise, unnormalise
from nearfar.relations import Pair

INF = float("inf")


@dataclass(frozen=True)
class CoSENTLoss(PairLoss):
    r"""CoSENT: similarities in the order of the scores (Su 2022).

    .. math::
        L = \log\Big(1 + \sum_{y_i > y_j} e^{(s_j - s_i) / \tau}\Big)

    over all ordered pairs of pairs i, j of the batch with scores :math:`y`: one number a batch, no mean.

    Args:
        temperature: :math:`\tau > 0`, in the unit of the similarity; 1/20 in the source.
        measure: A similarity.

    Raises:
        InputError: A temperature that is not positive, or a distance as measure; any form but :meth:`pairs` and
            :meth:`similarities`; a group.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> similarity, score = np.array([0.9, 0.3, 0.4]), [5.0, 3.0, 1.0]
        >>> float(nf.CoSENTLoss(temperature=0.1).similarities(similarity, score).round(4))  # log(1 + e + e⁻⁵ + e⁻⁶)
        1.3157

    Memory: O(pairs).

    Reference:
        Su Jianlin, "CoSENT", 2022, https://kexue.fm/archives/8847
    """

    temperature: float = 0.05
    measure: Similarity = Cosine()  # noqa: RUF009  (frozen, without state)

    kind: ClassVar[str] = "similarity"

    def check(self) -> None:
        """Temperature."""
        check_temperature(self.temperature)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Not of a table."""
        raise _no_table(self)

    def pairs(self, left: Array, right: Array, score: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of given pairs.

        Args:
            left: One side of each pair; shape (pairs, features).
            right: The other side; shape (pairs, features).
            score: Higher is more similar, in any unit; shape (pairs,).
            engine: Accepted for uniformity; given pairs make no table.
            group: Not possible; the order is that of one batch.
        """
        namespace(left=left)
        expect_matrix("left", left)
        rule = _ordered(self, self.measure, left, score, group)
        return rule._evaluate(lambda: given_pairs(left, right, [1] * left.shape[0]), engine)

    def similarities(self, similarity: Array, score: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of pairs whose similarity is already computed.

        Args:
            similarity: Of each pair; shape (pairs,).
            score: Higher is more similar, in any unit; shape (pairs,).
            engine: Accepted for uniformity; given similarities make no table.
            group: Not possible; the order is that of one batch.
        """
        rule = _ordered(self, self.measure, similarity, score, group)
        return rule._evaluate(lambda: given_measures("similarity", similarity, [1] * similarity.shape[0]), engine)


@dataclass(frozen=True)
class ComplexAngle(Cosine):
    """The similarity of :class:`AnglELoss`, of given pairs: unit vectors' product with (1 + i) times the other's."""

    def rows(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Pair by pair."""
        return xp.abs(self._signed(xp, normalise(xp, a)[0], normalise(xp, b)[0]))

    def pull_rows(self, xp: Namespace, values: Array, weight: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """Through the absolute value, the turn and both normalisations."""
        (unit_a, norm_a), (unit_b, norm_b) = normalise(xp, a), normalise(xp, b)
        weight = weight * xp.sign(self._signed(xp, unit_a, unit_b))
        grad_a = xp.sum(weight[:, :, None] * _turned(xp, unit_b, 1), axis=1)
        grad_b = _turned(xp, weight[:, :, None] * unit_a[:, None, :], -1)
        return unnormalise(xp, unit_a, norm_a, grad_a), unnormalise(xp, unit_b, norm_b, grad_b)

    def _signed(self, xp: Namespace, a: Array, b: Array) -> Array:
        return xp.sum(a[:, None, :] * _turned(xp, b, 1), axis=-1)


@dataclass(frozen=True)
class AnglELoss(PairLoss):
    r"""AnglE: CoSENT on a similarity of complex vectors whose gradient does not die near cosine ±1 (Li 2023).

    The first half of the features are real parts and the second half imaginary parts, :math:`z` of the left and
    :math:`w` of the right vector:

    .. math::
        s = \Big| \sum_k \operatorname{Re}(z_k \bar w_k) + \operatorname{Im}(z_k \bar w_k) \Big| / (\|z\| \|w\|), \quad
        L = \log\Big(1 + \sum_{y_i > y_j} e^{(s_j - s_i) / \tau}\Big)

    as in the authors' code, where :math:`s` grows with similarity; the paper calls it a difference of angles and adds
    the loss to CoSENT: ``nf.CoSENTLoss() + nf.AnglELoss()``.

    Args:
        temperature: :math:`\tau > 0`; 1/20 in the authors' code.
        measure: The similarity above, no other.

    Raises:
        InputError: A temperature that is not positive; any form but :meth:`pairs`; a group.
        ShapeError: An odd number of features.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> left = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> right = np.array([[0.6, 0.8], [1.0, 0.0]])
        >>> float(nf.AnglELoss(temperature=0.5).pairs(left, right, [0.2, 0.9]).round(4))
        0.1839

    Memory: O(pairs).

    Reference:
        Li, Li, "AoE: Angle-optimized Embeddings for Semantic Textual Similarity", ACL 2024. arXiv 2309.12871
    """

    temperature: float = 0.05
    measure: Similarity = field(default=ComplexAngle(), init=False, repr=False)

    kind: ClassVar[str] = "similarity"

    def check(self) -> None:
        """Temperature."""
        check_temperature(self.temperature)

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """Not of a table."""
        raise _no_table(self)

    def pairs(self, left: Array, right: Array, score: Any, *, engine: Engine = "auto", group: Any = None) -> Array:
        """The loss of given pairs; arguments as of :meth:`CoSENTLoss.pairs`, with an even number of features."""
        namespace(left=left)
        expect_matrix("left", left)
        if left.shape[1] % 2:
            raise ShapeError(f"expected an even number of features, got {left.shape[1]}; half are imaginary parts")
        rule = _ordered(self, self.measure, left, score, group)
        return rule._evaluate(lambda: given_pairs(left, right, [1] * left.shape[0]), engine)


def _turned(xp: Namespace, x: Array, sign: int) -> Array:
    """(1 ± i) x, real parts first."""
    half = x.shape[-1] // 2
    re, im = x[..., :half], x[..., half:]
    return xp.concat([re - sign * im, im + sign * re], axis=-1)


@dataclass(frozen=True, eq=False)
class _Ordered(PairLoss):
    """The rule of both losses on a column of pairs, with their scores."""

    temperature: float
    measure: Similarity
    score: Array

    kind: ClassVar[str] = "similarity"

    def strip(self, xp: Namespace, s: Array, pair: Pair) -> tuple[Array, Array]:
        """The whole batch is one term, of which each pair holds the same share."""
        value, weight = _out_of_order(xp, s[:, 0] / self.temperature, self.score)
        count = max(s.shape[0], 1)
        return xp.zeros_like(s) + value / count, weight[:, None] / self.temperature

    def terms(self, xp: Namespace, pair: Pair, weight: Array) -> Array:
        """All pairs together make one."""
        return xp.ones_like(weight) / max(weight.shape[0], 1)


def _ordered(loss: Any, measure: Similarity, batch: Array, score: Any, group: Any) -> _Ordered:
    if group is not None:
        raise InputError("expected no group with scores, whose order is that of one batch, got one; gather the pairs")
    xp = namespace(batch=batch)
    if batch.ndim == 0:
        raise ShapeError("expected a batch of pairs, got a number; give shape (pairs,)")
    given = as_like(xp, score, batch, xp.float64 if batch.dtype == xp.float64 else xp.float32)
    if tuple(given.shape) != tuple(batch.shape[:1]):
        raise ShapeError(f"expected score of shape ({batch.shape[0]},), got {tuple(given.shape)}; give one a pair")
    return _Ordered(loss.temperature, measure, given)


def _no_table(loss: Any) -> InputError:
    return InputError(
        f"expected pairs with scores, got a table; call {type(loss).__name__}().pairs(left, right, score)"
    )


def _out_of_order(xp: Namespace, z: Array, score: Array) -> tuple[Array, Array]:
    """log(1 + Σ exp(z_j − z_i)) over all i, j of which i is scored higher, and its derivative by ``z``."""
    if not z.shape[0]:
        return xp.sum(z), z
    order = xp.argsort(score, stable=True)
    # A score that is no number spoils the value, as a similarity would.
    score, z = score[order], where(xp, score == score, z, float("nan"))[order]
    first, after = (xp.searchsorted(score, score, side=side) for side in ("left", "right"))
    none = xp.zeros_like(z[:1]) - INF
    lower = xp.concat([none, _running(xp, z)])[first]
    higher = xp.concat([xp.flip(_running(xp, xp.flip(-z))), none])[after]
    total = exp_sum(xp, (lower - z)[None, :])[0][0, 0]
    shift = where(xp, total != -INF, total, 0.0)
    weight = sigmoid(xp, total) * (xp.exp(z + higher - shift) - xp.exp(lower - z - shift))
    return softplus(xp, total), weight[xp.argsort(order, stable=True)]


def _running(xp: Namespace, z: Array) -> Array:
    """Log-sum-exp of each entry and all before it, in log₂ steps."""
    step = 1
    while step < z.shape[0]:
        z = xp.concat([z[:step], xp.logaddexp(z[step:], z[:-step])])
        step *= 2
    return z
