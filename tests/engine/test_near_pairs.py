"""Near-duplicates through the engine: no wrong neighbour, and a gradient that is right where peers are 71–83 % off."""

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar.engine import half_tiles


def clusters(spread, classes=160, items=8, features=64):
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((classes, features))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    steps = rng.standard_normal((classes * items, features)) / features**0.5
    order = rng.permutation(classes * items)
    return (np.repeat(centres, items, axis=0) + spread * steps)[order], np.repeat(np.arange(classes), items)[order]


@pytest.mark.parametrize("spread", [1e-3, 3e-4, 3e-5, 3e-6])
@pytest.mark.parametrize("measure", [nf.Euclidean(), nf.SquaredEuclidean(), nf.CosineDistance()], ids=repr)
def test_the_hardest_negative_is_the_nearest(measure, spread):
    """512 queries for each ε and measure, 6,144 in all: batch-hard pulls the nearer of two near-duplicates, always."""
    rng = np.random.default_rng(7)
    query = rng.standard_normal((512, 64))
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    steps = rng.standard_normal((2, 512, 64))
    steps -= (steps * query).sum(-1, keepdims=True) * query
    steps /= np.linalg.norm(steps, axis=2, keepdims=True)
    near, far = query + spread * steps[0], query + 1.2 * spread * steps[1]
    x = query.astype(np.float32)
    references = np.concatenate([far, near, x + 3]).astype(np.float32)
    # One far positive each; every other reference is a negative.
    other = np.concatenate([np.full(1024, -1), np.arange(512)])
    loss = nf.TripletLoss(margin=10.0, mining="hard", measure=measure)
    _, (_, felt) = loss.value_and_grad(x, np.arange(512), references=references, reference_labels=other)
    chosen = np.abs(felt[:1024]).max(axis=1) > 0
    # After rounding to float32 the order itself may differ: the truth is that of the rounded rows.
    rows, others = x.astype(np.float64), references[:1024].astype(np.float64)
    if isinstance(measure, nf.CosineDistance):
        rows, others = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (rows, others))
    place = np.arange(512)
    gap = ((rows - others[place]) ** 2).sum(1) - ((rows - others[place + 512]) ** 2).sum(1)
    assert (chosen[place + 512] == (gap > 0)).all()
    assert (chosen[place] == (gap < 0)).all()


@pytest.mark.parametrize("least", [1, 10**9], ids=["half tiles", "strips"])
@pytest.mark.parametrize(
    "loss",
    [
        nf.ContrastiveLoss(1.4),
        nf.ContrastiveLoss(1.4, powers=(1, 1)),
        nf.TripletLoss(1.4),
        nf.MarginLoss(0.2, 1e-4),
    ],
    ids=repr,
)
def test_gradient_at_class_spread_of_1e_4(monkeypatch, loss, least):
    monkeypatch.setattr(half_tiles, "LEAST", least)
    x, y = clusters(1e-4)
    narrow = torch.tensor(x, dtype=torch.float32)
    value, gradient = loss.value_and_grad(narrow, torch.tensor(y))
    wanted, true = loss.value_and_grad(narrow.double(), torch.tensor(y))
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    error = (gradient.double() - true).norm() / true.norm()
    assert 0 < error < 1e-3
