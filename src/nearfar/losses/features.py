"""A loss of features: no pairs, no labels, no table; one rule on whole batches, and the ways to call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from nearfar import _tape
from nearfar._arrays import (
    Array,
    Namespace,
    arange,
    expect_matrix,
    followed,
    is_jax,
    is_torch,
    namespace,
    narrow,
    quiet,
    working_copy,
    zeros,
)
from nearfar._errors import InputError, ShapeError
from nearfar.engine import Outcome
from nearfar.engine.strips import tall
from nearfar.losses.hyper import expect_kinds, expect_no_tensor
from nearfar.losses.sums import added, added_to, scaled
from nearfar.measures import Measure
from nearfar.measures.base import Prepared, normalise, unit_difference, unnormalise


def by_strips(
    xp: Namespace, measure: Measure, side: Prepared, body: Callable[[Array, Array], tuple[Array, ...]]
) -> tuple[Array, ...]:
    """What ``body(table, places)`` gives for the rows at ``places`` against all rows, one after the other."""
    count, found = side.rows.shape[0], []
    places = arange(xp, count, side.rows)
    for start in range(0, count, tall(count)):
        part = slice(start, min(start + tall(count), count))
        table = measure.table(xp, side.strip(part.start, part.stop), side, start).values
        found.append(body(table, places[part]))
    return tuple(xp.concat(parts) for parts in zip(*found, strict=True))


class FeatureLoss:
    """Base of losses on features instead of pairs; a subclass is a frozen dataclass with :meth:`features`.

    Called with as many batches as its rule takes (``batches``: views of the same items, row by row), it returns one
    number, in their dtype and on their device and differentiable in PyTorch. There are no anchors, so there is no
    ``per_anchor``; there is no table, so ``engine`` changes nothing; ranks cannot share it.
    """

    # How a rule gets the table of a batch with itself; a library with loops of its own brings another.
    by_strips: ClassVar[Any] = staticmethod(by_strips)
    # Batches that the rule takes.
    batches: ClassVar[int] = 2
    # Items below which there is nothing to learn: value 0, gradient 0.
    least: ClassVar[int] = 1
    learnable: ClassVar[Mapping[str, str]] = {}
    has_class_weights: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse hyper-parameters that cannot be."""
        expect_kinds(self)
        self.check()

    def check(self) -> None:
        """Raise for hyper-parameters that cannot be; subclasses fill it."""

    def features(self, xp: Namespace, *views: Array) -> tuple[Array, tuple[Array | None, ...]]:
        """The loss and its gradients.

        Args:
            xp: The array namespace.
            *views: Batches of at least ``least`` items, float32 or float64; they stay as they are.

        Returns:
            The value, a float64 scalar, and the gradient of each batch; None for one that is taken as constant.
        """
        raise NotImplementedError

    def __call__(self, *views: Array, engine: Any = "auto", group: Any = None) -> Array:
        """The loss of one batch or of two views, as its docstring says.

        Args:
            *views: Shape (items, features), all alike.
            engine: Accepted for uniformity.
            group: Refused: statistics are of the batch at hand.

        Returns:
            A scalar of the caller's library; 0 with gradient 0 for too few items.

        Raises:
            InputError: A group.
            ShapeError: Another number of views, or shapes that differ.
            BackendError: Not floating arrays of one library, dtype and device.
        """
        xp = self._namespace(views, group)
        if followed():
            from nearfar.torch._compiled import evaluate

            return evaluate(self, views, engine, None)
        if is_jax(views[0]):
            from nearfar.jax._features import apply as traced

            return traced(self, *views)

        def run(gradient: bool, upstream: Array | None) -> Outcome:
            value, gradients = self._run(xp, views)
            return Outcome(value, None, (gradients[0], gradients[1] if len(views) > 1 else None))

        other = views[1] if len(views) > 1 else None
        if is_torch(views[0]):
            from nearfar.torch._autograd import apply
            from nearfar.torch._learned import learned

            return apply(run, views[0], other, False, learned(self))
        if isinstance(views[0], _tape.Watched):
            return _tape.apply(run, views[0], other, False)
        return narrow(run(False, None).value, views[0])

    def value_and_grad(self, *views: Array, engine: Any = "auto", group: Any = None) -> tuple[Array, Any]:
        """The loss and its exact gradient, on any library: of one batch, or the pair of both views' gradients."""
        xp = self._namespace(views, group)
        if followed():
            from nearfar.torch._compiled import value_and_grad

            return value_and_grad(self, views, engine, None)
        if is_jax(views[0]):
            from nearfar.jax._features import both

            value, narrowed = both(self, *views)
            return value, narrowed if len(views) > 1 else narrowed[0]
        value, gradients = self._run(xp, views)
        narrowed = tuple(
            xp.zeros_like(view) if gradient is None else narrow(gradient, view)
            for view, gradient in zip(views, gradients, strict=True)
        )
        return narrow(value, views[0]), narrowed if len(views) > 1 else narrowed[0]

    def views(self, *views: Array, engine: Any = "auto", group: Any = None) -> Array:
        """The loss of views of the same items; of a loss of one batch the mean over the views."""
        if self.batches > 1:
            return self(*views, engine=engine, group=group)
        self._expect_alike(views)
        total = self(views[0], group=group)
        for view in views[1:]:
            total = total + self(view, group=group)
        return total / len(views)

    def _namespace(self, views: tuple[Array, ...], group: Any) -> Namespace:
        name = type(self).__name__
        if group is not None:
            raise InputError(f"expected no group with {name}, got one; gather the views of all ranks and pass them")
        if len(views) != self.batches:
            remedy = "pass two views of the same items" if self.batches == 2 else "give several to .views"
            raise ShapeError(f"expected {self.batches} batches of features for {name}, got {len(views)}; {remedy}")
        return self._expect_alike(views)

    @staticmethod
    def _expect_alike(views: tuple[Array, ...]) -> Namespace:
        if any(view is None for view in views):
            raise InputError(
                f"expected {len(views)} arrays of features, got None among them; leave out what is not there"
            )
        xp = namespace(**{f"view {k}": view for k, view in enumerate(views, 1)})
        for view in views:
            expect_matrix("each view", view)
        if any(tuple(view.shape) != tuple(views[0].shape) for view in views[1:]):
            raise ShapeError(
                f"expected views of one shape, got {[tuple(view.shape) for view in views]}; align them row by row"
            )
        return xp

    def _run(self, xp: Namespace, views: tuple[Array, ...]) -> tuple[Array, tuple[Array | None, ...]]:
        copies = [working_copy(xp, view) for view in views]
        if copies[0].shape[0] < self.least:
            return zeros(xp, (), copies[0], xp.float64), tuple(xp.zeros_like(copy) for copy in copies)
        if not is_torch(copies[0]):
            expect_no_tensor(self)
            with quiet():
                return self.features(xp, *copies)
        from nearfar.torch._autograd import exactly

        with exactly(copies[0]), quiet():
            return self.features(xp, *copies)

    __add__, __radd__ = added, added_to
    __mul__ = __rmul__ = scaled


def total(xp: Namespace, values: Array) -> Array:
    """The sum of all entries, a float64 scalar."""
    return xp.sum(values, dtype=xp.float64)


def centred(xp: Namespace, x: Array) -> Array:
    """Deviations from the mean of each feature, exactly 0 for a constant one."""
    x = x - x[:1]
    return x - xp.astype(xp.sum(x, axis=0, dtype=xp.float64) / x.shape[0], x.dtype)


def on_sphere(xp: Namespace, x: Array, unit: bool) -> tuple[Array, Array | None]:
    """Unit rows and their norms, or the rows as they are."""
    return normalise(xp, x) if unit else (x, None)


def difference(
    xp: Namespace, one: tuple[Array, Array, Array | None], other: tuple[Array, Array, Array | None]
) -> Array:
    """Of rows of :func:`on_sphere`; each side is what that was given, and what it gave."""
    (x, a, norm_a), (y, b, norm_b) = one, other
    return a - b if norm_a is None or norm_b is None else unit_difference(xp, (x, a, norm_a), (y, b, norm_b))


def from_sphere(xp: Namespace, rows: Array, norm: Array | None, gradient: Array) -> Array:
    """The gradient of what :func:`on_sphere` was given."""
    return gradient if norm is None else unnormalise(xp, rows, norm, gradient)


def expect_weights(loss: Any, *names: str) -> None:
    """Raise unless these fields are finite and not negative."""
    for name in names:
        value = getattr(loss, name)
        if not 0 <= value < float("inf"):
            raise InputError(f"expected a finite {name} >= 0, got {value}; give the weight of its term")
