"""Recall at k, PNP and histogram beside pytorch-metric-learning and the exact measures they smooth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nearfar as nf
from cases import array, plain
from nearfar.engine import Strips, explain

frameworks = pytest.mark.parametrize("framework", ["numpy", "torch"])
RNG = np.random.default_rng(27)
Y = np.array([2, 0, 1, 2, 0, 1, 1, 0, 2, 0])
X = RNG.normal(size=(10, 6)) + np.eye(6)[Y]
PEER_INDEXES = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
COSINES = (X / np.linalg.norm(X, axis=1, keepdims=True)) @ (X / np.linalg.norm(X, axis=1, keepdims=True)).T


def peers():
    return pytest.importorskip("pytorch_metric_learning.losses")


def backward(loss, x=X):
    leaf = torch.tensor(x, requires_grad=True)
    value = loss(leaf)
    value.backward()
    return value.item(), leaf.grad.numpy()


def close(ours, theirs, rel=1e-10):
    assert ours[0] == pytest.approx(theirs[0], rel=rel)
    assert np.abs(theirs[1]).max() > 1e-4
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=rel * np.abs(theirs[1]).max())


# ------------------------------------------------------------ PNP


@pytest.mark.parametrize("variant", ["O", "Iu", "Ib", "Ds", "Dq"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_pnp_beside_its_peer(variant, temperature):
    """The peer counts the anchor itself among its positives, at similarity 1; the batch as its references does here."""
    theirs = peers().PNPLoss(b=3, alpha=2, anneal=temperature, variant=variant)
    ours = nf.PNPLoss(variant=variant, alpha=2.0, b=3.0, temperature=temperature)
    found = backward(lambda x: ours(x, Y, references=x, reference_labels=Y))
    close(found, backward(lambda x: theirs(x, torch.tensor(Y))))
    assert float(ours(X, Y)) > found[0]


def test_pnp_leaves_out_a_lonely_item_as_its_peer_does():
    """An item without a positive counts for nothing; with the batch as references it would be its own positive."""
    lonely = np.array([7, *Y[1:]])
    kept = np.ones(10, dtype=bool)
    kept[0] = False
    loss = nf.PNPLoss(variant="O", temperature=0.1)
    each = loss.per_anchor(X, lonely)
    assert each[0] == 0
    assert float(loss(X, lonely)) == pytest.approx(float(each[kept].mean()), rel=1e-13)
    theirs = peers().PNPLoss(b=2, alpha=1, anneal=0.1, variant="O")(torch.tensor(X), torch.tensor(lonely))
    itself = loss.per_anchor(X, lonely, references=X, reference_labels=lonely)
    assert theirs.item() == pytest.approx(float(itself[kept].mean()), rel=1e-10)


def test_pnp_counts_the_negatives_before_each_positive():
    each = nf.PNPLoss(variant="O", temperature=1e-6).per_anchor(X, Y)
    for i, row in enumerate(COSINES):
        positives = [p for p in np.flatnonzero(Y[i] == Y) if p != i]
        count = [int((row[Y[i] != Y] > row[p]).sum()) for p in positives]
        assert float(each[i]) == pytest.approx(np.mean(count), abs=1e-9)


def test_pnp_slopes_grow_or_fall_with_the_count():
    """I: more negatives before, more force on each; D: less. Measured on one positive and k negatives just above."""
    slopes = {}
    for variant in ("O", "Iu", "Ib", "Ds", "Dq"):
        loss = nf.PNPLoss(variant=variant, alpha=1.0, temperature=0.5, measure=nf.Dot())
        slopes[variant] = []
        for count in (1, 4, 16):
            references = np.array([[0.0], *[[0.3]] * count])
            _, (_, gradient) = loss.value_and_grad(
                np.ones((1, 1)), [0], references=references, reference_labels=[0, *[1] * count]
            )
            slopes[variant].append(float(gradient[1, 0]))
    o = slopes["O"]
    assert o[0] == pytest.approx(o[2])
    for variant in ("Iu", "Ib"):
        assert slopes[variant][0] < slopes[variant][1] < slopes[variant][2]
    for variant in ("Ds", "Dq"):
        assert slopes[variant][0] > slopes[variant][1] > slopes[variant][2]
    assert slopes["Ib"][2] < o[2] / 2  # at most 1 / b


def test_pnp_of_many_negatives_does_not_overflow():
    references = np.concatenate([[[0.0]], np.full((2000, 1), 5.0)])
    labels = [0, *[1] * 2000]
    for variant in ("O", "Iu", "Ib", "Ds", "Dq"):
        loss = nf.PNPLoss(variant=variant, temperature=1e-3, measure=nf.Dot())
        value, gradients = loss.value_and_grad(np.ones((1, 1)), [0], references=references, reference_labels=labels)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in gradients)
    assert float(value) == pytest.approx(1.0, abs=1e-12)


# ------------------------------------------------------------ Recall at k


@pytest.mark.parametrize("k", [(1,), (2, 3), (1, 2, 4, 8)])
def test_recall_tends_to_recall(k):
    """With cold temperatures it is 1 − recall@k, a half place beyond k so that the step has no tie at k."""
    loss = nf.RecallAtKLoss(k=k, temperature=1e-6, rank_temperature=1e-3)
    recall = []
    for i, row in enumerate(COSINES):
        order = [j for j in np.argsort(-row) if j != i]
        right = Y[order] == Y[i]
        places = 1 + np.flatnonzero(right)
        # At the place k itself the step is ½.
        hits = [((places < n).sum() + 0.5 * (places == n).sum()) / min(n, right.sum()) for n in k]
        recall.append(np.mean(hits))
    assert float(nf.RecallAtKLoss(k=k, temperature=1e-6, rank_temperature=1e-3)(X, Y)) == pytest.approx(
        1 - np.mean(recall), abs=1e-9
    )
    assert loss.per_anchor(X, Y).shape == (10,)


def test_recall_by_hand():
    """One anchor, two positives at 0.9 and 0.1, one negative at 0.5: smooth ranks 1 + σ(−8) + σ(−4) and the other."""
    y = np.array([[0.9], [0.1], [0.5]])
    loss = nf.RecallAtKLoss(k=(1, 4), temperature=0.1, rank_temperature=2.0, measure=nf.Dot())

    def step(z):
        return 1 / (1 + math.exp(-z))

    ranks = 1 + step(-8) + step(-4), 1 + step(8) + step(4)
    at = {k: sum(step((k - r) / 2.0) for r in ranks) / min(k, 2) for k in (1, 4)}
    value = loss(np.ones((1, 1)), [0], references=y, reference_labels=[0, 0, 1])
    assert float(value) == pytest.approx(1 - (at[1] + at[4]) / 2, rel=1e-13)


def test_what_recall_and_pnp_refuse():
    for k in ((), (0,), (1, 2.5), [1, 2], 3, None):
        with pytest.raises(nf.InputError, match=r"expected k .* got .*; "):
            nf.RecallAtKLoss(k=k)
    for bad in (0.0, -1.0, math.nan, math.inf):
        for field in ("temperature", "rank_temperature"):
            with pytest.raises(nf.InputError, match="temperature"):
                nf.RecallAtKLoss(**{field: bad})
        for field in ("alpha", "b", "temperature"):
            with pytest.raises(nf.InputError, match=rf"expected .*{field}.* got"):
                nf.PNPLoss(**{field: bad})
    for variant in ("dq", "", None):
        with pytest.raises(nf.InputError, match="variant"):
            nf.PNPLoss(variant=variant)


# ------------------------------------------------------------ histogram


@PEER_INDEXES
@pytest.mark.parametrize("bins", [100, 7, 20])
def test_histogram_beside_its_peer(bins):
    theirs = peers().HistogramLoss(n_bins=bins)
    ours = nf.HistogramLoss(bins=bins)
    close(
        backward(lambda x: ours(x, Y)), backward(lambda x: theirs(x, torch.tensor(Y))), rel=1e-5
    )  # its nodes are in float32


@PEER_INDEXES
def test_histogram_of_the_peer_leaves_out_pairs_of_lonely_items():
    """It counts pairs that stand in a triplet; a negative pair of two items without positives stands in none."""
    labels = np.array([2, 0, 1, 2, 0, 1, 1, 0, 5, 6])
    theirs = peers().HistogramLoss(n_bins=20)(torch.tensor(X), torch.tensor(labels)).item()
    negative = labels[:, None] != labels[None]
    assert theirs != pytest.approx(float(nf.HistogramLoss(bins=20)(X, labels)), rel=1e-4)
    negative[8, 9] = negative[9, 8] = False
    positive = labels[:, None] == labels[None]
    assert theirs == pytest.approx(float(nf.HistogramLoss(bins=20)(X, nf.Mask(positive, negative))), rel=1e-6)


def test_histogram_tends_to_the_share_of_wrong_pairs():
    """With fine bins it is the probability that a negative of the batch is more similar than a positive."""
    positive = (Y[:, None] == Y) & ~np.eye(10, dtype=bool)
    near, far = COSINES[positive], COSINES[Y[:, None] != Y]
    wrong = float((far[None, :] > near[:, None]).mean())
    assert float(nf.HistogramLoss(bins=10**6)(X, Y)) == pytest.approx(wrong, abs=1e-3)
    each = nf.HistogramLoss(bins=10**6).per_anchor(X, Y)
    first = COSINES[0][positive[0]]
    assert float(each[0]) == pytest.approx(float((far[None, :] > first[:, None]).mean()), abs=1e-3)


@frameworks
def test_histogram_of_a_perfect_batch_is_zero_exactly(framework):
    x = array(np.eye(6)[Y] + 1e-3 * X, framework, "float64")
    value, gradient = nf.HistogramLoss().value_and_grad(x, Y)
    assert value == 0
    assert not plain(gradient).any()


@frameworks
def test_histogram_beyond_its_span(framework):
    """Pairs beyond stand at the end, count there and rest."""
    x, y = array([[1.0]], framework, "float64"), array([[-3.0], [0.25], [5.0], [0.5]], framework, "float64")
    loss = nf.HistogramLoss(bins=4, span=(0.0, 1.0), measure=nf.Dot())
    # Positives at −3 (node 0) and 0.25 (node 1), negatives at 5 (node 4) and 0.5 (node 2): all negatives above.
    value, (_, gradient) = loss.value_and_grad(x, [0], references=y, reference_labels=[0, 0, 1, 1])
    assert value == 1
    assert not plain(gradient)[[0, 2]].any()
    # A positive in the bin of a negative feels it: at 0.6, of 0.5 and 0.75 nodes, above it are one of two and a part.
    y = array([[0.6], [0.7], [5.0]], framework, "float64")
    value, (_, gradient) = loss.value_and_grad(x, [0], references=y, reference_labels=[0, 1, 1])
    # Positive: 0.6 at node 2, 0.4 at node 3. Negatives: 0.1 at node 2, 0.4 at node 3, 0.5 at node 4.
    assert float(value) == pytest.approx(0.6 * 1.0 + 0.4 * 0.9, rel=1e-13)
    assert plain(gradient)[:, 0] == pytest.approx([-4 * 0.1, 4 * 0.4 / 2, 0.0], rel=1e-12)


@frameworks
def test_histogram_at_its_ends(framework):
    """A pair at the first node moves with the first bin; at the last node, and beyond either, it rests."""
    loss, x = nf.HistogramLoss(bins=4, span=(0.0, 1.0), measure=nf.Dot()), array([[1.0]], framework, "float64")

    def slopes(*places):
        y = array([[v] for v in places], framework, "float64")
        return plain(loss.value_and_grad(x, [0], references=y, reference_labels=[0, 1])[1][1])[:, 0]

    assert slopes(0.0, 0.1) == pytest.approx([-0.6 * 4, 0.0])  # the positive passes the negative's node 0
    assert slopes(0.1, 0.0) == pytest.approx([-4.0, 0.4 * 4])
    assert slopes(1.0, 0.9) == pytest.approx([0.0, 4.0])
    assert slopes(0.9, 1.0) == pytest.approx([0.0, 0.0])
    assert slopes(-0.2, 0.1) == pytest.approx([0.0, 0.0])
    assert slopes(0.1, -0.2) == pytest.approx([-4.0, 0.0])


@frameworks
@pytest.mark.parametrize("loss", [nf.PNPLoss(), nf.RecallAtKLoss(), nf.HistogramLoss()], ids=str)
def test_a_positive_that_is_no_number_reaches_the_value(loss, framework):
    """Also where its anchor has no negative."""
    x, y = (
        array(X[:2], framework, "float64"),
        array(np.where(np.arange(3)[:, None] == 0, np.nan, X[2:5]), framework, "float64"),
    )
    with np.errstate(all="ignore"):
        value = loss(x, nf.Mask([[1, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 1]]), references=y)
    assert np.isnan(float(value))


@frameworks
def test_histogram_is_of_the_whole_table(framework):
    """An anchor's part depends on the negatives of other anchors; the mean over positives is the value."""
    x = array(X, framework, "float64")
    loss = nf.HistogramLoss(bins=25)
    each, count = plain(loss.per_anchor(x, Y)), np.array([(y == Y).sum() - 1 for y in Y])
    assert float(loss(x, Y)) == pytest.approx((each * count).sum() / count.sum(), rel=1e-13)
    one = float(loss.per_anchor(array(X[:1], framework, "float64"), Y[:1], references=x, reference_labels=Y)[0])
    assert one != pytest.approx(each[0], rel=1e-3)
    for engine in (Strips(1), Strips(3), "dense"):
        np.testing.assert_allclose(plain(loss.per_anchor(x, Y, engine=engine)), each, rtol=1e-13)
    assert explain(loss, x).units == 3  # a block against itself saves one


@pytest.mark.parametrize("engine", ["dense", Strips(3)], ids=str)
def test_histogram_weighted_by_anchor(engine):
    """The gradient of Σ uᵢ ℓᵢ: an upstream weighs the positives of its anchor, and through them all negatives."""
    upstream = torch.linspace(-1, 2, 10, dtype=torch.float64)
    leaf = torch.tensor(X, requires_grad=True)
    loss = nf.HistogramLoss(bins=25)
    (loss.per_anchor(leaf, Y, engine=engine) * upstream).sum().backward()
    step = 1e-7 * RNG.normal(size=X.shape)

    def weighed(x):
        return float((loss.per_anchor(x, Y) * upstream.numpy()).sum())

    slope = (weighed(X + step) - weighed(X - step)) / 2
    assert slope == pytest.approx(float((leaf.grad.numpy() * step).sum()), rel=1e-6)


@frameworks
def test_histogram_without_a_side_is_zero(framework):
    x = array(X, framework, "float64")
    for labels in (np.zeros(10, int), np.arange(10)):
        value, gradient = nf.HistogramLoss().value_and_grad(x, labels)
        assert value == 0
        assert not plain(gradient).any()


def test_what_the_histogram_refuses():
    for bins in (0, -3, 2.5, None):
        with pytest.raises(nf.InputError, match="bins"):
            nf.HistogramLoss(bins=bins)
    for span in ((1.0, -1.0), (0.0, 0.0), (-math.inf, 1.0), (0.0, math.nan)):
        with pytest.raises(nf.InputError, match="span"):
            nf.HistogramLoss(span=span)
