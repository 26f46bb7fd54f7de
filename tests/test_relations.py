"""Relations alone: lists of positives, weights of negatives, counts and totals, on every strip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nearfar as nf
import oracles
from cases import array, plain
from nearfar._arrays import namespace

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
