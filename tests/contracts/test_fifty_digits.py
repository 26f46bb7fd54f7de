"""Every loss beside itself in a hundred digits: value to 1e-12 in float64 and gradient to 4e-12 of its largest entry.

The reference is the loops' own definition (tests/oracles.py, tests/families), run in mpmath's numbers instead of
float64; its derivatives are difference quotients of step 1e-33. In float32 a value is within 16 units in the last place
of the sum of its absolute terms, Σ |∂loss/∂measure · measure|; in half precision within two of the half's own besides.
Where a gradient's weights cancel, such as p − 1/|P| of equal positives, its error is measured by what they are
differences of, and ``ROUGH`` names what is known less well than that. A new loss without a reference fails.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from mpmath import mpf

import families
import nearfar as nf
import oracles
from cases import (
    CASES,
    CELLS,
    EPS,
    FIRST,
    SMALLEST,
    STOP_GRADIENT,
    array,
    call,
    expected_relation,
    is_logits,
    plain,
    steepness,
    table_scale,
)
from digits import exact, exactly, math, slopes
from families import features

NO_REFERENCE = {"PairLoss": "the base of losses on pairs", "FeatureLoss": "the base of losses of features"}
TRIPLET, SUPCON = nf.TripletLoss(margin=0.3), nf.SupConLoss(temperature=0.3)
OTHERS = {
    "LossSum": 0.7 * SUPCON + 2 * TRIPLET,
    "Matryoshka": nf.Matryoshka(SUPCON, (1, 2, 3), (1.0, 0.5, 0.3)),
    "CoSENT": nf.CoSENTLoss(0.3),
    "AnglE": nf.AnglELoss(0.3),
    **features.LOSSES,
}
LABELS, OTHER_LABELS = np.array([3, 0, 0, 3, 7, 0]), np.array([0, 7, 3, 11, 0])
SIGNS = np.array([1, -1, 1, 1, -1, -1])[:, None]
SCORES = [3, 0, 5, 3, 1, 0]
KINK = mpf(10) ** -12


def rows(seed, count=6, features=3):
    rng = np.random.default_rng(seed)
    return 0.6 * rng.normal(size=(count, features)) * rng.uniform(0.5, 1.5, size=(count, 1))


# ------------------------------------------------------------ problems: a loss on arrays, here and in the reference


@dataclass
class Problem:
    """A loss on arrays.

    ``value`` is the loss of the arrays' rows in exact numbers, ``call`` the library's value and gradients. Of a loss on
    a table ``terms`` is the sum of the value's absolute terms, and ``steep`` how fast its weights follow the measure.
    """

    loss: object
    arrays: tuple
    value: Callable
    call: Callable
    terms: Callable | None = None
    steep: tuple = (1.0, 1.0)
    angular: bool = False


def measured(loss, x, y=None):
    """The table; a pair is measured once for all difference quotients that leave it alone."""
    own = y if y is not None and type(loss).__name__ in families.WITH_REFERENCES else []
    name = type(loss.measure).__name__
    return [[_measure(name, tuple(a), tuple(b)) for b in (x if y is None else y)] for a in [*x, *own]]


@functools.lru_cache(maxsize=20_000)
def _measure(name, a, b):
    return oracles.MEASURES[name](list(a), list(b))


def on_table(loss, x, labels, y=None, other_labels=None):
    """A loss on pairs; ``labels`` may be a mask."""
    logits = is_logits(loss, y) and not isinstance(labels, nf.Mask)
    if isinstance(labels, nf.Mask):
        positive, negative = labels.positive.tolist(), labels.negative.tolist()
    else:
        labels = labels % x.shape[1] if logits else labels
        positive, negative = expected_relation(loss, x, labels, y, other_labels)
    twin, weights = exact(loss), (exact(positive), exact(negative))
    angular = isinstance(loss.measure, nf.Cosine | nf.CosineDistance) and not logits

    def table(x, y=None):
        return x if logits else measured(loss, x, y)

    def value_on(table):
        return oracles.loops_on_table(twin, table, *weights, held)[0]

    def terms(x, y=None):
        """Σ |∂loss/∂measure| · what the measure is a sum of; of an angle's distance, sine and cosine count."""
        entries, sizes = [list(row) for row in table(x, y)], table(x, y)
        if isinstance(loss.measure, nf.CosineDistance):
            sizes = [[d + math.sqrt(max(d * (2 - d), 0)) for d in row] for row in sizes]
        elif angular:
            sizes = [[1 for _ in row] for row in sizes]
        elif type(loss.measure) is nf.Dot and not logits:
            others = x if y is None else y
            sizes = [[sum(abs(a * b) for a, b in zip(one, other, strict=True)) for other in others] for one in x]
        return total(slopes(lambda: value_on(entries), entries), sizes)

    with exactly():
        given = [exact(a.tolist()) for a in (x, y) if a is not None]
        held = [list(row) for row in table(*given)] if isinstance(loss, STOP_GRADIENT) else None
    return Problem(
        loss,
        (x,) if y is None else (x, y),
        lambda *leaves: value_on(table(*leaves)),
        lambda *leaves: call(loss, leaves[0], labels, *leaves[1:], other_labels),
        terms,
        (1 + table_scale(loss, x, y), steepness(loss, x, y)),
        angular,
    )


def total(slopes, sizes):
    pairs = zip(slopes, sizes, strict=True)
    return sum(max(map(abs, slope)) * abs(v) for some, row in pairs for slope, v in zip(some, row, strict=True))


def on_parts(loss, x, labels, y=None, other_labels=None):
    """A sum of losses, or one on cut features: the same sum of references."""
    if isinstance(loss, nf.Matryoshka):
        parts = [(w, d, loss.loss) for w, d in zip(loss.weights, loss.dims, strict=True)]
    else:
        parts = [(w, x.shape[1], part) for w, part in loss.parts]
    each = [(exact(float(w)), d, on_table(part, x, labels, y, other_labels)) for w, d, part in parts]
    return replace(
        each[0][2],
        loss=loss,
        value=lambda *leaves: sum(w * one.value(*([row[:d] for row in v] for v in leaves)) for w, d, one in each),
        call=lambda *leaves: call(loss, leaves[0], labels, *leaves[1:], other_labels),
        terms=None,
    )


def of_features(loss, *views):
    """A loss of features; the target of BYOL is held where it stands."""
    twin, views = exact(loss), views[: loss.batches]
    held = exact(views[1].tolist()) if isinstance(loss, nf.BYOLLoss) else None

    def value(*leaves):
        return features.LOOPS[type(loss)](twin, *(leaves[:1] if held else leaves), *([held] if held else []))

    def run(*leaves):
        value, gradients = loss.value_and_grad(*leaves)
        return value, gradients if isinstance(gradients, tuple) else (gradients,)

    return Problem(loss, views, value, run)


def of_scores(loss, left, right):
    """A loss of pairs with scores."""
    measure = features.angle if isinstance(loss, nf.AnglELoss) else features.cosine
    scores, temperature = SCORES[: len(left)], mpf(loss.temperature)

    def value(left, right):
        return features.in_order([measure(a, b) for a, b in zip(left, right, strict=True)], scores, temperature)

    def run(left, right):
        if not isinstance(left, torch.Tensor):
            return loss.pairs(left, right, scores), None  # its gradients are autograd's
        leaves = [v.clone().requires_grad_() for v in (left, right)]
        value = loss.pairs(*leaves, scores)
        return value.detach(), torch.autograd.grad(value, leaves)

    return Problem(loss, (left, right), value, run, steep=(1 + 1 / loss.temperature, 1 / loss.temperature))


# ------------------------------------------------------------ the reference


@dataclass
class Reference:
    """What is true: the value, the slopes to both sides of each number, the sum of the value's absolute terms."""

    value: mpf
    slopes: list
    terms: float


def reference(problem, terms=False):
    with exactly():
        leaves = [exact(np.asarray(a).tolist()) for a in problem.arrays]
        value = problem.value(*leaves)
        found = [slopes(lambda: problem.value(*leaves), leaf) for leaf in leaves]
        size = abs(value)
        if terms and problem.terms is not None:
            size += problem.terms(*leaves)
        elif terms:
            size += sum(total(slope, leaf) for slope, leaf in zip(found, leaves, strict=True))
    return Reference(value, found, float(size))


def gradient_errors(problem, true, ours):
    """The largest error and the largest entry of the gradient; along a row of an angle's, in units of 1 / its norm.

    Where the slopes to both sides differ, at a kink, anything between them is right.
    """
    worst, largest = mpf(0), mpf(0)
    assert len(ours) == len(problem.arrays)
    for leaf, slope, found in zip(problem.arrays, true.slopes, ours, strict=True):
        for row, some, given in zip(leaf, slope, plain(found), strict=True):
            top = np.abs(row).max()
            lever = mpf(top) * mpf(np.linalg.norm(row / top)) if problem.angular and top else mpf(1)
            for (left, right), v in zip(some, given.tolist(), strict=True):
                middle = (left + right) / 2
                kink = abs(left - right) > KINK * (abs(middle) + 1 / lever)
                off = max(min(left, right) - v, v - max(left, right), 0) if kink else abs(v - middle)
                worst, largest = max(worst, off * lever), max(largest, abs(middle) * lever)
    return float(worst), float(largest)


# ------------------------------------------------------------ samples


def samples(loss):
    """Name → what ``on_table`` takes: random batches, and those that lose digits elsewhere."""
    x, y, angular = rows(1), rows(2, 5), isinstance(loss.measure, nf.Cosine | nf.CosineDistance)
    kind, weight = (np.random.default_rng(9).integers(1 - k, 3, size=(6, 5)) for k in (1, 0))
    found = {
        "random": (loss, x, LABELS),
        "references": (loss, x, LABELS, y, OTHER_LABELS),
        "duplicates": (loss, x[[0, 1, 1, 3, 3, 3]], LABELS),
        "antipodal": (loss, np.stack([x[0], x[1], -x[1], -2 * x[0], x[4], -x[0]]), LABELS),
    }
    if not isinstance(loss, families.LABELS_ONLY):
        found["weights"] = (loss, x, nf.Mask((kind == 1) * weight, (kind == 2) * weight), y)
    centres = {c: rows(50 + c, 1)[0] for c in (0, 3, 7, 11)}
    for spread in (1e-6, 1e-8):
        near = np.stack([centres[c] for c in LABELS]) + spread * rows(4)
        others = np.stack([centres[c] for c in OTHER_LABELS]) + spread * rows(5, 5)
        found[f"spread {spread:g}"] = (loss, near, LABELS)
        found[f"references, spread {spread:g}"] = (loss, near, LABELS, others, OTHER_LABELS)
        if not angular and loss.kind == "distance":
            found[f"far away, spread {spread:g}"] = (loss, near + 100, LABELS)
    if hasattr(loss, "temperature"):
        found["cold"] = (replace(loss, temperature=0.01), x, LABELS)
    found["norms"] = (loss, x * 10.0 ** (100 * SIGNS if angular else 2 * SIGNS), LABELS)
    apart = 1.3 * np.eye(3)[[{0: 0, 3: 1, 7: 2}[c] for c in LABELS]] + 1e-3 * rows(8)
    found["confident"] = (replace(loss, temperature=0.03) if hasattr(loss, "temperature") else loss, apart, LABELS)
    if is_logits(loss, None):
        columns = np.array([2, 0, 1, 2, 1, 0])
        found["norms"] = (loss, 1e3 * rows(8), columns)
        found["confident"] = (loss, rows(8) + 36 * np.eye(3)[columns], columns)
    elif loss.kind == "similarity" and not angular:
        found["large"] = (loss, 30 * x, LABELS)
    return {name: (on_table, *given) for name, given in found.items()}


def other_samples(loss):
    """Of losses that are on no table."""
    if isinstance(loss, nf.LossSum | nf.Matryoshka):
        near = rows(50, 3)[[0, 1, 1, 0, 2, 1]] + 1e-8 * rows(4)
        x = rows(1)
        apart = (x, LABELS, rows(2, 5), OTHER_LABELS)
        found = {"random": (x, LABELS), "references": apart, "spread 1e-08": (near, LABELS)}
        return {name: (on_parts, loss, *given) for name, given in found.items()}
    x = rows(1, features=4)
    z, few = x + 0.4 * rows(3, features=4), x[[0, 1, 1, 0, 2, 1]]
    found = {"random": (x, z), "spread 1e-08": [few + 1e-8 * rows(k, features=4) for k in (4, 6)]}
    if getattr(loss, "unit", True) and not isinstance(loss, nf.VICRegLoss | nf.BarlowTwinsLoss):
        found["norms"] = (x * 10.0 ** (100 * SIGNS), z)
    make = of_features if isinstance(loss, nf.FeatureLoss) else of_scores
    return {name: (make, loss, *views) for name, views in found.items()}


SAMPLES = {
    f"{name}, {sample}": given
    for name, loss in {**CASES, **OTHERS}.items()
    for sample, given in (other_samples(loss) if name in OTHERS else samples(loss)).items()
}


FIRSTS = list(dict.fromkeys([*FIRST.values(), *(name for name in OTHERS if "-" not in name)]))
# The random batch of the first case of each loss.
FEW = {type(SAMPLES[f"{name}, random"][1]).__name__: f"{name}, random" for name in FIRSTS}


def make(given):
    how, *arguments = given
    return how(*arguments)


def changed(given, change):
    """What makes a problem, with its arrays changed."""
    return tuple(change(v) if isinstance(v, np.ndarray) else v for v in given)


def rounded(given, dtype):
    """With its numbers as the dtype leaves them."""
    return changed(given, lambda v: plain(array(v, "torch", dtype)) if v.dtype == np.float64 else v)


# ------------------------------------------------------------ the contract

# Case and sample that the value is known of to 16 units in the last place of its terms only, and the gradient less.
ROUGH = {
    ("TupletMargin", "antipodal"): "a positive at an angle of π, whose sine is the root of 2 − d's rounding",
    ("SubCenterArcFace", "duplicates"): "of two nearest positives the first counts: its slope is that of no side",
    ("KoLeo", "spread 1e-08"): "rows a rounding apart: unit rows, which are rounded, say which one is nearest",
    ("Histogram-Cosine-bins31", "spread 1e-06"): "positives at the end of the span, in the cosine's rounding of 1",
    ("Histogram-Cosine-bins31", "spread 1e-08"): "the same",
}


def is_rough(name):
    return any(name.startswith(case) and name.endswith(sample) for case, sample in ROUGH)


def agree(problem, true, framework, dtype, rough=False):
    """Assert that the library is as near as its dtype allows; a rough gradient is only finite."""
    given = [array(v, framework, dtype) for v in problem.arrays]
    with np.errstate(under="ignore"):
        value, gradients = problem.call(*given)
    compute = EPS["float64" if dtype == "float64" else "float32"]
    half = 2 * EPS[dtype] if EPS[dtype] > compute else 0.0
    allowed = 1e-12 * abs(true.value) if dtype == "float64" and not rough else 16 * compute * true.terms
    allowed += half * abs(true.value) + SMALLEST[dtype]
    assert abs(mpf(float(value)) - true.value) <= allowed
    if gradients is None or rough:
        assert all(np.isfinite(plain(g)).all() for g in gradients or ())
        return
    error, largest = gradient_errors(problem, true, gradients)
    # A weight is a difference of probabilities and shares, of what follows the measure by its steepness: where they
    # cancel, what they are differences of is right.
    scale, steep = problem.steep
    allowed = 4e-12 * largest if dtype == "float64" else 64 * compute * scale * largest
    allowed += 16 * compute * scale * steep + 4 * half * largest + SMALLEST[dtype]
    assert error <= allowed


def test_every_loss_has_a_reference():
    referred = {type(given[1]).__name__ for given in SAMPLES.values()}
    assert set(nf.losses.__all__) == referred | NO_REFERENCE.keys()
    assert not referred & NO_REFERENCE.keys()
    assert set(FEW) == referred


@pytest.mark.parametrize("name", FEW.values(), ids=FEW)
def test_every_library_and_dtype(name):
    """One small batch a loss, of numbers that are the same in every dtype."""
    small = changed(SAMPLES[name], lambda v: v[:5])
    problem = make(rounded(rounded(small, "float16"), "bfloat16"))
    true = reference(problem, terms=True)
    for framework, dtype in CELLS:
        agree(problem, true, framework, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_in_float64(name):
    problem = make(SAMPLES[name])
    rough = is_rough(name)
    agree(problem, reference(problem, terms=rough), "numpy", "float64", rough)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in SAMPLES if name.split(", ")[0] in FIRSTS])
def test_in_narrow_dtypes(name, dtype):
    """On what rounding to the dtype left of the batch."""
    given = rounded(SAMPLES[name], dtype)
    if not all(np.isfinite(v).all() for v in given if isinstance(v, np.ndarray)):
        pytest.skip("outside the range of the dtype")
    problem = make(given)
    true = reference(problem, terms=True)
    if name.endswith("confident"):
        # A log-sum-exp less a mean of logits, which are the same but for their last digits, where no slope shows them.
        true.terms += problem.steep[0]
    agree(problem, true, "torch", dtype, is_rough(name))
