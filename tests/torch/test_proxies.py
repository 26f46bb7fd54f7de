"""Proxies: weights that are parameters, whatever the loss calls them, in float32 whatever the embeddings are in."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar.torch import Learnable, Proxies, backward_in_chunks
from ranks import run_ranks

X = torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
Y = torch.tensor([0, 3, 3, 4, 5, 0, 2, 3, 1])
CLASS = torch.arange(6)
WITH_WEIGHTS = [
    nf.CrossEntropyLoss(),
    nf.CrossEntropyLoss(temperature=0.1, measure=nf.Cosine()),
    nf.ArcFaceLoss(temperature=0.2),
    nf.CosFaceLoss(temperature=0.2),
    nf.SphereFaceLoss(temperature=0.2),
    nf.ProxyNCALoss(),
    nf.ProxyNCALoss(include_own=True),
    nf.ProxyAnchorLoss(),
    nf.SubCenterArcFaceLoss(per_class=2),
    nf.SoftTripleLoss(per_class=2),
]
PAIRED = [nf.InfoNCELoss(), nf.SupConLoss(), nf.TripletLoss(), nf.ContrastiveLoss(), nf.NCALoss(), nf.MarginLoss()]


def leaves(module, x=X):
    return x.clone().requires_grad_(), module.weight


def graded(value, *inputs):
    return [value.item(), *torch.autograd.grad(value, inputs)]


def same(ours, theirs, rtol=1e-6):
    assert ours[0] == pytest.approx(theirs[0], rel=rtol)
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        assert b.abs().max() > 1e-4
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))


@pytest.mark.parametrize("loss", WITH_WEIGHTS, ids=str)
@pytest.mark.parametrize("ignore", [None, 3, 9])
def test_class_weights(loss, ignore):
    module = Proxies(loss, 6, 5, seed=0)
    x, w = leaves(module)
    assert w.shape == (6 * getattr(loss, "per_class", 1), 5)
    ours = graded(module(x, Y, ignore_label=ignore), x, w)
    theirs = graded(loss(x, Y, class_weights=w, ignore_label=ignore), x, w)
    same(ours, theirs, 1e-12)
    each = module.per_anchor(x, Y, ignore_label=ignore)
    assert torch.equal(each, loss.per_anchor(x, Y, class_weights=w, ignore_label=ignore))


@pytest.mark.parametrize("loss", PAIRED, ids=str)
@pytest.mark.parametrize("per_class", [1, 3])
@pytest.mark.parametrize("ignore", [None, 3, 9])
def test_losses_on_pairs_get_references(loss, per_class, ignore):
    module = Proxies(loss, 6, 5, per_class=per_class, seed=0)
    x, w = leaves(module)
    ours = graded(module(x, Y, ignore_label=ignore), x, w)
    kept = torch.ones(9, dtype=torch.bool) if ignore is None else ignore != Y
    # The proxies of an ignored class stay.
    rows = CLASS.repeat_interleave(per_class)
    same(ours, graded(loss(x[kept], Y[kept], references=w, reference_labels=rows), x, w))


def test_several_weights_a_class_of_a_loss_with_one():
    loss = nf.CrossEntropyLoss(temperature=0.1, measure=nf.Cosine())
    module = Proxies(loss, 6, 5, per_class=2, seed=0)
    x, w = leaves(module)
    ours = graded(module(x, Y), x, w)
    rows = CLASS.repeat_interleave(2)
    same(ours, graded(loss(x, Y, references=w, reference_labels=rows), x, w), 1e-12)
    # The mean over the class's two logits, among all twelve.
    z = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(w).T / 0.1
    known = Y < 6
    own = (Y[:, None] == rows)[known]
    value = (z[known].logsumexp(1) - (z[known] * own).sum(1) / 2).mean()
    same(ours, graded(value, x, w), 1e-5)


def test_a_sum_gives_weights_to_the_parts_that_have_them():
    loss = 0.3 * nf.CrossEntropyLoss() + nf.ContrastiveLoss(margin=2.0)
    module = Proxies(loss, 6, 5, seed=0)
    x, w = leaves(module)
    theirs = 0.3 * loss.parts[0][1](x, Y, class_weights=w) + loss.parts[1][1](x, Y)
    same(graded(module(x, Y), x, w), graded(theirs, x, w))
    both = nf.TripletLoss() + nf.InfoNCELoss()
    module = Proxies(both, 6, 5, seed=0)
    theirs = both(x, Y, references=module.weight, reference_labels=CLASS)
    same(graded(module(x, Y), x, module.weight), graded(theirs, x, module.weight))


@pytest.mark.parametrize("start", [nf.ProxyNCALoss(temperature=0.3), nf.InfoNCELoss(temperature=0.3)], ids=str)
def test_a_learned_temperature_inside(start):
    module = Proxies(Learnable(start, "temperature"), 6, 5, seed=0)
    assert sorted(name for name, _ in module.named_parameters()) == ["loss.logit_scale", "weight"]
    x, w = leaves(module)
    value = module(x, Y)
    held = Proxies(start, 6, 5, seed=0)
    same(graded(value, x, w), graded(held(x, Y), x, held.weight))
    module(x, Y).backward()
    up, down = (Proxies(type(start)(temperature=0.3 * np.exp(-e)), 6, 5, seed=0).double() for e in (1e-5, -1e-5))
    change = (up(X.double(), Y) - down(X.double(), Y)).item() / 2e-5
    assert module.loss.logit_scale.grad.item() == pytest.approx(change, rel=1e-4)


def test_a_learned_boundary_of_each_class_inside():
    module = Proxies(Learnable(nf.MarginLoss(), "beta", classes=10), 6, 5, seed=0)
    module(X, Y, ignore_label=-1).backward()
    assert module.loss.beta.grad.abs().max() > 0


# ------------------------------------------------------------ dtypes


@pytest.mark.parametrize("loss", [*WITH_WEIGHTS, *PAIRED], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_keep_dtype(loss, dtype):
    """PML #309, #209: proxies are cast in place to the embeddings' dtype. Here they stay as they are."""
    module = Proxies(loss, 6, 5, seed=0)
    before = module.weight.detach().clone()
    x = X.to(dtype).requires_grad_()
    value = module(x, Y)
    value.backward()
    assert module.weight.dtype == module.weight.grad.dtype == torch.float32
    assert x.grad.dtype == dtype
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(module.weight, before)
    exact = Proxies(loss, 6, 5, seed=0).double()
    with torch.no_grad():
        exact.weight.copy_(before)
    other = x.detach().double().requires_grad_()
    theirs = graded(exact(other, Y), other, exact.weight)
    assert value.item() == pytest.approx(theirs[0], rel=2e-5, abs=2e-6)
    torch.testing.assert_close(module.weight.grad.double(), theirs[2], rtol=1e-4, atol=1e-5 * theirs[2].abs().max())
    step = float(torch.finfo(dtype).eps) + 1e-5
    torch.testing.assert_close(x.grad.double(), theirs[1], rtol=step, atol=1e-5 * theirs[1].abs().max())


def test_a_step_under_autocast():
    """A model in bfloat16, proxies in float32: both move."""
    torch.manual_seed(0)
    model, module = torch.nn.Linear(5, 5), Proxies(nf.ProxyAnchorLoss(), 6, 5, seed=0)
    optimizer = torch.optim.SGD([*model.parameters(), *module.parameters()], lr=0.05)
    values = []
    for _ in range(5):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = model(X)
            assert z.dtype == torch.bfloat16
            value = module(z, Y)
        assert value.dtype == torch.float32
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]
    assert module.weight.dtype == torch.float32


def test_autocast_changes_no_bit():
    module = Proxies(nf.ArcFaceLoss(), 6, 5, seed=0)
    plain = graded(module(X, Y), module.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = module(X, Y)
    again = graded(value, module.weight)
    assert again[0] == plain[0]
    assert torch.equal(again[1], plain[1])


def test_in_chunks():
    found = []
    for cached in (True, False):
        torch.manual_seed(5)
        model, module = torch.nn.Linear(5, 5).double(), Proxies(nf.SoftTripleLoss(per_class=2), 6, 5, seed=0).double()
        if cached:
            backward_in_chunks(model, module, X.double(), Y, chunk=4)
        else:
            module(model(X.double()), Y).backward()
        found.append([p.grad for p in (*model.parameters(), *module.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


# ------------------------------------------------------------ the module


def test_the_start_is_a_function_of_the_seed():
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    a, b, c = (Proxies(nf.SupConLoss(), 40, 64, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(a.weight, b.weight)
    assert not torch.equal(a.weight, c.weight)
    assert a.weight.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)
    given = c.weight
    c.reset(3)
    assert c.weight is given
    assert torch.equal(c.weight, a.weight)


def test_state_goes_to_a_dictionary_and_back():
    a = Proxies(nf.SubCenterArcFaceLoss(per_class=2), 6, 5, seed=0)
    b = Proxies(nf.SubCenterArcFaceLoss(per_class=2), 6, 5, seed=1)
    assert list(a.state_dict()) == ["weight"]
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(X, Y), b(X, Y))
    assert torch.equal(copy.deepcopy(a)(X, Y), a(X, Y))
    assert "SubCenterArcFaceLoss" in repr(a)
    assert "classes=6, features=5, per_class=2" in repr(a)


def test_only_what_asks_gets_a_gradient():
    module = Proxies(nf.CosFaceLoss(), 6, 5, seed=0).requires_grad_(False)
    x = X.clone().requires_grad_()
    module(x, Y).backward()
    assert module.weight.grad is None
    assert x.grad.abs().max() > 0
    with torch.no_grad():
        assert not module(x, Y).requires_grad


def test_refusals():
    module = Proxies(nf.CosFaceLoss(), 6, 5, seed=0)
    for given, error, match in [
        (lambda: module(X.numpy(), Y), nf.BackendError, "expected torch tensors, got ndarray"),
        (lambda: module(X.to("meta"), Y), nf.BackendError, "move the module"),
        (lambda: module(X, torch.where(Y == 1, 6, Y)), nf.InputError, "expected labels from 0 to 5"),
        (lambda: module(X[:, :4], Y), nf.ShapeError, "expected embeddings of 5 features, got 4"),
        (lambda: module(X[0], Y), nf.ShapeError, "expected embeddings of shape"),
        (lambda: module(X, [f"{c}" for c in Y]), nf.InputError, "got strings; number the classes"),
        (lambda: module(X, Y, ignore_label="0"), nf.InputError, "got strings; number the classes"),
        (lambda: module(X, nf.Mask(np.eye(9))), nf.InputError, "expected labels that are classes, got Mask"),
        (lambda: module(X, Y, class_weights=X), nf.InputError, "got class_weights as well"),
        (lambda: module(X, Y, references=X), nf.InputError, "got references as well"),
        (lambda: Proxies(nf.CosFaceLoss, 6, 5, seed=0), nf.InputError, "expected a loss, a sum of losses or Learnable"),
        (lambda: Proxies(nf.CosFaceLoss(), 0, 5, seed=0), nf.InputError, "expected classes to be a whole number"),
        (lambda: Proxies(nf.CosFaceLoss(), 6, 5, seed=1.5), nf.InputError, "expected seed to be a whole number"),
        (lambda: Proxies(nf.CosFaceLoss(), 6, 2.5, seed=0), nf.InputError, "expected features to be a whole number"),
        (lambda: Proxies(nf.SupConLoss(), 6, 5, per_class=True, seed=0), nf.InputError, "expected per_class to be"),
        (
            lambda: Proxies(nf.SoftTripleLoss(), 6, 5, per_class=2, seed=0),
            nf.InputError,
            "expected per_class=10 for SoftTripleLoss, got 2",
        ),
        (
            lambda: Proxies(nf.ProxyAnchorLoss(), 6, 5, per_class=2, seed=0),
            nf.InputError,
            "expected per_class=1 for ProxyAnchorLoss, got 2",
        ),
        (
            lambda: Proxies(nf.CrossEntropyLoss() + nf.SoftTripleLoss(), 6, 5, seed=0),
            nf.InputError,
            "expected per_class=1 for CrossEntropyLoss, got 10; .*a module for each part",
        ),
    ]:
        with pytest.raises(error, match=match):
            given()


def test_two_ranks_are_one_process(tmp_path):
    """Uneven batches under DDP: value, and the gradient of encoder, proxies and temperature."""
    assert run_ranks("torch/proxies_on_ranks.py", 2, tmp_path) == ["[]", "[]"]
