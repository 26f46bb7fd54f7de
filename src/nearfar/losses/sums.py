"""Sums and multiples of losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from nearfar._arrays import Array
from nearfar._errors import InputError

Loss: TypeAlias = Any
"""A :class:`~nearfar.PairLoss`, a :class:`~nearfar.FeatureLoss` or a :class:`~nearfar.Matryoshka`."""


@dataclass(frozen=True)
class LossSum:
    """A weighted sum of losses, itself called like a loss: each part gets the same arguments.

    ``class_weights`` goes to the parts that have them. A call form that one part lacks is refused by name; losses on
    pairs and losses of features have ``views`` in common.

    Args:
        parts: Factor and loss of each term.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> both = 0.5 * nf.CrossEntropyLoss() + nf.ContrastiveLoss()
        >>> x, y = np.array([[2.0, 0.0], [1.5, 0.5], [0.0, 1.0]]), [0, 0, 1]
        >>> apart = 0.5 * nf.CrossEntropyLoss()(x, y) + nf.ContrastiveLoss()(x, y)
        >>> bool(np.isclose(both(x, y), apart))
        True
    """

    parts: tuple[tuple[float, Loss], ...]

    def __call__(self, embeddings: Array, labels: Any, **options: Any) -> Array:
        """The sum on a batch; arguments as of :meth:`PairLoss.__call__`."""
        self._expect_one_form()
        return self._sum(lambda loss: loss(embeddings, labels, **_for(loss, options)))

    def per_anchor(self, embeddings: Array, labels: Any, **options: Any) -> Array:
        """The sum for each anchor; arguments as of :meth:`PairLoss.per_anchor`."""
        return self._sum(lambda loss: self._form(loss, "per_anchor")(embeddings, labels, **_for(loss, options)))

    def value_and_grad(self, embeddings: Array, labels: Any, **options: Any) -> tuple[Array, Any]:
        """The sum and its gradient of the embeddings; with references or class weights the pair of both gradients.

        Class weights have the gradient of the parts that use them.
        """
        self._expect_one_form()
        value, anchors, others = None, None, None
        for factor, loss in self.parts:
            part, gradient = loss.value_and_grad(embeddings, labels, **_for(loss, options))
            first, second = gradient if isinstance(gradient, tuple) else (gradient, None)
            value = _plus(value, factor * part)
            anchors = _plus(anchors, factor * first)
            others = others if second is None else _plus(others, factor * second)
        return value, anchors if others is None else (anchors, others)

    def views(self, *views: Array, **options: Any) -> Array:
        """The sum on views of the same items."""
        return self._sum(lambda loss: loss.views(*views, **options))

    def aligned(self, left: Array, right: Array, **options: Any) -> Array:
        """The sum on two batches whose rows match."""
        return self._sum(lambda loss: self._form(loss, "aligned")(left, right, **options))

    def pairs(self, left: Array, right: Array, same: Any, **options: Any) -> Array:
        """The sum on given pairs."""
        return self._sum(lambda loss: self._form(loss, "pairs")(left, right, same, **options))

    def distances(self, distance: Array, same: Any, **options: Any) -> Array:
        """The sum on pairs whose distance is already computed."""
        return self._sum(lambda loss: self._form(loss, "distances")(distance, same, **options))

    def triplets(self, anchor: Array, positive: Array, negative: Array, **options: Any) -> Array:
        """The sum on given triplets."""
        return self._sum(lambda loss: self._form(loss, "triplets")(anchor, positive, negative, **options))

    def _sum(self, call: Callable[[Loss], Array]) -> Array:
        total = None
        for factor, loss in self.parts:
            total = _plus(total, factor * call(loss))
        return total

    @property
    def has_class_weights(self) -> bool:
        """Whether a part has them."""
        return any(loss.has_class_weights for _, loss in self.parts)

    def _expect_one_form(self) -> None:
        """Refuse to call losses on pairs and losses of features with the same two arguments."""
        of_features = [type(loss).__name__ for _, loss in self.parts if hasattr(loss, "features")]
        if of_features and len(of_features) < len(self.parts):
            raise InputError(
                f"expected parts that take embeddings and labels, got {', '.join(of_features)}; "
                "call .views(z1, z2), which losses on pairs and losses of features have in common"
            )

    @staticmethod
    def _form(loss: Loss, name: str) -> Callable[..., Array]:
        form = getattr(loss, name, None)
        if form is None:
            raise InputError(f"expected every part to have the form .{name}, got {type(loss).__name__}; leave it out")
        return form  # type: ignore[no-any-return]

    def __add__(self, other: Any) -> LossSum:
        """Sum with a loss or a sum."""
        if isinstance(other, LossSum):
            return LossSum(self.parts + other.parts)
        if hasattr(other, "value_and_grad"):
            return LossSum((*self.parts, (1.0, other)))
        return NotImplemented

    def __radd__(self, other: Any) -> LossSum:
        """0 + sum, so that ``sum`` works."""
        return self if other == 0 else NotImplemented

    def __mul__(self, factor: float) -> LossSum:
        """Every part times a number."""
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        return LossSum(tuple((factor * own, loss) for own, loss in self.parts))

    __rmul__ = __mul__


def added(self: Loss, other: Any) -> Any:
    """``__add__`` of a loss: the sum with a loss or a sum."""
    return LossSum(((1.0, self),)) + other


def added_to(self: Loss, other: Any) -> Any:
    """``__radd__`` of a loss: 0 + loss, so that ``sum`` works."""
    return LossSum(((1.0, self),)).__radd__(other)


def scaled(self: Loss, factor: float) -> Any:
    """``__mul__`` of a loss: a loss times a number."""
    return LossSum(((1.0, self),)) * factor


def _plus(total: Any, part: Any) -> Any:
    return part if total is None else total + part


def _for(loss: Loss, options: dict[str, Any]) -> dict[str, Any]:
    if loss.has_class_weights:
        return options
    return {name: value for name, value in options.items() if name != "class_weights"}
