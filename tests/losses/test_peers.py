"""Losses beside other implementations: pytorch-metric-learning 2.9.0 on rows that it normalises, PyTorch's own parts.

Where the two differ, the test says in what.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nearfar as nf

pml = pytest.importorskip("pytorch_metric_learning")
from pytorch_metric_learning import losses, miners  # noqa: E402

RNG = np.random.default_rng(15)
LABELS = torch.tensor(np.repeat(np.arange(7), (2, 3, 3, 4, 5, 6, 7))[RNG.permutation(30)])
ROWS = torch.tensor(RNG.normal(size=(30, 6)) + 0.8 * RNG.normal(size=(7, 6))[LABELS])
OTHERS, OTHER_LABELS = torch.tensor(RNG.normal(size=(20, 6))), torch.tensor(np.arange(20) % 7)


def unit(x):
    return torch.nn.functional.normalize(x)


def run(form, *arrays):
    """Value and gradients of a form."""
    leaves = [a.clone().requires_grad_() for a in arrays]
    value = form(*leaves)
    return value.item(), torch.autograd.grad(value, leaves)


def alike(ours, theirs, rel=1e-6):
    assert ours[0] == pytest.approx(theirs[0], rel=rel)
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert (a - b).abs().max() <= rel * b.abs().max()


SAME_FUNCTION = {
    "NCA": (nf.NCALoss(), losses.NCALoss()),
    "NCA, temperature": (nf.NCALoss(temperature=0.25), losses.NCALoss(softmax_scale=4)),
    "multi-similarity": (nf.MultiSimilarityLoss(epsilon=None), losses.MultiSimilarityLoss()),
    "multi-similarity, other": (nf.MultiSimilarityLoss(3, 9, 0.2, None), losses.MultiSimilarityLoss(3, 9, 0.2)),
    "circle": (nf.CircleLoss(), losses.CircleLoss()),
    "circle, other": (nf.CircleLoss(0.25, 16), losses.CircleLoss(m=0.25, gamma=16)),
}
same_function = pytest.mark.parametrize(("ours", "theirs"), SAME_FUNCTION.values(), ids=SAME_FUNCTION)


@same_function
def test_equal_to_pytorch_metric_learning(ours, theirs):
    alike(run(lambda x: ours(unit(x), LABELS), ROWS), run(lambda x: theirs(x, LABELS), ROWS))


@same_function
def test_equal_with_references(ours, theirs):
    def there(x, y):
        return theirs(x, LABELS, ref_emb=y, ref_labels=OTHER_LABELS)

    def here(x, y):
        return ours(unit(x), LABELS, references=unit(y), reference_labels=OTHER_LABELS)

    alike(run(here, ROWS, OTHERS), run(there, ROWS, OTHERS))


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_multi_similarity_and_its_miner(epsilon):
    """Their miner apart, ours inside. Anchors of one-item classes stay in their mean as zeros, not in ours."""
    labels, miner, theirs = LABELS.clone(), miners.MultiSimilarityMiner(epsilon), losses.MultiSimilarityLoss()
    ours = nf.MultiSimilarityLoss(epsilon=epsilon)

    def there(x):
        return theirs(x, labels, miner(x, labels))

    alike(run(lambda x: ours(x, labels), ROWS), run(there, ROWS))
    mined = miner(ROWS, labels)
    assert len(mined[1]) < int((labels[:, None] == labels).sum()) - 30  # it leaves something out
    assert len(mined[3]) < int((labels[:, None] != labels).sum())
    alone = int(torch.nonzero(labels == labels.mode()[0])[0])
    labels[alone] = 99
    alike(run(lambda x: ours(x, labels) * 29 / 30, ROWS), run(there, ROWS))


def test_multi_similarity_of_anchors_without_a_positive():
    """Without mining their mean has the negative side of an anchor that has no positive; ours has not."""
    labels = LABELS.clone()
    alone = int(torch.nonzero(labels == labels.mode()[0])[0])
    labels[alone] = 99
    s = (unit(ROWS) @ unit(ROWS).T)[alone][labels != 99]
    lonely = torch.log1p((50 * (s - 0.5)).exp().sum()).item() / 50
    ours, theirs = nf.MultiSimilarityLoss(epsilon=None)(ROWS, labels), losses.MultiSimilarityLoss()(ROWS, labels)
    assert theirs.item() == pytest.approx((29 * ours.item() + lonely) / 30, rel=1e-9)


def test_margin_loss_is_theirs_with_their_weights():
    """Their sum runs over triplets: a pair counts as often as it stands in one. Our weights say the same."""
    same = LABELS[:, None] == LABELS
    positive, negative = same & ~torch.eye(30, dtype=torch.bool), ~same
    counts = positive.sum(1, keepdim=True), negative.sum(1, keepdim=True)
    mask = nf.Mask(positive * counts[1], negative * counts[0])
    for margin, beta in ((0.2, 1.2), (0.1, 0.9)):
        ours, theirs = nf.MarginLoss(margin, beta, active_only=True), losses.MarginLoss(margin=margin, beta=beta)
        alike(run(lambda x, f=ours: f(unit(x), mask), ROWS), run(lambda x, f=theirs: f(x, LABELS), ROWS))


def test_sigmoid_loss_is_its_paper_s_few_lines():
    """Algorithm 1: minus the sum of log-sigmoids of the logits with the signs of an identity, over the batch."""
    images, texts = ROWS[:20], OTHERS

    def there(a, b):
        logits = unit(a) @ unit(b).T * 8 - 6
        return -torch.nn.functional.logsigmoid((2 * torch.eye(20) - 1) * logits).sum() / 20

    ours = nf.SigLIPLoss(temperature=1 / 8, bias=-6.0)
    alike(run(ours.aligned, images, texts), run(there, images, texts), rel=1e-12)
    alike(run(lambda a, b: ours.aligned(b, a), images, texts), run(there, images, texts), rel=1e-12)


def test_sigmoid_loss_is_binary_cross_entropy_by_anchor():
    """With bias 0: the sum over an anchor's pairs, where binary cross-entropy has the mean over all."""
    ours, theirs = nf.SigLIPLoss(0.3, 0.0), nf.BinaryCrossEntropyLoss(0.3, nf.Cosine())
    alike(run(lambda x: ours(x, LABELS), ROWS), run(lambda x: 29 * theirs(x, LABELS), ROWS), rel=1e-12)


def test_mining_that_keeps_every_pair_is_no_mining():
    ours, every = nf.MultiSimilarityLoss(epsilon=9.0), nf.MultiSimilarityLoss(epsilon=None)
    alike(run(lambda x: ours(x, LABELS), ROWS), run(lambda x: every(x, LABELS), ROWS), rel=1e-12)


def test_nca_probabilities_are_those_of_the_paper():
    """scikit-learn and metric-learn maximise the sum of the probabilities that each anchor's own loss is the log of."""
    rows = unit(ROWS).numpy()
    square = ((rows[:, None] - rows) ** 2).sum(-1)
    np.fill_diagonal(square, np.inf)
    p = np.exp(-square) / np.exp(-square).sum(1, keepdims=True)
    own = (p * (LABELS[:, None] == LABELS).numpy()).sum(1)
    np.testing.assert_allclose(np.exp(-nf.NCALoss().per_anchor(rows, LABELS.numpy())), own, rtol=1e-13)


def test_circle_stop_gradient():
    """Central differences of the value with every α held where it is; those of the value itself are another thing."""
    x, labels = ROWS.numpy()[:9], LABELS.numpy()[:9]
    labels = np.where(np.arange(9) < 4, 1, labels + 2)
    m, scale = 0.3, 6.0
    same, itself = labels[:, None] == labels, np.eye(9, dtype=bool)
    counts = (same & ~itself).any(1)

    def table(a):
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
        return a @ a.T

    def value(s, held):
        near = np.exp(-scale * np.maximum(1 + m - held, 0) * (s - 1 + m)) * (same & ~itself)
        far = np.exp(scale * np.maximum(held + m, 0) * (s - m)) * ~same
        return np.log1p(near.sum(1) * far.sum(1))[counts].mean()

    def slope(form):
        h, found = 1e-6, np.zeros_like(x)
        for k in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[k] = h
            found[k] = (form(table(x + step)) - form(table(x - step))) / (2 * h)
        return found

    given = table(x)
    ours, gradient = nf.CircleLoss(m, scale).value_and_grad(x, labels)
    assert float(ours) == pytest.approx(value(given, given), rel=1e-12)
    np.testing.assert_allclose(gradient, slope(lambda s: value(s, given)), rtol=0, atol=1e-7 * np.abs(gradient).max())
    assert np.abs(gradient - slope(lambda s: value(s, s))).max() > 0.05 * np.abs(gradient).max()
