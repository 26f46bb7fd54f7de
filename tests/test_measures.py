"""Measures alone: right to a few units in the last place for near pairs, at any scale, with their chain rule."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

import nearfar as nf
import oracles
from cases import EPS, array, plain
from nearfar._arrays import namespace, quiet
from nearfar.engine.task import centre
from nearfar.measures.base import normalise, unnormalise

MEASURES = [nf.Cosine(), nf.Dot(), nf.Euclidean(), nf.SquaredEuclidean(), nf.CosineDistance(), nf.Manhattan()]
every_measure = pytest.mark.parametrize("measure", MEASURES, ids=str)
frameworks = pytest.mark.parametrize("framework", ["numpy", "torch"])


def table(measure, x, y=None):
    """The measure of every pair, as the engine asks for it."""
    with quiet():
        xp, a, b = _prepared(measure, x, x if y is None else y)
        return plain(measure.table(xp, a, a if y is None else b).values)


def _prepared(measure, x, y):
    xp = namespace(x=x, y=y)
    middle = centre(xp, y)
    return xp, measure.prepare(xp, x, middle), measure.prepare(xp, y, middle)


def chain(measure, x, y, weight):
    """Gradients of Σ weight · measure."""
    with quiet():
        xp, a, b = _prepared(measure, x, y)
        into = xp.zeros_like(x), xp.zeros_like(y)
        measure.pull(xp, measure.table(xp, a, b), weight, (a, b), into)
        return plain(measure.unprepare(xp, a, into[0])), plain(measure.unprepare(xp, b, into[1]))


@every_measure
@frameworks
def test_table_and_rows_are_the_loops(measure, framework, batch, gallery):
    """The scale of a pair is the scale of the table: pairwise is the matrix's diagonal."""
    x, y = batch[0], gallery[0]
    expected = [[oracles.MEASURES[type(measure).__name__](a, b) for b in y.tolist()] for a in x.tolist()]
    a, b = array(x, framework, "float64"), array(y, framework, "float64")
    np.testing.assert_allclose(table(measure, a, b), expected, rtol=1e-13, atol=1e-15)
    xp = namespace(a=a)
    each = measure.rows(xp, a, xp.stack([b] * len(x)))
    np.testing.assert_allclose(plain(each), expected, rtol=1e-13, atol=1e-15)


@every_measure
@frameworks
def test_chain_rule(measure, framework, batch, gallery):
    x, y = batch[0], gallery[0]
    weight = np.random.default_rng(3).normal(size=(len(x), len(y)))
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, y)]
    s = oracles.dense_table(type(measure).__name__, *leaves)
    expected = torch.autograd.grad((torch.tensor(weight) * s).sum(), leaves)
    given = [array(v, framework, "float64") for v in (x, y, weight)]
    overwritten = array(weight, framework, "float64")
    for ours, theirs in zip(chain(measure, *given[:2], overwritten), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)
    xp = namespace(x=given[0])
    others = xp.stack([given[1]] * len(x))
    values = measure.rows(xp, given[0], others)
    ours = measure.pull_rows(xp, values, given[2], given[0], others)
    np.testing.assert_allclose(plain(ours[0]), expected[0], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(plain(ours[1]).sum(0), expected[1], rtol=1e-11, atol=1e-13)


def exact_distance(a, b):
    """‖a − b‖ in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        return sum((Decimal(float(u)) - Decimal(float(v))) ** 2 for u, v in zip(a, b, strict=True)).sqrt()


@frameworks
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("spread", [1e-1, 1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_near_pairs_to_a_few_units_in_the_last_place(framework, dtype, spread, offset):
    """d = 128, pairs at 1e-4: a product of matrices alone is wrong eightfold or gives 0; here it is a few ulp."""
    rng = np.random.default_rng(9)
    centres = rng.normal(size=(6, 128)) + offset
    x = array(np.repeat(centres, 2, axis=0) + spread * rng.normal(size=(12, 128)) / 11, framework, dtype)
    d = table(nf.Euclidean(), x)
    rows = plain(x)
    for i in range(12):
        for j in range(12):
            true = float(exact_distance(rows[i], rows[j]))
            assert abs(d[i, j] - true) <= 32 * EPS[dtype] * true, (i, j)
    assert (np.diag(d) == 0).all()


@frameworks
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("spread", [1e-3, 3e-4, 3e-5, 3e-6])
def test_no_wrong_nearest_neighbour(framework, dtype, spread):
    """Two near-duplicates at ε and 1.2 ε of each query: the nearer one wins, always."""
    rng = np.random.default_rng(4)
    query = rng.normal(size=(128, 32))
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    steps = rng.normal(size=(2, 128, 32))
    steps /= np.linalg.norm(steps, axis=2, keepdims=True)
    near, far = query + spread * steps[0], query + 1.2 * spread * steps[1]
    x, y = array(query, framework, dtype), array(np.concatenate([far, near]), framework, dtype)
    rows, others = plain(x), plain(y)
    for measure in (nf.Euclidean(), nf.SquaredEuclidean()):
        found = table(measure, x, y).argmin(1)
        # After rounding to float32 the order itself may differ: the truth is that of the rounded rows.
        true = ((rows[:, None] - others[None]) ** 2).sum(-1).argmin(1)
        assert (found == true).all()


@frameworks
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_measure
def test_distances_are_symmetric_and_not_negative(framework, dtype, measure):
    rng = np.random.default_rng(14)
    x = np.concatenate([rng.normal(size=(20, 7)), 1e-5 * rng.normal(size=(20, 7)), np.zeros((2, 7))])
    s = table(measure, array(x, framework, dtype))
    np.testing.assert_allclose(s, s.T, rtol=64 * EPS[dtype], atol=64 * EPS[dtype])
    if measure.kind == "distance":
        assert (s >= 0).all()
        assert (np.diag(s)[:-2] == 0).all()


@frameworks
@pytest.mark.parametrize(("dtype", "size"), [("float64", 1.2e154), ("float32", 1.6e19)])
def test_two_squares_that_overflow_together(framework, dtype, size):
    """Each in range, and so is the distance, but not its square."""
    x = array(np.array([[size, 0.0], [-size, 0.0], [0.0, size / 3]]), framework, dtype)
    with np.errstate(all="ignore"):
        d = table(nf.Euclidean(), x)
    assert d[0, 1] == pytest.approx(2 * size, rel=1e-6)
    assert d[1, 2] == pytest.approx(size * 10**0.5 / 3, rel=1e-6)


@frameworks
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-8, 1.0, 1e8, 1e19, 1e30])
def test_angles_at_any_scale(framework, dtype, scale, batch):
    for measure in (nf.Cosine(), nf.CosineDistance()):
        at_one = table(measure, array(batch[0], framework, dtype))
        scaled = table(measure, array(batch[0] * scale, framework, dtype))
        np.testing.assert_allclose(scaled, at_one, rtol=0, atol=16 * EPS[dtype])
        assert np.ptp(scaled) > 0.5


@frameworks
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-15, 1e15, 1e18, 3e18, 1e19, 1e25, 1e30])
def test_euclidean_at_any_scale(framework, dtype, scale, batch):
    """Squares that under- or overflow do not matter: the distance itself is in range."""
    x = array(batch[0] * scale, framework, dtype)
    rows = plain(x)
    with np.errstate(all="ignore"):
        d = table(nf.Euclidean(), x)
    expected = np.array(oracles.table(nf.TripletLoss(), rows.tolist()))
    np.testing.assert_allclose(d, expected, rtol=64 * EPS[dtype])


@frameworks
@every_measure
def test_zero_rows(framework, measure):
    x = array([[0.0, 0.0], [3.0, 4.0], [0.0, -0.0]], framework, "float64")
    expected = {
        "Cosine": [0, 0, 0], "Dot": [0, 0, 0], "Euclidean": [0, 5, 0],
        "SquaredEuclidean": [0, 25, 0], "CosineDistance": [1, 1, 1], "Manhattan": [0, 7, 0],
    }  # fmt: skip
    assert table(measure, x)[0].tolist() == expected[type(measure).__name__]
    gradients = chain(measure, x, x, array(np.ones((3, 3)), framework, "float64"))
    assert all(np.isfinite(g).all() for g in gradients)
    if type(measure) in (nf.Cosine, nf.CosineDistance):
        assert not gradients[0][[0, 2]].any()


@frameworks
def test_a_pair_at_distance_zero_has_no_force(framework):
    x = array([[1.0, -2.0], [1.0, -2.0]], framework, "float64")
    weight = array(np.ones((2, 2)), framework, "float64")
    for measure in MEASURES:
        if measure.kind == "distance":
            assert not any(g.any() for g in chain(measure, x, x, weight))


@frameworks
@pytest.mark.parametrize("spread", [1e-3, 1e-4, 1e-6])
def test_gradient_of_near_pairs(framework, spread):
    """Peers are 5 % wrong at a spread of 1e-3 in float32 and 83 % at 1e-4; here 1e-5 of the largest, and better."""
    rng = np.random.default_rng(15)
    x = np.repeat(rng.normal(size=(6, 32)), 4, axis=0) + spread * rng.normal(size=(24, 32))
    labels = np.arange(24) // 4
    for loss in (nf.ContrastiveLoss(margin=9.0, powers=(1, 1)), nf.TripletLoss(margin=0.5 * spread)):
        given = array(x, framework, "float32")
        rows = plain(given)
        _, true = oracles.dense_gradients(loss, rows, *oracles.relation(labels))
        _, gradient = loss.value_and_grad(given, labels)
        if np.abs(true).max() > 0:
            assert np.abs(plain(gradient) - true).max() <= 1e-5 * np.abs(true).max()


def test_measures_are_values():
    assert nf.Cosine() == nf.Cosine()
    assert nf.Euclidean() != nf.SquaredEuclidean()
    assert hash(nf.SupConLoss(0.2)) == hash(nf.SupConLoss(0.2))
    assert {m.kind for m in MEASURES[:2]} == {"similarity"}
    assert {m.kind for m in MEASURES[2:]} == {"distance"}


def test_a_zero_row_leaves_the_others_gradient_as_it_is():
    rng = np.random.default_rng(8)
    x, g = rng.normal(size=(2, 4, 3))
    unit, norm = normalise(np, x)
    others = unnormalise(np, unit, norm, g.copy())
    unit[1], norm[1] = 0, 0
    expected = np.where(norm > 0, others, 0)
    np.testing.assert_allclose(unnormalise(np, unit, norm, g.copy()), expected, rtol=1e-14)
