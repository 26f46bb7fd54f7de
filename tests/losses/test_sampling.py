"""Distance-weighted triplets: what is drawn, how often, and that a seed draws it again."""

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar.losses import sampling


def batch(n=40, features=6):
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, features)) + 0.8, np.arange(n) * 7 % 9


def test_every_anchor_and_positive_gets_a_negative_in_range():
    x, y = batch()
    anchor, positive, negative = nf.distance_weighted(x, y, seed=3)
    same = (y[:, None] == y) & ~np.eye(len(y), dtype=bool)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = np.linalg.norm(unit[:, None] - unit, axis=2)
    reached = ((d <= 1.4) & (y[:, None] != y)).any(1)
    assert {*zip(anchor.tolist(), positive.tolist(), strict=True)} == {
        (i, j) for i, j in np.argwhere(same).tolist() if reached[i]
    }
    assert (y[anchor] != y[negative]).all()
    assert (d[anchor, negative] <= 1.4).all()


def test_how_often_is_one_over_the_density():
    x, y = batch(12, 5)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = np.linalg.norm(unit[0] - unit, axis=1)
    near = np.maximum(d, 0.5)
    weight = np.where((d <= 1.4) & (y != y[0]), 1 / (near**3 * (1 - near**2 / 4)), 0.0)
    drawn = np.zeros(12)
    for seed in range(1500):
        anchor, _, negative = nf.distance_weighted(x, y, seed=seed)
        np.add.at(drawn, negative[anchor == 0], 1)
    expected = weight / weight.sum() * drawn.sum()
    assert (expected[weight > 0] > 5).all()
    assert (drawn[weight == 0] == 0).all()
    chi = ((drawn - expected)[weight > 0] ** 2 / expected[weight > 0]).sum()
    assert chi < 2.5 * (weight > 0).sum()


@pytest.mark.parametrize("features", [2, 3, 5])
def test_which_negative_a_draw_stands_for(features):
    """The first whose weight, summed with those before it, passes the draw's share of all."""
    x, y = batch(30, features)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = np.linalg.norm(unit[:, None] - unit, axis=2)
    near = np.clip(d, 0.4, 1.2)
    weight = near ** (2 - features) * (1 - near**2 / 4) ** ((3 - features) / 2)
    sums = np.cumsum(np.where((d <= 1.2) & (y[:, None] != y), weight, 0), axis=1)
    draws = np.random.default_rng(11).random((30, 4))  # The largest class has four members.
    expected = []
    for i in range(30):
        for draw, j in zip(draws[i], np.flatnonzero(y == y[i]), strict=False):
            if j != i and sums[i, -1] > 0:
                expected.append((i, j, int(np.argmax(sums[i] > draw * sums[i, -1]))))
    drawn = nf.distance_weighted(x, y, seed=11, nearest=0.4, farthest=1.2)
    assert sorted(zip(*(part.tolist() for part in drawn), strict=True)) == sorted(expected)


def test_a_seed_draws_it_again_whatever_the_strips_and_the_library(monkeypatch):
    x, y = batch()
    first = nf.distance_weighted(x, y, seed=5)
    monkeypatch.setattr(sampling, "tall", lambda _: 7)
    again = nf.distance_weighted(x, y, seed=5)
    other = nf.distance_weighted(torch.tensor(x), torch.tensor(y), seed=5)
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three.numpy())
    assert (nf.distance_weighted(x, y, seed=6)[2] != first[2]).any()


@pytest.mark.parametrize("n", [0, 1, 4])
def test_nothing_to_draw(n):
    for triplets in (nf.distance_weighted(np.ones((n, 3)), np.zeros(n, int), seed=0),
                     nf.distance_weighted(np.ones((n, 3)), np.arange(n), seed=0)):  # fmt: skip
        assert [len(part) for part in triplets] == [0, 0, 0]


def test_bad_input_is_named():
    x, y = batch()
    for wrong in ({"nearest": 0.0}, {"farthest": 2.0}, {"nearest": 1.5}):
        with pytest.raises(nf.InputError, match=r"0 < nearest < farthest < 2"):
            nf.distance_weighted(x, y, seed=0, **wrong)
    with pytest.raises(nf.InputError, match="two features"):
        nf.distance_weighted(x[:, :1], y, seed=0)
    with pytest.raises(nf.ShapeError, match="expected embeddings of shape"):
        nf.distance_weighted(x[0], y, seed=0)
