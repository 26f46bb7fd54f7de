import numpy as np
import pytest

from nearfar._errors import InputError
from nearfar.metrics import fnmr_at_fmr, fpir, open_set_threshold, pair_scores, threshold_at_fmr, tpir
from nearfar.metrics._bootstrap import accepted_shares, draw_weights, sort_impostors
from nearfar.metrics._wilson import WilsonLimit


def items(classes, each, rng, dim=8):
    """Unit vectors around class centres that lie unevenly: some are often taken for others."""
    labels = np.repeat(np.arange(classes), each)
    centre = rng.normal(size=(classes, dim)) + 0.5 * rng.normal(size=dim)
    x = centre[labels] + 0.5 * rng.normal(size=(len(labels), dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels


def sample(classes, each=6, seed=0, groups=False):
    x, labels = items(classes, each, np.random.default_rng(seed))
    return pair_scores(np.round(x @ x.T, 2), labels, groups=labels // 2 if groups else None)


def test_certified_threshold_is_the_lowest_whose_limit_stays_within_the_target():
    pairs = sample(25, seed=1)
    found = threshold_at_fmr(pairs, 0.05, draws=300, seed=2)
    assert found.certified
    assert found.reason.startswith("certified")
    assert (found.classes, found.classes_missing) == (25, 0)
    assert np.mean(pairs.impostor >= found.value) <= found.fmr_upper <= 0.05
    assert found.value > fnmr_at_fmr(pairs.genuine, pairs.impostor, 0.05)[1]
    impostors, weights = sort_impostors(pairs), draw_weights(25, 300, 2)
    allowed = int(np.sum(pairs.impostor >= fnmr_at_fmr(pairs.genuine, pairs.impostor, 0.05)[1]))
    wilson = WilsonLimit(impostors, allowed, 0.95).upper(allowed)
    for rank in range(allowed + 1):  # plain scan over all cuts
        drawn = np.sort(accepted_shares(impostors, weights, rank))
        if impostors.scores[rank] < found.value and impostors.above(rank) == rank:
            assert impostors.scores[rank] == np.nextafter(found.value, -1)
            assert max(drawn[299 - 15], wilson[rank]) == pytest.approx(found.fmr_upper)
            following = impostors.above(rank) + int(np.sum(impostors.scores == impostors.scores[rank]))
            worse = np.sort(accepted_shares(impostors, weights, following))[299 - 15]
            assert following > allowed or max(worse, wilson[following]) > 0.05
            break
    else:
        pytest.fail("the threshold is at no cut")


@pytest.mark.parametrize("groups", [False, True])
def test_wilson_variance_equals_the_sum_over_pairs_of_pairs(groups):
    pairs = sample(8, each=4, seed=4, groups=groups)
    impostors = sort_impostors(pairs)
    units, n = pairs.unit_count, len(impostors.scores)
    effect = WilsonLimit(impostors, 90, 0.95)._design_effect(90)
    assert groups or effect[90] > 1.2  # else the floor of 1 would hide it
    sides = [{int(a), int(b)} for a, b in zip(impostors.left, impostors.right, strict=True)]
    for accepted in (0, 1, 30, 90):
        p = accepted / n
        e = (np.arange(n) < accepted) - p
        variance = sum(e[i] * e[j] for i in range(n) for j in range(n) if sides[i] & sides[j])
        ratio = variance * units / (units - 1) / (n * p * (1 - p)) if accepted else 0.0
        assert effect[accepted] == pytest.approx(max(ratio, 1.0) if accepted else 0.0)


@pytest.mark.parametrize(
    ("classes", "fmr", "missing"),
    [(12, 0.05, 8), (19, 0.01, 1), (30, 0.001, 10), (30, 0.005, 10), (45, 0.0005, None)],
)
def test_too_few_classes_give_an_estimate_only(classes, fmr, missing):
    pairs = sample(classes, each=10, seed=5)
    found = threshold_at_fmr(pairs, fmr, draws=100)
    assert not found.certified
    assert found.reason.startswith("estimate only")
    assert found.value == fnmr_at_fmr(pairs.genuine, pairs.impostor, fmr)[1]
    assert found.fmr_upper > np.mean(pairs.impostor >= found.value)
    if missing is None:
        assert found.classes_missing is None
        assert "below 0.1 %" in found.reason
    else:
        assert found.classes_missing >= missing
        assert f"about {found.classes_missing} more classes" in found.reason
    assert (found.smallest_fmr is None) == (classes < 20)


def test_few_pairs_cannot_certify_a_small_rate():
    found = threshold_at_fmr(sample(40, each=2, seed=6), 0.001, draws=100)
    assert not found.certified
    assert found.smallest_fmr > 0.001
    assert found.classes_missing > 0


def test_more_confidence_costs_a_higher_threshold_and_groups_count_as_units():
    pairs = sample(30, seed=7)
    loose, strict = (threshold_at_fmr(pairs, 0.05, confidence=c, draws=400) for c in (0.8, 0.99))
    assert loose.value < strict.value
    grouped = threshold_at_fmr(sample(30, seed=7, groups=True), 0.05, draws=100)
    assert (grouped.classes, grouped.certified) == (15, False)
    assert "groups" in grouped.reason


def test_scores_outside_the_unit_interval_and_failed_comparisons():
    x, labels = items(25, 5, np.random.default_rng(8))
    scores = -40 * np.linalg.norm(x[:, None] - x, axis=2)
    plain = threshold_at_fmr(pair_scores(scores, labels), 0.05, draws=200)
    assert plain.certified
    assert plain.value < 0
    scores[0, 10:] = np.nan
    failed = threshold_at_fmr(pair_scores(scores, labels), 0.05, draws=200)
    assert failed.certified
    assert failed.fmr_upper <= 0.05


@pytest.mark.parametrize(("classes", "fmr"), [(20, 0.05), (20, 0.01), (40, 0.01)])
def test_coverage_on_unseen_classes(classes, fmr):
    """A true FMR above the target in 5 % of 120 calibrations, or as many more as chance allows."""
    rng = np.random.default_rng(9)
    anchor = 0.5 * rng.normal(size=8)

    def draw(count, each):
        labels = np.repeat(np.arange(count), each)
        x = (rng.normal(size=(count, 8)) + anchor)[labels] + 0.5 * rng.normal(size=(len(labels), 8))
        return x / np.linalg.norm(x, axis=1, keepdims=True), labels

    everyone, _ = draw(3000, 1)
    population = np.sort((everyone @ everyone.T)[np.triu_indices(3000, 1)])
    broken = naive = 0
    for _ in range(120):
        x, labels = draw(classes, 6)
        pairs = pair_scores(x @ x.T, labels)
        found = threshold_at_fmr(pairs, fmr, draws=200)
        assert found.certified
        for value, which in ((found.value, 0), (fnmr_at_fmr(pairs.genuine, pairs.impostor, fmr)[1], 1)):
            true = 1 - np.searchsorted(population, value) / len(population)
            broken += which == 0 and true > fmr
            naive += which == 1 and true > fmr
    assert naive > 30  # the test can see a threshold without a guarantee
    assert broken <= 12  # P(Binomial(120, 0.05) > 12) = 1 %


def test_open_set():
    rng = np.random.default_rng(10)
    best = np.round(rng.normal(size=50), 1)
    for target in (0.0, 0.01, 0.1, 0.5):
        threshold = open_set_threshold(best, target)
        assert fpir(best, threshold) <= target
        assert fpir(best, best[best < threshold].max()) > target
    assert open_set_threshold(best, 1.0) == -np.inf
    assert tpir([1.0, 2.0, np.nan], threshold=1.5) == pytest.approx(1 / 3)
    assert tpir([1.0, 2.0, np.nan], [5.0, np.nan, 0.0], threshold=0.5) == pytest.approx(1 / 3)


def test_named_errors():
    pairs = sample(4)
    for fmr, confidence in ((0.0, 0.95), (1.0, 0.95), (5.0, 0.95), (0.01, 1.0)):
        with pytest.raises(InputError, match="expected fmr"):
            threshold_at_fmr(pairs, fmr, confidence)
    with pytest.raises(InputError, match="genuine and impostor"):
        threshold_at_fmr(pair_scores(np.eye(3), [1, 1, 1]), 0.01)
    with pytest.raises(InputError, match="at least 2 classes"):
        threshold_at_fmr(pair_scores(np.eye(4), [1, 1, 2, 2], groups=[1, 1, 1, 1]), 0.01)
    with pytest.raises(InputError, match="unknown item"):
        open_set_threshold([], 0.01)
    with pytest.raises(InputError, match="one for each search"):
        tpir([1.0], [1.0, 2.0], threshold=0.0)
