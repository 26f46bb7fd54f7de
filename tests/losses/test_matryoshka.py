"""Matryoshka: the sum of a loss on the first features, in every form, with a gradient as long as the embeddings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import nearfar as nf
from cases import CELLS, EPS, array, plain
from nearfar.engine import Strips

cells = pytest.mark.parametrize(("framework", "dtype"), CELLS, ids=["-".join(c) for c in CELLS])
RNG = np.random.default_rng(12)
A, B, C = RNG.normal(size=(3, 7, 6)) * [2.0, 1.0, 0.5, 0.5, 0.2, 0.1]
W = RNG.normal(size=(4, 6))
Y = np.array([0, 1, 0, 2, 1, 0, 3])
SAME = np.array([1, 0, 0, 1, 1, 0, 1])
DIMS, WEIGHTS = (2, 3, 6), (1.0, 0.5, 0.25)
SUPCON, TRIPLET, SOFTMAX = nf.SupConLoss(), nf.TripletLoss(), nf.CrossEntropyLoss()
FORMS = {
    "labels": (SUPCON, lambda loss, a: loss(a, Y), (A,)),
    "strips": (SUPCON, lambda loss, a: loss(a, Y, engine=Strips(2)), (A,)),
    "mask": (SUPCON, lambda loss, a: loss(a, nf.Mask(Y[:, None] == Y)), (A,)),
    "ignored": (SUPCON, lambda loss, a: loss(a, Y, ignore_label=1), (A,)),
    "references": (TRIPLET, lambda loss, a, b: loss(a, Y, references=b, reference_labels=Y[::-1].copy()), (A, B)),
    "class weights": (SOFTMAX, lambda loss, a, w: loss(a, Y, class_weights=w), (A, W)),
    "views": (nf.InfoNCELoss(), lambda loss, a, b, c: loss.views(a, b, c), (A, B, C)),
    "aligned": (nf.InfoNCELoss(), lambda loss, a, b: loss.aligned(a, b), (A, B)),
    "pairs": (nf.ContrastiveLoss(), lambda loss, a, b: loss.pairs(a, b, SAME), (A, B)),
    "triplets": (TRIPLET, lambda loss, a, b, c: loss.triplets(a, b, c), (A, B, C)),
    "per anchor": (SUPCON, lambda loss, a: (loss.per_anchor(a, Y) ** 2).sum(), (A,)),
    "two views": (nf.VICRegLoss(), lambda loss, a, b: loss(a, b), (A, B)),
    "views of features": (nf.KoLeoLoss(), lambda loss, a, b: loss.views(a, b), (A, B)),
    "a sum": (SUPCON + 0.5 * SOFTMAX, lambda loss, a, w: loss(a, Y, references=None, class_weights=w), (A, W)),
}
every_form = pytest.mark.parametrize(("loss", "form", "arrays"), FORMS.values(), ids=FORMS)


def by_hand(loss, form, *arrays):
    """The definition: each cut apart."""
    return sum(w * form(loss, *(v[:, :d] for v in arrays)) for d, w in zip(DIMS, WEIGHTS, strict=True))


@every_form
def test_it_is_the_sum_over_cuts(loss, form, arrays):
    if form is FORMS["per anchor"][1]:
        pytest.skip("not linear; below")
    ours = form(nf.Matryoshka(loss, DIMS, WEIGHTS), *arrays)
    assert float(ours) == pytest.approx(float(by_hand(loss, form, *arrays)), rel=1e-14)
    plainly = form(nf.Matryoshka(loss, (6,)), *arrays)
    assert float(plainly) == pytest.approx(float(form(loss, *arrays)), rel=1e-14)


@every_form
def test_torch_gradient(loss, form, arrays):
    leaves, others = ([torch.tensor(v, requires_grad=True) for v in arrays] for _ in range(2))
    form(nf.Matryoshka(loss, DIMS, WEIGHTS), *leaves).backward()
    if form is FORMS["per anchor"][1]:
        each = sum(w * loss.per_anchor(others[0][:, :d], Y) for d, w in zip(DIMS, WEIGHTS, strict=True))
        (each**2).sum().backward()
    else:
        by_hand(loss, form, *others).backward()
    for leaf, other in zip(leaves, others, strict=True):
        assert float(other.grad[:, 3:].abs().max()) > 1e-6
        torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-12, atol=1e-14)


@cells
def test_value_and_grad(framework, dtype):
    """Against torch's autograd in float64; rounded to the dtype once."""
    loss, options = nf.Matryoshka(nf.SupConLoss(0.3), DIMS, WEIGHTS), {"reference_labels": Y[::-1].copy()}
    a, b = array(A, framework, dtype), array(B, framework, dtype)
    value, gradients = loss.value_and_grad(a, Y, references=b, **options)
    leaves = [torch.tensor(plain(v), requires_grad=True) for v in (a, b)]
    expected = loss(leaves[0], Y, references=leaves[1], **options)
    expected.backward()
    compute = EPS["float64" if dtype == "float64" else "float32"]
    assert {v.dtype for v in (value, *gradients)} == {a.dtype}
    assert abs(float(value) - expected.item()) <= EPS[dtype] * expected.item() + 64 * compute
    for ours, leaf in zip(gradients, leaves, strict=True):
        true = leaf.grad.numpy()
        assert ours.shape == true.shape
        assert (np.abs(plain(ours) - true) <= EPS[dtype] * np.abs(true) + 256 * compute).all()
    alone, gradient = loss.value_and_grad(a, Y)
    assert gradient.shape == a.shape
    assert float(alone) == pytest.approx(float(loss(a, Y)), rel=4 * EPS[dtype])


def test_value_and_grad_of_features_and_sums():
    for loss, batch in ((nf.AlignmentLoss(), (A, B)), (SUPCON + TRIPLET, (A, Y)), (nf.UniformityLoss(), (A,))):
        value, gradients = nf.Matryoshka(loss, DIMS, WEIGHTS).value_and_grad(*batch)
        expected = sum(
            w * loss.value_and_grad(*(v[:, :d] if v.ndim == 2 else v for v in batch))[0]
            for d, w in zip(DIMS, WEIGHTS, strict=True)
        )
        assert value == pytest.approx(expected, rel=1e-13)
        assert all(g.shape == A.shape for g in (gradients if isinstance(gradients, tuple) else (gradients,)))


def test_the_gradient_of_a_feature_comes_from_the_cuts_that_hold_it():
    loss = nf.Matryoshka(SUPCON, (2, 4))
    _, gradient = loss.value_and_grad(A, Y)
    assert not gradient[:, 4:].any()
    np.testing.assert_allclose(gradient[:, 2:4], SUPCON.value_and_grad(A[:, :4], Y)[1][:, 2:], rtol=1e-14)


def test_cosine_normalises_each_cut():
    loss, x = nf.Matryoshka(SUPCON, (2,)), A * [1, 1, 1e6, 1, 1, 1]
    assert float(loss(x, Y)) == pytest.approx(float(SUPCON(A[:, :2], Y)), rel=1e-14)


def test_it_adds_and_nests():
    one = nf.Matryoshka(SUPCON, DIMS)
    both = 0.5 * one + SOFTMAX + one
    value = both(A, Y, class_weights=W)
    assert float(value) == pytest.approx(float(1.5 * one(A, Y) + SOFTMAX(A, Y, class_weights=W)), rel=1e-13)
    inside = nf.Matryoshka(nf.Matryoshka(SUPCON, (1, 2)), (3, 6))
    assert float(inside(A, Y)) == pytest.approx(2 * float(SUPCON(A[:, :1], Y) + SUPCON(A[:, :2], Y)), rel=1e-13)
    assert nf.Matryoshka(SUPCON + SOFTMAX, DIMS).has_class_weights
    assert not one.has_class_weights


def test_a_frozen_value():
    loss = nf.Matryoshka(SUPCON, DIMS, WEIGHTS)
    assert loss == nf.Matryoshka(nf.SupConLoss(), DIMS, WEIGHTS)
    assert hash(loss) == hash(nf.Matryoshka(nf.SupConLoss(), DIMS, WEIGHTS))
    assert loss == eval(repr(loss), vars(nf))
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.dims = (2,)


def test_empty_batches_are_zero_on_the_graph():
    x = torch.zeros(0, 6, requires_grad=True)
    value = nf.Matryoshka(SUPCON, DIMS)(x, [])
    assert value == 0
    value.backward()
    assert x.grad.shape == (0, 6)


def test_what_cannot_be_is_refused_by_name():
    for dims in ((), (0, 2), (-1,), (2.0,), [2, 3], 2, ("2",)):
        with pytest.raises(nf.InputError, match=r"expected dims .* got .*; "):
            nf.Matryoshka(SUPCON, dims)
    for weights in ((1.0,), (1.0, float("nan"), 1.0), (1.0, float("inf"), 1.0)):
        with pytest.raises(nf.InputError, match=r"expected .*weights.* got"):
            nf.Matryoshka(SUPCON, DIMS, weights)
    with pytest.raises(nf.InputError, match="expected loss to be a loss"):
        nf.Matryoshka("SupCon", DIMS)
    loss = nf.Matryoshka(SUPCON, (2, 7))
    for call in (loss, loss.per_anchor, loss.value_and_grad):
        with pytest.raises(nf.ShapeError, match=r"at least 7 features, got 6; "):
            call(A, Y)
        with pytest.raises(nf.ShapeError, match="shape"):
            call(A[0], Y)
        with pytest.raises(nf.BackendError, match="floating"):
            call(np.ones((3, 8), int), Y[:3])
    with pytest.raises(nf.InputError, match=r"form \.triplets, got SupConLoss"):
        loss.triplets(A, B, C)
    with pytest.raises(nf.InputError, match=r"form \.per_anchor, got VICRegLoss"):
        nf.Matryoshka(nf.VICRegLoss(), DIMS).per_anchor(A, B)
