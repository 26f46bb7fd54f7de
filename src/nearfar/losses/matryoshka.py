"""Matryoshka: one loss on the first features, for several numbers of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from nearfar._arrays import Array, expect_matrix, namespace, narrow, working_copy
from nearfar._errors import InputError, ShapeError
from nearfar.losses.hyper import expect_kinds
from nearfar.losses.sums import Loss, added, added_to, scaled


@dataclass(frozen=True)
class Matryoshka:
    r"""Matryoshka representation learning (Kusupati 2022): embeddings whose first features are embeddings too.

    With :math:`z_{1:d}` the first d features,

    .. math::
        \ell = \sum_{d \in D} c_d \, \ell(z_{1:d})

    Called like the loss inside, in all its forms; references and class weights are cut in the same way (class weights
    cut like this are the paper's efficient variant, MRL-E). Nothing else is done to a cut: a measure that normalises
    (``Cosine()``) does so on each cut, by its definition.

    Args:
        loss: A loss on pairs, a loss of features or a sum of losses.
        dims: D. The full size counts only if it is among them.
        weights: :math:`c_d`, one each; None: all 1, as in the paper.

    Raises:
        InputError: No size, one that is not a whole number >= 1, weights of another number or not finite.
        ShapeError: More features asked for than there are.

    Example:
        >>> import numpy as np
        >>> import nearfar as nf
        >>> x, y = np.array([[2.0, 0.0, 1.0], [1.5, 0.5, 0.0], [0.0, 1.0, 0.3]]), [0, 0, 1]
        >>> one = nf.SupConLoss()
        >>> both = nf.Matryoshka(one, dims=(2, 3))
        >>> bool(np.isclose(both(x, y), one(x[:, :2], y) + one(x, y)))
        True

    Memory: that of the loss inside; time, its time at each size.

    Reference:
        Kusupati et al., "Matryoshka Representation Learning", NeurIPS 2022, section 3. arXiv 2205.13147
    """

    loss: Loss
    dims: tuple[int, ...]
    weights: tuple[float, ...] | None = None

    learnable: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        """Refuse sizes and weights that cannot be, and what is no loss."""
        if not hasattr(self.loss, "value_and_grad"):
            raise InputError(f"expected loss to be a loss, got {self.loss!r}; for example nf.SupConLoss()")
        expect_kinds(self)
        whole = isinstance(self.dims, tuple) and all(isinstance(d, int) and d >= 1 for d in self.dims)
        if not whole or not self.dims:
            raise InputError(f"expected dims to be a tuple of whole numbers >= 1, got {self.dims!r}; say (8, 32, 128)")
        if self.weights is not None and len(self.weights) != len(self.dims):
            raise InputError(
                f"expected {len(self.dims)} weights, one each of dims, got {len(self.weights)}; "
                "leave weights out for 1 each"
            )
        if any(not abs(weight) < float("inf") for weight in self.weights or ()):
            raise InputError(f"expected finite weights, got {self.weights}; None makes them all 1")

    @property
    def has_class_weights(self) -> bool:
        """Whether the loss inside has them."""
        return bool(self.loss.has_class_weights)

    def __call__(self, embeddings: Array, labels: Any, **options: Any) -> Array:
        """The sum on a batch; arguments as of :meth:`PairLoss.__call__`, or two views for a loss of features."""
        return self._sum("__call__", (embeddings, labels), options)

    def per_anchor(self, embeddings: Array, labels: Any, **options: Any) -> Array:
        """The sum for each anchor; arguments as of :meth:`PairLoss.per_anchor`."""
        return self._sum("per_anchor", (embeddings, labels), options)

    def views(self, *views: Array, **options: Any) -> Array:
        """The sum on views of the same items."""
        return self._sum("views", views, options)

    def aligned(self, left: Array, right: Array, **options: Any) -> Array:
        """The sum on two batches whose rows match."""
        return self._sum("aligned", (left, right), options)

    def pairs(self, left: Array, right: Array, same: Any, **options: Any) -> Array:
        """The sum on given pairs."""
        return self._sum("pairs", (left, right, same), options)

    def triplets(self, anchor: Array, positive: Array, negative: Array, **options: Any) -> Array:
        """The sum on given triplets."""
        return self._sum("triplets", (anchor, positive, negative), options)

    def value_and_grad(self, *batch: Any, **options: Any) -> tuple[Array, Any]:
        """The sum and its exact gradient, whole embeddings long; arguments as of :meth:`__call__`.

        It is added up in float32 or float64, and rounded to the dtype of the embeddings once.
        """
        xp = namespace(embeddings=batch[0])
        expect_matrix("embeddings", batch[0])
        wide = [working_copy(xp, value) if _is_batch(value) else value for value in batch]
        more = {name: working_copy(xp, value) if _is_batch(value) else value for name, value in options.items()}
        value, gradients = None, None
        for weight, cut in self._cuts(batch[0]):
            part, slopes = self.loss.value_and_grad(*map(cut, wide), **{name: cut(v) for name, v in more.items()})
            own = slopes if isinstance(slopes, tuple) else (slopes,)
            grown = [weight * _padded(xp, slope, batch[0].shape[1]) for slope in own]
            value = weight * part if value is None else value + weight * part
            gradients = grown if gradients is None else [a + b for a, b in zip(gradients, grown, strict=True)]
        narrowed = tuple(narrow(gradient, batch[0]) for gradient in gradients or ())
        return narrow(value, batch[0]), narrowed if len(narrowed) > 1 else narrowed[0]

    def _sum(self, form: str, batch: tuple[Any, ...], options: dict[str, Any]) -> Array:
        call = getattr(self.loss, form, None)
        if call is None:
            raise InputError(f"expected a loss with the form .{form}, got {type(self.loss).__name__}; use another form")
        namespace(embeddings=batch[0])
        expect_matrix("embeddings", batch[0])
        total = None
        for weight, cut in self._cuts(batch[0]):
            part = weight * call(*map(cut, batch), **{name: cut(value) for name, value in options.items()})
            total = part if total is None else total + part
        return total

    def _cuts(self, embeddings: Array) -> list[tuple[float, Any]]:
        """Each weight, and what cuts an argument to its size."""
        features = embeddings.shape[1]
        if max(self.dims) > features:
            raise ShapeError(
                f"expected embeddings with at least {max(self.dims)} features, got {features}; "
                "take smaller dims or a wider model"
            )
        weights = self.weights or (1.0,) * len(self.dims)

        def cut(value: Any, d: int) -> Any:
            if not _is_batch(value):
                return value
            if value.shape[-1] != features:
                raise ShapeError(
                    f"expected batches of {features} features like the embeddings, got {value.shape[-1]}; "
                    "embed all with the same model"
                )
            return value[:, :d]

        return [(weight, partial(cut, d=d)) for weight, d in zip(weights, self.dims, strict=True)]

    __add__, __radd__ = added, added_to
    __mul__ = __rmul__ = scaled


def _is_batch(value: Any) -> bool:
    """Whether an argument is rows of features, and no labels or relation."""
    return hasattr(value, "dtype") and getattr(value, "ndim", 0) == 2


def _padded(xp: Any, gradient: Array, features: int) -> Array:
    """A gradient of the first features, with 0 for the rest."""
    rest = xp.zeros((gradient.shape[0], features - gradient.shape[1]), dtype=gradient.dtype, device=gradient.device)
    return xp.concat([gradient, rest], axis=1)
