"""``check_loss`` passes our losses, finds planted mistakes, and says what it found."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar._arrays import exp_sum
from nearfar.engine.rules import apart
from nearfar.testing import check_loss
from nearfar.testing.cells import EPS, rounded
from nearfar.testing.check import CHECKS
from nearfar.testing.libraries import LIBRARIES

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.cells import BASES, STOP_GRADIENT, losses

LOSSES = losses()
every_loss = pytest.mark.parametrize("name", LOSSES)


def expect_passes(name, libraries, dtypes, least=6):
    report = check_loss(LOSSES[name], libraries, dtypes, surrogate=name in STOP_GRADIENT)
    assert len(report.passed) >= least * len(libraries) * len(dtypes)


@pytest.mark.parametrize(
    "name", [pytest.param(v, marks=pytest.mark.slow if k % 8 else ()) for k, v in enumerate(LOSSES)]
)
def test_our_losses_pass(name):
    """One in eight in make test; what is checked, the other contracts meet on every loss."""
    expect_passes(name, ["numpy"], ["float64"])


@pytest.mark.parametrize("name", ["CosFaceLoss", "KoLeoLoss", "LossSum", "TripletLoss"])
def test_our_losses_pass_on_libraries_and_dtypes(name):
    expect_passes(name, ["numpy", "torch"], ["float64", "float32"])


@pytest.mark.slow
@every_loss
def test_every_loss_passes_on_libraries_and_dtypes(name):
    # NumPy has no bfloat16, and scores alone meet few checks in the narrow dtypes.
    expect_passes(name, ["numpy", "torch"], ["float64", "float32", "bfloat16", "float16"], least=5)


def test_no_loss_is_left_out():
    assert set(LOSSES) | BASES == set(nf.losses.__all__)
    assert all(type(loss).__name__ == name for name, loss in LOSSES.items())


# ------------------------------------------------------------ planted mistakes


@dataclass(frozen=True)
class Right(nf.PairLoss):
    """Squared distances to the positives, and what is missing to 1 of the distances to the negatives."""

    margin: float = 1.0
    measure: nf.Euclidean = nf.Euclidean()  # noqa: RUF009
    kind: ClassVar[str] = "distance"

    def strip(self, xp, s, pair):
        d = pair.take(s)
        near = pair.negatives(s, self.margin)
        short = xp.clip(self.margin - near, min=0)
        loss = xp.sum(pair.share * d * d, axis=1) + xp.sum(short, axis=1)
        return loss, pair.add(-xp.astype(short > 0, s.dtype), 2 * pair.share * d)


class WrongSign(Right):
    """Pushes positives away."""

    def strip(self, xp, s, pair):
        loss, weight = super().strip(xp, s, pair)
        return loss, -weight


class HalfAPartPerMillion(Right):
    """A weight that is off in the sixth digit."""

    def strip(self, xp, s, pair):
        loss, weight = super().strip(xp, s, pair)
        return loss, weight * (1 + 4e-6)


class ByPlace(Right):
    """The first anchors count more."""

    def strip(self, xp, s, pair):
        loss, weight = super().strip(xp, s, pair)
        each = 1 + xp.astype(xp.cumulative_sum(xp.ones_like(loss)), s.dtype) / 10
        return loss * each, weight * each[:, None]


class ByHeight(Right):
    """Divides by the anchors of the strip."""

    def strip(self, xp, s, pair):
        loss, weight = super().strip(xp, s, pair)
        return loss / s.shape[0], weight / s.shape[0]


@dataclass(frozen=True)
class Products(nf.PairLoss):
    """Squared inner products with the positives."""

    measure: nf.Dot = nf.Dot()  # noqa: RUF009
    kind: ClassVar[str] = "similarity"

    def strip(self, xp, s, pair):
        z = pair.take(s)
        return xp.sum(pair.share * z * z, axis=1), pair.add(xp.zeros_like(s), pair.share * self.slope(xp, z))

    def slope(self, xp, z):
        return 2 * z


class NanAtZero(Products):
    """Divides by what is 0 for a zero row."""

    def slope(self, xp, z):
        return 2 * z * z / z


class SteepAtZero(Products):
    """A slope at 0 that the value does not have."""

    def slope(self, xp, z):
        return xp.where(z == 0, xp.ones_like(z) * 1e3, 2 * z)


class Swallows(Right):
    """NaN becomes 0."""

    def strip(self, xp, s, pair):
        loss, weight = super().strip(xp, s, pair)
        return xp.where(xp.isfinite(loss), loss, 0 * xp.ones_like(loss)), weight


class Remembers(Right):
    """Grows from call to call."""

    calls: ClassVar[list[int]] = []

    def strip(self, xp, s, pair):
        self.calls.append(1)
        loss, weight = super().strip(xp, s, pair)
        factor = 1 + 1e-9 * len(self.calls)
        return loss * factor, weight * factor


class OnOneDevice(Right):
    """Makes arrays wherever the library makes them by default."""

    def strip(self, xp, s, pair):
        loss, weight = super().strip(xp, s, pair)
        return loss + xp.zeros(s.shape[0]), weight


class Narrow(Right):
    """Computes in float32."""

    def strip(self, xp, s, pair):
        loss, weight = super().strip(xp, xp.astype(s, xp.float32), pair)
        return xp.astype(loss, s.dtype), xp.astype(weight, s.dtype)


class Draws(Right):
    """Global random numbers."""

    def strip(self, xp, s, pair):
        np.random.random()  # noqa: NPY002
        return super().strip(xp, s, pair)


class Renames(Right):
    """Feels the label itself."""

    def per_anchor(self, embeddings, labels, **options):
        return super().per_anchor(embeddings, labels, **options)

    def _table(self, embeddings, labels, *options):
        labels = np.asarray(labels)
        if labels.ndim == 1 and labels.dtype.kind in "iu":
            labels = np.where(labels == 7, 3, labels)
        return super()._table(embeddings, labels, *options)


class Miscounts(Right):
    """Its terms are not those of the mean of its anchors."""

    def per_anchor(self, *args, **options):
        return 2 * super().per_anchor(*args, **options)


class Tampers(Right):
    """Writes into the embeddings."""

    def value_and_grad(self, embeddings, labels, **options):
        found = super().value_and_grad(embeddings, labels, **options)
        if isinstance(embeddings, np.ndarray) and embeddings.size:
            embeddings[0] *= 1.5
        return found


class Wide(Right):
    """Returns float64 whatever it got."""

    def value_and_grad(self, embeddings, labels, **options):
        value, gradient = super().value_and_grad(embeddings, labels, **options)
        return np.float64(value) if isinstance(embeddings, np.ndarray) else value, gradient


@dataclass(frozen=True)
class Listed(Right):
    """A hyper-parameter that does not hash."""

    factors: list = field(default_factory=lambda: [1.0])


@dataclass
class Thawed(Right.__base__):
    """Not frozen."""

    measure: nf.Euclidean = nf.Euclidean()  # noqa: RUF009
    kind: ClassVar[str] = "distance"
    strip = Right.strip
    margin: ClassVar[float] = 1.0
    __hash__ = nf.PairLoss.__hash__


@dataclass(frozen=True)
class Closed(Right):
    """Neither its repr nor its pickle reads back."""

    function: object = field(default_factory=lambda: lambda s: s)


class AnyMeasure(Right):
    """Takes a similarity for a distance."""

    def __post_init__(self):
        pass


@dataclass(frozen=True)
class WrongReach(nf.PairLoss):
    """Says of half its negatives that they are out of reach."""

    measure: nf.Euclidean = nf.Euclidean()  # noqa: RUF009
    kind: ClassVar[str] = "distance"
    reach: ClassVar[float] = 0.05

    def strip(self, xp, s, pair):
        return apart(self, xp, s, pair)

    def executor(self, xp, bound, sides):
        from nearfar.engine.half_tiles import apart_tiles

        return apart_tiles(self, xp, bound, sides)

    def factors_of(self, xp, pair, like):
        return 1.0, 1.0

    def positive(self, xp, s):
        return s * s, 2 * s

    def negative(self, xp, s):
        z = xp.exp(-s)
        return z, -z


@dataclass(frozen=True)
class Overflows(nf.PairLoss):
    """exp without a shift."""

    temperature: float = 0.1
    measure: nf.Dot = nf.Dot()  # noqa: RUF009
    kind: ClassVar[str] = "similarity"

    def strip(self, xp, s, pair):
        z = pair.valid_logits(s / self.temperature)
        e = xp.exp(z)
        total = xp.sum(e, axis=1, keepdims=True)
        own = pair.take(s) / self.temperature
        loss = xp.log(total)[:, 0] - xp.sum(pair.share * own, axis=1)
        return loss, pair.add(e / total, -pair.share) / self.temperature


PLANTED = {
    WrongSign: "weights are the derivative",
    HalfAPartPerMillion: "weights are the derivative",
    ByPlace: "order means nothing",
    ByHeight: "any strip height",
    NanAtZero: "magnitude",
    SteepAtZero: "gradients keep their promise",
    Swallows: "bad values reach the value",
    Remembers: "same input same bits",
    OnOneDevice: "other defaults mean nothing",
    Narrow: "weights are the derivative",
    Draws: "leaves inputs alone",
    Renames: "names mean nothing",
    Miscounts: "per anchor makes the mean",
    Tampers: "leaves inputs alone",
    Wide: "returns what it got",
    Listed: "is frozen",
    Thawed: "is frozen",
    Closed: "reads back",
    AnyMeasure: "refuses the other kind of measure",
    WrongReach: "large batches",
    Overflows: "magnitude",
}


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.__name__)
def test_planted_mistakes_are_found(kind):
    libraries = ["numpy", "torch"] if kind in (OnOneDevice, ByHeight) else ["numpy"]
    with pytest.raises(nf.CheckError, match=PLANTED[kind]) as caught:
        check_loss(kind(), libraries, ["float32" if kind is Wide else "float64"])
    assert PLANTED[kind] in {f.check for f in caught.value.report.failed}


@pytest.mark.parametrize("loss", [Right(), Products()])
def test_the_loss_without_a_mistake_passes(loss):
    report = check_loss(loss, ["numpy", "torch"], ["float64", "float16"])
    assert not report.failed
    assert len(report.passed) > 60


# ------------------------------------------------------------ surrogates


def circle_surrogate(moved, batch):
    """The circle loss at ``moved``, with the factors it holds constant at ``batch`` (Sun 2020, eq. 5 to 8)."""
    loss = nf.CircleLoss(margin=0.3, scale=5.0)
    rows = [[a / np.linalg.norm(a, axis=1, keepdims=True) for a in b.arrays] for b in (moved, batch)]
    s, held = (a[0] @ a[-1].T for a in rows)
    labels = batch.labels[0], batch.labels[-1]
    same = np.asarray(labels[0])[:, None] == np.asarray(labels[1])[None, :]
    other = ~same
    if len(batch.arrays) == 1:
        np.fill_diagonal(same, False)
    m, scale = loss.margin, loss.scale
    p = -scale * np.maximum(1 + m - held, 0) * (s - 1 + m)
    n = scale * np.maximum(held + m, 0) * (s - m)
    lse_p, lse_n = (exp_sum(np, np.where(w, z, -np.inf))[0] for w, z in ((same, p), (other, n)))
    both = same.any(axis=1) & other.any(axis=1)
    return np.logaddexp(0, lse_p + lse_n)[both].mean()


def test_a_surrogate_stands_for_the_value():
    loss = nf.CircleLoss(margin=0.3, scale=5.0)
    with pytest.raises(nf.CheckError, match="weights are the derivative"):
        check_loss(loss, ["numpy"], ["float64"])
    report = check_loss(loss, ["numpy"], ["float64"], surrogate=circle_surrogate)
    assert "weights are the derivative" in {f.check for f in report.passed}
    report = check_loss(loss, ["numpy"], ["float64"], surrogate=True)
    assert "weights are the derivative" in {f.check for f in report.not_applicable}
    with pytest.raises(nf.CheckError, match="weights are the derivative"):
        check_loss(loss, ["numpy"], ["float64"], surrogate=lambda moved, batch: 1.01 * circle_surrogate(moved, batch))


# ------------------------------------------------------------ the report, and what is refused


def test_the_report_is_narrow_and_complete():
    report = check_loss(nf.SupConLoss(), ["numpy", "torch"], ["float64", "float32", "bfloat16"])
    text = str(report)
    assert max(map(len, text.splitlines())) <= 80
    assert all(check.name in text for check in CHECKS)
    assert "numpy has no bfloat16" in text
    assert f"{len(report.passed)} passed, 0 failed" in text
    assert len(report.findings) == len(report.passed) + len(report.not_applicable)


def test_a_failure_is_in_the_report_and_in_the_message():
    with pytest.raises(nf.CheckError) as caught:
        check_loss(WrongSign(), ["numpy"], ["float64"])
    assert isinstance(caught.value, AssertionError)
    assert "expected WrongSign(" in str(caught.value)
    assert "; mend what each says" in str(caught.value)
    assert "0 of 1" in str(caught.value.report)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"libraries": ["numpi"]}, "libraries among numpy"),
        ({"libraries": "numpy"}, "list of libraries"),
        ({"libraries": []}, "list of libraries"),
        ({"dtypes": ["float8"]}, "dtypes among"),
    ],
)
def test_unknown_cells_are_refused(options, match):
    with pytest.raises(nf.InputError, match=rf"expected .*{match}.* got .*; "):
        check_loss(nf.SupConLoss(), **options)


@pytest.mark.parametrize("given", [3, "SupConLoss", nf.SupConLoss, torch.nn.MSELoss()])
def test_what_is_no_loss_is_refused(given):
    with pytest.raises(nf.InputError, match=r"expected a loss .* got .*; derive"):
        check_loss(given)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(type(LIBRARIES["torch"]), "missing", lambda self: "torch is not installed")
    with pytest.raises(nf.InputError, match="torch is not installed; install it"):
        check_loss(nf.SupConLoss(), ["torch"])


@pytest.mark.parametrize("dtype", EPS)
def test_rounding_is_that_of_the_library(dtype):
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.normal(size=2000) * 10.0 ** rng.integers(-9, 4, size=2000), [0.0, -0.0, 1.0, 1 + 2**-8]])
    once = torch.tensor(x).to(torch.float32) if dtype == "bfloat16" else torch.tensor(x)
    expected = x.astype(dtype) if dtype != "bfloat16" else once.to(torch.bfloat16).to(torch.float64).numpy()
    assert np.array_equal(rounded(x, dtype), np.asarray(expected, dtype=np.float64))
    assert np.isnan(rounded(np.array([np.nan]), dtype)).all()
