"""FastAP, Smooth-AP and ArcFace beside pytorch-metric-learning, and what they promise besides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nearfar as nf
import oracles
from cases import array, plain

frameworks = pytest.mark.parametrize("framework", ["numpy", "torch"])
RNG = np.random.default_rng(314)
Y = np.array([2, 0, 1, 2, 0, 1, 1, 0, 2, 0, 5])
X = np.random.default_rng(8).normal(size=(11, 6)) + np.eye(6)[Y]
EVEN = np.repeat(np.arange(4), 3)
Z = RNG.normal(size=(12, 6)) + np.eye(6)[EVEN]
WEIGHTS = RNG.normal(size=(6, 6)) * [[0.3], [1.0], [2.0], [0.7], [1.5], [1.0]]


def peers():
    return pytest.importorskip("pytorch_metric_learning.losses")


def backward(loss, *arrays):
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    value = loss(*leaves)
    value.backward()
    return value.item(), [v.grad.numpy() for v in leaves]


def close(ours, theirs, rel=1e-12):
    assert ours[0] == pytest.approx(theirs[0], rel=rel)
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert np.abs(b).max() > 1e-4
        np.testing.assert_allclose(a, b, rtol=0, atol=rel * np.abs(b).max())


# ------------------------------------------------------------ FastAP


@pytest.mark.parametrize("bins", [10, 1, 3, 37])
def test_fast_ap_beside_its_peer(bins):
    theirs = peers().FastAPLoss(num_bins=bins)
    ours = backward(lambda x: nf.FastAPLoss(bins=bins)(x, Y), X)
    close(ours, backward(lambda x: theirs(x, torch.tensor(Y)), X), rel=1e-11)


def test_fast_ap_of_squared_distances_of_unit_vectors():
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    squared = nf.FastAPLoss(span=4.0, measure=nf.SquaredEuclidean())
    assert float(squared(unit, Y)) == pytest.approx(float(nf.FastAPLoss()(X, Y)), rel=1e-12)


@frameworks
def test_fast_ap_at_and_beyond_the_end(framework):
    """Pairs at the end of the range stand at the last node; beyond it they stand there too, and rest."""
    d = np.array([[0.0, 1.3, 4.0, 9.0], [1.3, 0.0, 4.4, 2.2]])
    x, y = array(d[:, :1] * 0, framework, "float64"), array(d[:1].T, framework, "float64")
    mask = nf.Mask([[1, 0, 1, 0], [0, 1, 1, 0]], [[0, 1, 0, 1], [1, 0, 0, 1]])
    loss = nf.FastAPLoss(bins=4, span=4.0, measure=nf.Euclidean())
    value, (_, gradient) = loss.value_and_grad(x, mask, references=y)
    # Anchor 0: nodes 0 and 4 hold a positive each, 1 and 2 share a negative, 4 holds another: 1 - (1 + 2 / 4) / 2.
    # Anchor 1: nodes 1, 2 share a positive, 4 holds the other; negatives at 0 and 4.
    second = 1 - (0.7 * 0.7 / 1.7 + 0.3 * 1.0 / 2.0 + 2 / 4) / 2
    assert float(value) == pytest.approx((0.25 + second) / 2, rel=1e-14)
    assert abs(plain(gradient)[1, 0]) > 1e-3
    assert not plain(gradient)[2:].any()


@frameworks
def test_an_infinite_distance_reaches_the_value(framework):
    x = X.copy()
    x[3, 2] = np.inf
    for loss in (nf.FastAPLoss(measure=nf.Manhattan()), nf.SmoothAPLoss(measure=nf.Dot())):
        with np.errstate(all="ignore"):
            assert np.isnan(float(loss(array(x, framework, "float64"), Y)))


def test_a_perfect_ranking_costs_nothing_exactly():
    far = np.eye(6)[EVEN] + 1e-3 * Z
    value, gradient = nf.FastAPLoss().value_and_grad(far, EVEN)
    assert value == 0
    assert not gradient.any()
    assert float(nf.SmoothAPLoss()(far, EVEN)) < 1e-40


@frameworks
@pytest.mark.parametrize("loss", [nf.FastAPLoss(), nf.SmoothAPLoss(temperature=0.1)])
def test_an_anchor_without_negatives_counts_with_loss_zero(loss, framework):
    same = np.array([[1, 1, 0], [1, 0, 0]])
    rest = np.array([[0, 0, 1], [0, 0, 0]])
    x, y = array(X[:2], framework, "float64"), array(X[2:5], framework, "float64")
    each = plain(loss.per_anchor(x, nf.Mask(same, rest), references=y))
    assert each[0] > 0
    assert each[1] == 0
    assert float(loss(x, nf.Mask(same, rest), references=y)) == pytest.approx(each[0] / 2)


def test_fast_ap_refuses_what_cannot_be():
    for bins in (0, -3, 2.5, None):
        with pytest.raises(nf.InputError, match="bins"):
            nf.FastAPLoss(bins=bins)
    for span in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(nf.InputError, match="span"):
            nf.FastAPLoss(span=span)


# ------------------------------------------------------------ Smooth-AP


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_smooth_ap_beside_its_peer(temperature):
    """The peer ranks the anchor itself among its positives, at similarity 1."""
    theirs = peers().SmoothAPLoss(temperature=temperature)
    ours = nf.SmoothAPLoss(temperature=temperature)
    labels, x = np.repeat(np.arange(4), 4), RNG.normal(size=(16, 6))
    found = backward(lambda x: ours(x, labels, references=x, reference_labels=labels), x)
    close(found, backward(lambda x: theirs(x, torch.tensor(labels)), x), rel=1e-6)  # it sums in float32
    assert float(ours(x, labels)) > found[0]


def test_smooth_ap_of_the_peer_wants_as_many_classes_as_items_in_each():
    """2.9.0 takes runs of as many rows as there are classes for classes: with 4 classes of 3, three of 4."""
    theirs = peers().SmoothAPLoss(temperature=0.1)
    ours = nf.SmoothAPLoss(temperature=0.1)
    runs = np.repeat(np.arange(3), 4)
    value = float(theirs(torch.tensor(Z), torch.tensor(EVEN)))
    assert value == pytest.approx(float(ours(Z, runs, references=Z, reference_labels=runs)), rel=1e-6)
    assert value != pytest.approx(float(ours(Z, EVEN, references=Z, reference_labels=EVEN)), rel=1e-2)


def test_smooth_ap_tends_to_average_precision():
    order = np.argsort(-oracles_cosines(X), axis=1, kind="stable")
    precision = []
    for i, row in enumerate(order):
        right = Y[row[row != i]] == Y[i]
        if right.any():
            precision.append((np.cumsum(right)[right] / (np.flatnonzero(right) + 1)).mean())
    assert float(nf.SmoothAPLoss(temperature=1e-6)(X, Y)) == pytest.approx(1 - np.mean(precision), abs=1e-12)


def oracles_cosines(x):
    return np.array([[oracles.cosine(a, b) for b in x.tolist()] for a in x.tolist()])


@frameworks
@pytest.mark.parametrize("loss", [nf.FastAPLoss(), nf.SmoothAPLoss(temperature=0.1)])
def test_weight_two_is_the_pair_twice(loss, framework):
    x, y = array(X[:2], framework, "float64"), array(X[2:7], framework, "float64")
    twice = array(X[[2, 3, 4, 5, 6, 3, 6]], framework, "float64")
    positive, negative = np.array([[1, 2, 1, 0, 0], [0, 1, 0, 1, 0]]), np.array([[0, 0, 0, 1, 2], [1, 0, 0, 0, 1]])
    listed = np.array([[1, 1, 1, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0, 0]])
    rest = np.array([[0, 0, 0, 1, 1, 0, 1], [1, 0, 0, 0, 1, 0, 0]])
    value, (ga, _) = loss.value_and_grad(x, nf.Mask(positive, negative), references=y)
    again, (gb, _) = loss.value_and_grad(x, nf.Mask(listed, rest), references=twice)
    assert float(value) == pytest.approx(float(again), rel=1e-13)
    np.testing.assert_allclose(plain(ga), plain(gb), atol=1e-14)


# ------------------------------------------------------------ ArcFace


@pytest.mark.parametrize(("margin", "scale"), [(0.5, 64.0), (0.0, 16.0), (1.2, 8.0), (2.4, 4.0)])
def test_arc_face_beside_its_peer(margin, scale):
    theirs = peers().ArcFaceLoss(num_classes=6, embedding_size=6, margin=math.degrees(margin), scale=scale)

    def peer(x, w):
        theirs.W = w.T
        return theirs(x, torch.tensor(Y))

    del theirs.W
    loss = nf.ArcFaceLoss(margin=margin, temperature=1 / scale)
    ours = backward(lambda x, w: loss(x, Y, class_weights=w), X, WEIGHTS)
    close(ours, backward(peer, X, WEIGHTS), rel=1e-10)


@frameworks
def test_arc_face_without_margin_is_cross_entropy_of_cosines(framework):
    x, w = array(X, framework, "float64"), array(WEIGHTS, framework, "float64")
    value, gradients = nf.ArcFaceLoss(margin=0.0, temperature=0.1).value_and_grad(x, Y, class_weights=w)
    softmax = nf.CrossEntropyLoss(temperature=0.1, measure=nf.Cosine())
    again, others = softmax.value_and_grad(x, Y, class_weights=w)
    assert float(value) == pytest.approx(float(again), rel=1e-13)
    for a, b in zip(gradients, others, strict=True):
        np.testing.assert_allclose(plain(a), plain(b), atol=1e-13)
    given = nf.ArcFaceLoss(temperature=0.1)(x, Y, references=w, reference_labels=np.arange(6))
    assert float(given) == float(nf.ArcFaceLoss(temperature=0.1)(x, Y, class_weights=w))


@frameworks
def test_arc_face_near_its_class(framework):
    """The force has the size sin m / τ down to the smallest angle; at 0 and π it is finite, the sine's part gone."""
    loss = nf.ArcFaceLoss(margin=0.5, temperature=0.5)
    w = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for angle in (1e-1, 1e-5, 1e-12):
        x = np.array([[math.cos(angle), math.sin(angle), 0.0]])
        value, (g, _) = loss.value_and_grad(
            array(x, framework, "float64"), [0], class_weights=array(w, framework, "float64")
        )
        target = math.cos(angle + 0.5) / 0.5
        assert float(value) == pytest.approx(math.log1p(math.exp(-target)), rel=1e-14)
        push = math.sin(angle + 0.5) / 0.5 / (1 + math.exp(target))
        assert plain(g)[0, 1] == pytest.approx(push * math.cos(angle), rel=1e-9)
    for x in (w[:1] * 3, -w[:1]):
        _, (g, _) = loss.value_and_grad(
            array(x, framework, "float64"), [0], class_weights=array(w, framework, "float64")
        )
        assert np.isfinite(plain(g)).all()
        assert plain(g)[0, 1] == 0


@frameworks
def test_an_ignored_item_counts_for_nothing(framework):
    x, w = array(X, framework, "float64"), array(WEIGHTS[:3], framework, "float64")
    loss, kept = nf.ArcFaceLoss(), Y < 3
    assert float(loss(x, np.where(kept, Y, 5), class_weights=w, ignore_label=5)) == pytest.approx(
        float(loss(x[kept], Y[kept], class_weights=w)), rel=1e-14
    )


def test_arc_face_refuses_what_cannot_be():
    for margin in (-0.1, math.pi, 28.6, math.nan):
        with pytest.raises(nf.InputError, match="radians"):
            nf.ArcFaceLoss(margin=margin)
    for measure in (nf.Euclidean(), nf.Manhattan()):
        with pytest.raises(nf.InputError, match="angle"):
            nf.ArcFaceLoss(measure=measure)
    with pytest.raises(nf.InputError, match="both"):
        nf.ArcFaceLoss()(X, Y, references=X, reference_labels=Y, class_weights=WEIGHTS)
    with pytest.raises(nf.BackendError, match="one dtype"):
        nf.ArcFaceLoss()(X.astype("float32"), Y, class_weights=WEIGHTS)
