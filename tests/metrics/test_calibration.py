from itertools import pairwise

import numpy as np
import pytest

from nearfar._errors import InputError, ShapeError
from nearfar.metrics import brier, expected_calibration_error, log_loss, platt


def sample(n=400, seed=0, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    same = (rng.random(n) < 0.3).astype(int)
    return shift + scale * (rng.normal(size=n) + 1.5 * same), same


def loss(slope, intercept, x, target):
    z = slope * x + intercept
    return sum(np.log1p(np.exp(-abs(v))) + max(v, 0) - t * v for v, t in zip(z, target, strict=True))


def test_platt_is_the_minimum_for_smoothed_targets():
    x, same = sample()
    fit = platt(x, same)
    positive, negative = same.sum(), (1 - same).sum()
    target = np.where(same == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    best = loss(fit.slope, fit.intercept, x, target)
    for da, db in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert loss(fit.slope + da, fit.intercept + db, x, target) > best
    residual = fit.probability(x) - target
    assert abs(residual.sum()) < 1e-8
    assert abs((residual * x).sum()) < 1e-8
    assert fit.prior == same.mean()


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (1e6, 0.0), (0.01, 0.99), (1.0, -1e4)])
def test_platt_does_not_depend_on_scale_and_offset(scale, shift):
    x, same = sample(seed=1)
    y, _ = sample(seed=1, scale=scale, shift=shift)
    np.testing.assert_allclose(platt(x, same).probability(x), platt(y, same).probability(y), rtol=1e-6)


def test_platt_on_separable_constant_and_reversed_scores():
    apart = platt([-1e3, -999.0, 1e3, 999.0], [0, 0, 1, 1])
    np.testing.assert_allclose(apart.probability([-1e3, 1e3]), [0.25, 0.75], atol=0.01)
    flat = platt([2.0] * 6, [1, 0, 0, 0, 0, 0])
    assert flat.slope == 0
    assert 0 < flat.probability(2.0) < 0.5
    assert platt([1.0, 2.0, 3.0, 4.0], [1, 1, 0, 0]).slope < 0
    assert np.isnan(apart.probability(np.nan))
    assert apart.probability([-1e300, 1e300]).tolist() == [0.0, 1.0]


def test_prior_shifts_the_odds():
    x, same = sample(seed=2)
    fit = platt(x, same)
    p, q = fit.probability(0.7), fit.probability(0.7, prior=0.01)
    odds = (0.01 / 0.99) / (fit.prior / (1 - fit.prior))
    assert q / (1 - q) == pytest.approx(p / (1 - p) * odds)
    np.testing.assert_allclose(fit.probability(x, prior=fit.prior), fit.probability(x))
    with pytest.raises(InputError, match="prior"):
        fit.probability(x, prior=1.0)


def test_scores_equal_loops():
    rng = np.random.default_rng(3)
    p = np.round(rng.random(97), 1)
    same = (rng.random(97) < p**2).astype(int)
    assert brier(p, same) == pytest.approx(sum((a - b) ** 2 for a, b in zip(p, same, strict=True)) / 97)
    inside = np.clip(p, 0.05, 0.95)
    expected = -sum(np.log(a if b else 1 - a) for a, b in zip(inside, same, strict=True)) / 97
    assert log_loss(inside, same) == pytest.approx(expected)
    assert log_loss([0.0], [1]) == np.inf
    assert log_loss([0.0, 1.0], [0, 1]) == 0.0


def test_expected_calibration_error():
    rng = np.random.default_rng(4)
    p = rng.random(100)
    same = (rng.random(100) < p**2).astype(int)
    pairs = sorted(zip(p, same, strict=True))
    edges = [0]
    for b in range(15):
        edges.append(edges[-1] + (7 if b < 10 else 6))
    expected = 0.0
    for low, high in pairwise(edges):
        part = pairs[low:high]
        expected += abs(sum(a for a, _ in part) - sum(b for _, b in part)) / 100
    assert expected_calibration_error(p, same) == pytest.approx(expected)
    tied = np.round(p, 1)
    shuffle = rng.permutation(100)
    assert expected_calibration_error(tied[shuffle], same[shuffle]) == pytest.approx(
        expected_calibration_error(tied, same)
    )
    assert expected_calibration_error([0.3], [0]) == pytest.approx(0.3)


def test_named_errors():
    with pytest.raises(InputError, match="same and different"):
        platt([1.0, 2.0], [1, 1])
    with pytest.raises(InputError, match="0 or 1"):
        platt([1.0, 2.0], [1, -1])
    with pytest.raises(InputError, match="finite"):
        platt([1.0, np.nan], [1, 0])
    with pytest.raises(ShapeError, match="one length"):
        brier([0.1, 0.2], [1])
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        log_loss([1.5], [1])
    with pytest.raises(InputError, match="at least 1"):
        brier([], [])
    with pytest.raises(InputError, match="expected bins to be a whole number, 1 or more"):
        expected_calibration_error([0.5], [1], bins=0)
