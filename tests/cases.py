"""Every loss with the hyper-parameters and measures the contracts run it on, and how a case is called."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

import families
import nearfar as nf
import oracles

SIMILARITIES = (nf.Cosine(), nf.Dot())
DISTANCES = (nf.Euclidean(), nf.SquaredEuclidean(), nf.CosineDistance(), nf.Manhattan())

VARIANTS = {
    "LiftedStructureLoss": [nf.LiftedStructureLoss(margin=1.1), nf.LiftedStructureLoss(margin=-0.5)],
    "ContrastiveLoss": [
        nf.ContrastiveLoss(margin=1.3),
        nf.ContrastiveLoss(margin=0.9, balanced=True),
        nf.ContrastiveLoss(margin=1.1, powers=(1, 1), factors=(1.0, 0.7)),
        nf.ContrastiveLoss(margin=1.1, powers=(1, 2), balanced=True),
        nf.ContrastiveLoss(margin=1.2, powers=(2, 1), positive_margin=0.6, active_only=True),
        nf.ContrastiveLoss(margin=2.6, factors=(0.0, 0.8), powers=(1, 2), active_only=True),
        nf.ContrastiveLoss(margin=1.2, factors=(0.7, 1.1), powers=(1, 2), positive_margin=-0.4, balanced=True),
    ],
    "TripletLoss": [
        nf.TripletLoss(margin=0.3),
        nf.TripletLoss(margin=0.3, active_only=True),
        nf.TripletLoss(margin=0.1, soft=True),
        nf.TripletLoss(margin=0.3, mining="hard"),
        nf.TripletLoss(margin=0.3, mining="hard", active_only=True),
        nf.TripletLoss(margin=0.0, mining="hard", soft=True),
        nf.TripletLoss(margin=0.3, mining="semihard"),
        nf.TripletLoss(margin=0.1, mining="semihard", soft=True),
        nf.TripletLoss(margin=0.3, mining="semihard", active_only=True),
        nf.TripletLoss(margin=0.6, mining="easy"),
        nf.TripletLoss(margin=0.6, mining="easy-semihard"),
        nf.TripletLoss(margin=0.0, mining="easy-semihard", soft=True),
    ],
    "InfoNCELoss": [
        nf.InfoNCELoss(temperature=0.2),
        nf.InfoNCELoss(temperature=0.05),
        nf.InfoNCELoss(temperature=0.3, by_pair=True),
    ],
    "CrossEntropyLoss": [nf.CrossEntropyLoss(), nf.CrossEntropyLoss(temperature=0.3)],
    "BinaryCrossEntropyLoss": [nf.BinaryCrossEntropyLoss(), nf.BinaryCrossEntropyLoss(temperature=0.2)],
    "FastAPLoss": [nf.FastAPLoss(bins=7, span=3.3), nf.FastAPLoss()],
    "SmoothAPLoss": [nf.SmoothAPLoss(temperature=0.2), nf.SmoothAPLoss(temperature=0.03)],
    "ArcFaceLoss": [
        nf.ArcFaceLoss(margin=0.4, temperature=0.3),
        nf.ArcFaceLoss(),
        nf.ArcFaceLoss(margin=2.0, temperature=0.5),
    ],
    "MultiSimilarityLoss": [
        nf.MultiSimilarityLoss(alpha=3.0, beta=8.0, base=0.3),
        nf.MultiSimilarityLoss(beta=20.0, epsilon=0.4),
        nf.MultiSimilarityLoss(epsilon=None),
        nf.MultiSimilarityLoss(beta=9.0, epsilon=None, one_sided=True),
        nf.MultiSimilarityLoss(beta=7.0, epsilon=0.2, one_sided=True),
    ],
    "CircleLoss": [nf.CircleLoss(margin=0.3, scale=5.0), nf.CircleLoss()],
    "SigLIPLoss": [nf.SigLIPLoss(temperature=0.3, bias=-2.0), nf.SigLIPLoss(temperature=1.5, bias=0.4)],
    "MarginLoss": [nf.MarginLoss(margin=0.3, beta=0.9), nf.MarginLoss(margin=0.2, beta=1.1, active_only=True)],
    **families.VARIANTS,
}
STOP_GRADIENT = (
    nf.CircleLoss,
    *families.STOP_GRADIENT,
)  # The gradient takes a part of the value as a constant, as its paper does.
ONE_WAY = (nf.NPairLoss, nf.SigLIPLoss, *families.ONE_WAY)  # Two aligned batches are asked once.
# The base; sums, which test_forms.py compares with their parts; losses of given pairs with scores, which have no table
# of anchors and references: tests/losses/test_scores.py.
NOT_ALONE = {"PairLoss", "LossSum", "AnglELoss", "CoSENTLoss"}
# Losses of features have no pairs and a contract of their own (test_feature_losses.py); Matryoshka is another loss on
# cut features (test_matryoshka.py).
OF_FEATURES = {"AlignmentLoss", "BYOLLoss", "BarlowTwinsLoss", "KoLeoLoss", "UniformityLoss", "VICRegLoss"}
NOT_ALONE |= {"FeatureLoss", "Matryoshka"} | OF_FEATURES


def _name(loss):
    parts = [type(loss).__name__.removesuffix("Loss"), type(loss.measure).__name__]
    fields = ("balanced", "powers", "mining", "soft", "active_only", "temperature", "bins", "epsilon", "scale")
    fields += ("by_pair", "one_sided", "positive_margin", "factors")
    for field in (*fields, *families.NAMED_BY):
        if hasattr(loss, field) and getattr(loss, field) != getattr(type(loss), field, None):
            given = getattr(loss, field)
            parts.append(field if given is True else f"{field}{given}".replace(" ", ""))
    return "-".join(parts)


def _measures(loss):
    if type(loss) is nf.ArcFaceLoss or loss == nf.FastAPLoss():  # A margin on an angle; bins over [0, 2].
        return (nf.CosineDistance(),)
    if type(loss) in families.MEASURES:
        return families.MEASURES[type(loss)]
    return SIMILARITIES if loss.kind == "similarity" else DISTANCES


# One variant on every measure; every variant on its default measure.
CASES = {
    _name(loss): loss
    for variants in VARIANTS.values()
    for first, loss in (
        *((True, replace(variants[0], measure=m)) for m in _measures(variants[0])),
        *((False, v) for v in variants[1:]),
    )
}
# One case a loss; where a test need not meet every measure and variant, the others belong to make test-all.
FIRST = {type(v).__name__: k for k, v in reversed(CASES.items())}
ONE_EACH = [
    pytest.param(v, id=k, marks=[] if FIRST[type(v).__name__] == k else pytest.mark.slow) for k, v in CASES.items()
]
# The whole product; the same holds of it.
ALL_CASES = {
    _name(loss): loss
    for variants in VARIANTS.values()
    for variant in variants
    for m in _measures(variant)
    for loss in (replace(variant, measure=m),)
}
ALL_EACH = [
    pytest.param(v, id=k, marks=[] if FIRST[type(v).__name__] == k else pytest.mark.slow) for k, v in ALL_CASES.items()
]

FRAMEWORKS = ("numpy", "torch")
DTYPES = {"numpy": ("float64", "float32", "float16"), "torch": ("float64", "float32", "float16", "bfloat16")}
CELLS = [(f, d) for f in FRAMEWORKS for d in DTYPES[f]]
EPS = {d: float(torch.finfo(getattr(torch, d)).eps) for d in DTYPES["torch"]}
SMALLEST = {d: float(torch.finfo(getattr(torch, d)).smallest_normal) * EPS[d] for d in DTYPES["torch"]}
LARGEST = {d: float(torch.finfo(getattr(torch, d)).max) for d in DTYPES["torch"]}


def met_in_pairs(losses, entries):
    """The product of losses, cells and further entries (a dict), as parameters.

    In make test any two of a loss, a cell and an entry meet; the rest belongs to make test-all, as do all cells of a
    loss that is marked slow.
    """
    found, met, turns = [], 0, min(len(CELLS), len(entries))
    for loss in losses:
        for (i, cell), (j, (name, entry)) in product(enumerate(CELLS), enumerate(entries.items())):
            chosen = (met + i + j) % turns == 0
            marks = [] if chosen and not loss.marks else pytest.mark.slow
            found.append(pytest.param(*loss.values, cell, entry, id="-".join([loss.id, *cell, name]), marks=marks))
        met += not loss.marks
    return found


def array(values, framework, dtype):
    """``values`` rounded to the dtype, in the framework."""
    if framework == "numpy":
        with np.errstate(over="ignore"):
            return np.asarray(values, dtype=np.float64).astype(dtype)
    return torch.tensor(np.asarray(values, dtype=np.float64)).to(getattr(torch, dtype))


def plain(a):
    """Any array as NumPy float64."""
    if isinstance(a, torch.Tensor):
        return a.detach().to(torch.float64).numpy()
    return np.asarray(a, dtype=np.float64)


def is_logits(loss, y):
    """Cross-entropy of a batch without class weights takes logits, not embeddings."""
    return type(loss) is nf.CrossEntropyLoss and y is None


def expected_relation(loss, x, labels, y=None, reference_labels=None, ignore=None):
    if is_logits(loss, y):
        keep = [ignore is None or c != ignore for c in labels]
        right = [[int(k and c == j) for j in range(np.shape(x)[1])] for c, k in zip(labels, keep, strict=True)]
        wrong = [[int(k and c != j) for j in range(np.shape(x)[1])] for c, k in zip(labels, keep, strict=True)]
        return right, wrong
    return oracles.relation(labels, reference_labels, ignore)


def expected_value(loss, x, labels, y=None, reference_labels=None):
    """The loops' value on rows of float64."""
    pairs = expected_relation(loss, x, labels, y, reference_labels)
    if is_logits(loss, y):
        return oracles.loops_on_table(loss, np.asarray(x).tolist(), *pairs)[0]
    return oracles.loops(loss, np.asarray(x).tolist(), *pairs, None if y is None else np.asarray(y).tolist())


def expected_gradients(loss, x, labels, y=None, reference_labels=None):
    """Value and gradients of the dense table by automatic differentiation."""
    pairs = expected_relation(loss, x, labels, y, reference_labels)
    if is_logits(loss, y):
        leaf = torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True)
        sums, counts = oracles.dense_on_table(loss, leaf * 1, *pairs)
        value = sums.sum() / torch.where(counts.sum() > 0, counts.sum(), 1.0)
        return value.item(), torch.autograd.grad(value, leaf)[0].numpy()
    return oracles.dense_gradients(loss, x, *pairs, y)


def _largest(loss, x, y):
    """Of the table, or of the logits."""
    if is_logits(loss, y):
        return float(np.abs(x).max(initial=0.0))
    a, b = (torch.as_tensor(np.asarray(v)) for v in (x, x if y is None else y))
    s = oracles.dense_table(type(loss.measure).__name__, a, b)
    return float(s.abs().max()) if s.numel() else 0.0


def steepness(loss, x, y=None):
    """How fast what stands in the exponentials follows the measure."""
    if type(loss) in families.STEEPNESS:
        return families.STEEPNESS[type(loss)](loss)
    if type(loss) is nf.MultiSimilarityLoss:
        return max(loss.alpha, loss.beta)
    if type(loss) is nf.CircleLoss:
        return loss.scale * (1 + abs(loss.margin) + _largest(loss, x, y))
    return 1 / getattr(loss, "temperature", 1.0)


def table_scale(loss, x, y=None):
    """The largest entry that enters the loss: of the table, in units of the temperature."""
    offset = 1 + abs(loss.margin) if type(loss) is nf.CircleLoss else 0.0
    return (_largest(loss, x, y) + offset) * steepness(loss, x, y) + abs(getattr(loss, "bias", 0.0))


def call(loss, x, labels, y=None, reference_labels=None, **options):
    """The loss and its gradients through ``value_and_grad``; gradients as a tuple."""
    extra = {} if y is None else {"references": y, "reference_labels": reference_labels}
    value, gradients = loss.value_and_grad(x, labels, **extra, **options)
    return value, gradients if isinstance(gradients, tuple) else (gradients,)


def labels_for(loss, x, labels, y=None):
    """Labels of the batch; columns of the logits for cross-entropy."""
    return np.arange(len(labels)) * 2 % x.shape[1] if is_logits(loss, y) else labels
