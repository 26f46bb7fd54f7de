"""What only the PyTorch binding can get wrong."""

import pytest
import torch

import nearfar as nf

LOSSES = [nf.SupConLoss(), nf.ContrastiveLoss(), nf.TripletLoss(), nf.InfoNCELoss()]


def batch(dtype=torch.float32):
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(24, 7, generator=generator, dtype=torch.float32).to(dtype).requires_grad_()
    return x, torch.arange(24) // 3


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_autocast_lowers_nothing(loss):
    x, y = batch()
    plain = loss(x, y)
    (expected,) = torch.autograd.grad(plain, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(x, y)
        (gradient,) = torch.autograd.grad(value, x)
        other, other_gradient = loss.value_and_grad(x, y)
    assert torch.equal(value, plain)
    assert torch.equal(gradient, expected)
    assert torch.equal(other, plain.detach())
    assert torch.equal(other_gradient, expected)


def test_a_graph_may_be_used_twice():
    x, y = batch()
    value = nf.SupConLoss()(x, y)
    (first,) = torch.autograd.grad(value, x, retain_graph=True)
    (second,) = torch.autograd.grad(3 * value, x)
    torch.testing.assert_close(second, 3 * first)


@pytest.mark.parametrize("call", [nf.SupConLoss(), nf.SupConLoss().per_anchor])
def test_double_backward_is_refused_by_name(call):
    x, y = batch()
    (gradient,) = torch.autograd.grad(call(x, y).sum(), x, create_graph=True)
    with pytest.raises(nf.InputError, match="expected one backward pass"):
        (x.sum() + gradient.square().sum()).backward()


def test_only_the_side_that_asks_gets_a_gradient():
    x, y = batch()
    r = torch.randn(5, 7, generator=torch.Generator().manual_seed(3), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 4])
    nf.SupConLoss()(x.detach(), y, references=r, reference_labels=labels).backward()
    assert x.grad is None
    assert r.grad is not None
    value = nf.SupConLoss()(x.detach(), y)
    assert not value.requires_grad


def test_zero_stays_attached_to_the_graph():
    x, _ = batch()
    value = nf.SupConLoss()(x, torch.arange(24))
    value.backward()
    assert value.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))
