"""The gradient of every call form on NumPy equals autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar._tape import value_and_grad

RNG = np.random.default_rng(5)
X, Y, Z, W = (RNG.normal(size=(8, 6)) for _ in range(4))
LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 0])
SAME = np.array([1, 0, 1, 1, 0, 0, 1, 0])
CALLS = {
    "labels": (lambda a: nf.SupConLoss()(a, LABELS), X),
    "logits": (lambda a: nf.CrossEntropyLoss()(a, LABELS), X),
    "references": (lambda a, b: nf.TripletLoss()(a, LABELS, references=b, reference_labels=LABELS[::-1]), X, Y),
    "class weights": (lambda a, b: nf.ArcFaceLoss()(a, LABELS, class_weights=b), X, W),
    "sum": (lambda a: (0.5 * nf.SupConLoss() + 2 * nf.ContrastiveLoss())(a, LABELS), X),
    "matryoshka": (lambda a: nf.Matryoshka(nf.TripletLoss(), (2, 5), weights=(0.3, 2.0))(a, LABELS), X),
    "pairs": (lambda a, b: nf.ContrastiveLoss(margin=4.0).pairs(a, b, SAME), X, Y),
    "distances": (lambda a: nf.ContrastiveLoss(margin=2.0).distances(a, SAME), np.abs(X[:, 0])),
    "similarities": (lambda a: nf.CrossEntropyLoss().similarities(a, SAME), X[:, 0]),
    "scores": (lambda a, b: nf.CoSENTLoss().pairs(a, b, SAME / 2), X, Y),
    "complex": (lambda a, b: nf.AnglELoss().pairs(a, b, SAME / 2), X, Y),
    "triplets": (lambda a, b, c: nf.TripletLoss(margin=3.0).triplets(a, b, c), X, Y, Z),
    "swapped": (lambda a, b, c: nf.TripletLoss(margin=3.0, swap=True).triplets(a, b, c), X, Y, Z),
    "quadruplets": (lambda *q: nf.QuadrupletLoss(margin=3.0).quadruplets(*q), X, Y, Z, W),
    "three views": (lambda a, b, c: nf.InfoNCELoss().views(a, b, c), X, Y, Z),
    "weighted views": (lambda a, b: nf.DecoupledContrastiveLoss(sigma=0.5).views(a, b), X, Y),
    "aligned": (lambda a, b: nf.InfoNCELoss().aligned(a, b), X, Y),
    "hard negatives": (lambda a, b, c: nf.MultipleNegativesRankingLoss().aligned(a, b, c), X, Y, Z),
    "features": (lambda a, b: nf.VICRegLoss()(a, b), X, Y),
    "one batch of features": (lambda a, b: nf.KoLeoLoss().views(a, b), X, Y),
    "one side constant": (lambda a, b: (nf.BYOLLoss() + nf.InfoNCELoss()).views(a, b), X, Y),
    "cut from a stack": (lambda a: nf.InfoNCELoss().views(a[:, 0], a[:, 2]), np.stack([X, Y, Z], axis=1)),
    "one anchor": (lambda a: nf.SupConLoss().per_anchor(a, LABELS)[3], X),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_gradient_is_autograds(name):
    function, *arrays = CALLS[name]
    value, gradients = value_and_grad(function, *arrays)
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    out = function(*leaves)
    out.backward()
    assert abs(value - out.item()) < 1e-13
    for gradient, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=0, atol=1e-13)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: nf.SupConLoss()(a * a, LABELS),
        lambda a: nf.SupConLoss()(a.copy(), LABELS),
        lambda a: nf.SupConLoss()(a[list(range(8))], LABELS),
        lambda a: nf.SupConLoss()(a, LABELS) * nf.SupConLoss()(a, LABELS).reshape(1)[0],
        lambda a: np.exp(nf.SupConLoss()(a, LABELS)),
        np.sum,
    ],
)
def test_what_the_tape_does_not_know_is_refused(function):
    with pytest.raises(nf.BackendError, match="expected a call form of a loss"):
        value_and_grad(function, X)
