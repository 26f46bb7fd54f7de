"""Relations with weights of their own: several labels an item, graded pairs, a function of the caller's."""

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar.engine import Strips

RNG = np.random.default_rng(31)
X = RNG.normal(size=(11, 4))
Y = RNG.normal(size=(7, 4))
TAGS = RNG.integers(0, 2, size=(11, 5))
TAGS[4] = 0  # an item without a label
OTHER = RNG.integers(0, 2, size=(7, 5))
LOSSES = [
    nf.SupConLoss(temperature=0.4),
    nf.InfoNCELoss(temperature=0.4),
    nf.ContrastiveLoss(margin=1.2, balanced=True),
    nf.TripletLoss(margin=0.3),
    nf.MultiSimilarityLoss(alpha=2.0, beta=5.0),
    nf.BinaryCrossEntropyLoss(),
]
every = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def masks(tags, others, graded):
    """By loops over sets."""
    sets, theirs = ([{k for k, t in enumerate(row) if t} for row in side] for side in (tags, others))
    positive, negative = np.zeros((len(tags), len(others))), np.zeros((len(tags), len(others)))
    for i, one in enumerate(sets):
        for j, two in enumerate(theirs):
            if tags is others and i == j:
                continue
            if one & two:
                positive[i, j] = len(one & two) / len(one | two) if graded else 1.0
            elif one and two:
                negative[i, j] = 1.0
    return positive, negative


@every
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("apart", [False, True], ids=["self", "references"])
@pytest.mark.parametrize("engine", ["auto", "dense", Strips(3)], ids=str)
def test_shared_labels_are_the_mask_of_their_sets(loss, graded, apart, engine):
    mask = nf.Mask(*masks(TAGS, OTHER if apart else TAGS, graded))
    relation = nf.MultiLabels(TAGS, OTHER if apart else None, graded)
    references = {"references": Y} if apart else {}
    expected, theirs = loss.value_and_grad(X, mask, **references)
    value, ours = loss.value_and_grad(X, relation, engine=engine, **references)
    assert float(value) == pytest.approx(float(expected), rel=1e-13)
    assert float(value) != 0
    for one, two in zip(np.atleast_3d(ours), np.atleast_3d(theirs), strict=True) if not apart else zip(ours, theirs):  # noqa: B905
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-14)


@every
def test_a_function_is_the_mask_of_its_weights(loss):
    weights = RNG.uniform(0.2, 2.0, size=(11, 11)) * (TAGS @ TAGS.T)
    other = RNG.uniform(0.2, 2.0, size=(11, 11)) * (TAGS @ TAGS.T == 0)
    asked = []

    def cut(rows, columns):
        asked.append(len(rows))
        return weights[np.asarray(rows)][:, np.asarray(columns)], other[np.asarray(rows)][:, np.asarray(columns)]

    expected, theirs = loss.value_and_grad(X, nf.Mask(weights, other))
    for engine in ("auto", Strips(4)):
        value, ours = loss.value_and_grad(X, nf.Pairwise(cut), engine=engine)
        assert float(value) == pytest.approx(float(expected), rel=1e-13)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)
    assert 4 in asked


@every
def test_torch_gives_the_same(loss):
    x = torch.tensor(X, requires_grad=True)
    value = loss(x, nf.MultiLabels(torch.tensor(TAGS), graded=True))
    (gradient,) = torch.autograd.grad(value, x)
    expected, theirs = loss.value_and_grad(X, nf.MultiLabels(TAGS, graded=True))
    assert value.item() == pytest.approx(float(expected), rel=1e-12)
    np.testing.assert_allclose(gradient.numpy(), theirs, rtol=1e-9, atol=1e-13)


def test_duplicates_are_no_negatives():
    """A function can mask what is the same item under two labels."""
    labels, x = np.array([0, 0, 1, 1]), np.array([[1.0, 0], [0.8, 0.6], [1.0, 0], [0, 1.0]])

    def without_duplicates(rows, columns):
        same = labels[rows, None] == labels[None, columns]
        twin = (x[rows, None] == x[None, columns]).all(-1)
        return same, ~same & ~twin

    loss = nf.InfoNCELoss(temperature=0.5)
    assert float(loss(x, nf.Pairwise(without_duplicates))) < float(loss(x, labels))


def test_labels_are_a_function_too():
    labels = np.array([0, 1, 0, 2, 1, 0, 2, 2, 1, 0, 1])

    def same(rows, columns):
        equal = labels[rows, None] == labels[None, columns]
        return equal, ~equal

    for loss in LOSSES:
        expected, theirs = loss.value_and_grad(X, labels)
        value, ours = loss.value_and_grad(X, nf.Pairwise(same))
        assert float(value) == pytest.approx(float(expected), rel=1e-13)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("relation", "error", "said"),
    [
        (nf.MultiLabels(TAGS[:5]), nf.ShapeError, "expected tags of shape"),
        (nf.MultiLabels(TAGS[:, 0]), nf.ShapeError, "expected tags of shape"),
        (nf.MultiLabels([[1], [1, 0]]), nf.ShapeError, "got a ragged list"),
        (nf.MultiLabels([["a"]] * 11), nf.BackendError, "expected numbers"),
        (nf.Pairwise(lambda r, c: None), nf.ShapeError, "got NoneType"),
        (nf.MultiLabels(TAGS, OTHER), nf.InputError, "references and reference_tags together"),
        (nf.Pairwise(lambda r, c: (np.ones((2, 2)), np.ones((2, 2)))), nf.ShapeError, "expected two arrays of shape"),
    ],
)
def test_what_does_not_fit_is_refused(relation, error, said):
    with pytest.raises(error, match=said):
        nf.SupConLoss()(X, relation)


def test_tags_of_two_sides_have_the_same_labels():
    with pytest.raises(nf.ShapeError, match="as many labels on both sides"):
        nf.SupConLoss()(X, nf.MultiLabels(TAGS, OTHER[:, :3]), references=Y)


def test_a_function_is_one():
    with pytest.raises(nf.InputError, match="expected weights to be a function"):
        nf.Pairwise(3)
