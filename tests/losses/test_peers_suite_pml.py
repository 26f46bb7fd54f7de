"""What pytorch-metric-learning's own tests ask: points on a circle, a class of one item, classes of uneven size.

Through nearfar.conventions, in float64, value and gradient; beside the library as installed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar import conventions

pytest.importorskip("pytorch_metric_learning")
from pytorch_metric_learning import distances, losses, reducers
from pytorch_metric_learning.utils import accuracy_calculator, inference


def circle(*degrees):
    angles = np.radians(np.array(degrees, dtype=float))
    return torch.tensor(np.stack([np.cos(angles), np.sin(angles)], axis=1))


RNG = np.random.default_rng(83)
BATCHES = {
    "a class of one": (circle(0, 20, 40, 60, 80), torch.tensor([0, 0, 1, 1, 2])),
    "uneven": (circle(0, 10, 20, 50, 60, 80), torch.tensor([0, 0, 0, 1, 1, 2])),
    "random": (torch.tensor(RNG.normal(size=(45, 32))), torch.tensor(RNG.integers(0, 5, 45))),
    "one item": (circle(0), torch.tensor([0])),
    "one class": (circle(0, 10, 20), torch.tensor([0, 0, 0])),
    "all alone": (circle(0, 40, 60), torch.tensor([1, 2, 3])),
}
REFERENCES = torch.tensor(RNG.normal(size=(7, 32))), torch.tensor([0, 1, 2, 0, 3, 3, 4])
SQUARED, COSINE = distances.LpDistance(power=2), distances.CosineSimilarity()
MEAN, PER_ANCHOR = reducers.MeanReducer(), reducers.PerAnchorReducer(reducers.AvgNonZeroReducer())
CASES = {
    # Two of the points are 1 apart, where rounding would decide who is above 0.
    "contrastive": (conventions.pytorch_metric_learning_contrastive(1.1), losses.ContrastiveLoss(neg_margin=1.1)),
    "contrastive, margins of squared distances": (
        conventions.pytorch_metric_learning_contrastive(1.5, 0.25, nf.SquaredEuclidean()),
        losses.ContrastiveLoss(0.25, 1.5, distance=SQUARED),
    ),
    "contrastive, of all pairs": (
        conventions.pytorch_metric_learning_contrastive(1.5, 0.25, nf.SquaredEuclidean(), active_only=False),
        losses.ContrastiveLoss(0.25, 1.5, distance=SQUARED, reducer=MEAN),
    ),
    "contrastive, margins of similarities": (
        conventions.pytorch_metric_learning_contrastive(1 - 0.6, 1 - 1.5, nf.CosineDistance()),
        losses.ContrastiveLoss(1.5, 0.6, distance=COSINE),
    ),
    "triplet": (conventions.pytorch_metric_learning_triplet(0.2), losses.TripletMarginLoss(0.2)),
    "triplet, of similarities": (
        nf.TripletLoss(0.2, active_only=True, measure=nf.CosineDistance()),
        losses.TripletMarginLoss(0.2, distance=COSINE),
    ),
    "NT-Xent": (conventions.pytorch_metric_learning_ntxent(0.1), losses.NTXentLoss(0.1)),
    "NT-Xent, by anchors": (
        conventions.pytorch_metric_learning_ntxent(0.1, by_pair=False), losses.NTXentLoss(0.1, reducer=PER_ANCHOR)
    ),
    "SupCon": (conventions.pytorch_metric_learning_supcon(), losses.SupConLoss()),
    "tuplet margin": (conventions.pytorch_metric_learning_tuplet_margin(5, 64), losses.TupletMarginLoss(5, 64)),
    "angular": (conventions.pytorch_metric_learning_angular(), losses.AngularLoss(alpha=40)),
    "circle": (conventions.pytorch_metric_learning_circle(0.25, 256), losses.CircleLoss(0.25, 256)),
    "multi-similarity": (
        conventions.pytorch_metric_learning_multi_similarity(0.1, 40, 0.5), losses.MultiSimilarityLoss(0.1, 40, 0.5)
    ),
    "lifted": (conventions.pytorch_metric_learning_lifted_structure(0.5), losses.LiftedStructureLoss(0.5)),
    "NCA": (conventions.pytorch_metric_learning_nca(10), losses.NCALoss(10)),
    "FastAP": (conventions.pytorch_metric_learning_fast_ap(5), losses.FastAPLoss(5)),
    "ranked list": (
        conventions.pytorch_metric_learning_ranked_list(0.4, 3.0, 0.7, 0.8, 3.0),
        losses.RankedListLoss(0.4, 3, 0.7, 0.8, 3),
    ),
}  # fmt: skip
# SupCon without a negative is 0 there; NCA without a positive NaN.
ELSEWHERE = {("SupCon", "one class"), ("NCA", "all alone")}
# They take references; lifted structure reads the batch at their places.
WITH_REFERENCES = [
    name for name in CASES if name not in ("lifted", "FastAP", "ranked list", "NT-Xent, by anchors", "circle")
]


def unit(x):
    return torch.nn.functional.normalize(x)


def run(form, *arrays):
    leaves = [a.clone().requires_grad_() for a in arrays]
    value = form(*map(unit, leaves))
    return value.item(), torch.autograd.grad(value, leaves, allow_unused=True)


def alike(ours, theirs, rel):
    assert ours[0] == pytest.approx(theirs[0], rel=rel, abs=1e-13)
    for a, b in zip(ours[1], theirs[1], strict=True):
        b = torch.zeros_like(a) if b is None else b
        assert (a - b).abs().max() <= 10 * rel * b.abs().max() + 1e-12


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", CASES)
def test_as_installed(name, batch):
    (ours, theirs), (x, y) = CASES[name], BATCHES[batch]
    if (name, batch) in ELSEWHERE:
        return
    # NT-Xent adds the smallest number in its logarithm; the ranked list 1e-5 for every item.
    rel = 2e-5 if name == "ranked list" else 1e-6
    alike(run(lambda x: ours(x, y), x), run(lambda x: theirs(x, y), x), rel)


@pytest.mark.parametrize("name", WITH_REFERENCES)
def test_as_installed_with_references(name):
    (ours, theirs), (x, y), (other, labels) = CASES[name], BATCHES["random"], REFERENCES
    alike(
        run(lambda x, r: ours(x, y, references=r, reference_labels=labels), x, other),
        run(lambda x, r: theirs(x, y, ref_emb=r, ref_labels=labels), x, other),
        1e-6,
    )


@pytest.mark.parametrize("name", ["contrastive", "NT-Xent", "triplet", "tuplet margin", "multi-similarity"])
def test_two_views(name):
    """Its SelfSupervisedLoss stacks them."""
    ours, theirs = CASES[name]
    views = unit(BATCHES["random"][0][:20]), unit(BATCHES["random"][0][20:40])
    expected = losses.SelfSupervisedLoss(theirs)(*views)
    assert ours.views(*views).item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("options", [(25, 25, 1, 1e-4), (10, 10, 2, 1e-5), (5, 5, 5, 1e-6)])
def test_vicreg(options):
    x = torch.tensor(RNG.normal(size=(32, 64)))
    y = x + 0.1 * torch.tensor(RNG.normal(size=(32, 64)))
    names = ("invariance_lambda", "variance_mu", "covariance_v", "eps")
    theirs = losses.VICRegLoss(**dict(zip(names, options, strict=True)))(x, ref_emb=y)
    assert conventions.pytorch_metric_learning_vicreg(*options)(x, y).item() == pytest.approx(theirs.item(), rel=1e-9)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_is_kept(name, dtype):
    """And nothing is lost but what rounding the embeddings lost: their tests allow float16 a hundredth."""
    x, y = BATCHES["random"]
    rows = unit(x).to(dtype).requires_grad_()
    value = CASES[name][0](rows, y)
    value.backward()
    assert value.dtype == rows.grad.dtype == dtype
    assert rows.grad.isfinite().all()
    exact = CASES[name][0](rows.detach().double(), y).item()
    assert value.item() == pytest.approx(exact, rel=2 * torch.finfo(dtype).eps + 1e-5)


# ------------------------------------------------------------ its accuracy calculator


@pytest.mark.parametrize("same_source", [True, False])
@pytest.mark.parametrize("classes", [2, 11, 103])
def test_accuracy_calculator(classes, same_source):
    rng = np.random.default_rng(493)
    x, y = rng.random((300, 5)), rng.integers(0, classes, 300)
    names = {
        "precision_at_1": nf.metrics.precision_at_1,
        "r_precision": nf.metrics.r_precision,
        "mean_average_precision_at_r": nf.metrics.map_at_r,
        "mean_average_precision": nf.metrics.average_precision,
        "mean_reciprocal_rank": nf.metrics.reciprocal_rank,
    }
    calculator = accuracy_calculator.AccuracyCalculator(
        include=tuple(names), k=299 if same_source else 300, device=torch.device("cpu"),
        knn_func=inference.CustomKNN(distances.LpDistance(normalize_embeddings=False, power=2)),
    )  # fmt: skip
    tensors = torch.tensor(x), torch.tensor(y)
    theirs = calculator.get_accuracy(*tensors, *tensors, same_source)
    scores = -((x[:, None] - x) ** 2).sum(-1)
    for name, ours in names.items():
        value = np.nanmean(ours(scores, y, y, exclude_self=same_source))
        assert value == pytest.approx(theirs[name], abs=2e-6), name  # float32 there
