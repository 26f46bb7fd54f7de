"""The ways to call a loss say one thing: views, aligned rows, pairs, triplets, distances, masks, references, sums."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import families
import nearfar as nf
import oracles
from cases import ALL_CASES, ALL_EACH, ONE_EACH, ONE_WAY, array, call, is_logits, plain
from nearfar.engine import Strips

every_loss = pytest.mark.parametrize("loss", ONE_EACH)
frameworks = pytest.mark.parametrize("framework", ["numpy", "torch"])
RNG = np.random.default_rng(8)
LEFT, RIGHT, THIRD = RNG.normal(size=(3, 6, 4)) * 0.6
SAME = np.array([1, 0, 0, 1, 1, 0])


def _same(ours, theirs, rel=1e-12):
    """Value and gradients alike."""
    assert float(ours[0]) == pytest.approx(float(theirs[0]), rel=rel)
    for a, b in zip(ours[1], theirs[1], strict=True):
        a, b = plain(a), plain(b)
        np.testing.assert_allclose(a, b, rtol=10 * rel, atol=rel * np.abs(b).max() + 1e-16)


def _backward(call_form, *arrays):
    """Value and gradients of a form, in torch."""
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    value = call_form(*leaves)
    value.backward()
    return value.detach(), [leaf.grad for leaf in leaves]


# ------------------------------------------------------------ one relation, many words


@every_loss
@frameworks
def test_mask_is_labels(loss, framework, batch):
    if isinstance(loss, families.LABELS_ONLY):
        pytest.skip("a mask is refused by name")
    if is_logits(loss, None):
        pytest.skip("logits have no relation")
    x, labels = array(batch[0], framework, "float64"), batch[1]
    positive = (labels[:, None] == labels[None]) & ~np.eye(len(labels), dtype=bool)
    negative = labels[:, None] != labels[None]
    expected = call(loss, x, labels)
    for mask in (nf.Mask(positive, negative), nf.Mask(positive), nf.Mask(positive | np.eye(13, dtype=bool), negative)):
        _same(call(loss, x, mask), expected)
        _same(call(loss, x, mask, engine=Strips(4)), expected)
    if framework == "torch":
        _same(call(loss, x, nf.Mask(torch.tensor(positive), torch.tensor(negative))), expected)


@pytest.mark.parametrize("loss", ALL_EACH)
def test_weights_are_multiplicities(loss, batch, gallery):
    """A pair of weight k is the pair listed k times; of weight 0, a pair that is not there."""
    if isinstance(loss, families.LABELS_ONLY):
        pytest.skip("a mask is refused by name")
    if isinstance(loss, nf.LiftedStructureLoss) or "doc_to_query" in getattr(loss, "directions", ()):
        pytest.skip("a reference's pool counts the weights of its own column: listed twice, each copy has weight 1")
    (x, labels), (y, other) = batch, gallery
    times = np.array([1, 2, 0, 3, 1, 2, 1, 0, 4])
    same = labels[:, None] == other[None]
    mask = nf.Mask(same * times, ~same * times)
    value, (gx, gy) = call(loss, x, mask, y)
    listed = np.repeat(np.arange(len(y)), times)
    repeated, (hx, hy) = call(loss, x, labels, y[listed], other[listed])
    folded = np.zeros_like(gy)
    np.add.at(folded, listed, hy)
    _same((value, (gx, gy)), (repeated, (hx, folded)))


@every_loss
@pytest.mark.parametrize(("framework", "unit"), [("numpy", 1.0), ("numpy", 0.25), ("torch", 1.0)])
def test_weights_alone_in_an_anchors_list(loss, framework, unit):
    """Weights differ among the pairs of one anchor, and may be parts of one: the loops with the same weights."""
    if isinstance(loss, families.LABELS_ONLY):
        pytest.skip("a mask is refused by name")
    if isinstance(loss, nf.SmoothAPLoss) and unit < 1:
        pytest.skip("its loops list a pair as often as it weighs")
    rng = np.random.default_rng(6)
    x, y = LEFT, RIGHT
    positive, negative = rng.integers(0, 3, size=(2, 6, 6)) * unit
    negative[positive > 0] = 0.0
    positive[2], negative[3] = 0.0, 0.0
    mask = nf.Mask(positive, negative)
    value, gradients = call(loss, array(x, framework, "float64"), mask, array(y, framework, "float64"))
    expected, *true = oracles.dense_gradients(loss, x, positive, negative, y)
    assert expected == pytest.approx(oracles.loops(loss, x.tolist(), positive.tolist(), negative.tolist(), y.tolist()))
    _same((value, gradients), (expected, true))


@every_loss
def test_references_that_are_the_batch(loss, batch):
    """The batch as its own references, each item's pair with itself left out: the batch, its two gradients added."""
    if isinstance(loss, families.LABELS_ONLY):
        pytest.skip("a mask is refused by name")
    if is_logits(loss, None):
        pytest.skip("logits have no references")
    x, labels = batch
    same, self_ = labels[:, None] == labels[None], np.eye(len(labels), dtype=bool)
    value, (ga, gb) = call(loss, x, nf.Mask(same & ~self_, ~same), x.copy())
    _same((value, (ga + gb,)), call(loss, x, labels))


@every_loss
@frameworks
def test_views_are_labels(loss, framework):
    if is_logits(loss, None):
        pytest.skip("views are embeddings")
    views = [array(v, framework, "float64") for v in (LEFT, RIGHT, THIRD)]
    stacked = array(np.concatenate([LEFT, RIGHT, THIRD]), framework, "float64")
    assert float(loss.views(*views)) == pytest.approx(float(loss(stacked, list(range(6)) * 3)), rel=1e-15)
    assert float(loss.views(views[0], views[1])) == pytest.approx(float(loss.views(views[1], views[0])), rel=1e-13)


@every_loss
@frameworks
def test_aligned_is_labels_with_references(loss, framework):
    left, right = array(LEFT, framework, "float64"), array(RIGHT, framework, "float64")
    there = loss(left, range(6), references=right, reference_labels=range(6))
    back = loss(right, range(6), references=left, reference_labels=range(6))
    expected = there if isinstance(loss, ONE_WAY) else (there + back) / 2
    assert float(loss.aligned(left, right)) == pytest.approx(float(expected), rel=1e-15)
    assert float(loss(left, nf.Aligned(), references=right)) == pytest.approx(float(there), rel=1e-15)


@every_loss
def test_gradient_of_views_and_aligned(loss):
    def by_labels(a, b):
        if is_logits(loss, None):
            return loss.views(a, b)
        return loss(torch.cat([a, b]), list(range(6)) * 2)

    if not is_logits(loss, None):
        _same(_backward(loss.views, LEFT, RIGHT), _backward(by_labels, LEFT, RIGHT))

    def both(a, b):
        forth = loss(a, range(6), references=b, reference_labels=range(6))
        return (
            forth
            if isinstance(loss, ONE_WAY)
            else (forth + loss(b, range(6), references=a, reference_labels=range(6))) / 2
        )

    _same(_backward(loss.aligned, LEFT, RIGHT), _backward(both, LEFT, RIGHT))


# ------------------------------------------------------------ identities


@frameworks
@pytest.mark.parametrize("measure", [nf.Cosine(), nf.Dot()], ids=str)
def test_supcon_with_one_positive_is_ntxent(framework, measure):
    x, labels = array(np.concatenate([LEFT, RIGHT]), framework, "float64"), [*range(6), *range(6)]
    _same(call(nf.SupConLoss(0.2, measure), x, labels), call(nf.InfoNCELoss(0.2, measure), x, labels))


@frameworks
def test_npair_is_infonce_at_temperature_one(framework, batch, gallery):
    npair, infonce = nf.NPairLoss(), nf.InfoNCELoss(temperature=1.0, measure=nf.Dot())
    x, y = (array(v, framework, "float64") for v in (batch[0], gallery[0]))
    _same(call(npair, x, batch[1]), call(infonce, x, batch[1]), rel=1e-15)
    _same(call(npair, x, batch[1], y, gallery[1]), call(infonce, x, batch[1], y, gallery[1]), rel=1e-15)


@frameworks
def test_mnrl_is_cross_entropy(framework):
    """In-batch negatives are cross-entropy over the rows of the table, the right column on the diagonal."""
    left, right = array(LEFT, framework, "float64"), array(RIGHT, framework, "float64")
    expected = nf.CrossEntropyLoss(temperature=0.3)(left @ right.T, range(6))
    loss = nf.InfoNCELoss(temperature=0.3, measure=nf.Dot())
    assert float(loss(left, nf.Aligned(), references=right)) == pytest.approx(float(expected), rel=1e-14)


def test_cross_entropy_against_torch():
    x, w = torch.tensor(LEFT), torch.tensor(RIGHT[:3])
    labels = torch.tensor([0, 2, 1, 1, 0, 2])
    theirs = torch.nn.functional.cross_entropy(x @ w.T / 0.5, labels)
    assert torch.allclose(nf.CrossEntropyLoss(0.5)(x, labels, class_weights=w), theirs, rtol=1e-14)
    assert torch.allclose(nf.CrossEntropyLoss(0.5)(x @ w.T, labels), theirs, rtol=1e-14)
    ignored = torch.nn.functional.cross_entropy(x @ w.T, labels, ignore_index=1)
    assert torch.allclose(nf.CrossEntropyLoss()(x @ w.T, labels, ignore_label=1), ignored, rtol=1e-14)
    assert torch.allclose(nf.CrossEntropyLoss()(x, labels, class_weights=w, ignore_label=1), ignored, rtol=1e-14)


def test_binary_cross_entropy_against_torch():
    s, same = torch.tensor(LEFT[:, 0]), torch.tensor(SAME)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(s / 0.4, same.double())
    assert torch.allclose(nf.BinaryCrossEntropyLoss(0.4).similarities(s, same), theirs, rtol=1e-14)
    dot = (torch.tensor(LEFT) * torch.tensor(RIGHT)).sum(1)
    for form in (nf.BinaryCrossEntropyLoss(0.4), nf.CrossEntropyLoss(0.4)):
        pairs = form.pairs(torch.tensor(LEFT), torch.tensor(RIGHT), same)
        assert torch.allclose(pairs, form.similarities(dot, same), rtol=1e-13)


# ------------------------------------------------------------ brute-force triplets


@cache
def _brute_force(loss, name):
    """Loss and gradient of every (a, p, n) of a batch by an honest triple loop, on Euclidean distances."""
    x, labels = BATCHES[name]
    d = np.array(oracles.table(loss, x.tolist()))
    total, count, g = 0.0, 0, np.zeros_like(x)
    for a in range(len(x)):
        for p in (i for i in range(len(x)) if i != a and labels[i] == labels[a]):
            for n in (i for i in range(len(x)) if labels[i] != labels[a]):
                z = d[a, p] - d[a, n] + loss.margin
                count += 1 if z > 0 or not loss.active_only else 0
                if z > 0:
                    total += z
                    pull = (x[a] - x[p]) / d[a, p] if d[a, p] else np.zeros_like(x[a])
                    push = (x[a] - x[n]) / d[a, n] if d[a, n] else np.zeros_like(x[a])
                    g[a] += pull - push
                    g[p] -= pull
                    g[n] += push
    return total / max(count, 1), g / max(count, 1)


# Whole coordinates, 2^k rows (an exact mean): many ties, and triplets exactly at the hinge.
GRID = RNG.integers(0, 3, size=(64, 2)) * 1.0
UNEQUAL = np.array([0] * 22 + [1] * 18 + [2] * 17 + [3] * 4 + [4] * 2 + [5])
SHUFFLED = RNG.permutation(64)
BATCHES = {
    "few positives": (RNG.normal(size=(14, 3)), np.arange(14) % 4),
    "many positives": (RNG.normal(size=(64, 3)), UNEQUAL[SHUFFLED]),
    "grid, few": (GRID[:16], np.arange(16) % 3),
    "grid, many": (GRID, UNEQUAL[SHUFFLED]),
    "two classes": (RNG.normal(size=(40, 2)), np.arange(40) % 2),
}


@frameworks
@pytest.mark.parametrize("active_only", [False, True])
@pytest.mark.parametrize("margin", [1.0, 0.25, 0.0])
@pytest.mark.parametrize("name", BATCHES)
def test_all_triplets_are_the_triple_loop(framework, active_only, margin, name):
    """Below and above 16 positives, where the loss counts by search: one set of triplets, to 1e-12."""
    x, labels = BATCHES[name]
    loss = nf.TripletLoss(margin=margin, active_only=active_only)
    expected, true = _brute_force(loss, name)
    for engine in ("dense", Strips(7)):
        value, (gradient,) = call(loss, array(x, framework, "float64"), labels, engine=engine)
        assert float(value) == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(plain(gradient), true, atol=1e-12)


@frameworks
def test_search_and_passes_choose_the_same_triplets(framework, monkeypatch):
    """Float32 on a grid: the search's count of active triplets is the loop's, and so is every weight."""
    x, labels = array(GRID, framework, "float32"), UNEQUAL[SHUFFLED]
    loss = nf.TripletLoss(margin=1.0, measure=nf.SquaredEuclidean())
    searched = call(loss, x, labels)
    monkeypatch.setattr("nearfar.losses.triplet_sums.FEW", 99)
    passed = call(loss, x, labels)
    assert float(searched[0]) == pytest.approx(float(passed[0]), rel=1e-6)
    np.testing.assert_allclose(plain(searched[1][0]), plain(passed[1][0]), atol=1e-6)


def test_search_with_weights():
    """The search counts weighted positives and negatives."""
    rng = np.random.default_rng(12)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(50, 3))
    positive = rng.integers(1, 4, size=(5, 50)) * (np.arange(50) < 25)
    negative = rng.integers(0, 3, size=(5, 50)) * (np.arange(50) >= 25)
    for active_only in (False, True):
        loss = nf.TripletLoss(margin=0.4, active_only=active_only)
        expected, *true = oracles.dense_gradients(loss, x, positive, negative, y)
        _same(call(loss, x, nf.Mask(positive, negative), y), (expected, true))


def test_semihard_anchor_matched():
    """Triplets belong to their anchor: moving rows of other classes' anchors changes nothing for this one."""
    loss = nf.TripletLoss(margin=0.5, mining="semihard")
    x, labels = BATCHES["few positives"]
    each = loss.per_anchor(x, labels, references=x, reference_labels=labels)
    moved = x.copy()
    moved[1] += 9
    again = loss.per_anchor(moved, labels, references=x, reference_labels=labels)
    np.testing.assert_array_equal(np.delete(each, 1), np.delete(again, 1))
    assert each[1] != again[1]


# ------------------------------------------------------------ given pairs

PAIR_LOSSES = {k: v for k, v in ALL_CASES.items() if hasattr(v, "pairs")}
DISTANCE_LOSSES = {k: v for k, v in ALL_CASES.items() if isinstance(v, nf.ContrastiveLoss)}
TRIPLET_LOSSES = {k: v for k, v in ALL_CASES.items() if isinstance(v, nf.TripletLoss)}


def _as_binary(loss):
    return nf.BinaryCrossEntropyLoss(loss.temperature, loss.measure) if isinstance(loss, nf.CrossEntropyLoss) else loss


def _pair_oracle(loss, d, same):
    """The loss of pairs listed one by one, from a column of the measure."""
    loss = _as_binary(loss)
    p = torch.tensor(same, dtype=torch.float64)[:, None]
    sums, counts = oracles.dense_on_table(loss, d, p, 1 - p)
    return sums.sum() / counts.sum()


@pytest.mark.parametrize("loss", PAIR_LOSSES.values(), ids=PAIR_LOSSES)
def test_pairs_are_the_loops(loss):
    name = type(loss.measure).__name__

    def theirs(a, b):
        d = torch.stack([oracles.dense_table(name, x[None], y[None])[0] for x, y in zip(a, b, strict=True)])
        return _pair_oracle(loss, d, SAME)

    for same in (SAME, SAME.astype(bool), SAME.tolist(), SAME.astype(float), torch.tensor(SAME)):
        _same(_backward(lambda a, b, s=same: loss.pairs(a, b, s), LEFT, RIGHT), _backward(theirs, LEFT, RIGHT))
    measured = [[oracles.MEASURES[name](a, b)] for a, b in zip(LEFT.tolist(), RIGHT.tolist(), strict=True)]
    expected, _ = oracles.loops_on_table(_as_binary(loss), measured, SAME[:, None].tolist(), 1 - SAME[:, None])
    assert float(loss.pairs(LEFT, RIGHT, SAME)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("loss", DISTANCE_LOSSES.values(), ids=DISTANCE_LOSSES)
def test_distances_are_the_loops(loss):
    distance = np.array([0.0, 0.3, 1.7, 1.0, 0.2, 0.9])
    ours = _backward(lambda d: loss.distances(d, SAME), distance)
    theirs = _backward(lambda d: _pair_oracle(loss, d[:, None], SAME), distance)
    if loss.powers[0] == 1 and loss.positive_margin >= 0:  # d itself has gradient 0 at 0 by the library's rule
        theirs[1][0][0] = 0.0
    _same(ours, theirs)
    assert ours[1][0].shape == (6,)
    assert float(loss.distances(distance, SAME)) == pytest.approx(float(ours[0]), rel=1e-15)


@pytest.mark.parametrize("loss", TRIPLET_LOSSES.values(), ids=TRIPLET_LOSSES)
def test_triplets_are_the_loops(loss):
    name = type(loss.measure).__name__

    def theirs(a, p, n):
        d = torch.stack([oracles.dense_table(name, a[i : i + 1], torch.stack([p[i], n[i]]))[0] for i in range(len(a))])
        z = d[:, 0] - d[:, 1] + loss.margin
        terms = torch.nn.functional.softplus(z, threshold=700.0) if loss.soft else torch.relu(z)
        return terms.sum() / ((z > 0).sum() if loss.active_only else len(a))

    _same(_backward(loss.triplets, LEFT, RIGHT, THIRD), _backward(theirs, LEFT, RIGHT, THIRD))
    assert float(loss.triplets(LEFT, RIGHT, THIRD)) == pytest.approx(
        float(theirs(*map(torch.tensor, (LEFT, RIGHT, THIRD)))), rel=1e-13
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_forms_keep_the_dtype(dtype):
    a, b, c = (array(v, "torch", dtype).requires_grad_() for v in (LEFT, RIGHT, THIRD))
    outs = [
        nf.ContrastiveLoss().pairs(a, b, SAME),
        nf.ContrastiveLoss().distances(a[:, 0].abs(), SAME),
        nf.TripletLoss().triplets(a, b, c),
        nf.BinaryCrossEntropyLoss().similarities(a[:, 0], SAME),
        nf.InfoNCELoss().views(a, b, c),
        nf.InfoNCELoss().aligned(a, b),
        (0.5 * nf.SupConLoss() + nf.ContrastiveLoss())(a, SAME),
        nf.CrossEntropyLoss()(a, SAME, class_weights=b[:2]),
    ]
    assert {o.dtype for o in outs} == {a.dtype}
    sum(outs).backward()
    assert all(v.grad.dtype == a.dtype and v.grad.isfinite().all() for v in (a, b, c))


def test_no_pairs_and_no_triplets():
    none = np.zeros((0, 4))
    assert float(nf.ContrastiveLoss().pairs(none, none, [])) == 0
    assert float(nf.TripletLoss().triplets(none, none, none)) == 0
    assert float(nf.ContrastiveLoss().distances(none[:, 0], [])) == 0
    assert float(nf.InfoNCELoss().views(none, none)) == 0
    assert float(nf.InfoNCELoss().aligned(none, none)) == 0


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_mining_looks_past_the_padding_of_a_mask(epsilon):
    """Lists of unlike length: what fills up the shorter ones may be the hardest negative."""
    x = np.random.default_rng(3).normal(size=(6, 3))
    x[4:] = x[0] + 0.1 * x[4:]
    positive = np.zeros((6, 6))
    positive[1, 2:4], positive[4, 5], positive[5, 3] = 1, 1, 1
    loss = nf.MultiSimilarityLoss(alpha=3.0, beta=4.0, base=0.3, epsilon=epsilon)
    negative = 1 - positive - np.eye(6)
    alone = [loss(x[k : k + 1], nf.Mask(positive[[k]], negative[[k]]), references=x) for k in (1, 4, 5)]
    together = loss(x, nf.Mask(positive, negative), references=x.copy())
    assert float(together) == pytest.approx(np.mean(alone), rel=1e-13)


@pytest.mark.parametrize("mining", ["all", "hard", "semihard", "easy", "easy-semihard"])
def test_triplets_of_a_mask_without_a_positive(mining):
    loss = nf.TripletLoss(mining=mining)
    value, gradient = loss.value_and_grad(LEFT, nf.Mask(np.zeros((6, 6))))
    assert (float(value), np.abs(gradient).max()) == (0, 0)


def test_forms_refuse_what_does_not_fit():
    message = r"expected .* got .*; "
    bad_calls = [
        lambda: nf.ContrastiveLoss().pairs(LEFT, RIGHT[:5], SAME),
        lambda: nf.ContrastiveLoss().pairs(LEFT, RIGHT, SAME[:5]),
        lambda: nf.ContrastiveLoss().pairs(LEFT, torch.tensor(RIGHT), SAME),
        lambda: nf.ContrastiveLoss().pairs(LEFT, RIGHT, SAME[:, None]),
        lambda: nf.ContrastiveLoss().distances(LEFT, SAME),
        lambda: nf.ContrastiveLoss().distances(LEFT[0], SAME),
        lambda: nf.BinaryCrossEntropyLoss().similarities(LEFT, SAME),
        lambda: nf.TripletLoss().triplets(LEFT, RIGHT, THIRD[:, :3]),
        lambda: nf.TripletLoss().triplets(LEFT, RIGHT[0], THIRD),
        lambda: nf.InfoNCELoss().views(LEFT),
        lambda: nf.InfoNCELoss().views(LEFT, RIGHT[:5]),
        lambda: nf.InfoNCELoss().views(LEFT, RIGHT[:, :3]),
        lambda: nf.InfoNCELoss().aligned(LEFT, RIGHT[:5]),
        lambda: nf.InfoNCELoss()(LEFT, SAME, class_weights=RIGHT),
        lambda: nf.InfoNCELoss()(LEFT, SAME, references=RIGHT),
        lambda: nf.InfoNCELoss()(LEFT, SAME, reference_labels=SAME),
        lambda: nf.InfoNCELoss()(LEFT, nf.Labels(SAME), ignore_label=1),
        lambda: nf.InfoNCELoss()(LEFT, nf.Mask(np.eye(5))),
        lambda: nf.InfoNCELoss()(LEFT, nf.Mask(np.eye(6), np.eye(5))),
        lambda: nf.InfoNCELoss()(LEFT, nf.Aligned()),
        lambda: nf.CrossEntropyLoss()(LEFT, SAME, class_weights=np.array(1.0)),
        lambda: nf.CrossEntropyLoss()(LEFT, SAME, references=RIGHT, reference_labels=SAME, class_weights=RIGHT),
        lambda: (nf.SupConLoss() + nf.ContrastiveLoss()).pairs(LEFT, RIGHT, SAME),
        lambda: (nf.TripletLoss() + nf.ContrastiveLoss()).triplets(LEFT, RIGHT, THIRD),
    ]
    for k, bad in enumerate(bad_calls):
        with pytest.raises(nf.InputError, match=message):
            pytest.fail(f"call {k} gave {bad()}")


# ------------------------------------------------------------ sums


@frameworks
def test_a_sum_is_the_sum(framework, batch, gallery):
    x, labels, y = array(batch[0], framework, "float64"), batch[1], array(gallery[0], framework, "float64")
    a, b, c = nf.SupConLoss(), nf.ContrastiveLoss(), nf.TripletLoss(mining="hard")
    total = 0.5 * a + b * 2 + c
    assert [f for f, _ in total.parts] == [0.5, 2.0, 1.0]
    for extra in ({}, {"references": y, "reference_labels": gallery[1]}):
        parts = [loss.value_and_grad(x, labels, **extra) for loss in (a, b, c)]
        value, gradients = total.value_and_grad(x, labels, **extra)
        gradients = gradients if extra else (gradients,)
        expected = sum(f * v for f, (v, _) in zip((0.5, 2, 1), parts, strict=True))
        true = [g if extra else (g,) for _, g in parts]
        summed = [sum(f * g[k] for f, g in zip((0.5, 2, 1), true, strict=True)) for k in range(len(gradients))]
        _same((value, gradients), (expected, summed), rel=1e-14)
        assert float(total(x, labels, **extra)) == pytest.approx(float(value), rel=1e-15)
        each = sum(f * loss.per_anchor(x, labels, **extra) for f, loss in zip((0.5, 2, 1), (a, b, c), strict=True))
        np.testing.assert_allclose(plain(total.per_anchor(x, labels, **extra)), plain(each), rtol=1e-14)
    assert float(sum([a, b])(x, labels)) == pytest.approx(float((a + b)(x, labels)))
    assert float((2 * (a + b))(x, labels)) == pytest.approx(2 * float((a + b)(x, labels)))


def test_a_sum_with_class_weights():
    weights = RIGHT[:3]
    labels = np.array([0, 2, 1, 1, 0, 2])
    total = nf.CrossEntropyLoss(0.5) + 0.3 * nf.ContrastiveLoss()
    value, (gx, gw) = total.value_and_grad(LEFT, labels, class_weights=weights)
    ce, (hx, hw) = nf.CrossEntropyLoss(0.5).value_and_grad(LEFT, labels, class_weights=weights)
    pairs, px = nf.ContrastiveLoss().value_and_grad(LEFT, labels)
    _same((value, (gx, gw)), (ce + 0.3 * pairs, (hx + 0.3 * px, hw)), rel=1e-14)
    _same(_backward(lambda a, w: total(a, labels, class_weights=w), LEFT, weights), (value, (gx, gw)), rel=1e-14)


def test_sums_of_forms():
    total = nf.ContrastiveLoss() + 2 * nf.BinaryCrossEntropyLoss()
    apart = float(nf.ContrastiveLoss().pairs(LEFT, RIGHT, SAME)) + 2 * float(
        nf.BinaryCrossEntropyLoss().pairs(LEFT, RIGHT, SAME)
    )
    assert float(total.pairs(LEFT, RIGHT, SAME)) == pytest.approx(apart)
    both = nf.InfoNCELoss() + nf.SupConLoss()
    assert float(both.views(LEFT, RIGHT)) == pytest.approx(2 * float(nf.InfoNCELoss().views(LEFT, RIGHT)))
    assert float(both.aligned(LEFT, RIGHT)) == pytest.approx(
        float(nf.InfoNCELoss().aligned(LEFT, RIGHT)) + float(nf.SupConLoss().aligned(LEFT, RIGHT))
    )
    for wrong in (lambda: total + 1, lambda: total * "2", lambda: total * True, lambda: 1 + total):
        with pytest.raises(TypeError):
            wrong()
