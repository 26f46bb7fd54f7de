"""Defects of other libraries that no loss here shares: references, labels, batches without something.

Each test is named after the defect; the index is tests/test_peers_defects.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import nearfar as nf

RNG = np.random.default_rng(71)
Y = np.array([5, 5, 7, 7, 9, 9, 5, 7])
X = RNG.normal(size=(8, 4)) + RNG.normal(size=(10, 4))[Y]
PAIRED = [
    nf.ContrastiveLoss(2.0), nf.TripletLoss(), nf.TripletLoss(mining="hard"), nf.SupConLoss(), nf.InfoNCELoss(),
    nf.CircleLoss(), nf.MultiSimilarityLoss(), nf.LiftedStructureLoss(), nf.NCALoss(), nf.MarginLoss(),
    nf.FastAPLoss(), nf.AngularLoss(), nf.TupletMarginLoss(),
]  # fmt: skip
paired = pytest.mark.parametrize("loss", PAIRED, ids=[f"{type(v).__name__}{k}" for k, v in enumerate(PAIRED)])


# ------------------------------------------------------------ references and labels


def test_lifted_bank_equals_batch():
    """The batch's own rows as references, itself excepted, is the batch's loss: one index space."""
    loss = nf.LiftedStructureLoss()
    same, itself = Y[:, None] == Y, np.eye(8, dtype=bool)
    bank = loss(X, nf.Mask(same & ~itself, ~same), references=X.copy())
    assert float(bank) == pytest.approx(float(loss(X, Y)), rel=1e-13)
    # A query's row number means nothing among the references.
    order = RNG.permutation(8)
    mask = nf.Mask((same & ~itself)[:, order], ~same[:, order])
    assert float(loss(X, mask, references=X[order])) == pytest.approx(float(loss(X, Y)), rel=1e-13)


@paired
def test_tcm_uses_references(loss):
    others, theirs = RNG.normal(size=(6, 4)), np.array([5, 7, 9, 5, 7, 9])
    one = loss.value_and_grad(X, Y, references=others, reference_labels=theirs)
    two = loss.value_and_grad(X, Y, references=others + 0.3 * RNG.normal(size=(6, 4)), reference_labels=theirs)
    assert float(one[0]) != float(two[0])
    assert np.abs(one[1][1]).max() > 0


@paired
def test_instance_arbitrary_labels(loss):
    """Labels are names, neither ranks nor columns: [5, 5, 7, 7] is [0, 0, 1, 1] is [-3, -3, 10¹², 10¹²]."""
    x = X[:4]
    value = float(loss(x, [0, 0, 1, 1]))
    for labels in ([5, 5, 7, 7], [7, 7, 5, 5], [-3, -3, 10**12, 10**12], ["b", "b", "a", "a"]):
        assert float(loss(x, labels)) == value


def test_instance_arbitrary_labels_of_class_weights():
    """Label c is row c of the weights, however many classes the batch holds."""
    w = RNG.normal(size=(8, 4))
    s = X[:4] @ w.T
    expected = np.mean([np.log(np.exp(s[i]).sum()) - s[i, c] for i, c in enumerate((5, 5, 7, 7))])
    assert float(nf.CrossEntropyLoss()(X[:4], [5, 5, 7, 7], class_weights=w)) == pytest.approx(expected, rel=1e-13)


def test_metric_alone():
    """Each metric is a function that needs no other to have been asked for."""
    from nearfar.metrics import retrieval

    scores = -np.abs(X[:, :1] - X[:, 0])
    together = retrieval.rank_metrics(scores, Y, k=[1, 4])
    assert np.array_equal(retrieval.precision_at_1(scores, Y), together["precision_at_1"], equal_nan=True)
    assert np.array_equal(retrieval.map_at_r(scores, Y), together["map_at_r"], equal_nan=True)
    assert np.array_equal(retrieval.r_precision(scores, Y), together["r_precision"], equal_nan=True)
    assert np.array_equal(retrieval.recall_at_k(scores, Y, k=4), together["recall_at_4"], equal_nan=True)


@pytest.mark.parametrize("seed", range(20))
def test_miner_labels_valid(seed):
    """Drawn triplets: the positive is another item of the anchor's class, the negative one of another class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, size=30)
    anchor, positive, negative = nf.distance_weighted(rng.normal(size=(30, 5)), labels, seed=seed)
    assert (labels[anchor] == labels[positive]).all()
    assert (labels[anchor] != labels[negative]).all()
    assert (anchor != positive).all()


def test_no_identical_indices():
    """No item is its own positive: two items of a class make two ordered pairs, one item none."""
    loss = nf.ContrastiveLoss(0.0)
    assert float(loss(X[:2], [3, 3])) == pytest.approx(((X[0] - X[1]) ** 2).sum() / 2, rel=1e-13)
    assert float(loss(X[:1], [3])) == 0
    anchor, positive, _ = nf.distance_weighted(X, Y, seed=0)
    assert (anchor != positive).all()


# ------------------------------------------------------------ which function it is


def test_npair_normalisation_documented():
    """The inner product is that: rows twice as long have another loss; the cosine is asked for by name."""
    first, second = X[[0, 2, 4]], X[[1, 3, 5]]
    s = first @ second.T
    expected = np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(s)])
    assert float(nf.NPairLoss().aligned(first, second)) == pytest.approx(expected, rel=1e-13)
    cosine = nf.NPairLoss(nf.Cosine())
    assert float(cosine.aligned(2 * first, second)) == pytest.approx(float(cosine.aligned(first, second)), rel=1e-13)
    assert float(nf.NPairLoss().aligned(2 * first, second)) != pytest.approx(expected, rel=1e-3)
    assert "normalised" in (nf.NPairLoss.__doc__ or "")


@pytest.mark.parametrize("mining", ["hard", "semihard", "all"])
def test_self_not_hardest_negative(mining):
    """The nearest negative is another class's row, and it is pushed."""
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.2], [0.3, 1.9]])
    loss = nf.TripletLoss(margin=1.5, mining=mining)
    _, gradient = loss.value_and_grad(x, [0, 0, 1, 1])
    assert np.abs(gradient[2:]).max(axis=1).min() > 1e-3
    if mining == "hard":
        near = [1.2, math.hypot(1.0, 1.2), 1.2, math.hypot(0.3, 1.9)]
        own = [1.0, 1.0, math.hypot(0.3, 0.7), math.hypot(0.3, 0.7)]
        expected = np.mean([a - b + 1.5 for a, b in zip(own, near, strict=True)])
        assert float(loss(x, [0, 0, 1, 1])) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("measure", [nf.CosineDistance(), nf.Euclidean(), nf.SquaredEuclidean(), nf.Manhattan()])
def test_pairwise_is_matrix_diagonal(measure):
    """Given pairs and the diagonal of the table have one scale."""
    left, right = X[:4], X[4:]
    loss = nf.ContrastiveLoss(factors=(1.0, 1.0), powers=(1, 1), measure=measure)
    table = loss.per_anchor(left, nf.Mask(np.eye(4), np.zeros((4, 4))), references=right)
    for i in range(4):
        assert float(loss.pairs(left[i : i + 1], right[i : i + 1], [1])) == pytest.approx(float(table[i]), rel=1e-13)


def test_circle_hard_positive_weight():
    """The force on a positive is γ (1 + m − s) where the softplus is saturated: the less similar, the harder."""
    anchor, negative = np.array([[1.0, 0.0]]), np.array([math.cos(0.1), -math.sin(0.1)])
    for angle in (1.2, 0.8, 0.5):
        positive = np.array([math.cos(angle), math.sin(angle)])
        _, (_, gradient) = nf.CircleLoss(0.25, 256.0).value_and_grad(
            anchor, [0], references=np.stack([positive, negative]), reference_labels=[0, 1]
        )
        along = gradient[0] @ np.array([-math.sin(angle), math.cos(angle)])
        assert along / math.sin(angle) == pytest.approx(256 * (1.25 - math.cos(angle)), rel=1e-6)  # ds/da = −sin a


def test_lifted_row_gather():
    """Four points on a line by hand: the second sum is over the negatives of the positive."""
    x = np.array([[0.0], [1.0], [3.0], [7.0]])
    first = math.log(math.exp(1 - 3) + math.exp(1 - 7) + math.exp(1 - 2) + math.exp(1 - 6)) + 1
    second = math.log(math.exp(1 - 3) + math.exp(1 - 2) + math.exp(1 - 7) + math.exp(1 - 6)) + 4
    expected = (max(first, 0) ** 2 + max(second, 0) ** 2) / 4
    assert float(nf.LiftedStructureLoss()(x, [0, 0, 1, 1])) == pytest.approx(expected, rel=1e-14)
    lopsided = np.array([[0.0], [1.0], [3.0]])
    one = math.log(math.exp(1 - 3) + math.exp(1 - 2)) + 1
    assert float(nf.LiftedStructureLoss()(lopsided, [0, 0, 1])) == pytest.approx(max(one, 0) ** 2 / 2, rel=1e-14)


# ------------------------------------------------------------ batches without something


def nothing_to_learn(loss, x, labels):
    value, gradient = loss.value_and_grad(x, labels)
    assert float(value) == 0
    assert not np.asarray(gradient).any()


NEED_A_POSITIVE = [
    nf.TripletLoss(), nf.TripletLoss(mining="hard"), nf.TripletLoss(mining="semihard"), nf.SupConLoss(),
    nf.SupConLoss(form="in"), nf.InfoNCELoss(), nf.NCALoss(), nf.CircleLoss(), nf.MultiSimilarityLoss(),
    nf.LiftedStructureLoss(), nf.AngularLoss(), nf.TupletMarginLoss(), nf.FastAPLoss(), nf.SmoothAPLoss(),
]  # fmt: skip
positive_needed = pytest.mark.parametrize("loss", NEED_A_POSITIVE, ids=repr)


@positive_needed
def test_singleton_classes_zero(loss):
    """An anchor alone in its class counts for nothing, also with others that are not."""
    nothing_to_learn(loss, X, np.arange(8))
    each = loss.per_anchor(X, [0, 0, 1, 1, 2, 2, 2, 3])
    assert each[7] == 0
    assert float(loss(X, [0, 0, 1, 1, 2, 2, 2, 3])) > 0


@positive_needed
def test_all_singletons(loss):
    nothing_to_learn(loss, X.astype(np.float32), np.arange(8))


@paired
def test_one_class_finite_gradient(loss):
    value, gradient = loss.value_and_grad(X, np.zeros(8, dtype=int))
    assert np.isfinite(float(value))
    assert np.isfinite(gradient).all()


@paired
def test_batch_of_one(loss):
    nothing_to_learn(loss, X[:1], [4])


def test_nca_of_all_singletons():
    """The mean over anchors with a positive is NaN elsewhere where there are none."""
    for loss in (nf.NCALoss(), nf.NCALoss(log=False), nf.SoftNearestNeighborLoss()):
        nothing_to_learn(loss, X, np.arange(8))


def test_generalized_lifted_empty_side():
    """The log-sum-exp of no pairs is no 0, which elsewhere costs an anchor without a positive its nearest negatives."""
    loss = nf.GeneralizedLiftedStructureLoss()
    nothing_to_learn(loss, X, np.arange(8))
    nothing_to_learn(loss, X, np.zeros(8, dtype=int))
    some = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    each = loss.per_anchor(X, some)
    assert not each[2:].any()
    assert float(loss(X, some)) == pytest.approx(each[:2].mean(), rel=1e-13)


def test_ranked_list_of_a_collapsed_batch():
    """Elsewhere a negative at distance 0, the worst there is, weighs nothing, and a collapsed batch costs 0."""
    x, y = np.array([[1.0, 0.0], [0.8, 0.6], [1.0, 0.0], [0.6, 0.8]]), [0, 0, 1, 1]
    near = x.copy()
    near[2] = np.cos(1e-9), np.sin(1e-9)
    loss = nf.RankedListLoss(negative_scale=3.0)
    assert float(loss(x, y)) == pytest.approx(float(loss(near, y)), rel=1e-8)
    assert float(loss(np.ones((4, 2)), y)) == pytest.approx(loss.balance * loss.alpha, rel=1e-13)


def test_histogram_of_duplicates():
    """A cosine of 1 lies in the last bin; elsewhere it is beyond the array."""
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    value, gradient = nf.HistogramLoss(bins=10).value_and_grad(x, [0, 0, 1, 1])
    assert float(value) == 0
    assert np.isfinite(gradient).all()
    value, gradient = nf.HistogramLoss(bins=10).value_and_grad(np.ones((4, 2)), [0, 0, 1, 1])
    assert float(value) == pytest.approx(1.0)
    assert np.isfinite(gradient).all()


@paired
def test_per_anchor_with_references(loss):
    """More references than anchors: elsewhere a reference's place is looked up among the anchors."""
    others, theirs = RNG.normal(size=(21, 4)), np.tile([5, 7, 9], 7)
    each = loss.per_anchor(X, Y, references=others, reference_labels=theirs)
    assert each.shape == (8,)
    alone = [float(loss(X[i : i + 1], Y[i : i + 1], references=others, reference_labels=theirs)) for i in range(8)]
    if not isinstance(loss, nf.LiftedStructureLoss):  # The others' rows are in its pairs.
        np.testing.assert_allclose(each, alone, rtol=1e-12)


def test_circle_empty_rows():
    """Anchors without positives or without negatives: 0, in value and gradient, and not in the mean."""
    loss = nf.CircleLoss()
    nothing_to_learn(loss, X, np.zeros(8, dtype=int))
    nothing_to_learn(loss, X, np.arange(8))
    some = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    each = loss.per_anchor(X, some)
    assert not each[2:].any()
    assert float(loss(X, some)) == pytest.approx(each[:2].mean(), rel=1e-13)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("mining", ["all", "hard", "semihard", "easy", "easy-semihard"])
def test_no_negative_is_no_triplet(mining, soft):
    """One class alone: 0, not triplets whose negative is the anchor itself at distance 0 (there d + m of each)."""
    nothing_to_learn(nf.TripletLoss(1.0, mining=mining, soft=soft), np.array([[0.0, 1.0], [1.0, 0.0]]), [0, 0])
    nothing_to_learn(nf.TripletLoss(1.0, mining=mining, soft=soft), X, np.zeros(8, dtype=int))


def test_relative_margin_below_zero():
    """A guide that finds even the positive unlike: the larger the margin, the fewer negatives stay, not the more."""
    guide = np.array([[1.0, 0.0]])
    others = np.array([[-0.6, 0.8], [-0.5, 0.866], [-0.7, 0.714], [-0.9, 0.436]])  # positive at −0.6, negatives after
    queries, documents = X[:1], X[4:]
    one = [[1, 0, 0, 0]], [[0, 1, 1, 1]], [[0, 0, 1, 1]], [[0, 0, 0, 1]]
    for margin, stay in ((0.0, one[2]), (0.2, one[3])):
        relation = nf.Guided(nf.Mask(one[0], one[1]), guide, others, margin=margin, relative=True)
        expected = nf.InfoNCELoss(0.5)(queries, nf.Mask(one[0], stay), references=documents)
        assert float(nf.InfoNCELoss(0.5)(queries, relation, references=documents)) == pytest.approx(float(expected))


def test_online_contrastive_1p1n():
    """One positive and one negative pair: the formula's value."""
    x = np.array([[0.0], [1.0], [0.5]])
    mask = nf.Mask([[0, 1, 0], [0] * 3, [0] * 3], [[0, 0, 1], [0] * 3, [0] * 3])
    loss = nf.ContrastiveLoss(1.0, factors=(1.0, 1.0))
    assert float(loss(x, mask)) == pytest.approx((1.0 + 0.25) / 2, rel=1e-14)
    assert float(loss.pairs(x[[0, 0]], x[[1, 2]], [1, 0])) == pytest.approx((1.0 + 0.25) / 2, rel=1e-14)
