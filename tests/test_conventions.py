"""The three seed texts' functions, transcribed as written, on their own inputs; and the page of all sources."""

import inspect
import math

import numpy as np
import pytest
from benchmarks import conventions as page

import nearfar as nf
from nearfar import conventions
from nearfar.losses import LossSum


def numpy_text_function(x1, x2, labels, margin):
    """One pair, many labels, averaged over the length of the first vector."""
    squared = sum((a - b) ** 2 for a, b in zip(x1, x2, strict=True))
    terms = [y * squared * 0.5 + (1 - y) * max(0.0, margin - math.sqrt(squared)) ** 2 for y in labels]
    return sum(terms) / len(x1)


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("margin", [0.5, 1.5])
def test_numpy_text_is_one_pair_under_many_labels(scale, margin):
    rng = np.random.default_rng(3)
    x1, x2 = scale * rng.standard_normal(10), scale * rng.standard_normal(10)
    y = np.array([0, 0, 1, 1, 1, 0, 0, 1, 0, 1])
    loss = conventions.numpy_text(margin)
    distance = np.full(10, np.linalg.norm(x1 - x2))
    assert float(loss.distances(distance, y)) == pytest.approx(numpy_text_function(x1, x2, y, margin), rel=1e-12)
    repeated = loss.pairs(np.tile(x1, (10, 1)), np.tile(x2, (10, 1)), y)
    assert float(repeated) == pytest.approx(numpy_text_function(x1, x2, y, margin), rel=1e-12)


def test_introduction_text_equations():
    rng = np.random.default_rng(4)
    d, y, margin = rng.uniform(0, 2, 9), np.array([1, 0, 0, 1, 0, 1, 1, 0, 0]), 1.1
    by_hand = [0.5 * s * v**2 + (1 - s) * max(margin - v, 0) for v, s in zip(d, y, strict=True)]
    assert float(conventions.introduction_text(margin).distances(d, y)) == pytest.approx(np.mean(by_hand), rel=1e-12)
    a, p, n = rng.standard_normal((3, 7, 4))
    squares = [max(sum((a[i] - p[i]) ** 2) - sum((a[i] - n[i]) ** 2) + margin, 0) for i in range(7)]
    loss = conventions.introduction_text_triplet(margin)
    assert float(loss.triplets(a, p, n)) == pytest.approx(np.mean(squares), rel=1e-12)
    logits, q = rng.standard_normal((5, 3)), np.array([2, 0, 1, 1, 2])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -np.mean(np.log(softmax[np.arange(5), q]))
    assert float(nf.CrossEntropyLoss()(logits, q)) == pytest.approx(entropy, rel=1e-12)
    z, same = rng.standard_normal(6), np.array([1, 0, 0, 1, 1, 0])
    chance = 1 / (1 + np.exp(-z))
    binary = np.mean(-same * np.log(chance) - (1 - same) * np.log(1 - chance))
    assert float(nf.CrossEntropyLoss().similarities(z, same)) == pytest.approx(binary, rel=1e-12)


def test_keras_text_takes_given_distances():
    rng = np.random.default_rng(5)
    y_pred, y_true, margin = rng.uniform(0, 2, 12), rng.integers(0, 2, 12), 0.9
    by_hand = np.mean(y_true * y_pred**2 + (1 - y_true) * np.maximum(margin - y_pred, 0) ** 2)
    assert float(conventions.keras_text(margin).distances(y_pred, y_true)) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        (conventions.hadsell_2006(), 0.107068),
        (conventions.tensorflow_addons(), 0.214135),
        (conventions.tensorflow_addons_semihard(0.2), 0.084888),
    ],
)
def test_peers_values_on_the_common_batch(loss, value):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 3)
    rows = rng.normal(size=(4, 8))[y] + 0.9 * rng.normal(size=(12, 8))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert float(loss(unit, y)) == pytest.approx(value, abs=5e-7)


# ------------------------------------------------------------ the page


def test_the_page_is_what_the_calls_give():
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "stale: run python -m benchmarks.conventions"


@pytest.fixture(scope="module")
def computed():
    return page.lines()


def test_values_of_the_sources_come_out(computed):
    """To a relative 1e-6 and the rounding of six printed digits."""
    wrong = [
        line
        for line in computed
        if line.theirs is not None and abs(line.value - line.theirs) > 1e-6 * abs(line.theirs) + 5e-7
    ]
    assert wrong == []
    assert sum(line.theirs is not None for line in computed) >= 50


def test_every_function_is_on_the_page_and_defines_no_loss(computed):
    called = " ".join(line.call for line in computed)
    for name in set(conventions.__all__) - {"NOT_REPRODUCED", "NotReproduced"}:
        assert f"conventions.{name}(" in called, name
        function = getattr(conventions, name)
        needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        loss = function(**dict.fromkeys(needed, 1.0))
        parts = [one for _, one in loss.parts] if isinstance(loss, LossSum) else [loss]
        assert {type(one).__module__.rpartition(".")[0] for one in parts} == {"nearfar.losses"}, name


def test_what_is_not_reproduced_says_why():
    for one in conventions.NOT_REPRODUCED:
        assert one.source
        assert one.name
        assert len(one.reason) > 15
    assert len({(one.source, one.name) for one in conventions.NOT_REPRODUCED}) == len(conventions.NOT_REPRODUCED)
