"""Relations alone: lists of positives, weights of negatives, counts and totals, on every strip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nearfar as nf
import oracles
from cases import array, plain
from nearfar._arrays import namespace
from nearfar.relations import Rows
from nearfar.relations.masks import MaskPair
from nearfar.relations.paired import Paired
from nearfar.relations.whole import WholePair

LABELS = np.array([4, 2, 4, 9, 2, 4, 7])
OTHER = np.array([2, 2, 5, 4, 9, 9])
frameworks = pytest.mark.parametrize("framework", ["numpy", "torch"])
HEIGHTS = (1, 3, 7)


def matrices(relation, framework, apart, rows):
    """Positive and negative weights that the strips of a relation amount to, with counts and totals."""
    x = array(np.zeros((7, 2)), framework, "float64")
    y = array(np.zeros((6, 2)), framework, "float64") if apart else None
    xp = namespace(x=x)
    relation, kept, columns = relation.kept(xp, x, y)
    if kept is not None:
        x, y = x[kept], None if y is None else y[columns]
    bound, width = relation.bind(xp, x, y), (x if y is None else y).shape[0]
    positive, negative, facts = [], [], []
    for start in range(0, x.shape[0], rows):
        stop = min(start + rows, x.shape[0])
        pair = bound.strip(start, stop)
        empty = xp.zeros((stop - start, width), dtype=xp.float64)
        positive.append(plain(pair.add(xp.asarray(empty, copy=True), pair.weight)))
        negative.append(plain(pair.weigh(pair.negatives(empty + 1, 0.0))))
        valid = plain(pair.valid_logits(xp.asarray(empty, copy=True)))
        against = plain(pair.negative_logits(xp.asarray(empty, copy=True)))
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(np.exp(valid), positive[-1] + negative[-1], rtol=1e-14)
            np.testing.assert_allclose(np.exp(against), negative[-1], rtol=1e-14)
        np.testing.assert_allclose(plain(pair.positive_count)[:, 0], positive[-1].sum(1))
        np.testing.assert_allclose(plain(pair.negative_count)[:, 0], negative[-1].sum(1))
        share = plain(pair.share).sum(1)
        np.testing.assert_allclose(share, positive[-1].sum(1) > 0)
        facts.append((float(pair.positive_total), float(pair.negative_total)))
    positive, negative = np.concatenate(positive), np.concatenate(negative)
    assert set(facts) == {(positive.sum(), negative.sum())}
    return positive, negative


@frameworks
@pytest.mark.parametrize("rows", HEIGHTS)
def test_labels_of_a_batch(framework, rows):
    positive, negative = matrices(nf.Labels(LABELS), framework, False, rows)
    expected = oracles.relation(LABELS)
    assert positive.tolist() == expected[0]
    assert negative.tolist() == expected[1]


@frameworks
@pytest.mark.parametrize("rows", HEIGHTS)
def test_labels_with_references(framework, rows):
    positive, negative = matrices(nf.Labels(LABELS, OTHER), framework, True, rows)
    expected = oracles.relation(LABELS, OTHER)
    assert positive.tolist() == expected[0]
    assert negative.tolist() == expected[1]


@frameworks
@pytest.mark.parametrize("rows", HEIGHTS)
def test_ignored_labels(framework, rows):
    positive, negative = matrices(nf.Labels(LABELS, ignore=4), framework, False, rows)
    stay = LABELS != 4
    assert [positive.tolist(), negative.tolist()] == list(oracles.relation(LABELS[stay]))
    positive, negative = matrices(nf.Labels(LABELS, OTHER, ignore=2), framework, True, rows)
    assert [positive.tolist(), negative.tolist()] == list(oracles.relation(LABELS[LABELS != 2], OTHER[OTHER != 2]))


@frameworks
@pytest.mark.parametrize("rows", HEIGHTS)
def test_strings_share_one_book(framework, rows):
    words, others = [f"c{v}" for v in LABELS], [f"c{v}" for v in OTHER]
    for own, other in ((words, others), (np.array(words), np.array(others)), (np.array(words, dtype=object), others)):
        positive, _ = matrices(nf.Labels(own, other), framework, True, rows)
        assert positive.tolist() == oracles.relation(LABELS, OTHER)[0]
    positive, _ = matrices(nf.Labels(words, others, ignore="c9"), framework, True, rows)
    assert positive.tolist() == oracles.relation(LABELS[LABELS != 9], OTHER[OTHER != 9])[0]
    positive, _ = matrices(nf.Labels(words, ignore="unknown"), framework, False, rows)
    assert positive.tolist() == oracles.relation(LABELS)[0]


@frameworks
@pytest.mark.parametrize("rows", HEIGHTS)
def test_mask(framework, rows):
    rng = np.random.default_rng(2)
    given = rng.integers(0, 3, size=(2, 7, 6)).astype(float)
    given[1][given[0] > 0] = 0
    positive, negative = matrices(nf.Mask(*given), framework, True, rows)
    assert np.array_equal(positive, given[0])
    assert np.array_equal(negative, given[1])
    positive, negative = matrices(nf.Mask(given[0]), framework, True, rows)
    assert np.array_equal(negative, given[0] == 0)
    square = rng.integers(0, 2, size=(7, 7)).astype(float)
    positive, negative = matrices(nf.Mask(square), framework, False, rows)
    apart = 1 - np.eye(7)
    assert np.array_equal(positive, square * apart)
    assert np.array_equal(negative, (1 - square) * apart)


@frameworks
@pytest.mark.parametrize("rows", HEIGHTS)
def test_aligned(framework, rows):
    x = array(np.zeros((7, 2)), framework, "float64")
    bound = nf.Aligned().bind(namespace(x=x), x, x)
    for start in range(0, 7, rows):
        pair = bound.strip(start, min(start + rows, 7))
        assert plain(pair.index)[:, 0].tolist() == list(range(start, min(start + rows, 7)))
        assert (plain(pair.negative_count) == 6).all()


def test_a_masks_arrays_are_not_changed():
    positive, negative = np.eye(6)[:, ::-1].copy(), np.ones((6, 6))
    kept = positive.copy(), negative.copy()
    positive.flags.writeable = negative.flags.writeable = False
    x = np.random.default_rng(0).normal(size=(6, 3))
    nf.SupConLoss().value_and_grad(x, nf.Mask(positive, negative))
    tensors = torch.tensor(kept[0]), torch.tensor(kept[1])
    nf.SupConLoss().value_and_grad(torch.tensor(x), nf.Mask(*tensors))
    assert np.array_equal(tensors[0], kept[0])
    assert np.array_equal(tensors[1], kept[1])


def test_many_labels_stay_apart():
    """Neighbouring integers beyond 2^24 and 2^53 are other classes, in every library."""
    for base in (2**24, 2**53, 2**62):
        labels = base + np.array([0, 1, 0, 1, 2, 2, 3])
        for framework in ("numpy", "torch"):
            positive, _ = matrices(nf.Labels(labels), framework, False, 7)
            assert positive.tolist() == oracles.relation(labels)[0]


@frameworks
@pytest.mark.parametrize("rows", HEIGHTS)
@pytest.mark.parametrize(("further", "queries_too"), [(0, False), (0, True), (6, True), (6, False)])
def test_queries_and_documents(framework, rows, further, queries_too):
    """Three queries, their documents, six more documents; then perhaps the queries once more."""
    x, y = (array(np.zeros((n, 2)), framework, "float64") for n in (3 + further, 9 + 3 * queries_too))
    bound = Paired(3, 6, queries_too).bind(namespace(x=x), x, y)
    positive, negative, found = np.zeros((2, x.shape[0], y.shape[0])), [], []
    for i in range(x.shape[0]):
        itself = (i, 9 + i) if i < 3 else (i % 3, *range(3, y.shape[0]))  # What follows the queries meets documents.
        positive[0, i, i % 3] = i < 3
        positive[1, i] = [c not in itself for c in range(y.shape[0])]
    for start in range(0, x.shape[0], rows):
        pair = bound.strip(start, min(start + rows, x.shape[0]))
        ones = array(np.ones((min(start + rows, x.shape[0]) - start, y.shape[0])), framework, "float64")
        found.append(plain(pair.add(0 * ones, pair.weight)))
        negative.append(plain(pair.weigh(pair.negatives(1 * ones, 0.0))))
        assert plain(pair.negative_count)[:, 0].tolist() == negative[-1].sum(1).tolist()
        assert plain(pair.positive_count)[:, 0].tolist() == found[-1].sum(1).tolist()
        assert np.isfinite(plain(pair.negative_logits(1 * ones))).tolist() == (negative[-1] > 0).tolist()
        assert np.isfinite(plain(pair.valid_logits(1 * ones))).tolist() == (negative[-1] + found[-1] > 0).tolist()
        assert (float(pair.positive_total), float(pair.negative_total)) == (positive[0].sum(), positive[1].sum())
    assert np.concatenate(found).tolist() == positive[0].tolist()
    assert np.concatenate(negative).tolist() == positive[1].tolist()


def test_a_guide_keeps_negatives_as_near_as_the_positive():
    labels, guide = np.array([0, 0, 1, 1, 2, 2, 3]), np.eye(2)[[0, 1, 0, 1, 0, 1, 1]]
    positive, negative = matrices(nf.Guided(nf.Labels(labels), guide), "numpy", False, 3)
    right, wrong = oracles.relation(labels)
    assert positive.tolist() == right
    # The positives have cosine 0; the last anchor has none and keeps all.
    far = guide @ guide.T == 0
    far[6] = True
    assert negative.tolist() == (np.array(wrong) * far).tolist()


@pytest.mark.parametrize("wrong", [0, 1])
def test_answers_of_another_shape_are_named(wrong):
    given = [np.ones((4, 1)), np.zeros((4, 1))]
    given[wrong] = given[wrong][:3]
    x = np.zeros((4, 1))
    with pytest.raises(nf.ShapeError, match=r"one answer for each of \(4, 1\) pairs"):
        Rows(*given).weights(namespace(x=x), x)


@frameworks
@pytest.mark.parametrize("uniform", [True, False])
def test_a_list_of_all_references_says_what_a_mask_says(framework, uniform):
    rng = np.random.default_rng(4)
    given = rng.integers(0, 2, size=(5, 6)).astype(float)
    given = np.stack([given, (1 - given) * (rng.random((5, 6)) > 0.2)])
    given[0, 2] = 0
    if not uniform:
        given = given * rng.uniform(0.2, 3.0, size=given.shape)
    table, values = rng.normal(size=(2, 5, 6))
    positive, negative = (array(v, framework, "float64") for v in given)
    x = array(table, framework, "float64")
    xp = namespace(x=x)
    totals = xp.sum(positive), xp.sum(negative)
    whole = WholePair(xp, positive, negative, totals, uniform)
    mask = MaskPair(xp, positive, negative, lambda: totals)
    assert (whole.positive_total, whole.negative_total) == totals
    for fact in ("positive_count", "negative_count"):
        assert plain(getattr(whole, fact)).tolist() == plain(getattr(mask, fact)).tolist()
    whole_share, mask_share = (plain(p.add(x * 0, p.share)) for p in (whole, mask))
    np.testing.assert_allclose(whole_share, mask_share, rtol=1e-15)
    assert plain(whole.index).tolist() == [list(range(6))] * 5
    assert plain(whole.add(x * 1, array(values, framework, "float64"))).tolist() == (table + values).tolist()
    copy = whole.take(x)
    copy *= 0
    assert plain(x).tolist() == table.tolist()
    for said in ("negative_logits", "valid_logits"):
        ours, theirs = (plain(getattr(p, said)(x * 1)) for p in (whole, mask))
        np.testing.assert_allclose(ours, theirs, rtol=1e-15)
    ours, theirs = (plain(p.weigh(p.negatives(x * 1, 0.0))) for p in (whole, mask))
    assert ours.tolist() == theirs.tolist()
    assert plain(whole.negatives(x * 1, 7.0)).tolist() == np.where(given[1] != 0, table, 7.0).tolist()


@pytest.mark.parametrize("name", ["guided", "tags", "function", "mask", "labels"])
def test_totals_of_a_tall_table(name):
    """Taller than any strip in which totals are summed."""
    rng = np.random.default_rng(6)
    labels, x = np.arange(300) % 4, np.zeros((300, 2))
    same = (labels[:, None] == labels) & ~np.eye(300, dtype=bool)
    relation = {
        "guided": nf.Guided(nf.Labels(labels), rng.normal(size=(300, 3))),
        "tags": nf.MultiLabels(rng.integers(0, 2, size=(300, 3)), graded=True),
        "function": nf.Pairwise(lambda i, j: (same[i[:, None], j] * 0.5, ~same[i[:, None], j] * (1.0 + i[:, None]))),
        "mask": nf.Mask(same * 2.0, ~same * (labels + 1.0)),
        "labels": nf.Labels(labels),
    }[name]
    bound = relation.bind(namespace(x=x), x, None)
    pairs = [bound.strip(start, min(start + 77, 300)) for start in range(0, 300, 77)]
    for side in ("positive", "negative"):
        total = sum(float(getattr(pair, f"{side}_count").sum()) for pair in pairs)
        assert total > 0
        assert [float(getattr(pair, f"{side}_total")) for pair in pairs] == pytest.approx([total] * 4, rel=1e-12)


def test_defaults_of_relations():
    guided = nf.Guided(nf.Labels([0]), np.ones((1, 2)))
    assert (guided.margin, guided.relative, guided.reference_guide) == (0.0, False, None)
    assert (nf.MultiLabels([[1]]).graded, nf.Labels([0]).ignore_references) == (False, True)
