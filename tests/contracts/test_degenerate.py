"""Batches that break losses elsewhere, on every loss, library and dtype.

The verdict on each cell is one of three: equal to the float64 oracle with a gradient that is too; NaN or Inf in the
value where an input that counts is NaN or Inf (or the measure leaves the range of the dtype); or a named error.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import families
import nearfar as nf
import oracles
from cases import (
    ALL_CASES,
    CELLS,
    EPS,
    LARGEST,
    ONE_EACH,
    SMALLEST,
    array,
    call,
    expected_gradients,
    is_logits,
    met_in_pairs,
    plain,
    steepness,
    table_scale,
)
from nearfar.testing.batches import (
    BAD,
    BAD_LABELS,
    BATCHES,
    GEOMETRY,
    LABELS,
    MAGNITUDE,
    SAME_LABELS,
    SIZES,
    X,
    Y,
)

COMPUTE = {"float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "float32"}

every_loss = pytest.mark.parametrize("loss", ONE_EACH)
cells = pytest.mark.parametrize(("framework", "dtype"), CELLS, ids=["-".join(c) for c in CELLS])


def _labels(loss, x, labels):
    """Cross-entropy's batch is logits, whose labels are columns."""
    return np.arange(len(labels)) % x.shape[1] if is_logits(loss, None) else labels


def _represented(loss, x, dtype):
    """Whether the measure, its square and the gradient stay inside the range of the dtype it is computed in."""
    if not np.isfinite(x).all():
        return False
    if len(x) < 2:
        return True
    lifted = isinstance(loss, nf.LiftedStructureLoss | nf.ChopraLoss)  # They square what they sum.
    top = np.float64(table_scale(loss, x)) ** (2 if lifted else max(getattr(loss, "powers", (1,))))
    if isinstance(loss.measure, nf.Euclidean | nf.Manhattan) and not isinstance(loss.measure, nf.CosineDistance):
        top = max(top, np.abs(x).max(initial=0.0) * x.shape[1] * 4)
    return bool(top * 4 * len(x) ** 2 < LARGEST[COMPUTE[dtype]])


def _conditioning(loss, x):
    """How much a measure of angles or differences can magnify rounding relative to the table's largest entry."""
    return 1.0 if is_logits(loss, None) or not len(x) else 1.0 + np.sqrt(x.shape[1])


def _undecidable(loss, x, dtype):
    """Whether rounding alone decides which pairs count: squared distances that underflow to 0, or angles that tie."""
    mining, size = getattr(loss, "mining", "all"), np.abs(x).max(initial=0.0)
    if type(loss.measure) is nf.SquaredEuclidean and (mining != "all" or 1 in getattr(loss, "powers", ())):
        return size > 0 and size**2 < np.finfo(COMPUTE[dtype]).smallest_normal / EPS[COMPUTE[dtype]]
    if type(loss) is nf.TupletMarginLoss and len(x) > 1:
        # Near an angle of π, where a positive has no direction to go, the sine is known to the root of the rounding.
        return 2 - np.max(oracles.table(loss, x.tolist())) < 4 * EPS[COMPUTE[dtype]] ** 0.5
    tied = "semihard" in mining and isinstance(loss.measure, nf.CosineDistance)
    return tied and len(x) > 1 and np.linalg.matrix_rank(x, tol=1e-5 * size) == 1


def verdict(loss, framework, dtype, x, labels):
    """None if the cell is right, else what is wrong."""
    given = array(x, framework, dtype)
    rounded = plain(given)
    inside = _represented(loss, rounded, dtype)
    expected, true = expected_gradients(loss, rounded, labels)
    silent = "ignore" if not inside or abs(expected) > LARGEST[dtype] else "warn"
    with np.errstate(all=silent, under="ignore"):  # A warning is an error in these tests.
        value, (gradient,) = call(loss, given, labels)
    value, gradient = float(value), plain(gradient)
    if not inside:
        bad = not np.isfinite(value) or not np.isfinite(expected) or abs(value - expected) <= 1e-2 * abs(expected)
        return None if bad else f"outside the range, yet {value} instead of {expected}"
    if _undecidable(loss, rounded, dtype):
        return None if np.isfinite(value) and np.isfinite(gradient).all() else "not finite"
    compute = EPS[COMPUTE[dtype]]
    bound = 3 * EPS[dtype] * abs(expected) + 96 * compute * (1 + table_scale(loss, rounded)) * _conditioning(loss, x)
    if abs(expected) <= LARGEST[dtype] and not abs(value - expected) <= bound:
        return f"value {value} instead of {expected}, off by {abs(value - expected):.3g}, allowed {bound:.3g}"
    return _gradient_verdict(loss, dtype, rounded, gradient, true)


def _gradient_verdict(loss, dtype, x, gradient, true):
    if np.isnan(gradient).any():
        return "NaN in the gradient"
    true = np.clip(true, -LARGEST[dtype], LARGEST[dtype])
    inside = np.abs(true) < LARGEST[dtype] / 2  # Beyond, the gradient itself leaves the dtype.
    bound = 8 * EPS[dtype] * np.abs(true) + 8 * SMALLEST[dtype] + _gradient_noise(loss, dtype, x, true)
    wrong = inside & ~(np.abs(gradient - true) <= bound)
    if not wrong.any():
        return None
    k = np.argwhere(wrong)[0]
    return f"gradient {gradient[tuple(k)]} instead of {true[tuple(k)]} at {k.tolist()}, allowed {bound[tuple(k)]}"


def _gradient_noise(loss, dtype, x, true):
    """What rounding in the compute dtype may move a gradient by, never more than its analytic bound.

    A logit of size z is known to eps · z, and so is a softmax weight, up to 1. It acts along a lever: 1 for logits and
    distances, the other rows for inner products, 1 / ‖x‖ for angles.
    """
    eps, temperature = EPS[COMPUTE[dtype]], 1 / steepness(loss, x)
    smooth = loss.kind == "similarity" or getattr(loss, "soft", False)
    smooth = smooth or isinstance(loss, (nf.NCALoss, nf.LiftedStructureLoss, *families.SMOOTH))
    steep = 1 + table_scale(loss, x) if smooth else 1.0
    noise = 128 * eps * steep * _near_a_node(loss, x) * np.abs(true).max(initial=0.0)
    if is_logits(loss, None):
        return noise + min(1.0, 64 * eps * (1 + table_scale(loss, x))) / temperature
    if isinstance(loss.measure, nf.Cosine | nf.CosineDistance):
        norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
        lever = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1.0), 0.0)
        out_of_range = SMALLEST["float32" if dtype != "float64" else dtype] / eps  # norms above the largest number
        turn = _turn(loss, x, eps) / temperature * lever
        return 128 * eps * (1 + 1 / temperature) / temperature * lever + out_of_range / temperature + turn
    if isinstance(loss.measure, nf.Dot):
        return noise + min(1.0, 64 * eps * (1 + table_scale(loss, x))) * np.abs(x).max(initial=0.0) / temperature
    if isinstance(loss, nf.NCALoss | nf.ProxyNCALoss):
        lever = 4 * np.abs(x).max(initial=0.0) if type(loss.measure) is nf.SquaredEuclidean else 1.0
        return noise + min(1.0, 64 * eps * (1 + table_scale(loss, x))) * lever / temperature
    return noise


def _near_a_node(loss, x):
    """How much larger the relative error of a pair's share of a bin is than that of its distance: near a node, much."""
    if type(loss) is not nf.FastAPLoss or len(x) < 2:
        return 1.0
    place = np.array(oracles.table(loss, x.tolist())) * loss.bins / loss.span
    place = np.where(place < loss.bins, place, 0.0)
    gap = np.abs(place - np.round(place))
    return max(1.0, np.max(place / np.where(gap > 0, gap, 1.0), where=gap > 0, initial=0.0))


def _turn(loss, x, eps):
    """What rounding of the unit rows may turn a pair's direction by, which counts where a margin acts on its angle."""
    if not isinstance(loss, (nf.ArcFaceLoss, *families.ON_ANGLES)) or len(x) < 2:
        return 0.0
    angle = np.sqrt(2 * np.array(oracles.table(loss, x.tolist())))
    return min(2.0, 64 * eps / angle[angle > 0].min(initial=2.0))


def _run(battery, loss, framework, dtype):
    wrong = {}
    for name, (x, labels) in battery.items():
        top = np.abs(x).max(initial=0.0)
        x = x / top * LARGEST[dtype] if top > LARGEST[dtype] else x
        with np.errstate(all="ignore"):
            found = verdict(loss, framework, dtype, x, _labels(loss, x, labels))
        if found:
            wrong[name] = found
    assert not wrong


BATTERIES = {"sizes": SIZES, "labels": LABELS, "geometry": GEOMETRY, "magnitude": MAGNITUDE}


@pytest.mark.parametrize(("loss", "cell", "battery"), met_in_pairs(ONE_EACH, BATTERIES))
def test_degenerate_batches(loss, cell, battery):
    _run(battery, loss, *cell)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ALL_CASES.values(), ids=ALL_CASES)
@cells
def test_degenerate_batches_on_every_variant(loss, framework, dtype):
    _run(BATCHES, loss, framework, dtype)


def test_the_batteries_are_complete():
    assert {k: len(v) for k, v in (("s", SIZES), ("l", LABELS), ("g", GEOMETRY), ("m", MAGNITUDE))} == {
        "s": 7, "l": 6, "g": 10, "m": 16
    }  # fmt: skip


def test_the_verdict_can_be_wrong():
    class Broken(nf.SupConLoss):
        def strip(self, xp, s, pair):
            loss, weight = super().strip(xp, s, pair)
            return loss, weight * (1 + 1e-9)

    Broken.__name__ = "SupConLoss"
    assert verdict(nf.SupConLoss(), "numpy", "float64", X, Y) is None
    assert "gradient" in verdict(Broken(), "numpy", "float64", X, Y)


# ------------------------------------------------------------ bad values


@pytest.mark.parametrize(("loss", "cell", "batch"), met_in_pairs(ONE_EACH, BAD))
def test_bad_values_reach_the_value(loss, cell, batch):
    x, labels = batch
    with np.errstate(all="ignore"):
        value, _ = call(loss, array(x, *cell), _labels(loss, x, labels))
    assert not np.isfinite(float(value))


@every_loss
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_nan_only_in_the_references(loss, framework):
    for bad in (0, 3):
        references = X[:4].copy()
        references[bad, 1] = np.nan
        with np.errstate(all="ignore"):
            value, _ = call(
                loss, array(X, framework, "float64"), Y, array(references, framework, "float64"), [0, 1, 2, 9]
            )
        assert np.isnan(float(value)), bad


# ------------------------------------------------------------ references, labels


@every_loss
@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("rows", "reference_labels"),
    [(X[:0], []), (X[:1], [0]), (X[:3], [5, 6, 7]), (X[:3], [0, 0, 0])],
    ids=["none", "one", "only other classes", "one class"],
)
def test_degenerate_references(loss, framework, rows, reference_labels):
    args = array(X, framework, "float64"), Y, array(rows, framework, "float64"), np.array(reference_labels, dtype=int)
    value, gradients = call(loss, *args)
    expected, *true = expected_gradients(loss, X, Y, rows, reference_labels)
    assert float(value) == pytest.approx(expected, rel=1e-12, abs=1e-14)
    for ours, theirs in zip(gradients, true, strict=True):
        np.testing.assert_allclose(plain(ours), theirs, atol=1e-13)


@every_loss
def test_nothing_to_learn_is_zero_on_the_graph(loss):
    """No anchor has what the loss needs: the value is 0, attached, with gradient 0."""
    x = torch.tensor(X, requires_grad=True)
    if is_logits(loss, None):
        value = loss(x, np.full(8, -1), ignore_label=-1)
    else:
        value = loss(x, np.full(8, 4), ignore_label=4)
    assert value == 0
    value.backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


FINE_LABELS = {
    **SAME_LABELS,
    "torch uint8": torch.tensor(Y, dtype=torch.uint8),
    "torch int16": torch.tensor(Y, dtype=torch.int16),
    "torch strided": torch.tensor(np.repeat(Y, 3))[::3],
}
every_loss_of_embeddings = pytest.mark.parametrize(
    "loss", [case for case in ONE_EACH if not is_logits(case.values[0], None)]
)


@every_loss_of_embeddings
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_every_kind_of_label(loss, framework):
    x = array(X, framework, "float64")
    value, (gradient,) = call(loss, x, Y)
    for name, labels in FINE_LABELS.items():
        if framework == "numpy" and isinstance(labels, torch.Tensor):
            continue
        again, (other,) = call(loss, x, labels)
        assert again == value, name
        assert np.array_equal(plain(other), plain(gradient)), name


@every_loss_of_embeddings
def test_boolean_labels(loss):
    for framework in ("numpy", "torch"):
        x = array(X, framework, "float64")
        assert call(loss, x, Y % 2 == 0)[0] == call(loss, x, 1 - Y % 2)[0]
    assert call(loss, x, torch.tensor(Y % 2 == 0))[0] == call(loss, x, 1 - Y % 2)[0]


@every_loss
@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("name", BAD_LABELS)
def test_bad_labels_are_refused_by_name(loss, framework, name):
    labels = BAD_LABELS[name]
    x = array(X, framework, "float64")
    for form in (
        (labels, torch.tensor(labels)) if isinstance(labels, np.ndarray) and labels.dtype.kind in "fic" else (labels,)
    ):
        if framework == "numpy" and form is not labels:
            continue
        with pytest.raises(nf.InputError, match=r"expected .* got .*; "):
            loss(x, form)


@every_loss
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_bad_embeddings_are_refused_by_name(loss, framework):
    def make(shape, dtype="float64"):
        a = np.zeros(shape, dtype=dtype)
        return a if framework == "numpy" else torch.tensor(a)

    bad = [
        make((8, 0)),
        make((8,)),
        make((8, 2, 2)),
        make(()),
        make((8, 4), "int64"),
        make((8, 4), "complex128"),
        X.tolist(),
    ]
    if is_logits(loss, None):
        bad = bad[1:]
    for x in bad:
        with pytest.raises(nf.InputError, match=r"expected .* got .*; "):
            loss(x, np.zeros(8, dtype=int))
    other = torch.tensor(X) if framework == "numpy" else X
    for references in (make((8, 3)), make((8,)), make((8, 4), "float32"), make((8, 4), "int64"), other, X.tolist()):
        with pytest.raises(nf.InputError, match=r"expected .* got .*; "):
            loss(make((8, 4)), Y, references=references, reference_labels=Y)
    for labels in (None, Y[:5], Y.astype(float)):
        with pytest.raises(nf.InputError, match=r"expected .* got .*; "):
            loss(make((8, 4)), Y, references=make((8, 4)), reference_labels=labels)


@every_loss
def test_other_devices_are_refused_by_name(loss):
    x = torch.zeros(8, 4)
    with pytest.raises(nf.BackendError, match="device"):
        loss(x, Y, references=torch.zeros(8, 4, device="meta"), reference_labels=Y)
    with pytest.raises(nf.BackendError, match="move it"):
        loss(x, torch.zeros(8, dtype=torch.int64, device="meta"))


# ------------------------------------------------------------ parameters

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("kind", [nf.InfoNCELoss, nf.SupConLoss, nf.CrossEntropyLoss, nf.BinaryCrossEntropyLoss])
def test_temperatures(kind):
    for bad in (0.0, -0.1, NAN, INF, -INF):
        with pytest.raises(nf.InputError, match="temperature"):
            kind(temperature=bad)
    value, gradient = kind(temperature=1e-6, measure=nf.Cosine()).value_and_grad(
        X, Y, references=X[::2] + 0.1, reference_labels=Y[::2]
    )
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient)


def test_margins_powers_and_mining():
    for bad in (-0.1, NAN, INF):
        with pytest.raises(nf.InputError, match="margin"):
            nf.ContrastiveLoss(margin=bad)
    for bad in (NAN, INF, -INF):
        with pytest.raises(nf.InputError, match="margin"):
            nf.TripletLoss(margin=bad)
    for bad in ((0, 2), (2, 3), (2, 0.5)):
        with pytest.raises(nf.InputError, match="powers"):
            nf.ContrastiveLoss(powers=bad)
    with pytest.raises(nf.InputError, match="mining"):
        nf.TripletLoss(mining="easiest")
    with pytest.raises(nf.InputError, match="active_only"):
        nf.TripletLoss(soft=True, active_only=True)
    for margin in (0.0, -0.3):
        loss = nf.TripletLoss(margin=margin)
        assert float(loss(X, Y)) == pytest.approx(expected_gradients(loss, X, Y)[0], rel=1e-12)
    zero = nf.ContrastiveLoss(margin=0.0)
    assert float(zero(X, Y)) == pytest.approx(expected_gradients(zero, X, Y)[0], rel=1e-12)


def test_scales_margins_and_boundaries():
    bad_values = {
        nf.NCALoss: {"temperature": (0.0, -1.0, NAN, INF)},
        nf.SigLIPLoss: {"temperature": (0.0, -1.0, NAN, INF), "bias": (NAN, INF, -INF)},
        nf.MultiSimilarityLoss: {
            "alpha": (0.0, -2.0, NAN, INF),
            "beta": (0.0, -2.0, NAN, INF),
            "base": (NAN, INF, -INF),
            "epsilon": (-0.1, NAN, INF),
        },
        nf.CircleLoss: {"margin": (NAN, INF, -INF), "scale": (0.0, -80.0, NAN, INF)},
        nf.MarginLoss: {"margin": (-0.1, NAN, INF), "beta": (NAN, INF, -INF)},
    }
    for kind, fields in bad_values.items():
        for field, values in fields.items():
            for bad in values:
                with pytest.raises(nf.InputError, match=rf"expected .*{field}.* got .*; "):
                    kind(**{field: bad})
    for loss in (nf.MultiSimilarityLoss(epsilon=0.0), nf.CircleLoss(margin=-0.2), nf.MarginLoss(0.0, 1.0)):
        assert float(loss(X, Y)) == pytest.approx(expected_gradients(loss, X, Y)[0], rel=1e-12)


@every_loss
def test_the_other_kind_of_measure_is_refused(loss):
    wrong = nf.Cosine() if loss.kind == "distance" else nf.Euclidean()
    for measure in (wrong, "cosine", None, nf.Cosine):
        with pytest.raises(nf.InputError, match=f"{type(loss).__name__} to be a {loss.kind}"):
            type(loss)(measure=measure)


@every_loss
def test_unknown_engines_are_refused(loss):
    for engine in ("fast", None, 3):
        with pytest.raises(nf.InputError, match="engine"):
            loss(X, Y, references=X, reference_labels=Y, engine=engine)
    with pytest.raises(nf.InputError, match="rows"):
        nf.engine.Strips(0)
