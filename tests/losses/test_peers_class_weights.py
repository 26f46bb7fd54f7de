"""Losses against class weights beside pytorch-metric-learning 2.9.0, loops over classes and centres, and edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nearfar as nf
from cases import array, plain
from nearfar.engine import Strips
from parts import log_sum_exp, soft_plus

RNG = np.random.default_rng(31)
CLASSES, FEATURES = 6, 5
Y = np.array([0, 3, 3, 4, 1, 0, 1, 3, 0, 4, 4, 3, 3])  # classes 2 and 5 have no item
W = RNG.normal(size=(CLASSES, FEATURES)) * RNG.uniform(0.5, 2.0, size=(CLASSES, 1))
CENTRES = RNG.normal(size=(3 * CLASSES, FEATURES)) + np.repeat(W, 3, axis=0)
X = 0.6 * W[Y] + RNG.normal(size=(len(Y), FEATURES))
frameworks = pytest.mark.parametrize("framework", ["numpy", "torch"])
EVERY = [
    nf.CosFaceLoss(temperature=0.2),
    nf.SphereFaceLoss(margin=2.5, temperature=0.3),
    nf.ProxyNCALoss(),
    nf.ProxyNCALoss(1 / 18, include_own=True),
    nf.ProxyAnchorLoss(alpha=4.0),
    nf.SubCenterArcFaceLoss(temperature=0.2),
    nf.SoftTripleLoss(temperature=0.2, per_class=3),
]
every = pytest.mark.parametrize("loss", EVERY, ids=lambda loss: f"{type(loss).__name__}-{loss.__dict__}"[:40])


def weights_of(loss):
    return CENTRES if hasattr(loss, "per_class") else W


def backward(form, *arrays):
    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    value = form(*leaves)
    return value.item(), torch.autograd.grad(value, leaves)


def close(ours, theirs, rel=1e-9):
    assert ours[0] == pytest.approx(theirs[0], rel=rel)
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert b.abs().max() > 1e-3
        torch.testing.assert_close(a, b, rtol=rel, atol=rel * float(b.abs().max()))


# ------------------------------------------------------------ peers


def peer(name, held, **options):
    """A loss of pytorch-metric-learning as a function of embeddings and weights, which it stores under ``held``."""
    theirs = getattr(pytest.importorskip("pytorch_metric_learning.losses"), name)(
        num_classes=CLASSES, embedding_size=FEATURES, **options
    )
    delattr(theirs, held)

    def form(x, w):
        setattr(theirs, held, w if held == "proxies" else w.T)
        return theirs(x, torch.tensor(Y))

    return form


SAME = {
    "CosFace": (nf.CosFaceLoss(), ("CosFaceLoss", "W", {})),
    "CosFace, other": (nf.CosFaceLoss(0.1, 1 / 16), ("CosFaceLoss", "W", {"margin": 0.1, "scale": 16})),
    "normalised softmax": (
        nf.CrossEntropyLoss(temperature=0.05, measure=nf.Cosine()), ("NormalizedSoftmaxLoss", "W", {})
    ),
    "proxy anchor": (nf.ProxyAnchorLoss(), ("ProxyAnchorLoss", "proxies", {})),
    "proxy anchor, other": (nf.ProxyAnchorLoss(8.0, 0.3), ("ProxyAnchorLoss", "proxies", {"alpha": 8, "margin": 0.3})),
    # Its ProxyNCA has the own proxy in the sum.
    "ProxyNCA": (nf.ProxyNCALoss(include_own=True), ("ProxyNCALoss", "proxies", {})),
    "ProxyNCA, other": (nf.ProxyNCALoss(1 / 18, True), ("ProxyNCALoss", "proxies", {"softmax_scale": 9})),
    "sub-centre": (nf.SubCenterArcFaceLoss(), ("SubCenterArcFaceLoss", "W", {"margin": math.degrees(0.5)})),
    "sub-centre, other": (
        nf.SubCenterArcFaceLoss(1.2, 1 / 8), ("SubCenterArcFaceLoss", "W", {"margin": math.degrees(1.2), "scale": 8})
    ),
    "SoftTriple": (nf.SoftTripleLoss(per_class=3), ("SoftTripleLoss", "fc", {"centers_per_class": 3})),
    "SoftTriple, other": (
        nf.SoftTripleLoss(0.3, 1 / 5, 0.4, 3),
        ("SoftTripleLoss", "fc", {"centers_per_class": 3, "la": 5, "gamma": 0.4, "margin": 0.3}),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("loss", "theirs"), SAME.values(), ids=SAME)
def test_equal_to_pytorch_metric_learning(loss, theirs):
    name, held, options = theirs
    w = weights_of(loss)
    ours = backward(lambda x, w: loss(x, Y, class_weights=w), X, w)
    close(ours, backward(peer(name, held, **options), X, w))


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # the peer's, with NumPy 2
@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_sphere_face_has_a_fixed_scale_where_its_peer_has_the_norm(margin):
    """On embeddings of one norm the values are equal; the peer's gradient has a part along the embedding besides."""
    x = 7.0 * X / np.linalg.norm(X, axis=1, keepdims=True)
    loss = nf.SphereFaceLoss(margin=margin, temperature=1 / 7)
    value, (gx, gw) = backward(lambda x, w: loss(x, Y, class_weights=w), x, W)
    there, (tx, tw) = backward(peer("SphereFaceLoss", "W", margin=margin), x, W)
    assert value == pytest.approx(there, rel=1e-9)
    along = torch.tensor(x) / 7
    radial = (tx * along).sum(1, keepdim=True)
    assert radial.abs().max() > 1e-3
    torch.testing.assert_close(gx, tx - radial * along, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(gw, tw, rtol=1e-7, atol=1e-9)


@pytest.fixture(scope="module")
def twelve():
    """The golden batch of test_golden.py, and the normalised class means as proxies."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(4, 8))
    rows = centre[np.repeat(np.arange(4), 3)] + 0.9 * rng.normal(size=(12, 8))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    means = unit.reshape(4, 3, 8).mean(1)
    return unit, np.repeat(np.arange(4), 3), means / np.linalg.norm(means, axis=1, keepdims=True)


@frameworks
def test_golden_proxy_nca(framework, twelve):
    """The paper's number, which is negative, and pytorch-metric-learning's, on squared distances of unit rows."""
    x, y, proxies = twelve
    x, proxies = array(x, framework, "float64"), array(proxies, framework, "float64")
    for measure, temperature in ((nf.CosineDistance(), 0.5), (nf.SquaredEuclidean(), 1.0)):
        for include_own, expected in ((False, -0.314421), (True, 0.571561)):
            loss = nf.ProxyNCALoss(temperature, include_own, measure)
            assert float(loss(x, y, class_weights=proxies)) == pytest.approx(expected, rel=2e-6)


# ------------------------------------------------------------ what has another name


def test_proxy_nca_with_its_own_is_the_normalised_softmax():
    """−d / τ and cos / τ differ by a constant; so ProxyNCA++ at 1/9 of the squared distance is τ = 1/18."""
    x, w = torch.tensor(X), torch.tensor(W)
    ours = nf.ProxyNCALoss(1 / 18, include_own=True)(x, Y, class_weights=w)
    softmax = nf.CrossEntropyLoss(temperature=1 / 18, measure=nf.Cosine())(x, Y, class_weights=w)
    unit = torch.nn.functional.normalize
    squared = torch.cdist(3 * unit(x), 3 * unit(w)) ** 2
    theirs = torch.nn.functional.cross_entropy(-squared, torch.tensor(Y))
    assert ours.item() == pytest.approx(softmax.item(), rel=1e-12)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)


@frameworks
def test_without_margin_all_are_the_normalised_softmax(framework):
    x, w = array(X, framework, "float64"), array(W, framework, "float64")
    expected, gradients = nf.CrossEntropyLoss(0.1, nf.Cosine()).value_and_grad(x, Y, class_weights=w)
    for loss in (
        nf.CosFaceLoss(0.0, 0.1),
        nf.SphereFaceLoss(1, 0.1),
        nf.SubCenterArcFaceLoss(0.0, 0.1, per_class=1),
        nf.SoftTripleLoss(0.0, 0.1, per_class=1),
    ):
        value, again = loss.value_and_grad(x, Y, class_weights=w)
        assert float(value) == pytest.approx(float(expected), rel=1e-12)
        for a, b in zip(again, gradients, strict=True):
            np.testing.assert_allclose(plain(a), plain(b), atol=1e-12)


def test_one_centre_a_class_is_arc_face():
    value, gradients = nf.SubCenterArcFaceLoss(0.4, 0.1, per_class=1).value_and_grad(X, Y, class_weights=W)
    again, others = nf.ArcFaceLoss(0.4, 0.1).value_and_grad(X, Y, class_weights=W)
    assert value == pytest.approx(again, rel=1e-13)
    for a, b in zip(gradients, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)


# ------------------------------------------------------------ loops over classes and centres


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def sphere_loops(loss):
    def psi(theta):
        k = math.floor(loss.margin * theta / math.pi)
        return (-1) ** k * math.cos(loss.margin * theta) - 2 * k

    terms = []
    for x, y in zip(X, Y, strict=True):
        z = [cosine(x, w) / loss.temperature for w in W]
        z[y] = psi(math.acos(cosine(x, W[y]))) / loss.temperature
        terms.append(log_sum_exp([(1, v) for v in z]) - z[y])
    return math.fsum(terms) / len(terms)


def centre_loops(loss, margin):
    terms = []
    for x, y in zip(X, Y, strict=True):
        z = []
        for c in range(CLASSES):
            s = [cosine(x, w) for w in CENTRES[3 * c : 3 * c + 3]]
            if isinstance(loss, nf.SubCenterArcFaceLoss):
                top = max(s)
                z.append(math.cos(math.acos(top) + margin) if c == y else top)
            else:
                share = [math.exp(v / loss.gamma) for v in s]
                top = math.fsum(q * v for q, v in zip(share, s, strict=True)) / math.fsum(share)
                z.append(top - margin if c == y else top)
        z = [v / loss.temperature for v in z]
        terms.append(log_sum_exp([(1, v) for v in z]) - z[y])
    return math.fsum(terms) / len(terms)


@frameworks
@pytest.mark.parametrize("margin", [1.0, 1.5, 2.0, 2.7, 4.0, 5.3])
def test_sphere_face_of_any_margin(margin, framework):
    loss = nf.SphereFaceLoss(margin=margin, temperature=0.2)
    value = loss(array(X, framework, "float64"), Y, class_weights=array(W, framework, "float64"))
    assert float(value) == pytest.approx(sphere_loops(loss), rel=1e-12)


@frameworks
def test_classes_of_several_centres(framework):
    x, w = array(X, framework, "float64"), array(CENTRES, framework, "float64")
    for loss, margin in ((nf.SubCenterArcFaceLoss(0.3, 0.2), 0.3), (nf.SoftTripleLoss(0.2, 0.2, 0.3, 3), 0.2)):
        assert float(loss(x, Y, class_weights=w)) == pytest.approx(centre_loops(loss, margin), rel=1e-12)


@frameworks
def test_proxy_anchor_takes_two_means(framework):
    """Over the four proxies with items, and over all six."""
    loss = nf.ProxyAnchorLoss(alpha=5.0, margin=0.2)
    near, far, proxies = [], [], []
    for c in range(CLASSES):
        s = [cosine(x, W[c]) for x in X]
        pull = log_sum_exp([(y == c, -5 * (v - 0.2)) for y, v in zip(Y, s, strict=True)])
        push = soft_plus(log_sum_exp([(y != c, 5 * (v + 0.2)) for y, v in zip(Y, s, strict=True)]))
        near += [soft_plus(pull)] if c in Y else []
        far.append(push)
        proxies.append((1.5 * soft_plus(pull) if c in Y else 0.0) + push)
    x, w = array(X, framework, "float64"), array(W, framework, "float64")
    assert float(loss(x, Y, class_weights=w)) == pytest.approx(sum(near) / 4 + sum(far) / 6, rel=1e-12)
    np.testing.assert_allclose(plain(loss.per_anchor(x, Y, class_weights=w)), proxies, rtol=1e-12)


@pytest.mark.parametrize("rows", ["spread", "two equal", "all equal"])
def test_centre_spread(rows):
    """Half the mean chord of centres of one class; equal centres have no direction, and gradient 0."""
    w = CENTRES.copy()
    if rows == "two equal":
        w[4] = w[3]
    if rows == "all equal":
        w = np.repeat(W, 3, axis=0)
    total = 0.0
    for c in range(CLASSES):
        unit = [v / np.linalg.norm(v) for v in w[3 * c : 3 * c + 3]]
        total += sum(np.linalg.norm(unit[j] - unit[k]) for j in range(3) for k in range(j))
    loss, leaf = nf.SoftTripleLoss(per_class=3), torch.tensor(w, requires_grad=True)
    value = loss.centre_spread(leaf)
    assert value.item() == pytest.approx(total / (CLASSES * 3 * 2), rel=1e-12, abs=1e-14)
    assert float(loss.centre_spread(w)) == pytest.approx(value.item(), rel=1e-13, abs=1e-14)
    value.backward()
    assert leaf.grad.isfinite().all()
    if rows == "spread":
        assert torch.autograd.gradcheck(loss.centre_spread, leaf)
    if rows == "all equal":
        assert not leaf.grad.any()
    assert nf.SoftTripleLoss(per_class=1).centre_spread(W) == 0


# ------------------------------------------------------------ calls


@every
@frameworks
def test_gradients_come_in_the_order_of_the_call(loss, framework):
    x, w = array(X, framework, "float64"), array(weights_of(loss), framework, "float64")
    value, (gx, gw) = loss.value_and_grad(x, Y, class_weights=w)
    assert (gx.shape, gw.shape) == (X.shape, weights_of(loss).shape)
    again = backward(lambda x, w: loss(x, Y, class_weights=w), X, weights_of(loss))
    close((float(value), [torch.tensor(plain(g)) for g in (gx, gw)]), again, rel=1e-12)


@every
def test_gradcheck_against_class_weights(loss):
    leaves = [torch.tensor(a, requires_grad=True) for a in (X, weights_of(loss))]
    for form in (loss, loss.per_anchor):
        assert torch.autograd.gradcheck(lambda x, w, form=form: form(x, Y, class_weights=w), leaves, atol=1e-6)


@every
@frameworks
def test_any_strip_height(loss, framework):
    x, w = array(X, framework, "float64"), array(weights_of(loss), framework, "float64")
    whole, (gx, gw) = loss.value_and_grad(x, Y, class_weights=w, engine="dense")
    for height in (1, 4, 6):
        value, (a, b) = loss.value_and_grad(x, Y, class_weights=w, engine=Strips(height))
        assert float(value) == pytest.approx(float(whole), rel=1e-14)
        np.testing.assert_allclose(plain(a), plain(gx), atol=1e-14)
        np.testing.assert_allclose(plain(b), plain(gw), atol=1e-14)


@every
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_narrow_dtypes(loss, dtype):
    x, w = array(X, "torch", dtype), array(weights_of(loss), "torch", dtype)
    value, gradients = loss.value_and_grad(x, Y, class_weights=w)
    exact, theirs = loss.value_and_grad(plain(x), Y, class_weights=plain(w))
    step = torch.finfo(x.dtype).eps
    assert float(value) == pytest.approx(float(exact), rel=step + 1e-6, abs=1e-5)
    for ours, true in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(plain(ours), true, rtol=step, atol=2e-4 * np.abs(true).max())


@every
@frameworks
def test_ignored_items(loss, framework):
    """An ignored item counts for nothing; the weights of an ignored class stay."""
    x, w = array(X, framework, "float64"), array(weights_of(loss), framework, "float64")
    labels = np.where(np.arange(len(Y)) < 3, 77, Y)
    known = labels != 77
    rest = float(loss(x[known], Y[known], class_weights=w))
    assert float(loss(x, labels, class_weights=w, ignore_label=77)) == pytest.approx(rest, rel=1e-13)
    assert float(loss(x, Y, class_weights=w, ignore_label=3)) == pytest.approx(
        float(loss(x[Y != 3], Y[Y != 3], class_weights=w)), rel=1e-13
    )


@every
@frameworks
def test_nothing_to_learn(loss, framework):
    """No item at all: 0 with gradient 0."""
    w = array(weights_of(loss), framework, "float64")
    value, (gx, gw) = loss.value_and_grad(array(X[:0], framework, "float64"), [], class_weights=w)
    assert float(value) == 0
    assert gx.shape == (0, FEATURES)
    assert not plain(gw).any()


@every
def test_labels_arbitrary_order_of_rows(loss):
    """Renaming the classes and their rows alike changes nothing: no class is its rank in the batch."""
    w, order = weights_of(loss), np.array([5, 2, 0, 4, 1, 3])
    k = len(w) // CLASSES
    value, (gx, gw) = loss.value_and_grad(X, Y, class_weights=w)
    moved = w.reshape(CLASSES, k, FEATURES)[order].reshape(w.shape)
    again, (hx, hw) = loss.value_and_grad(X, np.argsort(order)[Y], class_weights=moved)
    assert again == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(hx, gx, atol=1e-14)
    np.testing.assert_allclose(hw, gw.reshape(CLASSES, k, FEATURES)[order].reshape(w.shape), atol=1e-14)


@every
def test_nan_in_the_weights_reaches_the_value(loss):
    for row in (0, 2, 5):  # of a class with items and of two without
        w = weights_of(loss).copy()
        w[row * (len(w) // CLASSES), 1] = np.nan
        value, _ = loss.value_and_grad(X, Y, class_weights=w)
        assert np.isnan(value)


@every
@frameworks
def test_void_weights(loss, framework):
    """Weights that are all 0, or one row of them: cosine 0, no gradient there."""
    for rows in (slice(None), slice(0, 1)):
        w = weights_of(loss).copy()
        w[rows] = 0.0
        value, (gx, gw) = loss.value_and_grad(
            array(X, framework, "float64"), Y, class_weights=array(w, framework, "float64")
        )
        assert np.isfinite(float(value))
        assert np.isfinite(plain(gx)).all()
        assert not plain(gw)[rows].any()


@frameworks
def test_weights_at_the_embeddings_and_against_them(framework):
    """Angles 0 and π to the own class: finite, and by symmetry without a gradient at either."""
    w = np.eye(3)
    for loss in (
        nf.SphereFaceLoss(), nf.SphereFaceLoss(margin=2.5), nf.SubCenterArcFaceLoss(per_class=1), nf.CosFaceLoss()
    ):  # fmt: skip
        for x in (2 * w, -3 * w):
            value, gradients = loss.value_and_grad(
                array(x, framework, "float64"), [0, 1, 2], class_weights=array(w, framework, "float64")
            )
            assert np.isfinite(float(value))
            for g in gradients:
                assert np.isfinite(plain(g)).all()
                assert np.abs(np.diag(plain(g))).max() == 0


@frameworks
@pytest.mark.parametrize("margin", [2.0, 2.5, 4.0])
def test_sphere_face_at_both_ends(margin, framework):
    """At angles 0 and π, and a rounding beside them, the gradient stays within m / τ over the norm."""
    rows = W / np.linalg.norm(W, axis=1, keepdims=True)
    for x in (rows, -rows, rows * (1 + 1e-15), -rows * np.float64(0.3) / 0.3, -rows + 1e-15):
        loss = nf.SphereFaceLoss(margin=margin, temperature=0.5)
        value, (g, _) = loss.value_and_grad(
            array(x, framework, "float64"), np.arange(CLASSES), class_weights=array(W, framework, "float64")
        )
        assert np.isfinite(float(value))
        assert np.linalg.norm(plain(g), axis=1).max() * CLASSES <= (margin + 1) / 0.5


@frameworks
def test_one_class_has_no_other_proxy(framework):
    """Nothing is left of ProxyNCA's sum without the own proxy: the value is 0; cross-entropy of one class is 0."""
    x, w = array(X, framework, "float64"), array(W[:1], framework, "float64")
    for include_own in (False, True):
        loss = nf.ProxyNCALoss(include_own=include_own)
        value, gradients = loss.value_and_grad(x, np.zeros(len(X), int), class_weights=w)
        assert float(value) == pytest.approx(0, abs=1e-15)
        assert all(np.abs(plain(g)).max() <= 1e-15 for g in gradients)


def test_sphere_face_target_falls_without_a_step():
    """ψ is continuous and falls from angle 0 to π, for margins that are no whole numbers too."""
    for margin in (1.0, 1.5, 3.3, 4.0):
        angle = np.linspace(0, np.pi, 2001)
        x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        loss = nf.SphereFaceLoss(margin=margin, temperature=1.0)
        each = loss.per_anchor(x, np.zeros(2001, int), class_weights=np.array([[1.0, 0.0], [0.0, 0.0]]))
        target = -np.log(np.expm1(each))  # The other class, all zeros, has logit 0.
        steps = np.diff(target)
        assert steps.max() < 0
        assert steps.min() > -margin * np.pi / 2000 - 1e-9
        assert target[0] == pytest.approx(1, abs=1e-12)


def test_of_centres_that_tie_one_counts():
    """Two equal centres of one class are one: no class is counted twice for having twins."""
    twice = W[[0, 0, 1, 1, 2, 2]]
    kept = Y < 3
    x, y = X[kept], Y[kept]
    single, (gx, _) = nf.ArcFaceLoss(0.3, 0.2).value_and_grad(x, y, class_weights=W[:3])
    loss = nf.SubCenterArcFaceLoss(0.3, 0.2, per_class=2)
    value, (hx, hw) = loss.value_and_grad(x, y, class_weights=twice)
    assert value == pytest.approx(single, rel=1e-13)
    np.testing.assert_allclose(hx, gx, atol=1e-14)
    assert not hw[1::2].any()  # the second of each
    soft, (sx, sw) = nf.SoftTripleLoss(0.1, 0.2, per_class=2).value_and_grad(x, y, class_weights=twice)
    plain_soft, (px, pw) = nf.CosFaceLoss(0.1, 0.2).value_and_grad(x, y, class_weights=W[:3])
    assert soft == pytest.approx(plain_soft, rel=1e-13)
    np.testing.assert_allclose(sx, px, atol=1e-14)
    np.testing.assert_allclose(sw[::2] + sw[1::2], pw, atol=1e-14)


def test_a_small_gamma_overflows_no_share_of_the_centres():
    """The nearest centre of a class is all of it."""
    centres = np.random.default_rng(8).normal(size=(12, W.shape[1]))
    y = Y % 4
    soft = nf.SoftTripleLoss(0.1, 0.2, gamma=1e-4, per_class=3).value_and_grad(X, y, class_weights=centres)
    hard = [max((cosine(x, c), k) for k, c in enumerate(centres[3 * r : 3 * r + 3])) for x in X for r in range(4)]
    own = np.array([value for value, _ in hard]).reshape(len(X), 4)
    logits = (own - 0.1 * (np.arange(4) == y[:, None])) / 0.2
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(X)), y])
    assert soft[0] == pytest.approx(expected, rel=1e-9)
    assert all(np.isfinite(g).all() for g in soft[1])


def test_other_references_are_centres_each():
    """Labelled rows, several a class: those of the own label are its centres, the others stand alone."""
    rows, names = CENTRES[:7], np.array([0, 0, 0, 3, 3, 1, 4])
    loss = nf.SubCenterArcFaceLoss(0.3, 0.2)
    terms = []
    for x, y in zip(X, Y, strict=True):
        s = [cosine(x, r) for r in rows]
        own = math.cos(math.acos(max(v for v, c in zip(s, names, strict=True) if c == y)) + 0.3) / 0.2
        rest = log_sum_exp([(1, v / 0.2) for v, c in zip(s, names, strict=True) if c != y])
        terms.append(soft_plus(rest - own))
    value = loss(X, Y, references=rows, reference_labels=names)
    assert float(value) == pytest.approx(math.fsum(terms) / len(terms), rel=1e-12)
    assert loss.per_class == 3


@every
def test_refusals_of_a_call(loss):
    w = weights_of(loss)
    for call, error, match in [
        (lambda: loss(X, [f"{c}" for c in Y], class_weights=w), nf.InputError, "got strings; number the classes"),
        (lambda: loss(X, Y, class_weights=w, ignore_label="3"), nf.InputError, "got strings; number the classes"),
        (lambda: loss(X, Y, class_weights=w, references=X), nf.InputError, "got both"),
        (lambda: loss(X, Y, class_weights=w.astype("float32")), nf.BackendError, "class_weights: float32"),
        (lambda: loss(X, Y[:4], class_weights=w), nf.ShapeError, r"of shape \(13,\)"),
        (lambda: loss(X, Y, class_weights=w[:, :3]), nf.ShapeError, "features"),
        (lambda: loss(X, Y, class_weights=w[:, 0]), nf.ShapeError, "expected"),
    ]:
        with pytest.raises(error, match=match):
            call()
    with pytest.raises(nf.InputError, match="expected labels from 0 to"):
        loss(X[:1], [99], class_weights=w)
    assert float(loss(X[:0], Y[:0], class_weights=w)) == 0
    if hasattr(loss, "per_class"):
        with pytest.raises(nf.ShapeError, match="expected class_weights with 3 rows a class, got 17"):
            loss(X, Y, class_weights=w[:17])


def test_refusals_of_hyper_parameters():
    nan, inf = float("nan"), float("inf")
    bad = {
        nf.CosFaceLoss: {"margin": (-0.1, nan, inf), "temperature": (0.0, nan, inf)},
        nf.SphereFaceLoss: {"margin": (0.9, nan, inf), "temperature": (0.0, nan, inf)},
        nf.SubCenterArcFaceLoss: {"margin": (-0.1, math.pi, 28.6, nan), "per_class": (0, -1, 2.0, True)},
        nf.SoftTripleLoss: {"margin": (-0.1, nan, inf), "gamma": (0.0, -1.0, nan, inf), "per_class": (0, 1.5)},
        nf.ProxyNCALoss: {"temperature": (0.0, -1.0, nan, inf)},
        nf.ProxyAnchorLoss: {"alpha": (0.0, -1.0, nan, inf), "margin": (-0.1, nan, inf)},
    }
    for kind, fields in bad.items():
        for field, values in fields.items():
            for value in values:
                with pytest.raises(nf.InputError, match=rf"expected .*{field}.* got .*; "):
                    kind(**{field: value})
    for kind in (nf.SphereFaceLoss, nf.SubCenterArcFaceLoss):
        with pytest.raises(nf.InputError, match="the margin is an angle"):
            kind(measure=nf.Euclidean())
    with pytest.raises(nf.ShapeError, match="expected 10 class_weights a class, got 18"):
        nf.SoftTripleLoss().centre_spread(CENTRES)
