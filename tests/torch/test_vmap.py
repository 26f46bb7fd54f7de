"""Losses under the transforms of ``torch.func``: what a loop over batches gives, or an error with a remedy."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad, grad_and_value, hessian, jacrev, jvp, vmap

import nearfar as nf
from nearfar.torch import Learnable

# Forward mode imports parts of torch that warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

Y = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]])
LOSSES = [
    nf.SupConLoss(temperature=0.3),
    nf.ContrastiveLoss(margin=2.5),
    nf.TripletLoss(mining="hard"),
    nf.CrossEntropyLoss(),
    0.5 * nf.SupConLoss() + nf.MultiSimilarityLoss(),
    nf.Matryoshka(nf.InfoNCELoss(), (2, 4)),
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
SUPCON = LOSSES[0]


def batches(seed=1, dtype=torch.float64):
    return torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_loop(loss, x, y=Y):
    pairs = [loss.value_and_grad(a, b) for a, b in zip(x, y, strict=True)]
    return torch.stack([value for value, _ in pairs]), torch.stack([gradient for _, gradient in pairs])


def expect_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-14, atol=1e-15)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vmap_grad_and_both_ways_round(loss, dtype):
    x = batches(dtype=dtype)
    values, gradients = by_loop(loss, x)
    tolerance = {"rtol": 1e-6, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-14, "atol": 1e-15}
    for got, expected in (
        (vmap(loss)(x, Y), values),
        (grad(loss)(x[0], Y[0]), gradients[0]),
        (vmap(grad(loss))(x, Y), gradients),
        (grad(lambda x: vmap(loss)(x, Y).sum())(x), gradients),
        (vmap(loss.value_and_grad)(x, Y)[1], gradients),
    ):
        torch.testing.assert_close(got, expected, **tolerance)


def test_other_axes_shared_labels_and_vmap_of_vmap():
    x = batches()
    values, _ = by_loop(SUPCON, x, Y[[0, 0, 0]])
    expect_same(vmap(SUPCON, in_dims=(1, None))(x.transpose(0, 1), Y[0]), values)
    expect_same(vmap(vmap(SUPCON, in_dims=(0, None)), in_dims=(0, None))(x[None], Y[0])[0], values)


def test_the_gradient_of_both_sides_and_of_one_tensor_on_both():
    left, right, _ = batches()
    leaves = left.clone().requires_grad_(), right.clone().requires_grad_()
    expected = torch.autograd.grad(SUPCON.aligned(*leaves), leaves)
    for got, own in zip(grad(SUPCON.aligned, argnums=(0, 1))(left, right), expected, strict=True):
        expect_same(got, own)
    (twice,) = torch.autograd.grad(SUPCON.aligned(leaves[0], leaves[0]), leaves[0])
    expect_same(grad(lambda z: SUPCON.aligned(z, z))(left), twice)


def test_forms():
    left, right, other = batches()
    contrastive, triplet, barlow = nf.ContrastiveLoss(margin=2.5), nf.TripletLoss(swap=True), nf.BarlowTwinsLoss()
    for form in (
        lambda x: SUPCON.views(x, right),
        lambda x: contrastive.pairs(x, right, Y[0] == 1),
        lambda x: contrastive.distances((x - right).square().sum(1), Y[0] == 1),
        lambda x: triplet.triplets(x, right, other),
        lambda x: SUPCON(x, Y[0], references=right, reference_labels=Y[1], ignore_label=2),
        lambda x: barlow(x, right),
    ):
        x = left.clone().requires_grad_()
        value = form(x)
        gradient, same = grad_and_value(form)(left)
        expect_same(same, value.detach())
        expect_same(gradient, torch.autograd.grad(value, x)[0])


def test_the_jacobian_of_each_anchors_loss():
    x = batches()[0]
    leaf = x.clone().requires_grad_()
    losses = SUPCON.per_anchor(leaf, Y[0])
    expected = torch.stack([torch.autograd.grad(one, leaf, retain_graph=True)[0] for one in losses])
    expect_same(jacrev(SUPCON.per_anchor)(x, Y[0]), expected)


def test_a_learned_temperature():
    x, module = batches()[0], Learnable(SUPCON, "temperature").double()
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    got = grad(lambda p: functional_call(module, p, (x, Y[0])))(parameters)
    module(x, Y[0]).backward()
    expect_same(got["logit_scale"], module.logit_scale.grad)
    assert got["logit_scale"] != 0


def test_a_gradient_of_a_gradient_is_refused_by_name():
    with pytest.raises(nf.InputError, match="expected one backward pass"):
        grad(lambda x: grad(SUPCON)(x, Y[0]).square().sum())(batches()[0])


@pytest.mark.parametrize("transform", [hessian, lambda f: lambda x: jvp(f, (x,), (x,))])
def test_forward_mode_is_refused_by_name(transform):
    with pytest.raises(nf.InputError, match="expected a derivative in reverse"):
        transform(lambda x: SUPCON(x, Y[0]))(batches()[0])


def test_errors_say_what_they_say_outside():
    x = batches()
    with pytest.raises(nf.ShapeError, match="expected labels of shape"):
        vmap(SUPCON)(x, Y[:, :5])
    with pytest.raises(nf.InputError, match="expected no group inside"):
        vmap(lambda x: SUPCON(x, Y[0], group="ranks"))(x)
    with pytest.raises(nf.InputError, match="expected PyTorch tensors inside"):
        vmap(lambda row: row.sum() * float(SUPCON(x[0].numpy(), Y[0].numpy())))(x)
