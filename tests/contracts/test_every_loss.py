"""What every loss must satisfy, on every measure, library and dtype. A new loss without cases makes this file fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nearfar as nf
import oracles
from cases import (
    ALL_CASES,
    CASES,
    EPS,
    NOT_ALONE,
    ONE_EACH,
    SMALLEST,
    STOP_GRADIENT,
    VARIANTS,
    array,
    call,
    expected_gradients,
    expected_relation,
    expected_value,
    is_logits,
    labels_for,
    met_in_pairs,
    plain,
    table_scale,
)
from nearfar.engine import Strips

every_loss = pytest.mark.parametrize("loss", ONE_EACH)
# One variant on every measure and every variant on its own; the rest of the product belongs to make test-all.
PRODUCT = [pytest.param(v, id=k, marks=[] if k in CASES else pytest.mark.slow) for k, v in ALL_CASES.items()]
the_product = pytest.mark.parametrize("loss", PRODUCT)
TABLES = {"self": False, "references": True}
either_table = pytest.mark.parametrize("apart", TABLES.values(), ids=TABLES)
euclidean = pytest.mark.parametrize(
    "loss",
    [v for v in ALL_CASES.values() if isinstance(v.measure, nf.Euclidean) and type(v.measure) is not nf.CosineDistance],
)
by_angle = {k: v for k, v in ALL_CASES.items() if isinstance(v.measure, nf.Cosine | nf.CosineDistance)}


def _table(loss, batch, gallery, apart):
    """x, labels, references, reference labels of a contract."""
    x, labels = batch
    y, reference_labels = gallery if apart else (None, None)
    return x, labels_for(loss, x, labels, y), y, reference_labels


def test_no_loss_is_without_cases():
    assert set(nf.losses.__all__) - NOT_ALONE == set(VARIANTS) == set(oracles.RULES) == set(oracles.DENSE)
    for name, variants in VARIANTS.items():
        assert variants, name
        assert all(type(v).__name__ == name for v in variants)
    assert {type(v.measure) for v in ALL_CASES.values()} == {
        nf.Cosine, nf.Dot, nf.Euclidean, nf.SquaredEuclidean, nf.CosineDistance, nf.Manhattan
    }  # fmt: skip


@the_product
@either_table
def test_value_is_that_of_the_loops(loss, apart, batch, gallery):
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    value, _ = call(loss, x, labels, y, reference_labels)
    assert float(value) == pytest.approx(expected_value(loss, x, labels, y, reference_labels), rel=1e-12, abs=1e-13)


@the_product
@either_table
def test_gradient_is_that_of_automatic_differentiation(loss, apart, batch, gallery):
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    _, gradients = call(loss, x, labels, y, reference_labels)
    value, *expected = expected_gradients(loss, x, labels, y, reference_labels)
    assert value == pytest.approx(expected_value(loss, x, labels, y, reference_labels), rel=1e-12, abs=1e-13)
    assert len(gradients) == len(expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert np.abs(theirs).max() > 1e-4  # the case exercises something
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13 * np.abs(theirs).max() + 1e-15)


def near(loss, dtype, x, y):
    """Allowed error of a value: two units in its last place, and what float32 sums make of the table's entries."""
    return 2 * EPS[dtype], 16 * EPS["float64" if dtype == "float64" else "float32"] * (1 + table_scale(loss, x, y))


@pytest.mark.parametrize(("loss", "cell", "apart"), met_in_pairs(ONE_EACH, TABLES))
def test_every_library_and_dtype(loss, cell, apart, batch, gallery):
    framework, dtype = cell
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    a, b = array(x, framework, dtype), None if y is None else array(y, framework, dtype)
    x, y = plain(a), None if b is None else plain(b)  # what rounding left is what the oracle gets
    value, gradients = call(loss, a, labels, b, reference_labels)
    assert type(value) is type(gradients[0]) or framework == "numpy"
    assert {g.dtype for g in (value, *gradients)} == {a.dtype}
    assert value.shape == ()
    assert [g.shape for g in gradients] == [v.shape for v in (a, b) if v is not None]
    rel, abs_ = near(loss, dtype, x, y)
    expected, *theirs = expected_gradients(loss, x, labels, y, reference_labels)
    assert abs(float(value) - expected) <= rel * abs(expected) + abs_
    for ours, true in zip(gradients, theirs, strict=True):
        bound = 4 * rel * np.abs(true) + 4 * abs_ * np.abs(true).max()
        assert (np.abs(plain(ours) - true) <= bound).all()


@every_loss
@either_table
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_torch_backward_is_value_and_grad(loss, apart, dtype, batch, gallery):
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    leaves = [array(v, "torch", dtype).requires_grad_() for v in (x, y) if v is not None]
    extra = {"references": leaves[1], "reference_labels": reference_labels} if apart else {}
    out = loss(leaves[0], torch.as_tensor(labels), **extra)
    value, gradients = call(loss, leaves[0], labels, *leaves[1:], reference_labels)
    assert out.dtype == leaves[0].dtype
    assert out.requires_grad
    assert out.detach() == value
    (4 * out).backward()
    for leaf, g in zip(leaves, gradients, strict=True):
        np.testing.assert_allclose(plain(leaf.grad), 4 * plain(g), rtol=EPS[dtype], atol=4 * SMALLEST[dtype])


# That of the mean is compared with automatic differentiation above.
@pytest.mark.parametrize("form", ["each", pytest.param("mean", marks=pytest.mark.slow)])
@every_loss
@either_table
def test_gradcheck(loss, apart, form, batch, gallery):
    if isinstance(loss, STOP_GRADIENT):
        pytest.skip("not the derivative of its value: tests/losses/test_peers.py checks the surrogate")
    few = (batch[0][:6, :2], batch[1][:6]), (gallery[0][:4, :2], gallery[1][:4])
    x, labels, y, reference_labels = _table(loss, *few, apart)
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, y) if v is not None]

    of = loss if form == "mean" else loss.per_anchor

    def value(a, b=None):
        return of(a, labels, references=b, reference_labels=None if b is None else reference_labels)

    assert torch.autograd.gradcheck(value, leaves, eps=1e-6, atol=1e-6)


@every_loss
@either_table
def test_per_anchor_is_each_anchors_mean(loss, apart, batch, gallery):
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    extra = {"references": y, "reference_labels": reference_labels} if apart else {}
    each = loss.per_anchor(x, labels, **extra)
    assert each.shape == (len(x),)
    pairs = expected_relation(loss, x, labels, y, reference_labels)
    sums, counts = oracles.dense_on_table(loss, plain_table(loss, x, y), *pairs)
    expected = np.where(counts > 0, sums / torch.where(counts > 0, counts, 1), 0)
    np.testing.assert_allclose(each, expected, rtol=1e-11, atol=1e-14)
    assert float(loss(x, labels, **extra)) == pytest.approx(
        float((each * counts.numpy()).sum() / counts.sum()), rel=1e-12
    )


@every_loss
@either_table
def test_gradient_of_per_anchor(loss, apart, batch, gallery):
    """Weighting the anchors by their share of the terms gives the gradient of the mean."""
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, y) if v is not None]
    extra = {"references": leaves[1], "reference_labels": reference_labels} if apart else {}
    pairs = expected_relation(loss, x, labels, y, reference_labels)
    s = plain_table(loss, x, y)
    counts = oracles.dense_on_table(loss, s, *pairs)[1]
    (loss.per_anchor(leaves[0], labels, **extra) * counts / counts.sum()).sum().backward()
    for leaf, g in zip(leaves, call(loss, x, labels, y, reference_labels)[1], strict=True):
        np.testing.assert_allclose(leaf.grad, g, rtol=1e-11, atol=1e-14)


def plain_table(loss, x, y):
    rows = x if is_logits(loss, y) else oracles.table(loss, x.tolist(), None if y is None else y.tolist())
    return torch.tensor(rows, dtype=torch.float64)


# ------------------------------------------------------------ laws


@every_loss
@pytest.mark.parametrize("framework", ["numpy", "torch"])
@either_table
def test_any_strip_height(loss, framework, apart, batch, gallery):
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    a, b = array(x, framework, "float64"), None if y is None else array(y, framework, "float64")
    whole, wholes = call(loss, a, labels, b, reference_labels, engine="dense")
    for engine in (*map(Strips, (1, 3, 7, 13, 14)), "auto"):
        value, gradients = call(loss, a, labels, b, reference_labels, engine=engine)
        assert float(value) == pytest.approx(float(whole), rel=8 * EPS["float64"]), engine
        for ours, theirs in zip(gradients, wholes, strict=True):
            bound = 64 * EPS["float64"] * np.abs(plain(theirs)).max()
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound, err_msg=str(engine))


@every_loss
@either_table
def test_permuting_the_batch_permutes_the_gradient(loss, apart, batch, gallery):
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    rng = np.random.default_rng(5)
    order = rng.permutation(len(x))
    value, gradients = call(loss, x, labels, y, reference_labels)
    if apart:
        columns = rng.permutation(len(y))
        there, moved = call(loss, x[order], labels[order], y[columns], reference_labels[columns])
        np.testing.assert_allclose(moved[1], gradients[1][columns], rtol=1e-10, atol=1e-14)
    else:
        there, moved = call(loss, x[order], labels[order])
    assert float(there) == pytest.approx(float(value), rel=1e-13)
    np.testing.assert_allclose(moved[0], gradients[0][order], rtol=1e-10, atol=1e-14)


@every_loss
@either_table
def test_renaming_labels_changes_no_bit(loss, apart, batch, gallery):
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    if is_logits(loss, y):
        pytest.skip("the labels of logits are their columns")
    names = {0: -4, 3: 2**62, 7: 1, 9: -(2**40), 11: 0}
    renamed = [np.array([names[c] for c in ls]) for ls in (labels, reference_labels) if ls is not None]
    words = [[f"class {c}" for c in ls] for ls in (labels, reference_labels) if ls is not None]
    value, gradients = call(loss, x, labels, y, reference_labels)
    for own, *other in (renamed, words):
        again, moved = call(loss, x, own, y, *other)
        assert again == value
        assert all(np.array_equal(g, m) for g, m in zip(gradients, moved, strict=True))


@every_loss
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_layout_changes_nothing(loss, framework, batch):
    x, labels = batch
    labels = labels_for(loss, x, labels)
    wide = np.zeros((2 * len(x), 3 * x.shape[1]))
    wide[::2, ::3] = x
    turned = np.ascontiguousarray(x.T)
    if framework == "numpy":
        layouts = [wide[::2, ::3], turned.T, np.asfortranarray(x), x[::-1].copy()[::-1], x.astype(">f8")]
    else:
        layouts = [torch.tensor(wide)[::2, ::3], torch.tensor(turned).T]
    spread = np.repeat(labels, 2)[::2] if framework == "numpy" else torch.tensor(np.repeat(labels, 2))[::2]
    value, (gradient,) = call(loss, array(x, framework, "float64"), labels)
    for a in layouts:
        again, (moved,) = call(loss, a, spread)
        assert float(again) == pytest.approx(float(value), rel=1e-14)
        assert moved.dtype == a.dtype
        np.testing.assert_allclose(plain(moved), plain(gradient), rtol=1e-11, atol=1e-15)


@every_loss
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_expanded_rows(loss, framework, batch):
    """All rows one and the same memory: the value of the rows copied out."""
    row = batch[0][:1]
    labels = labels_for(loss, batch[0], batch[1])[:6]
    copied = np.repeat(row, 6, axis=0)
    a = np.broadcast_to(row, copied.shape) if framework == "numpy" else torch.tensor(row).expand(6, -1)
    value, (gradient,) = call(loss, a, labels)
    again, (other,) = call(loss, array(copied, framework, "float64"), labels)
    assert float(value) == pytest.approx(float(again), rel=1e-14)
    assert np.isfinite(plain(gradient)).all()
    np.testing.assert_allclose(plain(gradient), plain(other), rtol=1e-12, atol=1e-13)


@every_loss
@either_table
def test_pure_and_deterministic(loss, apart, batch, gallery):
    """Read-only inputs stay as they are, no global random state moves, and the same call gives the same bits."""
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    given = [np.array(v) for v in (x, labels, y, reference_labels) if v is not None]
    kept = [v.copy() for v in given]
    for v in given:
        v.flags.writeable = False
    np_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    first = call(loss, *given)
    tensors = [torch.tensor(v) for v in kept]
    first_torch = call(loss, *tensors)
    for _ in range(3):
        again, again_torch = call(loss, *given), call(loss, *tensors)
        assert again[0] == first[0]
        assert again_torch[0] == first_torch[0]
        assert all(np.array_equal(a, b) for a, b in zip(again[1], first[1], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(again_torch[1], first_torch[1], strict=True))
    for v, t, k in zip(given, tensors, kept, strict=True):
        assert np.array_equal(v, k)
        assert np.array_equal(t.numpy(), k)
    assert np.array_equal(np_state, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_state, torch.random.get_rng_state())


@the_product
def test_rotation_law(loss, batch):
    """Σ (x gᵀ − g xᵀ) = 0 for every measure that a rotation leaves alone."""
    x, labels = batch
    if isinstance(loss.measure, nf.Manhattan) or is_logits(loss, None):
        pytest.skip("not invariant under rotations")
    _, (g,) = call(loss, x, labels)
    assert np.abs(x.T @ g - g.T @ x).max() <= 1e-13 * max(1.0, np.abs(g).max())


@pytest.mark.parametrize("loss", [v for v in ALL_CASES.values() if v.kind == "distance"], ids=str)
def test_translation_law(loss, batch):
    """Σ g = 0 for distances of differences."""
    if isinstance(loss.measure, nf.CosineDistance):
        pytest.skip("angles change under translation")
    _, (g,) = call(loss, *batch)
    assert np.abs(g.sum(0)).max() <= 1e-14 * len(g)
    _, (moved,) = call(loss, batch[0] + np.array([8.0, -4.0, 16.0, 0.5, 32.0]), batch[1])
    np.testing.assert_allclose(moved, g, atol=1e-12)


@pytest.mark.parametrize("loss", by_angle.values(), ids=by_angle)
@either_table
def test_scale_law(loss, apart, batch, gallery):
    """⟨x, g⟩ = 0 for every row under a measure of angles."""
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    if is_logits(loss, y):
        pytest.skip("logits are not normalised")
    _, gradients = call(loss, x, labels, y, reference_labels)
    for v, g in zip((x, y), gradients, strict=False):
        assert np.abs((v * g).sum(1)).max() <= 1e-14


@pytest.mark.parametrize("loss", by_angle.values(), ids=by_angle)
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_angles_under_powers_of_two_change_no_bit(loss, framework, batch):
    x, labels = batch
    if is_logits(loss, None):
        pytest.skip("logits are not normalised")
    value, (g,) = call(loss, array(x, framework, "float64"), labels)
    for k in (-500, -100, -1, 3, 100, 500):
        again, (moved,) = call(loss, array(np.ldexp(x, k), framework, "float64"), labels)
        assert again == value
        assert np.array_equal(np.ldexp(plain(moved), k), plain(g))


@every_loss
@either_table
def test_ignored_items_add_no_bit(loss, apart, batch, gallery):
    """A batch with ignored rows, NaN among them, is the batch without them, to the bit."""
    x, labels, y, reference_labels = _table(loss, batch, gallery, apart)
    if is_logits(loss, y):
        pytest.skip("the labels of logits are their columns")
    more = np.insert(x, [0, 4, 13], np.nan, axis=0)
    more_labels = np.insert(labels, [0, 4, 13], -1)
    kept = more_labels != -1
    if apart:
        y, reference_labels = np.insert(y, 2, np.inf, axis=0), np.insert(reference_labels, 2, -1)
    value, gradients = call(loss, more, more_labels, y, reference_labels, ignore_label=-1)
    rest = (y[reference_labels != -1], reference_labels[reference_labels != -1]) if apart else (None, None)
    expected, theirs = call(loss, x, labels, *rest)
    assert value == expected
    assert np.array_equal(gradients[0][kept], theirs[0])
    assert not gradients[0][~kept].any()
    if apart:
        assert np.array_equal(gradients[1][reference_labels != -1], theirs[1])
        assert not gradients[1][reference_labels == -1].any()
