"""Losses with margins beside pytorch-metric-learning 2.9.0 and PyTorch, and by hand where no peer has them.

Where the two differ, the test says in what.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar.engine import Strips

RNG = np.random.default_rng(31)
LABELS = torch.tensor(np.repeat(np.arange(5), (2, 3, 4, 5, 6))[RNG.permutation(20)])
ROWS = torch.tensor(RNG.normal(size=(20, 6)) + 0.8 * RNG.normal(size=(5, 6))[LABELS])
OTHERS, OTHER_LABELS = torch.tensor(RNG.normal(size=(15, 6))), torch.tensor(np.arange(15) % 5)
PAIRED = torch.arange(20) // 2  # two items a class, for losses that other libraries average over pairs


def unit(x):
    return torch.nn.functional.normalize(x)


def run(form, *arrays):
    """Value and gradients of a form."""
    leaves = [a.clone().requires_grad_() for a in arrays]
    value = form(*leaves)
    return value.item(), torch.autograd.grad(value, leaves)


def alike(ours, theirs, rel=1e-6):
    assert ours[0] == pytest.approx(theirs[0], rel=rel)
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert (a - b).abs().max() <= rel * b.abs().max()


def test_generalized_lifted_structure_of_the_batch_of_twelve():
    """The batch of tests/losses/test_golden.py."""
    rng, y = np.random.default_rng(0), np.repeat(np.arange(4), 3)
    centre = rng.normal(size=(4, 8))
    x = centre[y] + 0.9 * rng.normal(size=(12, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert float(nf.GeneralizedLiftedStructureLoss()(x, y)) == pytest.approx(3.608430, rel=2e-7)


# ------------------------------------------------------------ pytorch-metric-learning


@pytest.fixture(scope="module")
def losses():
    return pytest.importorskip("pytorch_metric_learning.losses")


@pytest.mark.parametrize("margin", [1.0, -2.6])
def test_generalized_lifted_structure(losses, margin):
    ours, theirs = nf.GeneralizedLiftedStructureLoss(margin), losses.GeneralizedLiftedStructureLoss(neg_margin=margin)
    alike(run(lambda x: ours(unit(x), LABELS), ROWS), run(lambda x: theirs(x, LABELS), ROWS))

    def there(x, y):
        return theirs(x, LABELS, ref_emb=y, ref_labels=OTHER_LABELS)

    def here(x, y):
        return ours(unit(x), LABELS, references=unit(y), reference_labels=OTHER_LABELS)

    alike(run(here, ROWS, OTHERS), run(there, ROWS, OTHERS))


def test_angular(losses):
    """Theirs is the mean over pairs, ours over anchors: equal where each anchor has as many positives. In degrees."""
    ours, theirs = nf.AngularLoss(math.radians(40)), losses.AngularLoss(alpha=40)
    alike(run(lambda x: ours(unit(x), PAIRED), ROWS), run(lambda x: theirs(unit(x), PAIRED), ROWS))
    each = ours.per_anchor(ROWS, LABELS)
    positives = (LABELS[:, None] == LABELS).sum(1) - 1
    expected = float((each * positives).sum() / positives.sum())
    assert expected == pytest.approx(float(theirs(unit(ROWS), LABELS)), rel=1e-6)


def test_angular_normalises_its_negatives(losses):
    """Theirs normalises anchors and positives and leaves the negatives as they are; ours is one measure for all."""
    ours, theirs = nf.AngularLoss(math.radians(40)), losses.AngularLoss(alpha=40)
    assert float(ours(5 * ROWS, PAIRED)) == pytest.approx(float(ours(unit(ROWS), PAIRED)), rel=1e-12)
    assert float(theirs(5 * ROWS, PAIRED)) > 2 * float(theirs(unit(ROWS), PAIRED))


def test_angular_with_references(losses):
    """The negatives and the positives are the references."""
    ours, theirs = nf.AngularLoss(math.radians(40)), losses.AngularLoss(alpha=40)

    def there(x, y):
        return theirs(unit(x), LABELS, ref_emb=unit(y), ref_labels=OTHER_LABELS)

    def here(x, y):
        return ours(x, LABELS, references=y, reference_labels=OTHER_LABELS)

    alike(run(here, ROWS, OTHERS), run(there, ROWS, OTHERS))


def test_tuplet_margin(losses):
    """As angular: a mean over pairs there, over anchors here; 5.73 degrees there, radians here."""
    ours, theirs = nf.TupletMarginLoss(math.radians(5.73)), losses.TupletMarginLoss()
    alike(run(lambda x: ours(x, PAIRED), ROWS), run(lambda x: theirs(x, PAIRED), ROWS))


def test_tuplet_margin_of_equal_rows(losses):
    """`acos` of a cosine of 1 has an infinite slope there (NaN); here equal rows stand at the angle 0, gradient 0."""
    x = ROWS.clone()
    x[1] = x[0]
    theirs = run(lambda v: losses.TupletMarginLoss()(v, PAIRED), x)
    assert torch.isnan(theirs[1][0]).any() or torch.isnan(torch.tensor(theirs[0]))
    value, (gradient,) = run(lambda v: nf.TupletMarginLoss()(v, PAIRED), x)
    assert math.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("positive_scale", "negative_scale"), [(0.0, 3.0), (2.0, 5.0)])
def test_ranked_list(losses, positive_scale, negative_scale):
    """Theirs goes through the weights, adds 1e-5 for every item of the batch to their sum, and counts every anchor."""
    options = {"positive_scale": positive_scale, "negative_scale": negative_scale, "through_weights": True}
    x, same = unit(ROWS), LABELS[:, None] == LABELS
    d = torch.cdist(x, x)
    near, far = d - 0.8, 1.2 - d
    alone = torch.eye(20, dtype=torch.bool)
    side = {
        0.0: torch.where(same & ~alone & (near > 0), (positive_scale * near).exp(), 0.0).sum(1),
        1.0: torch.where(~same & (far > 0), (negative_scale * far).exp(), 0.0).sum(1),
    }
    for balance, total in side.items():
        ours = nf.RankedListLoss(0.4, 1.2, balance=balance, **options)
        theirs = losses.RankedListLoss(0.4, negative_scale, imbalance=balance, alpha=1.2, Tp=positive_scale)
        expected = (ours.per_anchor(x, LABELS) * total / (total + 20 * 1e-5)).mean()
        assert float(theirs(ROWS, LABELS)) == pytest.approx(float(expected), rel=1e-6)
    ours = nf.RankedListLoss(0.4, 1.2, balance=0.5, **options)
    theirs = losses.RankedListLoss(0.4, negative_scale, alpha=1.2, Tp=positive_scale)
    alike(run(lambda v: ours(unit(v), LABELS), ROWS), run(lambda v: theirs(v, LABELS), ROWS), rel=2e-3)


def test_ranked_list_of_anchors_at_rest(losses):
    """An anchor without a violating pair adds 0 and counts; a scale of 300 overflows nothing."""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]], dtype=torch.float64)
    assert float(nf.RankedListLoss()(unit(x), [0, 0, 1, 1])) == 0
    steep = nf.RankedListLoss(negative_scale=3000.0, positive_scale=3000.0)
    value, gradient = steep.value_and_grad(unit(ROWS), LABELS)
    assert math.isfinite(float(value))
    assert torch.isfinite(gradient).all()


def test_ranked_list_takes_its_weights_as_constants():
    """The gradient is that of the value at fixed weights: each side pulls or pushes with strength 1 − λ and λ."""
    loss = nf.RankedListLoss(balance=0.3, positive_scale=2.0)
    d = nf.RankedListLoss(balance=0.3, positive_scale=2.0, through_weights=True)
    ours, through = (run(lambda x, which=which: which(unit(x), LABELS), ROWS) for which in (loss, d))
    assert ours[0] == through[0]
    x = unit(ROWS).requires_grad_()
    same, alone = LABELS[:, None] == LABELS, torch.eye(20, dtype=torch.bool)
    distance = torch.where(alone, 0.0, (x[:, None] - x[None]).square().sum(-1).masked_fill(alone, 1.0).sqrt())
    near, far = distance - 0.8, 1.2 - distance
    value = 0.0
    for share, gap, among, scale in ((0.7, near, same & ~alone, 2.0), (0.3, far, ~same, 10.0)):
        among = among & (gap > 0)
        weight = torch.where(among, scale * gap, -torch.inf).detach()
        weight = torch.nan_to_num(weight.softmax(1))
        value = value + share * (weight * gap).sum(1).mean()
    gradient = torch.autograd.grad(value, x)[0]
    leaf = unit(ROWS).requires_grad_()
    loss(leaf, LABELS).backward()
    torch.testing.assert_close(leaf.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("negatives", ["hard", "semihard"])
def test_easy_positives(losses, negatives):
    """Their miner drops an anchor without a semi-hard negative, ours takes the farthest: the others are equal."""
    miners, reducers = (pytest.importorskip(f"pytorch_metric_learning.{name}") for name in ("miners", "reducers"))
    found = miners.BatchEasyHardMiner(pos_strategy="easy", neg_strategy=negatives)(ROWS, LABELS)
    ours = nf.TripletLoss(0.9, "easy" if negatives == "hard" else "easy-semihard")
    theirs = losses.TripletMarginLoss(margin=0.9, reducer=reducers.MeanReducer())
    assert len(found[0]) == (20 if negatives == "hard" else 19)

    def here(x):
        return ours.per_anchor(unit(x), LABELS)[found[0]].mean()

    alike(run(here, ROWS), run(lambda x: theirs(x, LABELS, found), ROWS))


# ------------------------------------------------------------ swap, quadruplets


@pytest.mark.parametrize("active_only", [False, True])
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_triplet_swap(framework, active_only):
    """torch's `swap`, whose distances add 1e-6 to each difference, over all triplets; and the mean over active ones."""
    a, p, n = (ROWS[k : k + 6] for k in (0, 6, 12))
    loss = nf.TripletLoss(margin=0.3, swap=True, active_only=active_only)
    theirs = torch.nn.TripletMarginLoss(margin=0.3, swap=True, eps=0.0, reduction="none")(a, p, n)
    expected = theirs[theirs > 0].mean() if active_only else theirs.mean()
    rows = [v.numpy() for v in (a, p, n)] if framework == "numpy" else (a, p, n)
    assert float(loss.triplets(*rows)) == pytest.approx(float(expected), rel=1e-12)
    plain = nf.TripletLoss(margin=0.3, active_only=active_only)
    assert float(plain.triplets(*rows)) != pytest.approx(float(expected), rel=1e-3)  # some are swapped


def test_gradient_of_swap():
    a, p, n = (ROWS[k : k + 6] for k in (0, 6, 12))
    theirs = torch.nn.TripletMarginLoss(margin=0.3, swap=True, eps=0.0)
    alike(run(nf.TripletLoss(margin=0.3, swap=True).triplets, a, p, n), run(theirs, a, p, n), rel=1e-12)
    soft = nf.TripletLoss(margin=0.3, swap=True, soft=True)
    alike(
        run(soft.triplets, a, p, n),
        run(lambda a, p, n: torch.nn.functional.softplus(
            (a - p).norm(dim=1) - torch.minimum((a - n).norm(dim=1), (p - n).norm(dim=1)) + 0.3).mean(), a, p, n),
        rel=1e-12,
    )  # fmt: skip


def test_triplet_swap_with_references():
    """Elsewhere it reads the batch at the references' places; here a table is refused by name."""
    loss = nf.TripletLoss(swap=True)
    for call in (
        lambda: loss(ROWS, LABELS, references=OTHERS, reference_labels=OTHER_LABELS),
        lambda: loss(ROWS, LABELS),
        lambda: loss.views(ROWS, ROWS),
        lambda: loss.value_and_grad(ROWS.numpy(), LABELS.numpy()),
    ):
        with pytest.raises(nf.InputError, match=r"expected given triplets with swap=True, got a batch; call"):
            call()


def test_given_quadruplets():
    a, p, n, o = (ROWS[k : k + 5] for k in (0, 5, 10, 15))
    loss = nf.QuadrupletLoss(margin=6.0, other_margin=2.0)

    def by_hand(a, p, n, o):
        near, first, second = ((u - v).square().sum(1) for u, v in ((a, p), (a, n), (n, o)))
        return (torch.relu(near - first + 6.0) + torch.relu(near - second + 2.0)).mean()

    alike(run(loss.quadruplets, a, p, n, o), run(by_hand, a, p, n, o), rel=1e-12)
    assert float(loss.quadruplets(*(v.numpy() for v in (a, p, n, o)))) == pytest.approx(float(by_hand(a, p, n, o)))
    none = a[:0]
    assert float(loss.quadruplets(none, none, none, none)) == 0
    with pytest.raises(nf.InputError, match=r"expected other of shape .* got .*; "):
        loss.quadruplets(a, p, n, o[:3])


def test_labels_give_the_mean_over_all_given_quadruplets():
    """Classes of one size: what the labels stand for, listed one by one."""
    y = np.repeat(np.arange(4), 3)
    x = np.random.default_rng(4).normal(size=(12, 3)) + y[:, None]
    listed = [
        (i, p, n, o)
        for i in range(12) for p in range(12) for n in range(12) for o in range(12)
        if i != p and y[i] == y[p] and len({y[i], y[n], y[o]}) == 3
    ]  # fmt: skip
    i, p, n, o = np.array(listed).T
    loss = nf.QuadrupletLoss(margin=1.0, other_margin=0.5)
    expected = loss.quadruplets(x[i], x[p], x[n], x[o])
    for engine in ("auto", Strips(5)):
        assert float(loss(x, y, engine=engine)) == pytest.approx(float(expected), rel=1e-12)
    two = y < 2  # two classes have no quadruplet: the triplets remain
    triplets = nf.TripletLoss(1.0, measure=nf.SquaredEuclidean())
    assert float(loss(x[two], y[two])) == pytest.approx(float(triplets(x[two], y[two])), rel=1e-12)


def test_quadruplets_of_a_mask_are_refused():
    with pytest.raises(nf.InputError, match=r"expected labels for QuadrupletLoss, got a mask; "):
        nf.QuadrupletLoss()(ROWS, nf.Mask(LABELS[:, None] == LABELS))


# ------------------------------------------------------------ Chopra, LMNN, Magnet


def test_chopra_is_its_two_terms():
    """2 E² / Q for like pairs, 2 Q exp(−2.77 E / Q) for unlike ones; E the L1 distance."""
    loss = nf.ChopraLoss(bound=4.0)
    left, right = np.array([[1.0, 2.0], [0.0, 0.5]]), np.array([[0.5, 1.0], [1.0, 0.5]])
    expected = (0.5 * 1.5**2 + 8 * math.exp(-2.77 / 4)) / 2
    assert float(loss.pairs(left, right, np.array([1, 0]))) == pytest.approx(expected, rel=1e-14)
    assert float(loss.distances(np.array([1.5, 1.0]), np.array([1, 0]))) == pytest.approx(expected, rel=1e-14)


def objective(x, y, targets, margin, push):
    """The sum of Weinberger and Saul, by loops."""
    total = 0.0
    for i, j in targets:
        d = ((x[i] - x[j]) ** 2).sum()
        others = [((x[i] - x[k]) ** 2).sum() for k in range(len(x)) if y[k] != y[i]]
        total += (1 - push) * d + push * sum(max(d - u + margin, 0.0) for u in others)
    return total


def nearest(x, y, count):
    d = ((x[:, None] - x[None]) ** 2).sum(-1)
    return [
        (i, j)
        for i in range(len(x))
        for j in sorted((k for k in range(len(x)) if k != i and y[k] == y[i]), key=lambda k, i=i: d[i, k])[:count]
    ]


def test_lmnn_with_fixed_and_with_new_targets():
    x, y = ROWS.numpy(), LABELS.numpy()
    inputs = np.random.default_rng(8).normal(size=(20, 4))
    loss = nf.LMNNLoss(neighbours=2, margin=1.0, push=0.4)
    for labels, targets in ((y, nearest(x, y, 2)), (loss.targets(inputs, y), nearest(inputs, y, 2))):
        expected = objective(x, y, targets, 1.0, 0.4) / len(targets)
        assert float(loss(x, labels)) == pytest.approx(expected, rel=1e-12)
        tensors = run(lambda v, labels=labels: loss(v, labels), ROWS)
        assert tensors[0] == pytest.approx(expected, rel=1e-12)
    assert nearest(x, y, 2) != nearest(inputs, y, 2)
    with pytest.raises(nf.InputError, match=r"expected inputs of shape .* got .*; "):
        loss.targets(inputs, y[:3])


def test_magnet_and_the_variance_of_its_clusters():
    """The paper's probability ratio, its σ² measured with N − 1."""
    x, y = ROWS.numpy(), LABELS.numpy()
    clusters = np.random.default_rng(9).normal(size=(10, 6))
    classes = np.arange(10) % 5
    loss = nf.MagnetLoss(margin=-2.0).fitted(x, y, clusters, classes)
    d = ((x[:, None] - clusters[None]) ** 2).sum(-1)
    own = np.where(y[:, None] == classes, d, np.inf).min(1)
    assert loss.variance == pytest.approx(own.sum() / 19, rel=1e-12)
    rest = np.where(y[:, None] != classes, np.exp(-d / (2 * loss.variance)), 0.0).sum(1)
    ratio = -np.log(np.exp(-own / (2 * loss.variance) + 2.0) / rest)
    value = loss(x, y, references=clusters, reference_labels=classes)
    assert float(value) == pytest.approx(np.maximum(ratio, 0).mean(), rel=1e-12)
    assert (ratio < 0).any()
    assert (ratio > 0).any()


# ------------------------------------------------------------ hyper-parameters

NAN, INF = math.nan, math.inf


def test_hyper_parameters_are_refused_by_name():
    bad = {
        nf.AngularLoss: {"angle": (0.0, math.pi / 2, NAN)},
        nf.ChopraLoss: {"bound": (0.0, -1.0, INF, NAN), "decay": (0.0, NAN)},
        nf.GeneralizedLiftedStructureLoss: {"margin": (NAN, INF)},
        nf.LMNNLoss: {"neighbours": (0, 1.5, -3), "margin": (NAN, INF), "push": (-0.1, 1.1, NAN)},
        nf.MagnetLoss: {"margin": (NAN, INF), "variance": (0.0, -1.0, NAN, INF)},
        nf.QuadrupletLoss: {"margin": (NAN, INF), "other_margin": (NAN, -INF)},
        nf.RankedListLoss: {
            "margin": (-0.1, NAN), "alpha": (NAN, INF), "positive_scale": (-1.0, INF),
            "negative_scale": (-1.0, NAN), "balance": (-0.1, 1.1, NAN),
        },
        nf.TupletMarginLoss: {"margin": (-0.1, math.pi, NAN), "scale": (0.0, INF, NAN)},
    }  # fmt: skip
    for kind, fields in bad.items():
        for field, values in fields.items():
            for value in values:
                with pytest.raises(nf.InputError, match=rf"expected .*{field}.* got .*; "):
                    kind(**{field: value})
    with pytest.raises(nf.InputError, match=r"expected measure of TupletMarginLoss to be CosineDistance"):
        nf.TupletMarginLoss(measure=nf.Euclidean())
