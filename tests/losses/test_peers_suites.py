"""Numbers of other libraries' own test suites, on their inputs, through nearfar.conventions: NumPy, PyTorch, JAX.

optax (losses/_self_supervised_test, _regression_test), TensorFlow Addons (losses/tests), TensorFlow Similarity
(tests/losses), Keras (losses_test, CircleTest), sentence-transformers (tests/.../losses), lightly (tests/loss).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar import conventions


def jax_array(values):
    return pytest.importorskip("jax.numpy").asarray(values)


@pytest.fixture(params=["numpy", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def of(request):
    """An array of each library, float32 or integers."""
    make = {"numpy": np.asarray, "torch": torch.tensor, "jax": jax_array}[request.param]

    def array(values):
        values = np.asarray(values)
        return make(values.astype(np.float32) if values.dtype.kind == "f" else values)

    return array


# ------------------------------------------------------------ optax

FOUR = np.array([[-1.9540, 1.0780], [0.2380, -0.5703], [1.8745, -0.0195], [-0.6719, -1.9210]])


@pytest.mark.parametrize(
    ("first", "labels", "value"),
    [(FOUR[0], [0, 0, 1, 1], 14.01032), (FOUR[0], [0, 0, 0, 1], 8.968544), ([0.0, 0.0], [0, 0, 1, 1], 9.2889)],
)
def test_ntxent_of_optax(of, first, labels, value):
    """The last with a row of zeros, whose cosines are 0."""
    x = of(np.vstack([first, FOUR[1:]]))
    assert float(conventions.optax_ntxent()(x, of(labels))) == pytest.approx(value, abs=1e-4)


def test_triplets_and_cosines_of_optax(of):
    one, zero, two = (of(np.full((2, 2), v)) for v in (1.0, 0.0, 2.0))
    loss = conventions.optax_triplet_margin()
    assert float(loss.triplets(one, zero, two)) == pytest.approx(1.0, abs=1e-4)
    assert float(loss.triplets(zero, one, two)) == 0
    left, right = np.array([[10.0, 1.0, -2.0], [1.0, 4.0, 0.2]]), np.array([[0.0, 1.2, 0.2], [1.0, -0.3, 0.0]])
    for row, value in enumerate((0.9358251989, 1.0464068465)):
        given = of(left[row : row + 1]), of(right[row : row + 1]), of([1])
        assert float(conventions.optax_cosine_distance().pairs(*given)) == pytest.approx(value, rel=1e-6)


# ------------------------------------------------------------ TensorFlow Addons

DISTANCE, SAME = [0.1, 0.3, 1.3, 0.7, 1.1, 0.5], [0, 0, 1, 1, 0, 1]
CORNERS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def test_contrastive_of_tensorflow_addons(of):
    assert float(conventions.tensorflow_addons().distances(of(DISTANCE), of(SAME))) == pytest.approx(0.621666, abs=1e-6)
    wide = conventions.tensorflow_addons(2.0).distances(of(DISTANCE), of(SAME))
    assert float(wide) == pytest.approx(1.623333, abs=1e-6)
    assert float(conventions.tensorflow_addons().distances(of([1.0, 1.0, 0.0, 0.0, 1.0, 0.0]), of(SAME))) == 0


def test_npairs_of_tensorflow_addons(of):
    x, y = of(CORNERS), of([0, 1, 2, 3])
    there = conventions.tensorflow_addons_npairs()(x, y, references=x, reference_labels=y)
    assert float(there) == pytest.approx(0.253856, abs=1e-6)
    assert float(conventions.sohn_2016().aligned(x, x)) == pytest.approx(0.253856, abs=1e-6)


def test_two_like_items_of_tensorflow_addons(of):
    """Its documentation's example: no negative, where it says 2.4142 (semi-hard) and 1 (hard) and ours 0."""
    x, y = of([[0.0, 1.0], [1.0, 0.0]]), of([0, 0])
    for loss in (conventions.tensorflow_addons_semihard(), conventions.tensorflow_addons_hard()):
        assert float(loss(x, y)) == 0


def semihard_by_hand(d, y, margin):
    """Of each positive pair the nearest negative beyond it, else the farthest."""
    terms = []
    for a, p in zip(*np.nonzero((y[:, None] == y) & ~np.eye(len(y), dtype=bool)), strict=True):
        away = d[a, y != y[a]]
        beyond = away[away > d[a, p]]
        terms.append(max(d[a, p] - (beyond.min() if len(beyond) else away.max()) + margin, 0))
    return np.mean(terms)


@pytest.mark.parametrize("metric", ["L2", "squared-L2", "angular"])
def test_triplets_of_tensorflow_addons(of, metric):
    """Ten random rows of six features in four classes, some of one item."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, y = rng.uniform(size=(10, 6)), rng.integers(0, 4, size=10)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        d = {
            "L2": np.linalg.norm(x[:, None] - x, axis=-1),
            "squared-L2": ((x[:, None] - x) ** 2).sum(-1),
            "angular": 1 - unit @ unit.T,
        }[metric]
        value = conventions.tensorflow_addons_semihard(1.0, metric)(of(x), of(y))
        assert float(value) == pytest.approx(semihard_by_hand(d, y, 1.0), rel=1e-5)
        like, other = (y[:, None] == y) & ~np.eye(10, dtype=bool), y[:, None] != y
        lack = (np.where(like, d, -9).max(1) - np.where(other, d, 9).min(1) + 0.3)[like.any(1)]
        value = conventions.tensorflow_addons_hard(0.3, distance_metric=metric)(of(x), of(y))
        assert float(value) == pytest.approx(np.maximum(lack, 0).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (conventions.tensorflow_addons_semihard, "'L2', 'squared-L2', 'angular', got 'l2'; "),
        (conventions.tensorflow_addons_hard, "'L2', 'squared-L2', 'angular', got 'l2'; "),
        (conventions.sentence_transformers, "'euclidean', 'manhattan', 'cosine', got 'l2'; "),
        (conventions.sentence_transformers_triplet, "'euclidean', 'manhattan', 'cosine', got 'l2'; "),
    ],
)
def test_another_source_s_names(make, expected):
    with pytest.raises(nf.InputError, match=f"expected distance_metric of {expected}"):
        make(distance_metric="l2")
    with pytest.raises(nf.InputError, match="expected p of 1, 2, got 3; "):
        conventions.torch_triplet_margin(p=3)


# ------------------------------------------------------------ TensorFlow Similarity

ITEMS = np.arange(32)
BOTH = np.concatenate([ITEMS, ITEMS])
PERFECT, MISMATCH = np.eye(32)[BOTH], np.eye(32)[np.concatenate([ITEMS, ITEMS[::-1]])]


@pytest.mark.parametrize(
    ("x", "margin", "value"),
    [(PERFECT, None, 0.31326169), (PERFECT, 1.1, 0.1), (MISMATCH, None, math.log1p(math.e)), (MISMATCH, 1.0, 2.0)],
)
def test_hard_triplets_of_tensorflow_similarity(of, x, margin, value):
    """One-hot rows, each twice: right, and each with the row of another class; its default is semi-hard."""
    loss = conventions.tensorflow_similarity_triplet(margin)
    assert float(loss(of(x), of(BOTH))) == pytest.approx(value, abs=1e-5)


def test_mined_triplets_of_tensorflow_similarity(of):
    """Its semi-hard negatives are beyond the hardest positive, which with two items a class is the nearest too."""
    x = of([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    loss = conventions.tensorflow_similarity_triplet(1.0)
    assert float(loss(x, of([0, 0, 0, 1, 1, 1]))) == pytest.approx(2.0, abs=1e-6)
    four = of([[1.0, 0.0], [0.5, 0.8660254], [0.0, 1.0], [0.01010049, 0.999949]])
    semi = nf.TripletLoss(1.0, mining="easy-semihard", measure=nf.CosineDistance())
    each = np.asarray(semi.per_anchor(four, of([0, 0, 1, 1])))
    np.testing.assert_allclose(each, [0.510, 1.366, 0.866, 0.871], atol=1e-3)


# ------------------------------------------------------------ Keras

ROWS = np.array(
    [
        [0.70014004, -0.42008403, 0.14002801, 0.56011203],
        [0.17609018, 0.70436073, -0.52827054, 0.44022545],
        [-0.34050261, 0.25537696, -0.68100522, 0.59587957],
        [0.32163376, -0.75047877, 0.53605627, -0.21442251],
        [0.51261459, -0.34174306, 0.17087153, 0.76892189],
    ]
)
OTHERS = np.array(
    [
        [0.40824829, -0.54433105, 0.27216553, 0.68041382],
        [0.76376261, 0.10910895, -0.54554473, 0.32732684],
        [-0.74420841, 0.24806947, 0.49613894, -0.3721042],
        [0.52981294, -0.13245324, 0.79471941, -0.26490647],
        [0.54554473, -0.32732684, 0.10910895, 0.76376261],
        [-0.27216553, 0.68041382, 0.40824829, -0.54433105],
    ]
)


def test_circle_of_keras(of):
    """An item alone in its class is 0 in its array and counts in neither mean."""
    x, y, others, theirs = of(ROWS), of([1, 1, 2, 2, 3]), of(OTHERS), of([1, 1, 2, 2, 3, 4])
    assert float(conventions.keras_circle()(x, y)) == pytest.approx(188.3883, rel=1e-5)
    assert float(conventions.keras_circle(0.25, 256)(x, y)) == pytest.approx(652.7617, rel=1e-5)
    each = conventions.keras_circle().per_anchor(x, y, references=others, reference_labels=theirs)
    np.testing.assert_allclose(np.asarray(each), [61.5844, 94.3465, 276.9344, 90.9873, 48.8963], rtol=1e-5)
    each = np.asarray(conventions.keras_circle().per_anchor(others, theirs))
    np.testing.assert_allclose(each, [82.9116, 36.7942, 92.4590, 52.6798, 0.0, 0.0], rtol=1e-5)
    # Sample weights there: the weighted sum over the four items that count, or over their weights.
    weighted = float((np.asarray(conventions.keras_circle().per_anchor(x, y)) * [2.0, 2.0, 1.0, 1.0, 0.5]).sum())
    assert weighted / 4 == pytest.approx(244.91918, rel=1e-5)
    assert weighted / 6 == pytest.approx(163.27948, rel=1e-5)


# ------------------------------------------------------------ sentence-transformers


def test_all_directions_of_sentence_transformers(of):
    directions = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    loss = nf.MultipleNegativesRankingLoss(1.0, directions, measure=nf.Dot())
    value = loss.aligned(of([[1.0, 2.0], [0.3, -1.2]]), of([[-0.7, 0.5], [1.5, -0.4]]))
    assert float(value) == pytest.approx(1.2791960438893653, rel=1e-6)


def test_scored_pairs_of_sentence_transformers(of):
    """What is scored lower and more similar costs log(1 + e^(low − high)); angles 0 and 1 in the second."""
    for low, high in ((0.9, 0.1), (0.1, 0.9), (0.5, 0.5), (2.0, -1.0)):
        value = nf.CoSENTLoss(1.0).similarities(of([low, high]), of([0.0, 1.0]))
        assert float(value) == pytest.approx(math.log1p(math.exp(low - high)), rel=1e-6)
    left, right = of([[1.0, 0.0], [1.0, 0.0]]), of([[1.0, 1.0], [1.0, 0.0]])
    for scores, gap in (([0.0, 1.0], -1.0), ([1.0, 0.0], 1.0)):
        value = conventions.sentence_transformers_angle(2.0).pairs(left, right, of(scores))
        assert float(value) == pytest.approx(math.log1p(math.exp(2 * gap)), rel=1e-5)


@pytest.mark.parametrize("separation", [10.0, 1000.0])
def test_soft_triplets_of_sentence_transformers(of, separation):
    """Positives at 0 and s, at 2 and s + 4: each anchor's nearest negative is at 2 or 4."""
    s = separation
    value = conventions.sentence_transformers_batch_hard_soft_margin()(
        of([[0.0], [s], [2.0], [s + 4]]), of([0, 0, 1, 1])
    )
    gaps = [s - 2, s - 4, s + 2 - 2, s + 2 - 4]
    assert float(value) == pytest.approx(np.mean(np.logaddexp(0, gaps)), rel=1e-6)


# ------------------------------------------------------------ lightly


@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
def test_ntxent_of_lightly(of, temperature):
    """Rows of one direction: every pair alike, log(2n − 1)."""
    rng = np.random.default_rng(5)
    for n in (1, 2, 8, 16):
        views = (of(np.outer(rng.uniform(0.1, 1, n), [1.0, 2.0])) for _ in range(2))
        value = conventions.lightly_ntxent(temperature).views(*views)
        assert float(value) == pytest.approx(math.log(2 * n - 1), abs=1e-5)


def test_koleo_of_lightly(of):
    for rows, value in (
        ([[0.0, 1.0], [0.0, -1.0]], -math.log(2)),
        ([[0.0, 1.0], [1.0, 0.0]], -math.log(2) / 2),
        ([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [-1.0, -1.0]], 0.2674),
    ):
        assert float(conventions.lightly_koleo()(of(rows))) == pytest.approx(value, rel=1e-4)
