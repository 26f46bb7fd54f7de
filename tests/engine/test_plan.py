"""What ``explain`` says is what the engine does."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import nearfar as nf
from nearfar.engine import explain


def batch(n, d=64):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)).astype(np.float32), np.arange(n) // 8


@pytest.mark.parametrize(
    ("loss", "shapes", "options", "way", "units"),
    [
        (nf.SupConLoss(), [(8192, 128)], {}, "half tiles of 512", 2.0),
        (nf.ContrastiveLoss(), [(8192, 128)], {}, "half tiles of 512", 1.5),
        (nf.TripletLoss(), [(8192, 128)], {}, "strips of 128", 3.0),
        (nf.TripletLoss(mining="hard"), [(8192, 128)], {}, "listed pairs, found in strips of 128", 1.0),
        (nf.TripletLoss(mining="hard"), [(64, 128)], {}, "one block", 2.0),
        (nf.MultiSimilarityLoss(), [(8192, 128)], {}, "half tiles of 512", 2.0),
        (nf.SupConLoss(), [(64, 128)], {}, "one block", 2.0),
        (nf.SupConLoss(), [(8192, 128)], {"rows": 100}, "strips of 100", 3.0),
        (nf.InfoNCELoss(), [(4096, 128), (4096, 128)], {"both": True}, "half tiles of 512", 4.0),
        (nf.InfoNCELoss(), [(4096, 128), (4096, 128)], {}, "strips of 128", 3.0),
        (nf.InfoNCELoss(), [(4096, 128), (1000, 128)], {"both": True}, "strips of 524", 6.0),
        (nf.InfoNCELoss(), [(64, 128), (64, 128)], {"both": True}, "one block", 3.0),
        (nf.LiftedStructureLoss(), [(8192, 128)], {}, "strips of 128", 4.0),
        (nf.SupConLoss(), [(8192, 128)], {"labels": np.zeros(8192, int)}, "strips of 128", 3.0),
        (nf.LiftedStructureLoss(), [(64, 128), (64, 128)], {"both": True}, "one block", 8.0),
        (nf.QuadrupletLoss(), [(64, 128)], {}, "one block", 5.0),
        (nf.AngularLoss(), [(64, 128)], {}, "one block", 3.0),
        (nf.AngularLoss(), [(64, 128), (9, 128)], {"labels": [0, 0, 0, 1, 1]}, "one block", 9.0),
        (nf.AngularLoss(), [(0, 128)], {"labels": []}, "one block", 0.0),
    ],
)
def test_the_way_and_its_products(loss, shapes, options, way, units):
    plan = explain(loss, *shapes, **options)
    assert (plan.way, plan.units) == (way, units)
    assert str(plan).startswith(f"{way}: {units:g} products")


class Products(TorchDispatchMode):
    """Multiplications of all matrix products within it."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), options=None):
        if "mm" in function._schema.name:
            left, right = [a for a in args if isinstance(a, torch.Tensor)][-2:]
            self.count += left.shape[-2] * left.shape[-1] * right.shape[-1]
        return function(*args, **(options or {}))


@pytest.mark.parametrize("n", [300, 700])
@pytest.mark.parametrize(
    "loss",
    [
        nf.SupConLoss(),
        nf.TripletLoss(),
        nf.TripletLoss(mining="semihard"),
        nf.LiftedStructureLoss(),
        nf.HistogramLoss(),
        nf.QuadrupletLoss(),
        nf.AngularLoss(),
        nf.ProxyAnchorLoss(),
    ],
    ids=lambda v: type(v).__name__,
)
def test_products_are_those_that_are_made(loss, n):
    x, y = batch(n, 16)
    with Products() as made:
        loss.value_and_grad(torch.from_numpy(x), y)
    assert made.count == explain(loss, x, labels=y).units * n * n * 16


@pytest.mark.parametrize("n", [700, 4096])
@pytest.mark.parametrize(
    "loss",
    [nf.SupConLoss(), nf.InfoNCELoss(), nf.ContrastiveLoss(12.0), nf.NCALoss(100.0), nf.TripletLoss(mining="hard")],
    ids=repr,
)
def test_memory_is_about_what_it_says(loss, n):
    x, y = batch(n)
    loss.value_and_grad(x[:64], y[:64])
    tracemalloc.start()
    loss.value_and_grad(x, y)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    said = explain(loss, x, labels=y).megabytes
    assert 0.3 * said < peak < 2 * said


def test_refuses_what_is_no_shape():
    with pytest.raises(nf.ShapeError, match=r"\(items, features\)"):
        explain(nf.SupConLoss(), (8192,))
