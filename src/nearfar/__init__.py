"""Similarity learning with contrastive losses: the losses for engineers, a decision for everyone else.

>>> import numpy as np
>>> import nearfar as nf
>>> embeddings = np.array([[1.0, 0.1], [0.9, 0.3], [0.1, 1.0], [0.2, 0.8]])
>>> loss = nf.SupConLoss(temperature=0.1)
>>> value, gradient = loss.value_and_grad(embeddings, [0, 0, 1, 1])
>>> gradient.shape
(4, 2)
"""

from importlib import import_module
from typing import Any

from nearfar._errors import (
    ArtefactError,
    BackendError,
    CheckError,
    DataError,
    DivergenceError,
    GuaranteeError,
    InputError,
    NearfarError,
    ShapeError,
    UsageError,
)
from nearfar.losses import (
    AlignmentLoss,
    AnglELoss,
    AngularLoss,
    ArcFaceLoss,
    BarlowTwinsLoss,
    BinaryCrossEntropyLoss,
    BinomialDevianceLoss,
    BYOLLoss,
    ChopraLoss,
    CircleLoss,
    ContrastiveLoss,
    CoSENTLoss,
    CosFaceLoss,
    CrossEntropyLoss,
    DebiasedContrastiveLoss,
    DecoupledContrastiveLoss,
    FastAPLoss,
    FeatureLoss,
    GeneralizedLiftedStructureLoss,
    HardNegativeContrastiveLoss,
    HistogramLoss,
    InfoNCELoss,
    KoLeoLoss,
    LiftedStructureLoss,
    LMNNLoss,
    LossSum,
    MagnetLoss,
    MarginLoss,
    Matryoshka,
    MultipleNegativesRankingLoss,
    MultiSimilarityLoss,
    NCALoss,
    NoiseContrastiveLoss,
    NPairLoss,
    PairLoss,
    PNPLoss,
    ProxyAnchorLoss,
    ProxyNCALoss,
    QuadrupletLoss,
    RankedListLoss,
    RecallAtKLoss,
    SigLIPLoss,
    SmoothAPLoss,
    SoftNearestNeighborLoss,
    SoftTripleLoss,
    SphereFaceLoss,
    SubCenterArcFaceLoss,
    SupConLoss,
    TripletLoss,
    TupletMarginLoss,
    UniformityLoss,
    VICRegLoss,
)
from nearfar.losses.sampling import distance_weighted
from nearfar.measures import Cosine, CosineDistance, Dot, Euclidean, Manhattan, SquaredEuclidean
from nearfar.relations import Aligned, Guided, Labels, Mask, MultiLabels, Pairwise
from nearfar.testing import check_loss

__version__ = "0.1.0"

__all__ = [
    "Aligned",
    "AlignmentLoss",
    "AnglELoss",
    "AngularLoss",
    "ArcFaceLoss",
    "ArtefactError",
    "BYOLLoss",
    "BackendError",
    "BarlowTwinsLoss",
    "BinaryCrossEntropyLoss",
    "BinomialDevianceLoss",
    "CheckError",
    "ChopraLoss",
    "CircleLoss",
    "CoSENTLoss",
    "ContrastiveLoss",
    "CosFaceLoss",
    "Cosine",
    "CosineDistance",
    "CrossEntropyLoss",
    "DataError",
    "DebiasedContrastiveLoss",
    "DecoupledContrastiveLoss",
    "DivergenceError",
    "Dot",
    "Euclidean",
    "FastAPLoss",
    "FeatureLoss",
    "GeneralizedLiftedStructureLoss",
    "GuaranteeError",
    "Guided",
    "HardNegativeContrastiveLoss",
    "HistogramLoss",
    "InfoNCELoss",
    "InputError",
    "KoLeoLoss",
    "LMNNLoss",
    "Labels",
    "LiftedStructureLoss",
    "LossSum",
    "MagnetLoss",
    "Manhattan",
    "MarginLoss",
    "Mask",
    "Matryoshka",
    "MultiLabels",
    "MultiSimilarityLoss",
    "MultipleNegativesRankingLoss",
    "NCALoss",
    "NPairLoss",
    "NearfarError",
    "NoiseContrastiveLoss",
    "PNPLoss",
    "PairLoss",
    "Pairwise",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "QuadrupletLoss",
    "RankedListLoss",
    "RecallAtKLoss",
    "ShapeError",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SoftNearestNeighborLoss",
    "SoftTripleLoss",
    "SphereFaceLoss",
    "SquaredEuclidean",
    "SubCenterArcFaceLoss",
    "SupConLoss",
    "TripletLoss",
    "TupletMarginLoss",
    "UniformityLoss",
    "UsageError",
    "VICRegLoss",
    "check_loss",
    "distance_weighted",
]


def __getattr__(name: str) -> Any:
    """``nf.app``, ``nf.torch``, ``nf.plot`` and other parts: loaded when first asked for."""
    if name in ("app", "conventions", "engine", "jax", "keras", "metrics", "plot", "torch"):
        return import_module(f"nearfar.{name}")
    raise AttributeError(f"module 'nearfar' has no attribute {name!r}")
