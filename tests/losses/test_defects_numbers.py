"""Numeric defects of other libraries that no loss here shares: norms, scales, dtypes, precision, size.

Each test is named after the defect; the index is tests/test_peers_defects.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nearfar as nf

RNG = np.random.default_rng(71)
Y = np.array([5, 5, 7, 7, 9, 9, 5, 7])
X = RNG.normal(size=(8, 4)) + RNG.normal(size=(10, 4))[Y]


def test_odd_norms_of_degree_1():
    """Sums of absolute differences, not of signed ones: (0, 0) and (1, 1), either way round."""
    loss = nf.ContrastiveLoss(factors=(1.0, 1.0), powers=(1, 1), measure=nf.Manhattan())
    low, high = np.zeros((1, 2)), np.ones((1, 2))
    assert float(loss.pairs(low, high, [1])) == float(loss.pairs(high, low, [1])) == 2


@pytest.mark.parametrize(
    "loss", [nf.DecoupledContrastiveLoss(), nf.DecoupledContrastiveLoss(sigma=0.5), nf.InfoNCELoss()], ids=repr
)
def test_one_pair_of_views(loss):
    """Two views of one item have no negative: 0, where a log-sum-exp over none is −∞."""
    one, other = (torch.tensor(v[:1], requires_grad=True) for v in (X, X[::-1].copy()))
    value = loss.views(one, other)
    value.backward()
    assert value.item() == 0
    assert not one.grad.any()
    assert not other.grad.any()


def test_all_labels_ignored():
    """No item with a class is a mean over nothing: 0 with gradient 0, not 0 / 0."""
    value, gradient = nf.CrossEntropyLoss().value_and_grad(X, np.full(8, -100), ignore_label=-100)
    assert float(value) == 0
    assert not gradient.any()


def test_soft_nearest_neighbours_far_away():
    """Exponentials of the nearest difference: e⁻⁴⁰⁰ is no number in float32, and 10⁻⁹ beside a chance of it is all."""
    x = np.array([[0.0], [20.0], [40.0], [60.0]], dtype=np.float32)
    assert float(nf.SoftNearestNeighborLoss()(x, [0, 0, 1, 1])) == pytest.approx(math.log(2) / 2, rel=1e-6)
    wrong = np.array([[0.0], [10.0], [1.0], [9.0]], dtype=np.float32)  # the positive at 10, a negative at 1
    assert float(nf.SoftNearestNeighborLoss().per_anchor(wrong, [0, 0, 1, 1])[0]) == pytest.approx(99, rel=1e-6)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("loss", [nf.SupConLoss(), nf.InfoNCELoss(), nf.CircleLoss(), nf.FastAPLoss()], ids=repr)
def test_scale_invariance_extreme(loss, framework):
    """Rows times powers of two near 10¹⁹ and 10⁻²⁰, in float32: the same bits, not ln 5."""
    x = X.astype(np.float32)

    def run(rows):
        return loss.value_and_grad(rows if framework == "numpy" else torch.tensor(rows), Y)

    value, gradient = run(x)
    for k in (63, -66, 100):
        again, moved = run(np.ldexp(x, k))
        assert float(again) == float(value)
        assert np.array_equal(np.ldexp(np.asarray(moved), k), np.asarray(gradient))


def test_mask_device():
    """A mask of the host follows the embeddings: tensors on a device of their own, and other libraries' arrays."""
    mask = nf.Mask((Y[:, None] == Y) & ~np.eye(8, dtype=bool), Y[:, None] != Y)
    expected = nf.SupConLoss()(X, Y)
    assert float(nf.SupConLoss()(torch.tensor(X), mask)) == pytest.approx(float(expected), rel=1e-13)
    if torch.cuda.is_available():
        assert float(nf.SupConLoss()(torch.tensor(X).cuda(), mask)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("measure", [nf.Euclidean(), nf.SquaredEuclidean(), nf.CosineDistance()])
def test_euclid_mask_dtype(measure, dtype):
    x = torch.tensor(X, dtype=dtype, requires_grad=True)
    value = nf.TripletLoss(measure=measure)(x, Y)
    value.backward()
    assert value.dtype == x.grad.dtype == dtype
    expected = nf.TripletLoss(measure=measure)(x.detach().double(), Y)
    assert value.item() == pytest.approx(float(expected), rel=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("loss", [nf.ContrastiveLoss(), nf.TripletLoss(mining="hard"), nf.MarginLoss()], ids=repr)
def test_sqrt_half_at_zero(loss, dtype):
    """Equal rows of a class and of two classes, where a guard of 1e-16 under a root is 0 in half."""
    x = torch.tensor(X[[0, 0, 2, 2, 0, 3]], dtype=dtype, requires_grad=True)
    value = loss(x, [0, 0, 1, 1, 1, 0])
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() < 10


def test_ap_monotone_map():
    """Scores below 0 are scores: (−0.1, −0.2, −0.3) with relevant (1, 0, 1) rank as the same scores plus 1."""
    from nearfar.metrics import retrieval

    scores = np.array([[-0.1, -0.2, -0.3]])
    found = [retrieval.map_at_r(s, [1], [1, 0, 1]) for s in (scores, scores + 1, np.exp(scores))]
    assert found[0] == found[1] == found[2] == [0.5]
    assert retrieval.precision_at_1(scores, [1], [1, 0, 1]) == [1.0]


def test_matmul_precision_changes_distances():
    """PyTorch's switch for products in float32 changes no bit."""
    x = torch.tensor(np.tile(X, (8, 16)), dtype=torch.float32)
    labels = np.tile(Y, 8)
    before, found = torch.get_float32_matmul_precision(), []
    try:
        for precision in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(precision)
            value, gradient = nf.TripletLoss()(x, labels), nf.TripletLoss().value_and_grad(x, labels)[1]
            found.append((value, gradient))
            assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    for value, gradient in found[1:]:
        assert torch.equal(value, found[0][0])
        assert torch.equal(gradient, found[0][1])


@pytest.mark.parametrize("loss", [nf.SupConLoss(1e-3, nf.Dot()), nf.InfoNCELoss(1e-3, nf.Dot())], ids=repr)
def test_row_maximum_is_the_self_similarity(loss):
    """Rows times 100 at τ = 0.001, in float32: an item's own similarity, far above, shifts nothing to zero."""
    x = (100 * X).astype(np.float32)
    value, gradient = loss.value_and_grad(x, Y)
    expected, there = loss.value_and_grad(x.astype(np.float64), Y)
    assert float(expected) > 1e6
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert np.abs(gradient - there).max() <= 1e-5 * np.abs(there).max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fp16_training_stalls(dtype):
    """Under autocast the course of the loss is that of float32, not a constant."""
    courses = []
    for autocast in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 6)
        optimizer, course = torch.optim.SGD(model.parameters(), lr=0.1), []
        for _ in range(25):
            with torch.autocast("cpu", dtype=dtype, enabled=autocast):
                loss = nf.SupConLoss(temperature=0.07)(model(torch.tensor(X, dtype=torch.float32)), Y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            course.append(float(loss.detach()))
        courses.append(course)
    plain, lowered = courses
    assert plain[-1] < 0.6 * plain[0]
    np.testing.assert_allclose(lowered, plain, rtol=0.05, atol=0.02)


def test_b_cubed_tensor():
    """All triplets of 1,400 items, 2.7 · 10⁹ places in a cube: more than INT_MAX, in a few strips here."""
    from nearfar.engine import explain

    labels = np.arange(1400) % 2
    x = np.random.default_rng(5).normal(size=(1400, 1)).astype(np.float32)
    assert len(x) ** 3 > 2**31
    assert explain(nf.TripletLoss(), [len(x), 1]).megabytes < 100
    value = float(nf.TripletLoss(margin=100.0)(x, labels))  # Every triplet is active: the mean of d_ap − d_an + m.
    d, same = np.abs(x.astype(float) - x[:, 0].astype(float)), labels[:, None] == labels
    expected = d[same].sum() / (same.sum() - len(x)) - d[~same].mean() + 100
    assert value == pytest.approx(expected, rel=1e-6)
