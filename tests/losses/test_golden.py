"""One batch, many values: numbers that other implementations and the papers give for the same twelve vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nearfar as nf

Y = np.repeat(np.arange(4), 3)


@pytest.fixture(scope="module")
def raw():
    """12 vectors, 4 classes of 3, from a seed; the checksums guard the recipe."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(4, 8))
    rows = centre[Y] + 0.9 * rng.normal(size=(12, 8))
    assert rows.sum() == pytest.approx(-3.0514595, abs=1e-7)
    assert (rows**2).sum() == pytest.approx(149.7302697, abs=1e-6)
    return rows


@pytest.fixture(scope="module")
def unit(raw):
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


SQUARED = nf.SquaredEuclidean()
ON_UNIT_ROWS = {
    # Hadsell's sum over 66 pairs is 7.066460; the mean is also sentence-transformers' and siamese-triplet's.
    "contrastive": (nf.ContrastiveLoss(margin=1.0), 7.066460 / 66),
    "contrastive without the half": (nf.ContrastiveLoss(margin=1.0, factors=(1.0, 1.0)), 0.214135),
    "contrastive, plain powers": (nf.ContrastiveLoss(margin=1.0, factors=(1.0, 1.0), powers=(1, 1)), 0.201280),
    "triplet, active": (nf.TripletLoss(margin=0.2, active_only=True), 0.239936),
    "triplet, all": (nf.TripletLoss(margin=0.2), 0.085533),
    "triplet, squared, active": (nf.TripletLoss(margin=0.2, active_only=True, measure=SQUARED), 0.478631),
    "triplet, squared, all": (nf.TripletLoss(margin=0.2, measure=SQUARED), 0.115226),
    "triplet, hard": (nf.TripletLoss(margin=0.2, mining="hard"), 0.435283),
    "triplet, semi-hard": (nf.TripletLoss(margin=0.2, mining="semihard"), 0.084888),
    "InfoNCE, two positives": (nf.InfoNCELoss(temperature=0.1), 2.192607),
    "SupCon": (nf.SupConLoss(temperature=0.1), 2.708496),
    "SupCon, the authors' factor": ((0.1 / 0.07) * nf.SupConLoss(temperature=0.1), 3.869280),
    "SupCon, times temperature": (0.1 * nf.SupConLoss(temperature=0.1), 0.270850),
    "NCA": (nf.NCALoss(), 1.216639),
    "multi-similarity": (nf.MultiSimilarityLoss(), 0.594684),
    "multi-similarity without mining": (nf.MultiSimilarityLoss(epsilon=None), 0.710928),
    "circle": (nf.CircleLoss(), 44.496952),
}


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize(("loss", "expected"), ON_UNIT_ROWS.values(), ids=ON_UNIT_ROWS)
def test_batch_of_twelve(loss, expected, framework, unit):
    x = unit if framework == "numpy" else torch.tensor(unit)
    assert float(loss(x, Y)) == pytest.approx(expected, rel=2e-6)


def test_two_powers_of_the_distance_on_the_three_seed_texts(unit):
    """pytorch-metric-learning's contrastive loss: the means over non-zero terms, of plain d and plain hinge."""
    i, j = np.triu_indices(12, 1)
    same = Y[i] == Y[j]
    d = np.linalg.norm(unit[i] - unit[j], axis=1)
    active = same | (d < 1.0)
    pairs = nf.ContrastiveLoss(margin=1.0, factors=(1.0, 1.0), powers=(1, 1), balanced=True)
    assert float(pairs.distances(d[active], same[active])) == pytest.approx(1.212044, rel=2e-6)


def test_half_of_the_triplets(unit):
    """siamese-triplet's AllTripletSelector: squared, a < p only."""
    triplets = [(a, p, n) for a in range(12) for p in range(a + 1, 12) for n in range(12) if Y[a] == Y[p] != Y[n]]
    a, p, n = np.array(triplets).T
    loss = nf.TripletLoss(margin=0.2, measure=SQUARED)
    assert float(loss.triplets(unit[a], unit[p], unit[n])) == pytest.approx(0.126732, rel=4e-6)


@pytest.fixture(scope="module")
def pair_batch():
    return np.array([0, 3, 6, 9]), np.array([1, 4, 7, 10])


def test_in_batch_negatives(unit, raw, pair_batch):
    q, k = pair_batch
    scaled = nf.InfoNCELoss(temperature=0.1)
    one_way = scaled(unit[q], nf.Aligned(), references=unit[k])
    assert float(one_way) == pytest.approx(0.730578, rel=2e-6)  # also the one of sentence-transformers
    assert float(scaled.aligned(unit[q], unit[k])) == pytest.approx(0.688985, rel=2e-6)  # CLIP
    assert float(nf.SigLIPLoss().aligned(unit[q], unit[k])) == pytest.approx(5.617774, rel=2e-6)
    assert float(nf.SigLIPLoss().aligned(unit[k], unit[q])) == pytest.approx(5.617774, rel=2e-6)
    assert float(scaled.views(unit[q], unit[k])) == pytest.approx(1.544496, rel=2e-6)  # SimCLR
    assert float(nf.NPairLoss().aligned(raw[q], raw[k])) == pytest.approx(1.135571, rel=2e-6)
    assert float(nf.NPairLoss(measure=nf.Cosine()).aligned(raw[q], raw[k])) == pytest.approx(1.061190, rel=2e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_infonce_hardest_pair_gradient(dtype):
    """τ = 0.01, positive at 0.1, negative at 0.999: 89.9, where log(x + tiny) gives 87.3 and no gradient."""
    s = np.array([[0.1, 0.999]], dtype=dtype)
    for values in (s, torch.tensor(s)):
        loss = nf.InfoNCELoss(temperature=0.01, measure=nf.Dot())
        anchor = values[:, :1] * 0 + 1
        other = values.reshape(2, 1)
        value, (grad, _) = loss.value_and_grad(anchor, [0], references=other, reference_labels=[0, 1])
        assert float(value) == pytest.approx(89.9, rel=1e-6)
        assert float(grad[0, 0]) == pytest.approx(89.9, rel=1e-6)


def test_small_temperature_in_half():
    """fp16, τ = 0.07: 12.843 to half precision, where a product in half gives 9.664."""
    other = torch.tensor([[0.1], [0.999]], dtype=torch.float16)
    anchor = torch.ones(1, 1, dtype=torch.float16)
    loss = nf.InfoNCELoss(temperature=0.07, measure=nf.Dot())
    value = loss(anchor, [0], references=other, reference_labels=[0, 1])
    assert float(value) == pytest.approx(12.843, rel=1e-3)


def test_soft_triplet_no_overflow():
    """d = 100 gives 100, not infinity."""
    origin, far = np.array([[0.0, 0.0]]), np.array([[60.0, 80.0]])
    loss = nf.TripletLoss(margin=0.0, soft=True)
    assert float(loss.triplets(origin, far, origin)) == pytest.approx(100.0, rel=1e-15)
    assert float(loss.triplets(origin, 20 * far, origin)) == pytest.approx(2000.0, rel=1e-15)


def test_constants_of_identical_rows():
    """All identical: NT-Xent ln(2N − 1), InfoNCE ln(1 + K), every triplet its margin."""
    x = np.repeat([[0.3, -0.4, 1.2]], 6, axis=0)
    assert float(nf.InfoNCELoss(temperature=0.05).views(x, x)) == pytest.approx(np.log(11), rel=1e-14)
    assert float(nf.SupConLoss()(x, [0, 0, 0, 1, 1, 1])) == pytest.approx(np.log(5), rel=1e-14)
    assert float(nf.InfoNCELoss()(x, [0, 0, 1, 1, 2, 2])) == pytest.approx(np.log(5), rel=1e-14)
    for mining in ("all", "hard", "semihard"):
        assert float(nf.TripletLoss(margin=0.2, mining=mining)(x, [0, 0, 0, 1, 1, 1])) == pytest.approx(0.2)


def test_infonce_with_one_negative_is_softplus():
    s_p, s_n, t = 0.4, 0.7, 0.2
    other = np.array([[s_p], [s_n]])
    loss = nf.InfoNCELoss(temperature=t, measure=nf.Dot())
    value = loss(np.ones((1, 1)), [5], references=other, reference_labels=[5, 6])
    assert float(value) == pytest.approx(np.log1p(np.exp((s_n - s_p) / t)), rel=1e-14)


def test_odd_norms():
    """Norms of 1 and 3, not unit: cosine still normalises."""
    x = np.array([[3.0, 0.0], [0.6, 0.8], [0.0, 3.0], [-0.8, 0.6]])
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    y = [0, 0, 1, 1]
    assert float(nf.SupConLoss()(x, y)) == pytest.approx(float(nf.SupConLoss(measure=nf.Dot())(unit, y)), rel=1e-14)


def test_temperature_is_a_scale_of_the_dot_product(raw):
    loss, sharp = nf.InfoNCELoss(temperature=1.0, measure=nf.Dot()), nf.InfoNCELoss(temperature=0.3, measure=nf.Dot())
    assert float(sharp(raw, Y)) == pytest.approx(float(loss(raw / np.sqrt(0.3), Y)), rel=1e-13)


def test_triplet_scales_with_its_margin(raw):
    base = float(nf.TripletLoss(margin=0.5)(raw, Y))
    assert float(nf.TripletLoss(margin=3.5)(7 * raw, Y)) == pytest.approx(7 * base, rel=1e-13)


def test_triplet_is_monotone_and_lipschitz_in_the_margin(unit):
    values = [float(nf.TripletLoss(margin=m)(unit, Y)) for m in np.linspace(-1, 2, 31)]
    steps = np.diff(values)
    assert (steps >= 0).all()
    assert (steps <= 0.1 + 1e-15).all()


def test_limits_of_the_temperature(unit):
    assert float(nf.SupConLoss(temperature=1e9)(unit, Y)) == pytest.approx(np.log(11), rel=1e-8)
    s = unit @ unit.T
    gaps = [
        max(0.0, max(s[i, j] for j in range(12) if Y[j] != Y[i]) - s[i, p])
        for i in range(12)
        for p in range(12)
        if p != i and Y[p] == Y[i]
    ]
    assert 1e-4 * float(nf.InfoNCELoss(temperature=1e-4)(unit, Y)) == pytest.approx(np.mean(gaps), rel=1e-4)


def test_hard_is_at_least_semihard(unit):
    hard, semi = (nf.TripletLoss(margin=0.2, mining=m) for m in ("hard", "semihard"))
    assert float(hard(unit, Y)) >= float(semi(unit, Y))


def test_labels_of_300_classes():
    """Labels beyond a byte stay distinct."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 3))
    loss = nf.InfoNCELoss()
    assert float(loss(x, np.arange(300))) == 0.0
    assert float(loss(x, np.arange(300) % 256)) > 0.0


def test_labels_above_2_to_the_24():
    """Neighbouring big labels stay distinct."""
    x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    big = 2**53 + np.array([0, 0, 1, 1])
    assert float(nf.SupConLoss()(x, big)) == float(nf.SupConLoss()(x, [0, 0, 1, 1]))


def test_a_tie_is_not_semihard():
    """Semi-hard is strictly farther than the positive (FaceNet, eq. (4)): −1 ties with the positive, 1.5 is chosen."""
    loss = nf.TripletLoss(margin=0.75, mining="semihard")
    references = np.array([[1.0], [-1.0], [1.5], [4.0]])
    for framework in (np.asarray, torch.tensor):
        value = loss(framework(np.zeros((1, 1))), [0], references=framework(references), reference_labels=[0, 1, 1, 2])
        assert float(value) == pytest.approx(1 - 1.5 + 0.75)
