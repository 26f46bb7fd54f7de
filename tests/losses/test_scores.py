"""CoSENT and AnglE: pairs with graded scores, against loops over all pairs of pairs and their own derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nearfar as nf
from cases import array, plain
from families.features import angle, in_order
from parts import cosine

RNG = np.random.default_rng(23)
LEFT, RIGHT = RNG.normal(size=(2, 11, 6))
SCORE = np.array([3, 0, 5, 3, 1, 0, 4, 4, 2, 5, 3]) / 2 - 1


def dense(similarity, score, temperature):
    """The whole table of pairs of pairs in PyTorch, as the sources have it."""
    score = torch.as_tensor(score)
    odds = ((similarity[:, None] - similarity[None, :]) / temperature)[score[:, None] < score[None, :]]
    return torch.logsumexp(torch.cat([torch.zeros(1, dtype=odds.dtype), odds]), 0)


def dense_angle(a, b):
    """The steps of the authors' code: quotient of complex numbers, over the quotient of their lengths."""
    (re, im), (c, d) = a.chunk(2, 1), b.chunk(2, 1)
    size = (c * c + d * d).sum(1, keepdim=True)
    ratio = (re * re + im * im).sum(1, keepdim=True).sqrt() / size.sqrt()
    parts = torch.cat([re * c + im * d, im * c - re * d], 1) / size / ratio
    return parts.sum(1).abs()


LOSSES = {
    "CoSENT": (nf.CoSENTLoss(), cosine, torch.nn.functional.cosine_similarity),
    "CoSENT-0.7": (nf.CoSENTLoss(0.7), cosine, torch.nn.functional.cosine_similarity),
    "CoSENT-Dot": (nf.CoSENTLoss(0.3, nf.Dot()), np.dot, lambda a, b: (a * b).sum(1)),
    "AnglE": (nf.AnglELoss(), angle, dense_angle),
    "AnglE-0.4": (nf.AnglELoss(0.4), angle, dense_angle),
}
every_loss = pytest.mark.parametrize(("loss", "measure", "form"), LOSSES.values(), ids=LOSSES)


def gradients(value, *leaves):
    return [g.numpy() for g in torch.autograd.grad(value, leaves)]


@every_loss
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_value_is_that_of_the_loops(loss, measure, form, framework):
    expected = in_order([measure(a, b) for a, b in zip(LEFT, RIGHT, strict=True)], SCORE, loss.temperature)
    for score in (SCORE, SCORE.tolist(), torch.tensor(SCORE) if framework == "torch" else 7 * SCORE - 40):
        value = loss.pairs(array(LEFT, framework, "float64"), array(RIGHT, framework, "float64"), score)
        assert float(value) == pytest.approx(expected, rel=1e-13)


@every_loss
def test_gradient_is_that_of_the_whole_table(loss, measure, form):
    ours = [torch.tensor(v, requires_grad=True) for v in (LEFT, RIGHT)]
    theirs = [torch.tensor(v, requires_grad=True) for v in (LEFT, RIGHT)]
    expected = gradients(dense(form(*theirs), SCORE, loss.temperature), *theirs)
    for a, b in zip(gradients(loss.pairs(*ours, SCORE), *ours), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
    assert torch.autograd.gradcheck(lambda a, b: loss.pairs(a, b, SCORE), ours, eps=1e-6, atol=1e-6)


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_narrow_dtypes(loss, measure, form, dtype):
    left, right = (array(v, "torch", dtype).requires_grad_() for v in (LEFT, RIGHT))
    rows = zip(plain(left), plain(right), strict=True)
    value = loss.pairs(left, right, SCORE)
    expected = in_order([measure(a, b) for a, b in rows], SCORE, loss.temperature)
    assert value.dtype == left.dtype
    assert value.item() == pytest.approx(expected, rel=2 * float(torch.finfo(value.dtype).eps) + 1e-6)
    value.backward()
    assert left.grad.dtype == left.dtype
    assert torch.isfinite(left.grad).all()


def test_similarities_are_pairs():
    loss = nf.CoSENTLoss(0.2)
    similarity = torch.nn.functional.cosine_similarity(torch.tensor(LEFT), torch.tensor(RIGHT)).requires_grad_()
    value = loss.similarities(similarity, SCORE)
    assert value.item() == pytest.approx(float(loss.pairs(LEFT, RIGHT, SCORE)), rel=1e-13)
    expected = gradients(dense(similarity, SCORE, 0.2), similarity)[0]
    np.testing.assert_allclose(gradients(value, similarity)[0], expected, rtol=1e-12, atol=1e-15)


def test_order_changes_nothing_but_order():
    order = RNG.permutation(11)
    x = [torch.tensor(v, requires_grad=True) for v in (LEFT, LEFT[order])]
    for loss in (nf.CoSENTLoss(), nf.AnglELoss()):
        a = gradients(loss.pairs(x[0], torch.tensor(RIGHT), SCORE), x[0])[0]
        b = gradients(loss.pairs(x[1], torch.tensor(RIGHT[order]), SCORE[order]), x[1])[0]
        np.testing.assert_allclose(a[order], b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("score", [np.ones(11), np.zeros(11)], ids=["ones", "zeros"])
def test_one_score_is_no_order(score):
    left = torch.tensor(LEFT, requires_grad=True)
    value = nf.CoSENTLoss().pairs(left, torch.tensor(RIGHT), score)
    value.backward()
    assert value.item() == 0
    assert not left.grad.any()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_pairs(count):
    left = torch.tensor(LEFT[:count], requires_grad=True)
    value = nf.AnglELoss().pairs(left, torch.tensor(RIGHT[:count]), SCORE[:count])
    value.backward()
    assert value.item() == 0
    assert not left.grad.any()


def test_far_apart_similarities_keep_what_counts():
    """Where exp underflows below the largest similarity, the pairs far below it still count among themselves."""
    similarity, score = np.array([1000.0, -1000.0, -1000.5, -999.0]), np.array([3.0, 1.0, 2.0, 0.0])
    value = nf.CoSENTLoss(temperature=1.0).similarities(similarity, score)
    assert float(value) == pytest.approx(math.log(1 + math.exp(0.5) + math.exp(1.0) + math.exp(1.5)), rel=1e-14)
    value = nf.CoSENTLoss(temperature=1e-3).similarities(similarity.astype(np.float32), score)
    assert float(value) == pytest.approx(1500, rel=1e-6)


def test_many_pairs_take_little_memory():
    """20,000 pairs: the table of pairs of pairs alone would take 3.2 GB."""
    rng = np.random.default_rng(1)
    similarity, score = rng.uniform(-1, 1, 20_000), rng.integers(0, 6, 20_000)
    value = float(nf.CoSENTLoss(temperature=0.5).similarities(similarity, score))
    high, low = np.exp(-similarity / 0.5), np.exp(similarity / 0.5)
    sums = [high[score == level].sum() * low[score < level].sum() for level in range(6)]
    assert value == pytest.approx(math.log1p(sum(sums)), rel=1e-12)


@pytest.mark.parametrize("loss", [nf.CoSENTLoss(), nf.AnglELoss()], ids=["CoSENT", "AnglE"])
def test_bad_values_reach_the_value(loss):
    for bad in (np.nan, np.inf):
        left = LEFT.copy()
        left[3, 1] = bad
        with np.errstate(all="ignore"):
            assert np.isnan(float(loss.pairs(left, RIGHT, SCORE)))
    score = SCORE.copy()
    score[2] = np.nan
    assert np.isnan(float(loss.pairs(LEFT, RIGHT, score)))


def test_zero_vectors_have_no_gradient():
    for loss in (nf.CoSENTLoss(), nf.AnglELoss()):
        left = torch.tensor(LEFT)
        left[2] = 0
        left.requires_grad_()
        loss.pairs(left, torch.tensor(RIGHT), SCORE).backward()
        assert torch.isfinite(left.grad).all()
        assert not left.grad[2].any()


def test_what_does_not_fit_is_refused():
    loss = nf.CoSENTLoss()
    with pytest.raises(nf.InputError, match="pairs"):
        loss(LEFT, SCORE.astype(int))
    with pytest.raises(nf.ShapeError, match="score of shape"):
        loss.pairs(LEFT, RIGHT, SCORE[:4])
    with pytest.raises(nf.ShapeError, match="even number"):
        nf.AnglELoss().pairs(LEFT[:, :5], RIGHT[:, :5], SCORE)
    with pytest.raises(nf.InputError, match="group"):
        loss.pairs(LEFT, RIGHT, SCORE, group=object())
    with pytest.raises(nf.InputError, match="temperature"):
        nf.AnglELoss(temperature=0.0)


def test_the_authors_sum():
    both = nf.CoSENTLoss() + nf.AnglELoss()
    parts = nf.CoSENTLoss().pairs(LEFT, RIGHT, SCORE) + nf.AnglELoss().pairs(LEFT, RIGHT, SCORE)
    assert float(both.pairs(LEFT, RIGHT, SCORE)) == pytest.approx(float(parts), rel=1e-14)
