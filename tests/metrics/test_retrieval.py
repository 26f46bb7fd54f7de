from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar._errors import InputError, ShapeError
from nearfar.metrics import (
    average_precision,
    map_at_r,
    precision_at_1,
    r_precision,
    rank_metrics,
    recall_at_k,
    reciprocal_rank,
)


def oracle(scores, query_labels, reference_labels, exclude_self, ks):
    """Mean over every order of every tie, by brute force; a NaN is behind all numbers and never a hit."""
    whole = ["average_precision", "reciprocal_rank"]
    names = ["precision_at_1", *[f"recall_at_{k}" for k in ks], "r_precision", "map_at_r", *whole]
    out = {name: [] for name in names}
    for i, row in enumerate(scores):
        items = [
            (s, query_labels[i] == reference_labels[j]) for j, s in enumerate(row) if not (exclude_self and i == j)
        ]
        relevant = sum(hit for _, hit in items)
        if relevant == 0:
            for values in out.values():
                values.append(np.nan)
            continue
        real = [(s, h) for s, h in items if not np.isnan(s)]
        seen = {name: [] for name in out}
        for order in permutations(real):
            if any(order[p][0] < order[p + 1][0] for p in range(len(order) - 1)):
                continue
            hits = [bool(h) for _, h in order] + [False] * (len(items) - len(real))
            seen["precision_at_1"].append(float(hits[0]))
            for k in ks:
                seen[f"recall_at_{k}"].append(float(any(hits[:k])))
            seen["r_precision"].append(sum(hits[:relevant]) / relevant)
            gain = sum(sum(hits[: k + 1]) / (k + 1) for k in range(relevant) if hits[k])
            seen["map_at_r"].append(gain / relevant)
            gain = sum(sum(hits[: k + 1]) / (k + 1) for k, hit in enumerate(hits) if hit)
            seen["average_precision"].append(gain / relevant)
            seen["reciprocal_rank"].append(1 / (hits.index(True) + 1) if True in hits else 0.0)
        for name, values in out.items():
            values.append(float(np.mean(seen[name])))
    return {name: np.array(values) for name, values in out.items()}


def whole_ranking(*given):
    return {rule.__name__: rule(*given) for rule in (average_precision, reciprocal_rank)}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_all_metrics_equal_the_mean_over_all_orders_of_ties(data):
    n = data.draw(st.integers(2, 6))
    values = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 3.0, -np.inf, np.nan])
    scores = np.array(data.draw(st.lists(st.lists(values, min_size=n, max_size=n), min_size=n, max_size=n)))
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    found = rank_metrics(scores, labels, k=[2, 3]) | whole_ranking(scores, labels)
    for name, expected in oracle(scores, labels, labels, True, [2, 3]).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_rectangular_table_with_other_references():
    rng = np.random.default_rng(5)
    scores = rng.integers(-2, 3, (4, 6)).astype(float)
    queries, references = np.array(["a", "b", "zz", "a"]), np.array(["b", "a", "a", "c", "b", "a"])
    found = rank_metrics(scores, queries, references, k=[1, 4]) | whole_ranking(scores, queries, references)
    for name, expected in oracle(scores, queries, references, False, [1, 4]).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-12)
    assert np.isnan(found["map_at_r"]).tolist() == [False, False, True, False]
    np.testing.assert_array_equal(found["precision_at_1"], precision_at_1(scores, queries, references))
    np.testing.assert_array_equal(found["recall_at_4"], recall_at_k(scores, queries, references, k=4))
    np.testing.assert_array_equal(found["r_precision"], r_precision(scores, queries, references))
    np.testing.assert_array_equal(found["map_at_r"], map_at_r(scores, queries, references))


@pytest.mark.parametrize("change", [np.exp, lambda s: s - 100.0, lambda s: 1e6 * s**3, np.arctan])
def test_unchanged_by_an_increasing_map(change):
    rng = np.random.default_rng(7)
    scores = rng.integers(-6, 6, (23, 23)) / 4
    labels = rng.integers(0, 5, 23)
    before, after = rank_metrics(scores, labels), rank_metrics(change(scores), labels)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])


def test_order_of_the_data_does_not_matter_and_collapse_scores_chance():
    labels = np.repeat(np.arange(4), 5)  # sorted by class: dataset order would score 1
    found = rank_metrics(np.ones((20, 20)), labels)
    np.testing.assert_allclose(found["precision_at_1"], 4 / 19)
    np.testing.assert_allclose(found["r_precision"], 4 / 19)
    rng = np.random.default_rng(11)
    scores, shuffle = rng.integers(0, 4, (20, 20)).astype(float), rng.permutation(20)
    plain = rank_metrics(scores, labels)
    mixed = rank_metrics(scores[np.ix_(shuffle, shuffle)], labels[shuffle])
    for name, values in plain.items():
        np.testing.assert_allclose(values[shuffle], mixed[name], rtol=1e-12, err_msg=name)


def test_large_ids_do_not_collide():
    labels = np.array([2**24, 2**24 + 1, 2**53, 2**53 + 1, 2**24])
    scores = -np.abs(np.arange(5.0)[:, None] - np.arange(5.0))
    assert np.isnan(map_at_r(scores, labels)).tolist() == [False, True, True, True, False]


def test_many_strips_equal_one(monkeypatch):
    rng = np.random.default_rng(13)
    scores, labels = rng.normal(size=(31, 31)), rng.integers(0, 6, 31)
    whole = rank_metrics(scores, labels)
    monkeypatch.setattr("nearfar.metrics._ranking._CELLS", 70)
    for name, values in rank_metrics(scores, labels).items():
        np.testing.assert_array_equal(values, whole[name])


def test_nan_is_last_and_never_a_hit():
    scores = np.array([[0.0, np.nan, -5.0, -9.0]])
    found = rank_metrics(scores, [1], [2, 1, 1, 2], k=[4])
    assert found["map_at_r"].tolist() == [0.25]
    assert rank_metrics(np.full((3, 3), np.nan), [1, 1, 1])["precision_at_1"].tolist() == [0.0] * 3


def test_degenerate_inputs():
    assert map_at_r(np.zeros((0, 0)), np.zeros(0, dtype=int)).shape == (0,)
    assert np.isnan(map_at_r(np.zeros((1, 1)), [3])).all()
    assert np.isnan(map_at_r(np.zeros((2, 0)), [3, 4], np.zeros(0, dtype=int))).all()
    assert recall_at_k([[1.0, 0.0]], [1], [2, 1], k=50).tolist() == [1.0]
    with pytest.raises(ShapeError, match="square"):
        map_at_r(np.zeros((2, 3)), [1, 2])
    with pytest.raises(ShapeError, match="query_labels"):
        map_at_r(np.zeros((2, 2)), [1, 2, 3])
    with pytest.raises(ShapeError, match="2 axes"):
        map_at_r(np.zeros(4), [1, 2, 3, 4])
    with pytest.raises(InputError, match="floats"):
        map_at_r(np.zeros((2, 2)), np.array([1.0, 2.0]))
    with pytest.raises(InputError, match="one kind"):
        map_at_r(np.zeros((1, 2)), [1], ["1", "2"])
    with pytest.raises(InputError, match="infinity"):
        map_at_r(np.full((2, 2), np.inf), [1, 1])
    with pytest.raises(InputError, match="expected k to be a whole number, 1 or more"):
        recall_at_k(np.zeros((2, 2)), [1, 1], k=0)
