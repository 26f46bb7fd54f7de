import numpy as np
import pytest

from nearfar._errors import InputError, ShapeError
from nearfar.metrics import (
    class_bootstrap,
    fnmr_at_fmr,
    mean_sd,
    pair_scores,
    paired_difference_interval,
    retrieval_interval,
    student_t_quantile,
    verification_interval,
)
from nearfar.metrics._bootstrap import (
    accepted_shares,
    draw_weights,
    impostor_totals,
    rejected_shares,
    sort_impostors,
    spent_ranks,
)


def sample(classes=7, each=4, seed=0, groups=False):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), rng.integers(2, each + 1, classes))
    x = rng.normal(size=(classes, 3))[labels] + 0.7 * rng.normal(size=(len(labels), 3))
    scores = np.round(-np.linalg.norm(x[:, None] - x, axis=2), 1)  # rounding makes ties
    scores[0, 3] = np.nan
    return pair_scores(scores, labels, groups=labels // 2 if groups else None)


def repeated(pairs, weights):
    """The pairs of one draw, each written out as often as it weighs."""
    genuine = np.repeat(pairs.genuine, weights[pairs.genuine_unit].astype(int))
    left, right = pairs.impostor_left, pairs.impostor_right
    times = np.where(left == right, weights[left], weights[left] * weights[right]).astype(int)
    return genuine, np.repeat(pairs.impostor, times)


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("fmr", [0.0, 0.03, 0.1, 0.6, 1.0])
def test_vertex_bootstrap_equals_pairs_written_out(fmr, groups, monkeypatch):
    monkeypatch.setattr("nearfar.metrics._bootstrap._CELLS", 300)  # several blocks
    pairs = sample(groups=groups)
    impostors = sort_impostors(pairs)
    weights = draw_weights(pairs.unit_count, 60, seed=5)
    ranks = spent_ranks(impostors, weights, fmr)
    totals, missed = impostor_totals(impostors, weights), rejected_shares(pairs, impostors, weights, ranks)
    accepted = accepted_shares(impostors, weights, 9)
    for draw in range(60):
        genuine, impostor = repeated(pairs, weights[:, draw])
        assert totals[draw] == len(impostor)
        if len(impostor) == 0 or len(genuine) == 0:
            continue
        assert missed[draw] == pytest.approx(fnmr_at_fmr(genuine, impostor, fmr)[0], abs=1e-12)
        top = repeated_top(impostors, weights[:, draw], 9)
        assert accepted[draw] == pytest.approx(top / len(impostor), abs=1e-12)


def repeated_top(impostors, weights, rank):
    mass = 0.0
    for a, b in zip(impostors.left[:rank], impostors.right[:rank], strict=True):
        mass += weights[a] if a == b else weights[a] * weights[b]
    return mass


def test_verification_interval():
    pairs = sample(classes=12, each=6, seed=3)
    found = verification_interval(pairs, 0.05, draws=400, seed=1)
    assert found.value == fnmr_at_fmr(pairs.genuine, pairs.impostor, 0.05)[0]
    assert found.low <= found.value <= found.high
    assert found.low < found.high
    assert (found.n, found.unit) == (12, "classes")
    assert found == verification_interval(pairs, 0.05, draws=400, seed=1)
    assert found != verification_interval(pairs, 0.05, draws=400, seed=2)
    assert set(found.as_dict()) == {"value", "low", "high", "n", "unit"}


def test_retrieval_interval_is_the_class_bootstrap_of_the_mean():
    rng = np.random.default_rng(8)
    classes = np.array(list("aaabbbbbccddddddee"))
    values = rng.random(18)
    values[[2, 16, 17]] = np.nan  # class e has no value at all
    found = retrieval_interval(values, classes, draws=300, seed=6)

    def mean(weights):
        drawn = [
            value
            for w, name in zip(weights, "abcd", strict=True)
            for value in values[classes == name].tolist() * int(w)
            if not np.isnan(value)
        ]
        return float(np.mean(drawn))

    expected = class_bootstrap(mean, 4, draws=300, seed=6)
    assert found.value == pytest.approx(np.nanmean(values))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.n == 4


def test_interval_counts_classes_not_queries():
    rng = np.random.default_rng(9)
    level = rng.random(10)
    narrow = retrieval_interval(np.repeat(level, 2), np.repeat(np.arange(10), 2))
    many = retrieval_interval(np.repeat(level, 200), np.repeat(np.arange(10), 200))
    assert (narrow.low, narrow.high) == pytest.approx((many.low, many.high))


def test_class_bootstrap_leaves_out_undefined_draws():
    found = class_bootstrap(lambda w: float(w[0]) if w[0] else float("nan"), 3, draws=200)
    assert found.low >= 1
    with pytest.raises(InputError, match="NaN in all"):
        class_bootstrap(lambda w: float("nan"), 3, draws=5)


def test_student_t_quantile_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 3, 4, 5, 7, 8, 30, 199):
        for probability in (0.01, 0.5, 0.9, 0.975, 0.9995):
            expected = stats.t.ppf(probability, degrees)
            assert student_t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_paired_difference_interval():
    a, b = np.array([0.10, 0.22, 0.31, 0.05]), np.array([0.12, 0.33, 0.52, 0.06])
    found = paired_difference_interval(a, b)
    half = 3.182446305284263 * (a - b).std(ddof=1) / 2
    assert (found.value, found.low, found.high) == pytest.approx((-0.0875, -0.0875 - half, -0.0875 + half))
    assert (found.n, found.unit) == (4, "folds")
    assert paired_difference_interval(b, a).value == pytest.approx(0.0875)


def test_named_errors():
    assert np.isnan(mean_sd([4.0])[1])
    with pytest.raises(InputError, match="at least 1"):
        mean_sd([])
    with pytest.raises(InputError, match="finite"):
        mean_sd([1.0, np.nan])
    with pytest.raises(ShapeError, match="one length"):
        paired_difference_interval([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="at least 2"):
        paired_difference_interval([1.0], [2.0])
    with pytest.raises(InputError, match="at least 2 classes"):
        retrieval_interval([1.0, 0.0], ["a", "a"])
    with pytest.raises(InputError, match="genuine and impostor"):
        verification_interval(pair_scores(np.zeros((3, 3)), [1, 2, 3]), 0.01)
    with pytest.raises(InputError, match="expected draws to be a whole number, 1 or more"):
        verification_interval(sample(), 0.01, draws=0)
    with pytest.raises(InputError, match="probability"):
        student_t_quantile(1.0, 3)
