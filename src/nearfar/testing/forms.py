"""How losses are called: on labelled embeddings, on class weights, on views without pairs, on pairs with scores.

A :class:`Batch` is what one call gets; a form says which batches a loss is checked on and how it is called with them.
A check asks the form for its batches and never calls a loss itself.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from nearfar._errors import InputError
from nearfar.losses import FeatureLoss, LossSum, Matryoshka, PairLoss
from nearfar.testing.batches import Battery, Values
from nearfar.testing.libraries import Array

# 13 rows, classes of unequal size, one singleton; 9 references, one class only there, one missing.
LABELS = np.array([3, 0, 0, 7, 3, 0, 7, 0, 3, 9, 7, 0, 3])
GALLERY = np.array([0, 7, 3, 11, 0, 3, 0, 7, 11])


class NotApplicable(Exception):  # noqa: N818  (nothing is wrong)
    """Raised by a check that says nothing about this loss in this cell; the message is the reason."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one call of a loss gets.

    Attributes:
        name: In messages.
        arrays: What the loss is differentiated by, in float64.
        labels: One entry an array: its labels, or None.
    """

    name: str
    arrays: tuple[Values, ...]
    labels: tuple[Any, ...]

    def with_arrays(self, name: str, *arrays: Values) -> Batch:
        """The same labels on other numbers."""
        return replace(self, name=f"{self.name}, {name}", arrays=arrays)

    def permuted(self, orders: tuple[Any, ...]) -> Batch:
        """Rows in another order, and their labels with them."""
        pairs = list(zip(self.labels, orders, strict=True))
        return Batch(
            f"{self.name}, permuted",
            tuple(a[k] for a, k in zip(self.arrays, orders, strict=True)),
            tuple(None if v is None else np.asarray(v)[k] for v, k in pairs),
        )


class Form(Protocol):
    """A way to call a loss."""

    # Whether anchors are compared with references by labels, so that engines, names and single anchors mean something.
    pairs: bool

    def samples(self, seed: int) -> list[Batch]:
        """Ordinary batches."""
        ...

    def degenerate(self, battery: Battery) -> list[Batch]:
        """The batches of a battery."""
        ...

    def orders(self, batch: Batch, rng: np.random.Generator) -> tuple[Any, ...]:
        """A permutation of each array's rows that the value must not feel."""
        ...

    def value(self, loss: Any, batch: Batch, *arrays: Array, **options: Any) -> Array:
        """The loss of a batch whose numbers are ``arrays``."""
        ...

    def both(self, loss: Any, batch: Batch, *arrays: Array, **options: Any) -> tuple[Array, tuple[Array, ...]]:
        """Value and gradients by the loss's own ``value_and_grad``; NotApplicable where it has none."""
        ...


@dataclass(frozen=True)
class OnLabels:
    """``loss(x, labels)``, and the same with references; at least ``features`` wide."""

    features: int = 1

    pairs = True

    def samples(self, seed: int) -> list[Batch]:
        """A batch against itself and against references."""
        rng = np.random.default_rng(seed)
        x = 0.6 * rng.normal(size=(13, 5)) * rng.uniform(0.5, 1.5, size=(13, 1))
        y = 0.7 * rng.normal(size=(9, 5))
        return [Batch("a batch", (x,), (LABELS,)), Batch("a batch with references", (x, y), (LABELS, GALLERY))]

    def degenerate(self, battery: Battery) -> list[Batch]:
        """Against itself."""
        return [Batch(name, (_wide(x, self.features),), (labels,)) for name, (x, labels) in battery.items()]

    def orders(self, batch: Batch, rng: np.random.Generator) -> tuple[Any, ...]:
        """Of each side."""
        return tuple(rng.permutation(len(a)) for a in batch.arrays)

    def value(self, loss: Any, batch: Batch, *arrays: Array, **options: Any) -> Array:
        """The call."""
        return self._called(loss, batch, arrays, options)

    def both(self, loss: Any, batch: Batch, *arrays: Array, **options: Any) -> tuple[Array, tuple[Array, ...]]:
        """The call that brings the gradient along."""
        value, gradient = self._called(loss.value_and_grad, batch, arrays, options)
        return value, gradient if isinstance(gradient, tuple) else (gradient,)

    def _called(self, call: Any, batch: Batch, arrays: tuple[Array, ...], options: dict[str, Any]) -> Any:
        if len(arrays) > 1 and batch.labels[1] is None:
            options = {"class_weights": arrays[1], **options}
        elif len(arrays) > 1:
            options = {"references": arrays[1], "reference_labels": batch.labels[1], **options}
        return call(arrays[0], batch.labels[0], **options)


@dataclass(frozen=True)
class OnClasses(OnLabels):
    """``loss(x, labels, class_weights=W)``, ``per_class`` rows of W a class; and the same with references."""

    per_class: int = 1

    def samples(self, seed: int) -> list[Batch]:
        """Items of four classes against five, and against references."""
        with_references = super().samples(seed)[1]
        weights = 0.7 * np.random.default_rng(seed + 1).normal(size=(5 * self.per_class, 5))
        items = Batch("a batch with class weights", (with_references.arrays[0], weights), (_numbered(LABELS), None))
        return [items, with_references]

    def degenerate(self, battery: Battery) -> list[Batch]:
        """Against class weights of the items' features, of one class more than there are."""
        return [self._against_weights(name, x, _numbered(labels)) for name, (x, labels) in battery.items()]

    def orders(self, batch: Batch, rng: np.random.Generator) -> tuple[Any, ...]:
        """Of items and references; classes keep their numbers."""
        items, references = super().orders(batch, rng)
        return items, references if batch.labels[1] is not None else np.arange(len(references))

    def _against_weights(self, name: str, x: Values, labels: Any) -> Batch:
        rows = (int(labels.max(initial=0)) + 2) * self.per_class
        weights = np.random.default_rng(3).normal(size=(rows, x.shape[1])) / np.sqrt(x.shape[1])
        return Batch(name, (_wide(x, self.features), _wide(weights, self.features)), (labels, None))


@dataclass(frozen=True)
class OnViews:
    """``loss(x)`` or ``loss(x, y)``, whose rows belong together; no labels."""

    count: int
    features: int = 1

    pairs = False

    def samples(self, seed: int) -> list[Batch]:
        """One or two views of eleven items."""
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(11, 5)) * rng.uniform(0.5, 1.5, size=(11, 1))
        views = (x, x + 0.4 * rng.normal(size=x.shape))[: self.count]
        return [Batch("a batch of views", views, (None,) * self.count)]

    def degenerate(self, battery: Battery) -> list[Batch]:
        """The items, beside the next ones of the batch; 512 features at most, whose squares some tabulate."""
        found = []
        for name, (whole, _) in battery.items():
            x = whole[:, :512]
            views = (_wide(x, self.features), np.roll(_wide(x, self.features), 1, axis=0))[: self.count]
            found.append(Batch(name, views, (None,) * self.count))
        return found

    def orders(self, batch: Batch, rng: np.random.Generator) -> tuple[Any, ...]:
        """One for all views."""
        return (rng.permutation(len(batch.arrays[0])),) * len(batch.arrays)

    def value(self, loss: Any, batch: Batch, *arrays: Array, **options: Any) -> Array:
        """The call."""
        return loss(*arrays, **options)

    def both(self, loss: Any, batch: Batch, *arrays: Array, **options: Any) -> tuple[Array, tuple[Array, ...]]:
        """The call that brings the gradients along."""
        value, gradient = loss.value_and_grad(*arrays, **options)
        return value, gradient if isinstance(gradient, tuple) else (gradient,)


@dataclass(frozen=True)
class OnScores:
    """``loss.pairs(left, right, score)``; an even number of features, since some take half of them as imaginary."""

    pairs = False

    def samples(self, seed: int) -> list[Batch]:
        """Nine pairs."""
        rng = np.random.default_rng(seed)
        score = np.array([0.9, 0.2, 0.2, 0.5, 0.7, 0.0, 1.0, 0.5, 0.3])
        return [Batch("scored pairs", (rng.normal(size=(9, 6)), rng.normal(size=(9, 6))), (score, None))]

    def degenerate(self, battery: Battery) -> list[Batch]:
        """The items, paired with the next ones, by their labels as scores."""
        found = []
        for name, (x, labels) in battery.items():
            even = _wide(x, x.shape[1] + x.shape[1] % 2)
            scores = np.asarray(labels, dtype=np.float64)
            found.append(Batch(name, (even, np.roll(even, 1, axis=0)), (scores, None)))
        return found

    def orders(self, batch: Batch, rng: np.random.Generator) -> tuple[Any, ...]:
        """One for both sides."""
        return (rng.permutation(len(batch.arrays[0])),) * 2

    def value(self, loss: Any, batch: Batch, *arrays: Array, **options: Any) -> Array:
        """The call."""
        return loss.pairs(*arrays, batch.labels[0], **options)

    def both(self, loss: Any, batch: Batch, *arrays: Array, **options: Any) -> tuple[Array, tuple[Array, ...]]:
        """There is none."""
        raise NotApplicable("of given pairs the gradient comes from a framework's differentiation only")


def form_of(loss: Any) -> Form:
    """The form that a loss is checked in."""
    if isinstance(loss, Matryoshka):
        form = form_of(loss.loss)
        return replace(form, features=max(loss.dims)) if isinstance(form, OnLabels | OnViews) else form
    if isinstance(loss, LossSum):
        forms = [form_of(part) for _, part in loss.parts]
        return max(forms, key=lambda form: isinstance(form, OnClasses))
    if isinstance(loss, FeatureLoss):
        return OnViews(loss.batches)
    if isinstance(loss, PairLoss):
        if "score" in inspect.signature(getattr(loss, "pairs", form_of)).parameters:
            return OnScores()
        return OnClasses(per_class=getattr(loss, "per_class", 1)) if loss.has_class_weights else OnLabels()
    raise InputError(
        f"expected a loss of nearfar or a subclass of PairLoss or FeatureLoss, got {type(loss).__name__}; "
        "derive it from nearfar.PairLoss: a frozen dataclass with a measure and a strip"
    )


def function(form: Form, loss: Any, batch: Batch, **options: Any) -> tuple[Any, Any]:
    """The loss as a function of the arrays alone: to its value, and to its value and gradients."""
    return partial(form.value, loss, batch, **options), partial(form.both, loss, batch, **options)


def _numbered(labels: Any) -> Any:
    """Labels as 0, 1, …, which are rows of class weights."""
    return np.unique(np.asarray(labels, dtype=np.int64), return_inverse=True)[1].astype(np.int64)


def _wide(x: Values, features: int) -> Values:
    """At least so many features, the first ones again."""
    return np.concatenate([x] * -(-features // x.shape[1]), axis=1)[:, : max(features, x.shape[1])]
