"""A cell of the table, library × dtype, and what its numbers are compared with.

The reference is the loss itself on NumPy in float64, in one block. How far a cell may lie from it is measured, not
declared: the reference is run again with its embeddings, and with its table of measures, moved by one unit of the
cell's precision. A loss that magnifies rounding is allowed what it magnifies, and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from nearfar.losses import LossSum, Matryoshka
from nearfar.measures import Measure
from nearfar.testing.batches import Values, within
from nearfar.testing.forms import Batch, Form, NotApplicable, form_of, function
from nearfar.testing.libraries import LIBRARIES, Array, Library
from nearfar.testing.rounding import shaken, weight_scale

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
LARGEST = {
    "float64": float(np.finfo(np.float64).max),
    "float32": float(np.finfo(np.float32).max),
    "bfloat16": (2 - 2.0**-7) * 2.0**127,
    "float16": 65504.0,
}
# The smallest step between numbers; below it a narrow gradient is 0.
SMALLEST = {"float64": 2.0**-1074, "float32": 2.0**-149, "bfloat16": 2.0**-133, "float16": 2.0**-24}
# float16 and bfloat16 are computed in float32.
COMPUTE = {"float64": "float64", "float32": "float32", "bfloat16": "float32", "float16": "float32"}
# How many times the measured effect of one unit of rounding a result may be off: sums of some dozens of terms.
SLACK = 64
DRAWS = 3


@dataclass(frozen=True)
class Result:
    """Value and gradients as plain numbers."""

    value: float
    gradients: tuple[Values, ...]


@dataclass
class Reference:
    """The loss on NumPy in float64, remembered by the names of the batches.

    Attributes:
        loss: The loss.
        form: How it is called.
        seed: Of the ordinary batches, permutations and directions.
        surrogate: What the gradient belongs to where it is not the value's: see ``check_loss``.
    """

    loss: Any
    seed: int = 0
    surrogate: Callable[..., Any] | bool = False
    form: Form = field(init=False)
    _known: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the form."""
        self.form = form_of(self.loss)

    def of(self, batch: Batch) -> Result:
        """Value and gradients."""
        if batch.name not in self._known:
            self._known[batch.name] = self._run(self.loss, batch)
        found: Result = self._known[batch.name]
        return found

    def noise(self, batch: Batch, dtype: str) -> Result:
        """What one unit of rounding in the precision of a dtype moves the value and each gradient by."""
        eps = EPS[COMPUTE[dtype]]
        if isinstance(self.loss, LossSum | Matryoshka):
            eps = max(eps, EPS[dtype] / 16)  # Each part is rounded to the caller's dtype.
        if (batch.name, eps) not in self._known:
            self._known[batch.name, eps] = self._moved(batch, eps)
        found: Result = self._known[batch.name, eps]
        return found

    @cached_property
    def weights(self) -> float:
        """The largest weight of a pair in the ordinary batches, whose rounding every weight may have."""
        return max(weight_scale(self.loss, partial(self._run, batch=b)) for b in self.form.samples(self.seed))

    @cached_property
    def _has_table(self) -> bool:
        """Whether rounding can be put into the loss's own measure, on NumPy."""
        return bool(measures(self.loss)) and self.form.pairs

    @cached_property
    def _ordinary(self) -> tuple[float, float]:
        """The largest gradient of the ordinary batches, and the smallest spread of a feature."""
        samples = self.form.samples(self.seed)
        gradient = max(_top(g) for b in samples for g in self.of(b).gradients)
        return gradient, min(_spread(a) for b in samples for a in b.arrays)

    def _floor(self, x: Values) -> float:
        """What a gradient's rounding is relative to at least, where no measure tells: an ordinary gradient."""
        if self._has_table:
            return 0.0
        gradient, spread = self._ordinary
        return gradient * max(1.0, spread / _spread(x))

    def _run(self, loss: Any, batch: Batch) -> Result:
        options = {"engine": "dense"} if self.form.pairs else {}
        try:
            value, gradients = self.form.both(loss, batch, *batch.arrays, **options)
        except NotApplicable:
            return self._differentiated(loss, batch)
        return Result(float(value), tuple(np.asarray(g, dtype=np.float64) for g in gradients))

    def _differentiated(self, loss: Any, batch: Batch) -> Result:
        """NumPy's value, and the gradient by a library that differentiates."""
        value = float(self.form.value(loss, batch, *batch.arrays))
        for library in LIBRARIES.values():
            if library.name == "numpy" or library.missing():
                continue
            with library.session():
                arrays = tuple(library.array(a, "float64") for a in batch.arrays)
                _, gradients = library.value_and_grad(*function(self.form, loss, batch), arrays)
                return Result(value, tuple(map(library.plain, gradients)))
        raise NotApplicable("no library that differentiates is installed")

    def _moved(self, batch: Batch, eps: float) -> Result:
        still, runs = self.of(batch), []
        for draw in range(DRAWS):
            rng = np.random.default_rng(draw)
            other = tuple(a * (1 + eps * rng.uniform(-1, 1, size=a.shape)) for a in batch.arrays)
            runs.append(self._run(self.loss, batch.with_arrays("moved", *other)))
            if self._has_table:
                runs.append(self._run(shaken(self.loss, eps, draw, self.weights), batch))
        value = max(abs(r.value - still.value) for r in runs)
        moved = [
            max(float(np.abs(r.gradients[k] - g).max(initial=0.0)) for r in runs)
            + eps * (8 * _top(g) + self._floor(batch.arrays[k]))
            for k, g in enumerate(still.gradients)
        ]
        # A value near 0 may be the difference of terms near 1.
        return Result(value + eps * (1 + 8 * abs(still.value)), tuple(np.asarray(m) for m in moved))


@dataclass
class Cell:
    """One library and dtype.

    Attributes:
        library: Its adapter.
        dtype: By name.
        reference: What it is compared with.
    """

    library: Library
    dtype: str
    reference: Reference

    @classmethod
    def named(cls, library: str, dtype: str, reference: Reference) -> Cell:
        """By the library's name."""
        return cls(LIBRARIES[library], dtype, reference)

    @cached_property
    def form(self) -> Form:
        """Of the loss, as the library calls it."""
        called = getattr(self.library, "form", None)
        return called(self.reference.form) if called else self.reference.form

    @cached_property
    def eps(self) -> float:
        """One unit of the dtype's precision."""
        return EPS[self.dtype]

    def samples(self) -> list[Batch]:
        """The ordinary batches, rounded to the dtype."""
        return [self.rounded(batch) for batch in self.form.samples(self.reference.seed)]

    def few(self) -> list[Batch]:
        """The ordinary batches, or the first of them where each of their shapes is compiled several times."""
        return self.samples()[: 1 if self.library.compiles else None]

    def holds(self, batch: Batch) -> bool:
        """Whether the library takes a rounded batch's numbers as they are."""
        least = np.finfo(COMPUTE[self.dtype]).smallest_normal if getattr(self.library, "flushes", False) else 0.0
        return all(bool(((np.abs(a) >= least) | (a == 0)).all()) for a in batch.arrays)

    def rounded(self, batch: Batch) -> Batch:
        """A batch as the dtype holds it; what is beyond its range is brought to its largest number."""
        return batch.with_arrays(self.dtype, *(rounded(a, self.dtype) for a in batch.arrays))

    def arrays(self, batch: Batch) -> tuple[Array, ...]:
        """A rounded batch's numbers in the library."""
        return tuple(self.library.array(a, self.dtype) for a in batch.arrays)

    def run(self, loss: Any, batch: Batch, **options: Any) -> Result:
        """Value and gradients in this cell."""
        value, gradients = self.raw(loss, batch, **options)
        return Result(float(self.library.plain(value)), tuple(map(self.library.plain, gradients)))

    def raw(self, loss: Any, batch: Batch, **options: Any) -> tuple[Array, tuple[Array, ...]]:
        """The same as arrays of the library."""
        value, both = function(self.form, loss, batch, **options)
        return self.library.value_and_grad(value, both, self.arrays(batch))

    def expect(self, got: Result, true: Result, noise: Result, where: str) -> None:
        """Raise AssertionError unless ``got`` is ``true`` to rounding; ``noise`` as of :meth:`Reference.noise`."""
        allowed = 4 * self.eps * abs(true.value) + SLACK * noise.value + 4 * SMALLEST[self.dtype]
        # The parts of a combination may leave the dtype before it does.
        room = 8 if isinstance(self.reference.loss, LossSum | Matryoshka) else 1
        inside = room * abs(true.value) <= LARGEST[self.dtype]
        if inside and not abs(got.value - true.value) <= allowed:
            off = abs(got.value - true.value)
            raise AssertionError(
                f"expected value {true.value:.9g} to {allowed:.2g} on {where}, got {got.value:.9g} (off by {off:.2g})"
            )
        if any((np.abs(t) > LARGEST[self.dtype] / 2).any() for t in true.gradients):
            return  # The gradient leaves the dtype.
        for k, (g, t) in enumerate(zip(got.gradients, true.gradients, strict=True)):
            bound = 4 * self.eps * np.abs(t) + SLACK * noise.gradients[k] + 8 * SMALLEST[self.dtype]
            wrong = ~(np.abs(g - t) <= bound)
            if wrong.any():
                i = tuple(np.argwhere(wrong)[0].tolist())
                raise AssertionError(
                    f"expected gradient {t[i]:.9g} to {bound[i]:.2g} at {i} of array {k} on {where}, got {g[i]:.9g}"
                )


def rounded(values: Values, dtype: str) -> Values:
    """Numbers as a dtype holds them, brought inside its range."""
    values = within(values, LARGEST[dtype])
    if dtype != "bfloat16":
        return values.astype(dtype).astype(np.float64)
    bits = values.astype(np.float32).view(np.uint32)
    even = bits + 0x7FFF + ((bits >> 16) & 1) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(values), even.view(np.float32), values).astype(np.float64)


def measures(loss: Any) -> list[Measure]:
    """What the loss compares by; several for a sum of losses, none for a loss of features."""
    if isinstance(loss, LossSum):
        return [measure for _, part in loss.parts for measure in measures(part)]
    if isinstance(loss, Matryoshka):
        return measures(loss.loss)
    return [loss.measure] if isinstance(getattr(loss, "measure", None), Measure) else []


def _top(a: Values) -> float:
    return float(np.abs(a).max(initial=0.0))


def _spread(x: Values) -> float:
    """The smallest standard deviation of a feature that is not constant."""
    with np.errstate(all="ignore"):
        each = np.std(x, axis=0) if len(x) else np.zeros(0)
    return float(each.min(where=each > 0, initial=1.0))
