"""Small tables, which NumPy runs, and the same ones run by torch: one value, one gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import nearfar as nf
from cases import ONE_EACH
from nearfar.torch import _small

pytestmark = pytest.mark.small

by_name = pytest.mark.parametrize("loss", ONE_EACH)
in_both_directions = pytest.mark.parametrize(
    "loss", [nf.SupConLoss(), nf.ContrastiveLoss(balanced=True), nf.LiftedStructureLoss(), nf.SigLIPLoss()], ids=str
)


def batch(seed: int, n: int = 13) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), torch.randint(0, 4, (n,), generator=generator)


class Products(TorchFunctionMode):
    """Counts the calls of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return function(*args, **(kwargs or {}))


def both_ways(call: Any, *leaves: torch.Tensor) -> None:
    found = []
    for engine in ("auto", "dense"):
        with Products() as counted:
            value = call(engine)
        weight = torch.arange(1, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
        found.append((counted.calls, value.detach(), *torch.autograd.grad((value * weight).sum(), leaves)))
    (few, *small), (many, *other) = found
    assert few < many
    for one, two in zip(small, other, strict=True):
        assert one.dtype == two.dtype
        atol = 1e-13 * float(two.abs().nan_to_num().sum()) + 1e-14
        torch.testing.assert_close(one, two, rtol=1e-12, atol=atol, equal_nan=True)


@by_name
def test_numpy_gives_what_torch_gives(loss: Any) -> None:
    x, labels = batch(1)
    labels = labels % x.shape[1]
    both_ways(lambda engine: loss(x, labels, engine=engine), x)
    both_ways(lambda engine: loss.per_anchor(x, labels, engine=engine), x)


@in_both_directions
def test_two_batches_asked_in_both_directions_in_one_strip(loss: Any) -> None:
    (x, _), (y, _) = batch(2), batch(3)
    both_ways(lambda engine: loss.aligned(x, y, engine=engine), x, y)


def test_class_weights_logits_and_masks() -> None:
    (x, labels), (w, _) = batch(4), batch(5, 4)
    both_ways(lambda engine: nf.ArcFaceLoss()(x, labels, class_weights=w, engine=engine), x, w)
    labels[2] = labels[5] = -1
    both_ways(lambda engine: nf.CrossEntropyLoss()(x, labels, class_weights=w, ignore_label=-1, engine=engine), x, w)
    weights = torch.rand(13, 13, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    both_ways(lambda engine: nf.SupConLoss()(x, nf.Mask(weights, 1 - weights), engine=engine), x)


def test_logits_are_one_list_whatever_the_label() -> None:
    z = batch(6)[0]
    labels = torch.tensor([0, 1, 2, 3, 4, 3, 1, 0, 1, 2, 3, 4, 0])
    used = [k for k, c in enumerate(labels.tolist()) if c != 3]
    value = nf.CrossEntropyLoss()(z, labels, ignore_label=3)
    (gradient,) = torch.autograd.grad(value, z)
    expected = torch.nn.functional.cross_entropy(z[used], labels[used])
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, z)[0], rtol=1e-12, atol=1e-15)


def test_learnt_temperature_and_boundary() -> None:
    x, labels = batch(7)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    loss = nf.torch.Learnable(nf.SupConLoss(temperature=0.3), "temperature")
    both_ways(lambda engine: loss(x, labels, engine=engine), x, *loss.parameters())
    assert temperature.requires_grad


@pytest.mark.parametrize("kind", ["subclass", "large", "chosen"])
def test_what_torch_runs_itself(kind: str) -> None:
    class Own(torch.Tensor):
        pass

    x = torch.zeros(600 if kind == "large" else 8, 3)
    _, task, rows = nf.SupConLoss()._ready(
        nf.SupConLoss()._given(x.as_subclass(Own) if kind == "subclass" else x, np.arange(len(x)), *[None] * 4),
        "dense" if kind == "chosen" else "auto",
    )
    assert not _small.fits(task, rows)


@by_name
@pytest.mark.parametrize("kind", ["nothing", "alone", "zeros", "one class", "nan"])
def test_degenerate_batches(loss: Any, kind: str) -> None:
    (x, labels), n = batch(8), {"nothing": 0, "alone": 1}.get(kind, 13)
    x, labels = x.detach()[:n].clone(), labels[:n] % 5
    if kind == "one class":
        labels = torch.zeros_like(labels)
    if kind in ("zeros", "nan") and n:
        x[2] = 0.0 if kind == "zeros" else torch.nan
    x.requires_grad_()
    both_ways(lambda engine: loss(x, labels, engine=engine), x)
