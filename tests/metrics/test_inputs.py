"""What people hand to a metric: tensors of any dtype, lists, words, masks; the answer or a helping error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearfar import metrics
from nearfar._errors import InputError, NearfarError

SCORES, SAME = [0.125, 0.5, 0.75, 0.25], [0, 1, 1, 0]
OF_SCORES = {
    "auc": lambda s: metrics.auc(s, [0.1, 0.4]),
    "accept_rate": lambda s: metrics.accept_rate(s, [0.4]).tolist(),
    "thresholds": lambda s: metrics.accept_rate([0.1, 0.4], s).tolist(),
    "brier": lambda s: metrics.brier(s, SAME),
    "log_loss": lambda s: metrics.log_loss(s, SAME),
    "platt": lambda s: metrics.platt(s, SAME),
    "probability": lambda s: metrics.Platt(1.0, 0.0, 0.5).probability(s).tolist(),
    "fpir": lambda s: metrics.fpir(s, 0.3),
    "mean_sd": metrics.mean_sd,
}


@pytest.mark.parametrize("name", OF_SCORES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_tensors_are_their_numbers(name, dtype):
    """Numbers that every dtype holds; a tensor of a graph as well."""
    tensor = torch.tensor(SCORES, dtype=dtype, requires_grad=True)
    assert OF_SCORES[name](tensor) == OF_SCORES[name](SCORES)


@pytest.mark.parametrize("name", OF_SCORES)
@pytest.mark.parametrize(
    "scores",
    [["a", "b", "c", "d"], [1j, 2, 3, 4], np.ma.array(SCORES, mask=[0, 1, 0, 0]), [[0.1], [0.2, 0.3]], [None] * 4],
    ids=["words", "complex", "masked", "ragged", "nothing"],
)
def test_what_is_no_number_is_refused(name, scores):
    with pytest.raises(NearfarError, match=r"expected .*, got .*; "):
        OF_SCORES[name](scores)


@pytest.mark.parametrize("value", [None, "0.1", float("nan"), -0.1, 1.5])
def test_rates_are_rates(value):
    pairs = metrics.pair_scores(np.eye(6), [0, 0, 1, 1, 2, 2])
    for call in (
        lambda: metrics.threshold_at_fmr(pairs, value),
        lambda: metrics.fnmr_at_fmr([0.1], [0.2], value),
        lambda: metrics.open_set_threshold([0.1, 0.2], value),
        lambda: metrics.student_t_quantile(value, 3),
    ):
        with pytest.raises(InputError, match="between 0 and 1"):
            call()


@pytest.mark.parametrize("count", [0, -1, 2.5, True, None, "2"])
def test_counts_are_counts(count):
    for call in (
        lambda: metrics.recall_at_k(np.eye(4), [0, 0, 1, 1], k=count),
        lambda: metrics.class_bootstrap(lambda w: float(w.sum()), 5, draws=count),
        lambda: metrics.expected_calibration_error(SCORES, SAME, bins=count),
        lambda: metrics.student_t_quantile(0.9, count),
    ):
        with pytest.raises(InputError, match="a whole number"):
            call()


def test_labels_of_two_kinds():
    with pytest.raises(InputError, match="of one kind, got NoneType, int, str"):
        metrics.map_at_r(np.eye(4), np.array(["a", 1, None, "a"], dtype=object))


@pytest.mark.parametrize("seed", [None, -1, 1.5, "1"])
def test_a_seed_is_explicit(seed):
    with pytest.raises(InputError, match="expected seed to be a whole number, 0 or more"):
        metrics.class_bootstrap(lambda w: float(w.sum()), 5, seed=seed)


def test_what_is_no_such_argument():
    for call, words in (
        (lambda: metrics.threshold_at_fmr(SCORES, 0.1), "expected pairs, got"),
        (lambda: metrics.verification_interval(None, 0.1), "expected pairs, got NoneType"),
        (lambda: metrics.class_bootstrap(0.5, 5), "to be a function of weights, got float"),
        (lambda: metrics.rank_metrics(np.eye(4), [0, 0, 1, 1], k=3), "k to be several places, got 3"),
    ):
        with pytest.raises(InputError, match=words):
            call()
