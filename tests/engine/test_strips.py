"""The strip engine: any height, any order of execution, the same loss; memory of a strip, not of the table."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import nearfar as nf
from cases import EPS, array, call, plain
from nearfar._arrays import namespace, turned
from nearfar.engine import Strips, Task, height
from nearfar.engine.strips import LARGEST, STRIP, TALL, tall

LOSSES = [
    nf.SupConLoss(),
    nf.InfoNCELoss(),
    nf.ContrastiveLoss(balanced=True),
    nf.ContrastiveLoss(measure=nf.Manhattan()),
    nf.TripletLoss(),
    nf.TripletLoss(active_only=True),
    nf.TripletLoss(mining="hard", measure=nf.CosineDistance()),
    nf.TripletLoss(mining="semihard", measure=nf.SquaredEuclidean()),
    nf.BinaryCrossEntropyLoss(),
]


def _batch(n, m=None):
    rng = np.random.default_rng(n)
    own = rng.normal(size=(n, 6)), rng.integers(0, max(n // 4, 1), size=n)
    return own if m is None else (*own, rng.normal(size=(m, 6)), rng.integers(0, max(n // 4, 1), size=m))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("shape", [(1,), (2,), (63,), (64, 5), (65, 1), (7, 130)], ids=str)
def test_any_height(loss, framework, shape):
    x, labels, *rest = _batch(*shape)
    x, rest = array(x, framework, "float64"), [array(rest[0], framework, "float64"), rest[1]] if rest else []
    whole, wholes = call(loss, x, labels, *rest, engine="dense")
    n = shape[0]
    for rows in {1, 7, 64, max(n - 1, 1), n, n + 1, 10 * n}:
        value, gradients = call(loss, x, labels, *rest, engine=Strips(rows))
        assert float(value) == pytest.approx(float(whole), rel=8 * EPS["float64"], abs=1e-18)
        for ours, theirs in zip(gradients, wholes, strict=True):
            top = np.abs(plain(theirs)).max(initial=0.0)
            np.testing.assert_allclose(plain(ours), plain(theirs), rtol=0, atol=128 * EPS["float64"] * top)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_per_anchor_at_any_height(loss):
    x, labels = _batch(33)
    upstream = torch.linspace(-1, 2, 33, dtype=torch.float64)
    outcomes = []
    for engine in ("dense", Strips(1), Strips(10)):
        leaf = torch.tensor(x, requires_grad=True)
        each = loss.per_anchor(leaf, labels, engine=engine)
        each.backward(upstream)
        outcomes.append((each.detach(), leaf.grad))
    for each, gradient in outcomes[1:]:
        np.testing.assert_allclose(each, outcomes[0][0], rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(gradient, outcomes[0][1], rtol=1e-10, atol=1e-14)


def test_heights():
    few, many = _batch(50)[0], np.zeros((200, 3))
    task = Task(nf.SupConLoss(), np, few, many, nf.Aligned())
    assert height(Strips(9), task) == 9
    assert height("dense", task) == 50
    assert height("auto", task) is None
    assert height("dense", Task(nf.SupConLoss(), np, np.zeros((0, 1)), None, nf.Aligned())) == 1


def test_strips_are_tall_enough_for_the_products_and_small_enough_for_the_caches():
    heights = [tall(n) for n in (0, 256, 700, 1024, 8192, 65_536, 10**6)]
    assert heights == [STRIP, 2048, 768, 512, TALL, LARGEST // 65_536, 16]


@dataclass(frozen=True)
class MeanNegative(nf.PairLoss):
    """A third party's loss: the mean similarity of the negatives. One short method is all it needs."""

    measure: nf.Dot = nf.Dot()  # noqa: RUF009
    kind = "similarity"

    def strip(self, xp, s, pair):
        negatives = pair.weigh(pair.negatives(xp.asarray(s, copy=True), 0.0))
        weight = pair.weigh(pair.negatives(xp.ones_like(s), 0.0))
        return xp.sum(negatives, axis=1), weight

    def terms(self, xp, pair, weight):
        return pair.negative_count


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_a_loss_from_outside_runs_on_the_engine(framework):
    x, labels = _batch(9)
    value, (gradient,) = call(MeanNegative(), array(x, framework, "float64"), labels, engine=Strips(2))
    apart = labels[:, None] != labels[None]
    assert float(value) == pytest.approx((x @ x.T)[apart].mean())
    np.testing.assert_allclose(plain(gradient), 2 * apart @ x / apart.sum(), rtol=1e-12)


def test_a_strip_is_all_the_memory():
    """4096 anchors, one class each pair: the table has 16.8 M entries of 8 bytes; strips of 64 rows stay far below."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(4096, 8)), np.arange(4096) // 2
    loss = nf.SupConLoss()
    loss.value_and_grad(x[:8], labels[:8])
    tracemalloc.start()
    loss.value_and_grad(x, labels, engine=Strips(64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4096 * 4096 * 8 / 8


def test_threads_change_no_bit_in_numpy_and_little_in_torch():
    x, labels = _batch(130)
    tensor, before = torch.tensor(x, dtype=torch.float32), torch.get_num_threads()
    try:
        values = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            values.append(float(nf.SupConLoss()(tensor, labels)))
    finally:
        torch.set_num_threads(before)
    assert values[0] == pytest.approx(values[1], rel=4 * EPS["float32"])


@pytest.mark.parametrize("framework", [np.ones, torch.ones], ids=["numpy", "torch"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1), (2, 3)])
def test_a_turned_table_has_memory_of_its_own(framework, shape):
    """Both questions of two batches overwrite theirs; torch's ``contiguous`` shares the memory of a single row."""
    table = framework(shape)
    other = turned(namespace(embeddings=table), table)
    table *= 2
    assert (other == 1).all()


def test_no_grad_and_inference_mode():
    x, labels = _batch(12)
    leaf = torch.tensor(x, requires_grad=True)
    expected = float(nf.SupConLoss()(x, labels))
    with torch.no_grad():
        value = nf.SupConLoss()(leaf, labels)
    assert not value.requires_grad
    with torch.inference_mode():
        assert float(nf.SupConLoss()(leaf, labels)) == pytest.approx(expected, rel=1e-14)
    assert not nf.SupConLoss()(torch.tensor(x), labels).requires_grad


def test_only_the_side_that_needs_it_gets_a_gradient():
    x, labels, y, other = (torch.tensor(v) for v in _batch(6, 9))
    fixed = y.clone()
    leaf = x.clone().requires_grad_()
    nf.InfoNCELoss()(leaf, labels, references=fixed, reference_labels=other).backward()
    assert fixed.grad is None
    assert leaf.grad is not None
    proxy = y.clone().requires_grad_()
    nf.InfoNCELoss()(x, labels, references=proxy, reference_labels=other).backward()
    assert proxy.grad is not None
    _, (gx, gy) = nf.InfoNCELoss().value_and_grad(x, labels, references=y, reference_labels=other)
    assert torch.equal(leaf.grad, gx)
    assert torch.equal(proxy.grad, gy)


def test_independent_of_the_default_dtype():
    x, labels = _batch(10)
    tensor = torch.tensor(x, dtype=torch.float32)
    before = torch.get_default_dtype()
    results = []
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            results.append([call(loss, tensor, labels) for loss in LOSSES])
    finally:
        torch.set_default_dtype(before)
    for (value, (g,)), (again, (h,)) in zip(*results, strict=True):
        assert value.dtype == again.dtype == torch.float32
        assert value == again
        assert torch.equal(g, h)
