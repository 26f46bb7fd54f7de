"""The half tiles of SupCon against its definition, at sizes that cut tiles everywhere."""

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar.losses import half_tiles


@pytest.fixture
def tiles(monkeypatch):
    """Half tiles for any size, in tiles of 16; counts how often they are made."""
    made = []
    whole = half_tiles.HalfTiles.__init__

    def counted(self, *arguments):
        made.append(arguments)
        whole(self, *arguments)

    monkeypatch.setattr(half_tiles, "LEAST", 1)
    monkeypatch.setattr(half_tiles, "TILE", 16)
    monkeypatch.setattr(half_tiles.HalfTiles, "__init__", counted)
    return made


def batch(n, dtype=np.float64):
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 7, n)
    labels[n // 2] = 99
    return rng.standard_normal((n, 5)).astype(dtype), labels


@pytest.mark.parametrize("n", [2, 15, 16, 17, 50, 64])
@pytest.mark.parametrize("temperature", [0.03, 0.1, 2.0])
@pytest.mark.parametrize("framework", [np.asarray, torch.tensor])
def test_equal_to_the_definition(tiles, n, temperature, framework):
    x, y = batch(n)
    x, y = framework(x), framework(y)
    loss = nf.SupConLoss(temperature)
    value, gradient = loss.value_and_grad(x, y)
    assert len(tiles) == 1
    wanted, wanted_gradient = loss.value_and_grad(x, y, engine="dense")
    assert float(value) == pytest.approx(float(wanted), rel=1e-12, abs=1e-14)
    np.testing.assert_allclose(np.asarray(gradient), np.asarray(wanted_gradient), rtol=1e-11, atol=1e-13)


def test_per_anchor_and_its_gradient(tiles):
    x, y = batch(50)
    weights = torch.tensor(np.random.default_rng(1).standard_normal(50))
    gradients = []
    for engine in ("auto", "dense"):
        given = torch.tensor(x, requires_grad=True)
        each = nf.SupConLoss().per_anchor(given, torch.tensor(y), engine=engine)
        assert each[25] == 0
        gradients.append(torch.autograd.grad((weights * each).sum(), given)[0])
    assert tiles
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-13)


def test_float32_is_as_good_as_the_definition(tiles):
    x, y = batch(64, np.float32)
    loss = nf.SupConLoss(0.05)
    exact, exact_gradient = loss.value_and_grad(x.astype(np.float64), y, engine="dense")
    value, gradient = loss.value_and_grad(x, y)
    assert float(value) == pytest.approx(float(exact), rel=2e-6)
    assert np.abs(gradient - exact_gradient).max() < 2e-6 * np.abs(exact_gradient).max()


def test_what_does_not_fit_runs_in_strips(tiles):
    x, y = batch(40, np.float32)
    nf.SupConLoss(0.01)(x, y)  # exponentials below the smallest float32
    nf.SupConLoss(measure=nf.Dot())(x, y)
    nf.SupConLoss()(x, nf.Mask(y[:, None] == y))
    nf.SupConLoss()(x, y, references=x.copy(), reference_labels=y)
    assert not tiles
    nf.SupConLoss(0.05)(x, y)
    assert len(tiles) == 1


def test_nan_reaches_the_value_and_a_zero_row_has_no_gradient(tiles):
    x, y = batch(40)
    x[7] = 0
    value, gradient = nf.SupConLoss().value_and_grad(x, y)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert (gradient[7] == 0).all()
    x[3, 2] = np.nan
    assert np.isnan(nf.SupConLoss()(x, y))
