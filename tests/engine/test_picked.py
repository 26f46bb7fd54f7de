"""Listed pairs of mined triplets against the definition by strips of weights."""

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar.engine import picked

LOSSES = [
    nf.TripletLoss(mining=mining, **options)
    for mining, options in [
        ("hard", {}),
        ("hard", {"soft": True, "measure": nf.CosineDistance()}),
        ("semihard", {"margin": 1.0}),
        ("semihard", {"active_only": True, "measure": nf.SquaredEuclidean()}),
        ("easy", {"margin": 2.0, "active_only": True}),
        ("easy", {"measure": nf.Manhattan()}),
        ("easy-semihard", {"margin": 1.0}),
    ]
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)


@pytest.fixture(autouse=True)
def runs(monkeypatch):
    """Listed pairs at any size, found in strips of 17; counts how often."""
    done, whole = [], picked.PickedPairs.run

    def run(self, *arguments):
        done.append(True)
        return whole(self, *arguments)

    monkeypatch.setattr(picked.PickedPairs, "run", run)
    monkeypatch.setattr(picked, "LEAST", 1)
    monkeypatch.setattr(picked, "tall", lambda _: 17)
    return done


def batch(n=50):
    """Classes of uneven size, one item alone, two items that are the same and two that nearly are."""
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((n, 5)), rng.integers(0, 7, n)
    y[n // 2] = 99
    x[3], x[4] = x[1], x[2] + 1e-9
    return x, y


def close(ours, wanted):
    ours, wanted = np.asarray(ours), np.asarray(wanted)
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-12 * (np.abs(wanted).max() + 1))


@every_loss
@pytest.mark.parametrize("framework", [np.asarray, torch.tensor], ids=["numpy", "torch"])
def test_equal_to_the_definition(runs, loss, framework):
    x, y = (framework(a) for a in batch())
    value, gradient = loss.value_and_grad(x, y)
    assert runs == [True]
    wanted, wanted_gradient = loss.value_and_grad(x, y, engine="dense")
    assert runs == [True]
    assert float(value) == pytest.approx(float(wanted), rel=1e-13)
    close(gradient, wanted_gradient)


@every_loss
def test_per_anchor_and_its_gradient(runs, loss):
    x, y = batch()
    weights, found = torch.tensor(np.random.default_rng(1).standard_normal(50)), []
    for engine in ("auto", "dense"):
        given = torch.tensor(x, requires_grad=True)
        each = loss.per_anchor(given, torch.tensor(y), engine=engine)
        found.append((each.detach(), torch.autograd.grad((weights * each).sum(), given)[0]))
    assert runs == [True, True]
    for ours, wanted in zip(*found, strict=True):
        close(ours, wanted)


@every_loss
@pytest.mark.parametrize("labels", [np.zeros(20, int), np.arange(20)], ids=["one class", "no pairs"])
def test_without_triplets_there_is_nothing(runs, loss, labels):
    value, gradient = loss.value_and_grad(torch.tensor(batch()[0][:20]), labels)
    assert runs == [True]
    assert float(value) == 0
    assert not gradient.any()


@every_loss
@pytest.mark.parametrize("place", [25, 7], ids=["alone", "of a class"])
def test_nan_reaches_what_it_reaches_by_definition(runs, loss, place):
    x, y = batch()
    x[place] = np.nan
    value, gradient = loss.value_and_grad(torch.tensor(x), y)
    assert runs == [True]
    wanted, wanted_gradient = loss.value_and_grad(torch.tensor(x), y, engine="dense")
    assert np.isnan(float(value)) == np.isnan(float(wanted))
    assert torch.isnan(gradient[place]).all() == torch.isnan(wanted_gradient[place]).all()


def test_other_relations_references_and_all_triplets_go_by_strips(runs):
    x, y = batch()
    other = np.random.default_rng(5).standard_normal((9, 5))
    loss = nf.TripletLoss(mining="hard")
    loss(x, y, references=other, reference_labels=y[:9])
    loss(x, nf.Mask(y[:, None] == y[None, :]))
    nf.TripletLoss()(x, y)
    assert runs == []
