"""Learned temperatures, biases and boundaries: gradients against automatic differentiation of the dense oracle."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

import nearfar as nf
import oracles
from cases import ONE_WAY
from nearfar.engine import half_tiles, pooled_tiles
from nearfar.relations import blocks
from nearfar.torch import Learnable, backward_in_chunks

CASES = {
    "SupCon": (nf.SupConLoss(0.2), ["temperature"]),
    "SupCon-Dot": (nf.SupConLoss(0.7, nf.Dot()), ["temperature"]),
    "InfoNCE": (nf.InfoNCELoss(0.3), ["temperature"]),
    "CrossEntropy": (nf.CrossEntropyLoss(0.6), ["temperature"]),
    "BinaryCrossEntropy": (nf.BinaryCrossEntropyLoss(0.4, nf.Cosine()), ["temperature"]),
    "SmoothAP": (nf.SmoothAPLoss(0.1), ["temperature"]),
    "RecallAtK": (nf.RecallAtKLoss((1, 3), 0.1), ["temperature"]),
    "PNP": (nf.PNPLoss("Ib", temperature=0.1), ["temperature"]),
    "NCA": (nf.NCALoss(0.8), ["temperature"]),
    "NCA-Euclidean": (nf.NCALoss(0.3, nf.Euclidean()), ["temperature"]),
    "NCA-Manhattan": (nf.NCALoss(0.3, nf.Manhattan()), ["temperature"]),
    "NCA-probability": (nf.NCALoss(0.8, log=False), ["temperature"]),
    "SupCon-in": (nf.SupConLoss(0.3, form="in", denominator="one"), ["temperature"]),
    "DecoupledContrastive": (nf.DecoupledContrastiveLoss(0.3), ["temperature"]),
    "ProxyNCA": (nf.ProxyNCALoss(0.8), ["temperature"]),
    "SoftNearestNeighbor": (nf.SoftNearestNeighborLoss(0.8), ["temperature"]),
    "MultipleNegativesRanking": (nf.MultipleNegativesRankingLoss(0.4), ["temperature"]),
    "BinomialDeviance": (nf.BinomialDevianceLoss(base=0.2), ["base"]),
    "BinomialDeviance-anchors": (nf.BinomialDevianceLoss(base=0.2, by_anchor=True), ["base"]),
    "SigLIP": (nf.SigLIPLoss(0.3, -1.5), ["temperature", "bias"]),
    "SigLIP-temperature": (nf.SigLIPLoss(0.3, -1.5), ["temperature"]),
    "SigLIP-bias": (nf.SigLIPLoss(0.3, 0.4), ["bias"]),
    "Margin": (nf.MarginLoss(beta=0.9), ["beta"]),
    "Margin-active": (nf.MarginLoss(beta=0.7, active_only=True), ["beta"]),
    "Margin-Squared": (nf.MarginLoss(beta=1.1, measure=nf.SquaredEuclidean()), ["beta"]),
    "MultiSimilarity": (nf.MultiSimilarityLoss(beta=9.0, epsilon=None), ["base"]),
    "MultiSimilarity-mined": (nf.MultiSimilarityLoss(beta=9.0, epsilon=0.2), ["base"]),
}
every_case = pytest.mark.parametrize(("loss", "names"), CASES.values(), ids=CASES)
TABLED = {name: case for name, case in CASES.items() if name != "CrossEntropy"}  # without weights it takes logits
every_table = pytest.mark.parametrize(("loss", "names"), TABLED.values(), ids=TABLED)


def held(loss, **values):
    """The loss with tensors for hyper-parameters, for the oracle."""
    other = copy.copy(loss)
    for name, value in values.items():
        object.__setattr__(other, name, value)
    return other


def leaves(loss, names):
    """Leaves in float64 at the values of the loss, as a module keeps them, and the oracle's loss."""
    stored, values = {}, {}
    for name in names:
        start = getattr(loss, name)
        if name == "temperature":
            stored["logit_scale"] = torch.tensor(-np.log(start), requires_grad=True)
            values[name] = torch.exp(-stored["logit_scale"])
        else:
            stored[name] = values[name] = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    return stored, held(loss, **values)


def double(loss, names, **options):
    """A module in float64 that starts exactly at the loss's values."""
    module = Learnable(loss, *names, **options).double()
    with torch.no_grad():
        for name, leaf in leaves(loss, names)[0].items():
            getattr(module, name).copy_(leaf)
    return module


def expect_gradients(value, expected, module, stored, extra=(), tolerance=1e-12):
    """Equal values, and equal gradients by every parameter and by the given pairs of leaves."""
    assert value.item() == pytest.approx(expected.item(), rel=tolerance)
    assert {name for name, _ in module.named_parameters()} == set(stored)
    pairs = [(parameter, stored[name]) for name, parameter in module.named_parameters()] + list(extra)
    ours = torch.autograd.grad(value, [one for one, _ in pairs])
    theirs = torch.autograd.grad(expected, [other for _, other in pairs], retain_graph=True)
    for a, b in zip(ours, theirs, strict=True):
        assert float(b.abs().max()) > 1e-3
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def leaf_pair(values):
    return tuple(torch.tensor(values, dtype=torch.float64, requires_grad=True) for _ in range(2))


def test_every_learnable_loss_is_here():
    losses = [getattr(nf, name) for name in nf.losses.__all__ if name not in ("PairLoss", "LossSum")]
    declared = {(cls.__name__, name) for cls in losses for name in cls.learnable}
    assert declared == {(type(loss).__name__, name) for loss, names in CASES.values() for name in names}


@every_table
@pytest.mark.parametrize("engine", ["auto", nf.engine.Strips(4)], ids=["auto", "strips"])
def test_a_batch_against_itself(loss, names, engine, batch):
    (x, other), labels = leaf_pair(batch[0]), batch[1]
    stored, oracle = leaves(loss, names)
    expected = oracles.dense(oracle, other, *oracles.relation(labels))
    module = double(loss, names)
    expect_gradients(module(x, labels, engine=engine), expected, module, stored, [(x, other)])


@every_table
def test_references(loss, names, batch, gallery):
    (x, other), (y, other_y) = leaf_pair(batch[0]), leaf_pair(gallery[0])
    stored, oracle = leaves(loss, names)
    expected = oracles.dense(oracle, other, *oracles.relation(batch[1], gallery[1]), other_y)
    module = double(loss, names)
    value = module(x, batch[1], references=y, reference_labels=gallery[1])
    expect_gradients(value, expected, module, stored, [(x, other), (y, other_y)])


@every_table
def test_finite_differences(loss, names, batch):
    x = torch.tensor(batch[0])
    module = double(loss, names)
    module(x, batch[1]).backward()
    for parameter in module.parameters():
        around = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                parameter += step
                around.append(module(x, batch[1]).item())
        with torch.no_grad():
            parameter += 1e-6
        slope = (around[0] - around[1]) / 2e-6
        assert parameter.grad.item() == pytest.approx(slope, rel=1e-6, abs=1e-8)


@every_table
def test_ignored_items_and_masks(loss, names, batch):
    (x, other), labels = leaf_pair(batch[0]), batch[1]
    stored, oracle = leaves(loss, names)
    pairs = oracles.relation(labels, ignore=7)
    module = double(loss, names)
    value = module(x, labels, ignore_label=7)
    expect_gradients(value, oracles.dense(oracle, other, *pairs), module, stored, [(x, other)])
    masked = module(x, nf.Mask(np.array(pairs[0], dtype=float), np.array(pairs[1], dtype=float)))
    expect_gradients(masked, oracles.dense(oracle, other, *pairs), module, stored)


@pytest.mark.parametrize("measure", [nf.Dot(), nf.Cosine()], ids=repr)
def test_class_weights(measure, batch):
    loss, names = nf.CrossEntropyLoss(0.4, measure), ["temperature"]
    (x, other), labels = leaf_pair(batch[0]), batch[1]
    w, other_w = leaf_pair(np.random.default_rng(3).normal(size=(10, 5)))
    stored, oracle = leaves(loss, names)
    expected = oracles.dense(oracle, other, *oracles.relation(labels, range(10)), other_w)
    module = double(loss, names)
    expect_gradients(module(x, labels, class_weights=w), expected, module, stored, [(x, other), (w, other_w)])


def test_logits(batch):
    loss, names = CASES["CrossEntropy"]
    (x, other), labels = leaf_pair(batch[0]), torch.arange(13) * 2 % 5
    stored, oracle = leaves(loss, names)
    own = (labels[:, None] == torch.arange(5)).double()
    sums, _ = oracles.dense_on_table(oracle, other * 1, own.tolist(), (1 - own).tolist())
    module = double(loss, names)
    expect_gradients(module(x, labels), sums.sum() / 13, module, stored, [(x, other)])


@every_table
def test_aligned_asks_both_directions(loss, names, batch):
    (x, other), (y, other_y) = leaf_pair(batch[0]), leaf_pair(batch[0][::-1] + 0.3 * batch[0])
    stored, oracle = leaves(loss, names)
    pairs = oracles.relation(range(13), range(13))
    there, back = oracles.dense(oracle, other, *pairs, other_y), oracles.dense(oracle, other_y, *pairs, other)
    expected = there if isinstance(loss, ONE_WAY) else (there + back) / 2
    module = double(loss, names)
    expect_gradients(module.aligned(x, y), expected, module, stored, [(x, other), (y, other_y)])


@every_table
def test_views(loss, names, batch):
    (x, other), labels = leaf_pair(batch[0][:12]), np.tile(np.arange(4), 3)
    stored, oracle = leaves(loss, names)
    module = double(loss, names)
    expected = oracles.dense(oracle, other, *oracles.relation(labels))
    expect_gradients(module.views(*x.chunk(3)), expected, module, stored, [(x, other)])


@pytest.mark.parametrize("loss", [nf.BinaryCrossEntropyLoss(0.4), nf.CrossEntropyLoss(0.4)], ids=repr)
def test_given_pairs_and_similarities(loss, batch):
    (x, other), same = leaf_pair(batch[0]), torch.arange(13) % 3 == 0
    stored, oracle = leaves(loss, ["temperature"])
    z = (other[:6] * other[6:12]).sum(1) / oracle.temperature
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, same[:6].double())
    module = double(loss, ["temperature"])
    expect_gradients(module.pairs(x[:6], x[6:12], same[:6].double()), expected, module, stored, [(x, other)])
    similarity = (x[:6] * x[6:12]).sum(1)
    again = module.similarities(similarity, same[:6].double())
    expect_gradients(again, expected, module, stored, [(x, other)])


@every_table
def test_per_anchor(loss, names, batch):
    (x, other), labels = leaf_pair(batch[0]), batch[1]
    upstream = torch.tensor(np.random.default_rng(8).normal(size=13))
    stored, oracle = leaves(loss, names)
    s = oracles.dense_table(type(loss.measure).__name__, other, other)
    sums, counts = oracles.dense_on_table(oracle, s, *oracles.relation(labels))
    each = sums / torch.where(counts > 0, counts, 1.0)
    module = double(loss, names)
    value = (upstream * module.per_anchor(x, labels)).sum()
    expect_gradients(value, (upstream * each).sum(), module, stored, [(x, other)])


# ------------------------------------------------------------ half tiles


@pytest.fixture
def tiles(monkeypatch):
    """Half tiles for any size, in blocks of 16; which executors ran to the end."""
    done = []

    def counting(cls):
        whole = cls.run

        def run(self, *arguments):
            out = whole(self, *arguments)
            done.append(cls.__name__ if out is not None else None)
            return out

        monkeypatch.setattr(cls, "run", run)

    monkeypatch.setattr(half_tiles, "LEAST", 1)
    monkeypatch.setattr(pooled_tiles, "LEAST", 1)
    monkeypatch.setattr(blocks, "BLOCK", 16)
    counting(half_tiles.ApartTiles)
    counting(pooled_tiles.PooledTiles)
    return done


def large(dtype=torch.float64, seed=5, features=6):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(70, features)), dtype=dtype), torch.tensor(rng.integers(0, 9, 70))


POOLED = [nf.SupConLoss(0.2), nf.SupConLoss(0.7, nf.Dot()), nf.InfoNCELoss(0.3)]


@pytest.mark.parametrize("loss", POOLED, ids=repr)
def test_half_tiles_give_the_scale(loss, tiles):
    x, labels = large()
    stored, oracle = leaves(loss, ["temperature"])
    module = double(loss, ["temperature"])
    value = module(x, labels)
    assert tiles == ["PooledTiles"]
    expect_gradients(value, oracles.dense(oracle, x, *oracles.relation(labels.tolist())), module, stored)
    each = module.per_anchor(x, labels).square().sum()
    ours, theirs = (
        torch.autograd.grad(v, module.logit_scale)[0]
        for v in (each, module.per_anchor(x, labels, engine="dense").square().sum())
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss", POOLED, ids=repr)
def test_two_way_tiles_give_the_scale(loss, tiles):
    (x, _), (y, _) = large(), large(seed=6)
    y = y + x
    stored, oracle = leaves(loss, ["temperature"])
    module = double(loss, ["temperature"])
    value = module.aligned(x, y)
    assert tiles == ["PooledTiles"]
    pairs = oracles.relation(range(70), range(70))
    expected = (oracles.dense(oracle, x, *pairs, y) + oracles.dense(oracle, y, *pairs, x)) / 2
    expect_gradients(value, expected, module, stored)


@every_table
def test_what_tiles_cannot_give_is_done_in_strips(loss, names, tiles):
    x, labels = large()
    stored, oracle = leaves(loss, names)
    module = double(loss, names)
    expected = oracles.dense(oracle, x, *oracles.relation(labels.tolist()))
    expect_gradients(module(x, labels), expected, module, stored, tolerance=2e-12)
    with torch.no_grad():  # nothing to learn: any executor will do
        assert module(x, labels).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(("loss", "names"), TABLED.values(), ids=TABLED)
def test_float32_is_nearly_exact(loss, names, tiles):
    x, labels = large(torch.float32, features=48)
    x = x / 7
    module, exact = Learnable(loss, *names), Learnable(loss, *names).double()
    value, wanted = module(x, labels), exact(x.double(), labels, engine="dense")
    assert value.item() == pytest.approx(wanted.item(), rel=2e-6)
    ours = torch.autograd.grad(value, list(module.parameters()))
    for a, b in zip(ours, torch.autograd.grad(wanted, list(exact.parameters())), strict=True):
        assert a.dtype == torch.float32
        assert a.item() == pytest.approx(b.item(), rel=2e-5, abs=2e-7 * (1 + abs(wanted.item())))  # terms cancel


# ------------------------------------------------------------ a boundary for each class


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (nf.MarginLoss(beta=0.9), "beta"),
        (nf.MarginLoss(beta=0.8, active_only=True), "beta"),
        (nf.MultiSimilarityLoss(beta=9.0, epsilon=None), "base"),
    ],
    ids=lambda v: str(v),
)
@pytest.mark.parametrize("ignore", [None, 7])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("engine", ["auto", nf.engine.Strips(4)], ids=["auto", "strips"])
def test_boundaries_of_classes(loss, name, ignore, apart, engine, batch, gallery, tiles):
    (x, other), (y, other_y) = leaf_pair(batch[0]), leaf_pair(gallery[0])
    start = torch.tensor(np.random.default_rng(4).uniform(0.4, 1.2, size=10))
    module = Learnable(loss, name, classes=10).double()
    with torch.no_grad():
        getattr(module, name).copy_(start)
    stored = {name: start.clone().requires_grad_()}
    oracle = held(loss, **{name: stored[name][torch.tensor(batch[1])][:, None]})
    options = {"references": y, "reference_labels": gallery[1]} if apart else {}
    pairs = oracles.relation(batch[1], gallery[1] if apart else None, ignore)
    expected = oracles.dense(oracle, other, *pairs, other_y if apart else None)
    value = module(x, batch[1], ignore_label=ignore, engine=engine, **options)
    extra = [(x, other), (y, other_y)] if apart else [(x, other)]
    expect_gradients(value, expected, module, stored, extra)
    assert not tiles
    with torch.no_grad():
        assert module(x, batch[1], ignore_label=ignore, **options).item() == pytest.approx(value.item(), rel=1e-14)
    each = module.per_anchor(x, batch[1], ignore_label=ignore, engine=engine, **options)
    (gradient,) = torch.autograd.grad(each.square().sum(), getattr(module, name))
    sums, counts = oracles.dense_on_table(
        oracle, oracles.dense_table(type(loss.measure).__name__, other, other_y if apart else other), *pairs
    )
    per_anchor = sums / torch.where(counts > 0, counts, 1.0)
    (wanted,) = torch.autograd.grad(per_anchor.square().sum(), stored[name], retain_graph=True)
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)


def test_boundaries_of_classes_need_labels(batch):
    x = torch.tensor(batch[0])
    module = Learnable(nf.MarginLoss(), "beta", classes=8).double()
    with pytest.raises(nf.InputError, match="expected a label an anchor"):
        module.aligned(x, x)
    with pytest.raises(nf.InputError, match="expected a label an anchor"):
        module(x, nf.Mask(np.eye(13)))
    with pytest.raises(nf.InputError, match="got strings; number the classes"):
        module(x, ["a"] * 13)
    with pytest.raises(nf.ShapeError, match=r"expected beta of shape \(13,\)"):
        module(x, batch[1][:5] % 8)
    for outside in (8, -1):
        with pytest.raises(IndexError):
            module(x, np.full(13, outside))
    with pytest.raises(nf.InputError, match="expected one boundary for all classes"):
        _ = module.loss
    for classes in (0, True, 2.0):
        with pytest.raises(nf.InputError, match="expected classes to be a whole number"):
            Learnable(nf.MarginLoss(), "beta", classes=classes)
    with pytest.raises(nf.InputError, match="only a boundary has one a class"):
        Learnable(nf.SigLIPLoss(), "bias", classes=4)


# ------------------------------------------------------------ the module


def test_autocast_keeps_the_parameter_float32():
    x, labels = large(torch.float32)
    module = Learnable(nf.SigLIPLoss(0.3, -1.0), "temperature", "bias")
    plain = torch.autograd.grad(module(x, labels), list(module.parameters()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = module(x, labels)
    assert value.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in module.parameters())
    for a, b in zip(torch.autograd.grad(value, list(module.parameters())), plain, strict=True):
        assert torch.equal(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module(x.bfloat16(), labels)
    assert half.dtype == torch.bfloat16
    for a, b in zip(torch.autograd.grad(half, list(module.parameters())), plain, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.02, atol=0)


def test_a_float32_parameter_is_one_number_in_a_float64_table(batch):
    """Positives and negatives meet the same 1 / τ, to the last bit of float64."""
    x = torch.tensor(batch[0])
    module = Learnable(nf.SupConLoss(0.07), "temperature")
    exact = nf.SupConLoss(torch.exp(-module.logit_scale).item())
    assert module(x, batch[1]).item() == pytest.approx(exact(x, batch[1]).item(), rel=1e-14)
    assert module.loss == exact


@every_table
def test_a_step_lowers_the_loss(loss, names, batch):
    x = torch.tensor(batch[0], dtype=torch.float32)
    module = Learnable(loss, *names)
    before = module(x, batch[1])
    before.backward()
    torch.optim.SGD(module.parameters(), lr=1e-2).step()
    assert module(x, batch[1]).item() < before.item()
    assert module.loss != loss
    assert module.loss(x, batch[1]).item() == pytest.approx(module(x, batch[1]).item(), rel=1e-5)


def test_state_goes_to_a_dictionary_and_back():
    module = Learnable(nf.SigLIPLoss(0.3, -1.0), "temperature", "bias", largest_scale=50)
    state = module.state_dict()
    assert {name: value.dtype for name, value in state.items()} == {"logit_scale": torch.float32, "bias": torch.float32}
    other = Learnable(nf.SigLIPLoss(), "temperature", "bias")
    other.load_state_dict(state)
    assert other.loss == module.loss
    assert copy.deepcopy(module).loss == module.loss
    assert "SigLIPLoss" in repr(module)
    classes = Learnable(nf.MarginLoss(), "beta", classes=3).state_dict()
    assert classes["beta"].shape == (3,)


def test_a_scale_beyond_the_largest(batch):
    x = torch.tensor(batch[0], dtype=torch.float32)
    module, limit = Learnable(nf.SupConLoss(0.02), "temperature", largest_scale=100), np.log(100)
    with torch.no_grad():
        module.logit_scale.fill_(7.0)
    module.eval()
    module(x, batch[1]).backward()
    assert module.logit_scale.item() == 7.0
    assert module.logit_scale.grad.item() == 0.0
    assert module.loss.temperature == pytest.approx(0.01, rel=1e-6)
    evaluated = module(x, batch[1])
    module.train()
    first, second = module(x, batch[1]), module(x, batch[1])
    assert module.logit_scale.item() == pytest.approx(limit, rel=1e-6)
    (first + second + evaluated).backward()  # what was saved before the parameter was set back is still valid
    wanted = Learnable(nf.SupConLoss(0.01), "temperature")
    wanted(x, batch[1]).backward()
    assert module.logit_scale.grad.item() == pytest.approx(2 * wanted.logit_scale.grad.item(), rel=1e-4)
    assert first.item() == pytest.approx(nf.SupConLoss(0.01)(x, batch[1]).item(), rel=1e-5)


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.layers = torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.Tanh(), torch.nn.Linear(9, 5)).double()

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("chunk", [1, 4, 13, 40])
@every_table
def test_accumulated_scale_gradient(loss, names, chunk, batch):
    """The loss is evaluated once however many chunks there are, and so is its parameters' gradient."""
    found = []
    for cached in (True, False):
        model, module = Encoder(), double(loss, names)
        x, labels = torch.tensor(batch[0]), torch.tensor(batch[1])
        if cached:
            backward_in_chunks(model, module, x, labels, chunk=chunk)
        else:
            module(model(x), labels).backward()
        found.append([p.grad for p in (*model.parameters(), *module.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_boundaries_of_classes_in_chunks(batch):
    found = []
    for cached in (True, False):
        model, module = Encoder(), Learnable(nf.MarginLoss(), "beta", classes=10).double()
        x, labels = torch.tensor(batch[0]), torch.tensor(batch[1])
        if cached:
            backward_in_chunks(model, module, x, labels, chunk=3)
        else:
            module(model(x), labels).backward()
        found.append(module.beta.grad)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)
    assert found[0].abs().max() > 0.01


def test_only_what_asks_gets_a_gradient(batch):
    x = torch.tensor(batch[0], requires_grad=True)
    module = double(nf.SupConLoss(0.2), ["temperature"])
    value = module(x.detach(), batch[1])
    value.backward()
    assert x.grad is None
    assert module.logit_scale.grad.item() != 0
    module.requires_grad_(False)
    (module(x, batch[1]) * 3).backward()
    (plain,) = torch.autograd.grad(3 * module.loss(x, batch[1]), x)
    torch.testing.assert_close(x.grad, plain, rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        assert not module(x, batch[1]).requires_grad


@every_table
def test_nothing_to_learn_from_is_zero_and_attached(loss, names):
    x, labels = torch.zeros(0, 4, dtype=torch.float64), []
    module = double(loss, names)
    value = module(x, labels)
    value.backward()
    assert value.item() == 0
    assert all(p.grad.item() == 0 for p in module.parameters())
    lonely = double(nf.InfoNCELoss(), ["temperature"])
    lonely(torch.eye(4, dtype=torch.float64), [0, 0, 0, 0]).backward()
    assert lonely.logit_scale.grad.item() == 0


def test_nan_reaches_the_gradient(batch):
    x = torch.tensor(batch[0])
    x[2, 1] = torch.nan
    module = double(nf.SigLIPLoss(0.3), ["temperature", "bias"])
    module(x, batch[1]).backward()
    assert all(p.grad.isnan() for p in module.parameters())


def test_a_second_derivative_is_refused_by_name(batch):
    x = torch.tensor(batch[0])
    module = double(nf.SupConLoss(), ["temperature"])
    (gradient,) = torch.autograd.grad(module(x, batch[1]), module.logit_scale, create_graph=True)
    with pytest.raises(nf.InputError, match="expected one backward pass"):
        gradient.square().backward()


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (nf.TripletLoss(), "margin"),
        (nf.ContrastiveLoss(), "margin"),
        (nf.MarginLoss(), "margin"),
        (nf.LiftedStructureLoss(), "margin"),
        (nf.ArcFaceLoss(), "temperature"),
        (nf.CircleLoss(), "scale"),
        (nf.MultiSimilarityLoss(), "alpha"),
        (nf.SupConLoss(), "measure"),
        (nf.SupConLoss(), "nonsense"),
    ],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_what_has_no_such_gradient_is_refused_by_name(loss, name):
    with pytest.raises(nf.InputError, match=f"expected a hyper-parameter of {type(loss).__name__} .*got '{name}'"):
        Learnable(loss, name)


def test_other_refusals(batch):
    with pytest.raises(nf.InputError, match="got LossSum; of a sum make each part learnable"):
        Learnable(0.5 * nf.SupConLoss(), "temperature")
    for names in ([], ["temperature", "temperature"]):
        with pytest.raises(nf.InputError, match="each once"):
            Learnable(nf.SupConLoss(), *names)
    with pytest.raises(nf.InputError, match="expected temperature >= 1 / largest_scale"):
        Learnable(nf.SupConLoss(0.005), "temperature", largest_scale=100)
    for scale in (0.0, float("inf")):
        with pytest.raises(nf.InputError, match="expected a finite largest_scale > 0"):
            Learnable(nf.SupConLoss(), "temperature", largest_scale=scale)
    with pytest.raises(nf.InputError, match="expected a finite largest_scale > 0 of a temperature"):
        Learnable(nf.MarginLoss(), "beta", largest_scale=100)
    module = Learnable(nf.SupConLoss(), "temperature")
    with pytest.raises(nf.BackendError, match="expected torch tensors, got ndarray"):
        module(*batch)
    with pytest.raises(nf.InputError, match=r"expected a loss with the form \.pairs, got SupConLoss"):
        module.pairs(torch.eye(2), torch.eye(2), [1, 0])


def test_a_tensor_in_a_loss_is_learned_or_refused(batch):
    """A temperature of the caller's own making has its gradient; a margin with a graph is never silently constant."""
    x, temperature = torch.tensor(batch[0]), torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    module = double(nf.SupConLoss(0.2), ["temperature"])
    module(x, batch[1]).backward()
    nf.SupConLoss(temperature=temperature)(x, batch[1]).backward()
    assert -0.2 * temperature.grad.item() == pytest.approx(module.logit_scale.grad.item(), rel=1e-12)
    margin = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(nf.InputError, match="got 'margin'"):
        nf.ContrastiveLoss(margin=margin)(x, batch[1])
    with pytest.raises(nf.ShapeError, match=r"expected temperature to be a tensor of shape \(\)"):
        held(nf.SupConLoss(), temperature=torch.ones(13))(x, batch[1])


@dataclass(frozen=True)
class Pull(nf.PairLoss):
    """Squared distance to the positives, beyond a length."""

    length: float = 0.3
    measure: nf.Euclidean = nf.Euclidean()  # noqa: RUF009
    kind: ClassVar[str] = "distance"
    learnable: ClassVar[dict[str, str]] = {"length": "origin"}

    def strip(self, xp, s, pair):
        beyond = pair.take(s) - self.length
        return xp.sum(pair.share * beyond**2, axis=1), pair.add(xp.zeros_like(s), 2 * pair.share * beyond)


def test_a_loss_of_ones_own(batch):
    x = torch.tensor(batch[0])
    module = double(Pull(), ["length"])
    module(x, batch[1]).backward()
    up, down = (replace(Pull(), length=0.3 + step)(x, batch[1]).item() for step in (1e-6, -1e-6))
    assert module.length.grad.item() == pytest.approx((up - down) / 2e-6, rel=1e-7)
    with pytest.raises(nf.InputError, match="expected learnable to say one of"):
        Learnable(type("Other", (Pull,), {"learnable": {"length": "guess"}})(), "length")
