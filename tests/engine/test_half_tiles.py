"""Half tiles against the definition by strips, at sizes that cut blocks everywhere."""

import numpy as np
import pytest
import torch

import nearfar as nf
from cases import CASES, is_logits
from nearfar.engine import half_tiles, pooled_tiles
from nearfar.relations import blocks

POOLED = [nf.SupConLoss(0.1), nf.SupConLoss(2.0), nf.InfoNCELoss(0.2), nf.NPairLoss(), nf.SupConLoss(0.3, nf.Dot())]
POOLED += [
    nf.NCALoss(),
    nf.NCALoss(0.5, nf.Euclidean()),
    nf.MultiSimilarityLoss(epsilon=None),
    nf.MultiSimilarityLoss(),
    nf.MultiSimilarityLoss(2.0, 5.0, 0.5, 1.0, nf.Dot(), one_sided=True),
    nf.CircleLoss(),
    nf.CircleLoss(0.3, 4.0, nf.Dot()),
]
APART = [
    nf.ContrastiveLoss(3.0),
    nf.ContrastiveLoss(1.5, balanced=True),
    nf.ContrastiveLoss(3.0, powers=(1, 1), measure=nf.SquaredEuclidean()),
    nf.ContrastiveLoss(0.7, measure=nf.CosineDistance()),
    nf.ContrastiveLoss(2.0, measure=nf.Manhattan()),
    nf.SigLIPLoss(),
    nf.SigLIPLoss(0.5, -1.0, nf.Dot()),
    nf.MarginLoss(0.5, 2.5),
    nf.MarginLoss(measure=nf.CosineDistance()),
]
every_loss = pytest.mark.parametrize("loss", POOLED + APART, ids=repr)


@pytest.fixture(autouse=True)
def runs(monkeypatch):
    """Half tiles for any size, in blocks of 16; counts how often they ran to the end."""
    done = []

    def counting(cls):
        whole = cls.run

        def run(self, *arguments):
            out = whole(self, *arguments)
            done.append(out is not None)
            return out

        monkeypatch.setattr(cls, "run", run)

    monkeypatch.setattr(half_tiles, "LEAST", 1)
    monkeypatch.setattr(pooled_tiles, "LEAST", 1)
    monkeypatch.setattr(blocks, "BLOCK", 16)
    counting(half_tiles.ApartTiles)
    counting(pooled_tiles.PooledTiles)
    return done


def batch(n, dtype=np.float64):
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 7, n)
    labels[n // 2] = 99
    return rng.standard_normal((n, 5)).astype(dtype), labels


def close(ours, theirs, tolerance=1e-12):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * (np.abs(theirs).max() + 1))


@every_loss
@pytest.mark.parametrize("n", [2, 15, 16, 17, 50, 64])
@pytest.mark.parametrize("framework", [np.asarray, torch.tensor], ids=["numpy", "torch"])
def test_equal_to_the_definition(runs, loss, n, framework):
    x, y = batch(n)
    x, y = framework(x), framework(y)
    value, gradient = loss.value_and_grad(x, y)
    assert runs == [True]
    wanted, wanted_gradient = loss.value_and_grad(x, y, engine="dense")
    assert float(value) == pytest.approx(float(wanted), rel=1e-12, abs=1e-14)
    close(gradient, wanted_gradient)


@every_loss
@pytest.mark.parametrize("place", [25, 3], ids=["alone", "of a class"])
def test_nan_reaches_what_it_reaches_by_definition(loss, place):
    x, y = batch(50)
    x[place] = np.nan
    value, gradient = loss.value_and_grad(torch.tensor(x), y)
    wanted, wanted_gradient = loss.value_and_grad(torch.tensor(x), y, engine="dense")
    assert np.isnan(float(wanted))
    assert np.isnan(float(value))
    assert (torch.isnan(gradient) == torch.isnan(wanted_gradient)).all()


HALVED = (
    nf.BinomialDevianceLoss, nf.ChopraLoss, nf.CircleLoss, nf.ContrastiveLoss, nf.DebiasedContrastiveLoss,
    nf.DecoupledContrastiveLoss, nf.GeneralizedLiftedStructureLoss, nf.InfoNCELoss, nf.MagnetLoss, nf.MarginLoss,
    nf.MultiSimilarityLoss, nf.NCALoss, nf.NPairLoss, nf.NoiseContrastiveLoss, nf.SigLIPLoss,
    nf.SoftNearestNeighborLoss, nf.SupConLoss, nf.TupletMarginLoss,
)  # fmt: skip


def looks_at_whole_rows(loss):
    whole = ("by_anchor", "one_versus_one", "active_only")
    return any(getattr(loss, name, False) for name in whole)


@pytest.mark.parametrize("loss", CASES.values(), ids=CASES)
def test_which_losses_have_half_tiles(runs, loss):
    x, y = batch(41)
    if is_logits(loss, None):
        return
    value, gradient = loss.value_and_grad(x, y)
    assert runs == [True] * (isinstance(loss, HALVED) and not looks_at_whole_rows(loss))
    if runs:
        wanted, wanted_gradient = loss.value_and_grad(x, y, engine="dense")
        assert float(value) == pytest.approx(float(wanted), rel=1e-12, abs=1e-14)
        close(gradient, wanted_gradient)


def test_mining_meets_a_tile_of_easy_pairs_once(runs, monkeypatch):
    x, y = np.eye(4)[np.repeat([0, 1, 2, 3], 16)], np.repeat([0, 1, 2, 3], 16)
    # Of the first two classes only the one wants negatives as near as the other, of the last two only the other.
    x[:16, 1], x[16:32, 0] = np.linspace(0, 1, 16), 1.0
    x[48:, 2], x[32:48, 3] = np.linspace(0, 1, 16), 1.0
    met, whole = [], pooled_tiles.PooledTiles._outside

    def outside(self, tiles, scaled, rows, columns):
        met.append((rows.start, columns.start))
        return whole(self, tiles, scaled, rows, columns)

    monkeypatch.setattr(pooled_tiles.PooledTiles, "_outside", outside)
    loss = nf.MultiSimilarityLoss()
    value, gradient = loss.value_and_grad(x, y)
    assert [met.count(tile) for tile in ((0, 16), (0, 32), (0, 48), (32, 48))] == [2, 1, 1, 2]
    wanted, wanted_gradient = loss.value_and_grad(x, y, engine="dense")
    assert float(value) == pytest.approx(float(wanted), rel=1e-12)
    close(gradient, wanted_gradient)


@every_loss
def test_per_anchor_and_its_gradient(runs, loss):
    x, y = batch(50)
    weights = torch.tensor(np.random.default_rng(1).standard_normal(50))
    gradients = []
    for engine in ("auto", "dense"):
        given = torch.tensor(x, requires_grad=True)
        each = loss.per_anchor(given, torch.tensor(y), engine=engine)
        gradients.append(torch.autograd.grad((weights * each).sum(), given)[0])
    assert all(runs)
    assert len(runs) == 2
    close(*gradients)


@pytest.mark.parametrize("loss", POOLED, ids=repr)
@pytest.mark.parametrize("n", [1, 2, 16, 17, 50])
def test_two_aligned_batches_in_both_directions(runs, loss, n):
    x, _ = batch(n)
    left = torch.tensor(x, requires_grad=True)
    right = torch.tensor(np.random.default_rng(5).standard_normal((n, 5)), requires_grad=True)
    value = nf.PairLoss.aligned(loss, left, right)
    gradients = torch.autograd.grad(value, (left, right))
    assert runs == [True] * (not getattr(loss, "mines", False))  # Mining both ways goes by strips.
    wanted = nf.PairLoss.aligned(loss, left, right, engine="dense")
    assert value.item() == pytest.approx(wanted.item(), rel=1e-12, abs=1e-14)
    for ours, theirs in zip(gradients, torch.autograd.grad(wanted, (left, right)), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize(
    "loss", [nf.SupConLoss(0.05), nf.InfoNCELoss(0.1), nf.ContrastiveLoss(3.0), nf.MarginLoss(1.0, 3.0)], ids=repr
)
def test_float32_is_as_good_as_the_definition(runs, loss):
    x, y = batch(64, np.float32)
    exact, exact_gradient = loss.value_and_grad(x.astype(np.float64), y, engine="dense")
    value, gradient = loss.value_and_grad(x, y)
    assert runs == [True, True][: len(runs)]
    assert float(value) == pytest.approx(float(exact), rel=2e-6)
    assert np.abs(gradient - exact_gradient).max() < 2e-6 * np.abs(exact_gradient).max()


def test_a_sum_lost_below_the_shift_is_done_in_strips(runs):
    x, y = batch(40, np.float32)
    x[0], x[1], y[:2] = [9, 9, 9, 9, 9], [9, 9, 9, 9, 9], [1, 2]
    loss = nf.InfoNCELoss(1.0, nf.Dot())
    value, gradient = loss.value_and_grad(x, y)
    assert runs == [False]
    exact, exact_gradient = loss.value_and_grad(x.astype(np.float64), y, engine="dense")
    assert float(value) == pytest.approx(float(exact), rel=1e-6)
    assert np.abs(gradient - exact_gradient).max() < 2e-6 * np.abs(exact_gradient).max()


def test_what_has_no_blocks_runs_in_strips(runs, monkeypatch):
    x, y = batch(40)
    nf.SupConLoss()(x, nf.Mask(y[:, None] == y))
    nf.SupConLoss()(x, y, references=x.copy(), reference_labels=y)
    nf.NPairLoss().aligned(x, x.copy())
    monkeypatch.setattr(blocks, "LARGEST_CLASS", 3)
    nf.SupConLoss()(x, y)
    assert not runs


def test_a_class_larger_than_a_block_makes_one_of_its_own(runs):
    x, y = batch(80)
    y[:50] = 3
    ours, theirs = (nf.SupConLoss().value_and_grad(x, y, engine=engine) for engine in ("auto", "dense"))
    assert runs == [True]
    close(ours[1], theirs[1])


def test_tiles_out_of_reach_are_left_out(runs, monkeypatch):
    pulled = []
    whole = nf.Euclidean.pull
    monkeypatch.setattr(nf.Euclidean, "pull", lambda *a, **k: (pulled.append(1), whole(*a, **k)))
    x = np.random.default_rng(3).standard_normal((64, 40))
    y = np.repeat(np.arange(16), 4)
    loss = nf.ContrastiveLoss(1.0)
    value, gradient = loss.value_and_grad(x, y)
    assert len(pulled) == 4  # the diagonal blocks
    wanted, wanted_gradient = loss.value_and_grad(x, y, engine="dense")
    assert float(value) == pytest.approx(float(wanted), rel=1e-12)
    close(gradient, wanted_gradient)


@pytest.mark.parametrize("loss", [nf.SupConLoss(), nf.ContrastiveLoss(3.0), *POOLED[5:], *APART[5:]], ids=repr)
def test_nan_reaches_the_value_and_a_zero_row_has_no_nan(loss):
    x, y = batch(40)
    x[7] = 0
    value, gradient = loss.value_and_grad(x, y)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    x[3, 2] = np.nan
    assert np.isnan(loss(x, y))
