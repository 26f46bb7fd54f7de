"""What every loss has for hyper-parameters: their defaults, what can be set, and that nothing changes afterwards."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil

import pytest

import nearfar as nf

DEFAULTS = """
AlignmentLoss(power=2.0, unit=True)
AnglELoss(temperature=0.05)
AngularLoss(angle=0.7853981633974483, measure=Cosine(), by_pair=False)
ArcFaceLoss(margin=0.5, temperature=0.015625, measure=CosineDistance())
BYOLLoss()
BarlowTwinsLoss(redundancy=0.005)
BinaryCrossEntropyLoss(temperature=1.0, measure=Dot())
BinomialDevianceLoss(alpha=2.0, base=0.5, cost=2.0, by_anchor=False, measure=Cosine())
ChopraLoss(bound=1.0, decay=2.77, measure=Manhattan())
CircleLoss(margin=0.4, scale=80.0, measure=Cosine())
CoSENTLoss(temperature=0.05, measure=Cosine())
ContrastiveLoss(margin=1.0, balanced=False, factors=(0.5, 0.5), powers=(2, 2), measure=Euclidean(), positive_margin=0.0, active_only=False)
CosFaceLoss(margin=0.35, temperature=0.015625, measure=Cosine())
CrossEntropyLoss(temperature=1.0, measure=Dot())
DebiasedContrastiveLoss(temperature=0.5, prior=0.1, measure=Cosine())
DecoupledContrastiveLoss(temperature=0.1, measure=Cosine(), sigma=None)
FastAPLoss(bins=10, span=2.0, measure=CosineDistance())
GeneralizedLiftedStructureLoss(margin=1.0, measure=Euclidean())
HardNegativeContrastiveLoss(temperature=0.5, prior=0.1, beta=1.0, measure=Cosine())
HistogramLoss(bins=100, span=(-1.0, 1.0), measure=Cosine())
InfoNCELoss(temperature=0.1, measure=Cosine(), by_pair=False)
KoLeoLoss(unit=True, floor=1e-08)
LMNNLoss(neighbours=3, margin=1.0, push=0.5, measure=SquaredEuclidean())
LiftedStructureLoss(margin=1.0, measure=Euclidean())
MagnetLoss(margin=1.0, variance=1.0, measure=SquaredEuclidean())
MarginLoss(margin=0.2, beta=1.2, active_only=False, measure=Euclidean())
MultiSimilarityLoss(alpha=2.0, beta=50.0, base=0.5, epsilon=0.1, measure=Cosine(), one_sided=False)
MultipleNegativesRankingLoss(temperature=0.05, directions=('query_to_doc',), measure=Cosine())
NCALoss(temperature=1.0, measure=SquaredEuclidean(), log=True)
NPairLoss(measure=Dot(), one_versus_one=False)
NoiseContrastiveLoss(measure=Dot())
PNPLoss(variant='Dq', alpha=4.0, b=2.0, temperature=0.01, measure=Cosine())
ProxyAnchorLoss(alpha=32.0, margin=0.1, measure=Cosine())
ProxyNCALoss(temperature=0.5, include_own=False, measure=CosineDistance())
QuadrupletLoss(margin=1.0, other_margin=0.5, measure=SquaredEuclidean())
RankedListLoss(margin=0.4, alpha=1.2, positive_scale=0.0, negative_scale=10.0, balance=0.5, through_weights=False, measure=Euclidean(), one_sided=False)
RecallAtKLoss(k=(1, 2, 4, 8, 16), temperature=0.01, rank_temperature=1.0, measure=Cosine())
SigLIPLoss(temperature=0.1, bias=-10.0, measure=Cosine())
SmoothAPLoss(temperature=0.01, measure=Cosine())
SoftNearestNeighborLoss(temperature=1.0, measure=SquaredEuclidean())
SoftTripleLoss(margin=0.01, temperature=0.05, gamma=0.1, per_class=10, measure=Cosine())
SphereFaceLoss(margin=4.0, temperature=0.03333333333333333, measure=CosineDistance())
SubCenterArcFaceLoss(margin=0.5, temperature=0.015625, per_class=3, measure=CosineDistance())
SupConLoss(temperature=0.1, measure=Cosine(), form='out', denominator='all')
TripletLoss(margin=0.2, mining='all', soft=False, active_only=False, swap=False, measure=Euclidean())
TupletMarginLoss(margin=0.1, scale=64.0, measure=CosineDistance(), by_pair=False)
UniformityLoss(t=2.0, unit=True)
VICRegLoss(invariance=25.0, variance=25.0, covariance=1.0, target=1.0, epsilon=0.0001)
""".strip().splitlines()  # noqa: E501
LOSSES = {line.split("(")[0]: line for line in DEFAULTS}
NAN, INF, LITTLE = math.nan, math.inf, 1e-9
# What is taken, and what is refused.
FINITE = (-7.5, 0.0, 0.5), (INF, -INF, NAN)
ABOVE_0 = (LITTLE, 0.5, 1.5, 300.0), (0.0, -LITTLE, INF, NAN)
FROM_0 = (0.0, 0.5, 1.5), (-LITTLE, INF, NAN)
FROM_1 = (1.0, 1.5, 4.0), (1 - LITTLE, INF, NAN)
SHARE = (0.0, 0.5, 1.0), (-LITTLE, 1 + LITTLE, NAN)
COUNT = (1, 2, 300), (0, -3, 1.5)
RANGES = {
    "AlignmentLoss": {"power": FROM_1},
    "AnglELoss": {"temperature": ABOVE_0},
    "AngularLoss": {"angle": ((LITTLE, 0.5, math.pi / 2 - LITTLE), (0.0, math.pi / 2, NAN))},
    "ArcFaceLoss": {"margin": ((0.0, 0.5, math.pi - LITTLE), (-LITTLE, math.pi, NAN)), "temperature": ABOVE_0},
    "BinaryCrossEntropyLoss": {"temperature": ABOVE_0},
    "BinomialDevianceLoss": {"alpha": ABOVE_0, "cost": ABOVE_0, "base": FINITE},
    "ChopraLoss": {"bound": ABOVE_0, "decay": ABOVE_0},
    "CircleLoss": {"margin": FINITE, "scale": ABOVE_0},
    "CoSENTLoss": {"temperature": ABOVE_0},
    "ContrastiveLoss": {
        "margin": FROM_0, "positive_margin": FINITE,
        "powers": (((1, 1), (1, 2), (2, 1)), ((0, 1), (1, 3), (2, 1.5))),
    },
    "CosFaceLoss": {"margin": FROM_0, "temperature": ABOVE_0},
    "CrossEntropyLoss": {"temperature": ABOVE_0},
    "DebiasedContrastiveLoss": {"temperature": ABOVE_0, "prior": ((0.0, 0.5, 1 - LITTLE), (-LITTLE, 1.0, NAN))},
    "DecoupledContrastiveLoss": {"temperature": ABOVE_0, "sigma": ((None, *ABOVE_0[0]), ABOVE_0[1])},
    "FastAPLoss": {"bins": COUNT, "span": ABOVE_0},
    "GeneralizedLiftedStructureLoss": {"margin": FINITE},
    "HardNegativeContrastiveLoss": {"beta": FROM_0, "prior": ((0.0, 0.5, 1 - LITTLE), (-LITTLE, 1.0, NAN))},
    "HistogramLoss": {
        "bins": COUNT,
        "span": (((-1.0, 1.0), (0.0, LITTLE)), ((1.0, 1.0), (1.0, -1.0), (0.0, INF), (-INF, 0.0), (NAN, 1.0))),
    },
    "InfoNCELoss": {"temperature": ABOVE_0},
    "KoLeoLoss": {"floor": ABOVE_0},
    "LMNNLoss": {"neighbours": COUNT, "margin": FINITE, "push": SHARE},
    "LiftedStructureLoss": {"margin": FINITE},
    "MagnetLoss": {"margin": FINITE, "variance": ABOVE_0},
    "MarginLoss": {"margin": FROM_0, "beta": FINITE},
    "MultiSimilarityLoss": {
        "alpha": ABOVE_0, "beta": ABOVE_0, "base": FINITE, "epsilon": ((None, *FROM_0[0]), FROM_0[1]),
    },
    "MultipleNegativesRankingLoss": {"temperature": ABOVE_0},
    "NCALoss": {"temperature": ABOVE_0},
    "PNPLoss": {
        "temperature": ABOVE_0, "alpha": ABOVE_0, "b": ABOVE_0, "variant": (("O", "Iu", "Ib", "Ds"), ("o", "D", "")),
    },
    "ProxyAnchorLoss": {"alpha": ABOVE_0, "margin": FROM_0},
    "ProxyNCALoss": {"temperature": ABOVE_0},
    "QuadrupletLoss": {"margin": FINITE, "other_margin": FINITE},
    "RankedListLoss": {
        "margin": FROM_0, "alpha": FINITE, "positive_scale": FROM_0, "negative_scale": FROM_0, "balance": SHARE,
    },
    "RecallAtKLoss": {
        "temperature": ABOVE_0, "rank_temperature": ABOVE_0, "k": (((1,), (2, 300)), ((), (0,), (1, -3), (1.5,), 4)),
    },
    "SigLIPLoss": {"temperature": ABOVE_0, "bias": FINITE},
    "SmoothAPLoss": {"temperature": ABOVE_0},
    "SoftNearestNeighborLoss": {"temperature": ABOVE_0},
    "SoftTripleLoss": {"margin": FROM_0, "temperature": ABOVE_0, "gamma": ABOVE_0, "per_class": COUNT},
    "SphereFaceLoss": {"margin": FROM_1, "temperature": ABOVE_0},
    "SubCenterArcFaceLoss": {
        "margin": ((0.0, 0.5, math.pi - LITTLE), (-LITTLE, math.pi, NAN)), "temperature": ABOVE_0,
        "per_class": (COUNT[0], (*COUNT[1], True)),
    },
    "SupConLoss": {"temperature": ABOVE_0, "form": (("out", "in"), ("", "both")), "denominator": ((), ("", "none"))},
    "TripletLoss": {"margin": FINITE, "mining": ((), ("", "soft"))},
    "TupletMarginLoss": {"margin": ((0.0, 0.5, math.pi - LITTLE), (-LITTLE, math.pi, NAN)), "scale": ABOVE_0},
    "UniformityLoss": {"t": ABOVE_0},
    "VICRegLoss": {"epsilon": ABOVE_0},
}  # fmt: skip


def test_every_loss_is_here():
    assert set(LOSSES) == set(nf.losses.__all__) - {"PairLoss", "FeatureLoss", "LossSum", "Matryoshka"}
    assert set(RANGES) <= set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_defaults(name):
    assert repr(getattr(nf, name)()) == LOSSES[name]


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_changes_afterwards(name):
    loss = getattr(nf, name)()
    assert loss == dataclasses.replace(loss)
    assert hash(loss) == hash(dataclasses.replace(loss))
    for field in dataclasses.fields(loss):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(loss, field.name, None)


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in RANGES for field in RANGES[name]])
def test_what_can_be_set(name, field):
    taken, refused = RANGES[name][field]
    kind = getattr(nf, name)
    for value in taken:
        assert getattr(kind(**{field: value}), field) == value
    for value in refused:
        with pytest.raises(nf.InputError, match=rf"expected .*{field}.* got .*; "):
            pytest.fail(f"{field}={value} gave {kind(**{field: value})}")


def test_every_class_is_frozen_but_what_a_call_works_on():
    """And what holds arrays is equal to itself only, so that it can be hashed."""
    found = {}
    for package in ("losses", "measures", "relations"):
        root = importlib.import_module(f"nearfar.{package}")
        for part in pkgutil.iter_modules(root.__path__, f"{root.__name__}."):
            for name, kind in vars(importlib.import_module(part.name)).items():
                if isinstance(kind, type) and kind.__module__ == part.name and "__dataclass_params__" in vars(kind):
                    found[name] = vars(kind)["__dataclass_params__"]
    assert len(found) > 60
    working = {"Prepared", "Near", "Table", "Blocks", "BoundPaired"}
    assert {name for name, kind in found.items() if not kind.frozen} == working
    by_identity = {"Labels", "Mask", "Rows", "Guided", "MultiLabels", "Pairwise", "_AgainstNoise", "_Ordered"}
    assert {name for name, kind in found.items() if not kind.eq} == by_identity
