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
    DataError,
    DivergenceError,
    GuaranteeError,
    InputError,
    NearfarError,
    ShapeError,
    UsageError,
)
from nearfar.losses import (
    ArcFaceLoss,
    BinaryCrossEntropyLoss,
    CircleLoss,
    ContrastiveLoss,
    CrossEntropyLoss,
    FastAPLoss,
    InfoNCELoss,
    LiftedStructureLoss,
    LossSum,
    MarginLoss,
    MultiSimilarityLoss,
    NCALoss,
    NPairLoss,
    PairLoss,
    SigLIPLoss,
    SmoothAPLoss,
    SupConLoss,
    TripletLoss,
)
from nearfar.losses.sampling import distance_weighted
from nearfar.measures import Cosine, CosineDistance, Dot, Euclidean, Manhattan, SquaredEuclidean
from nearfar.relations import Aligned, Labels, Mask

__version__ = "0.1.0"

__all__ = [
    "Aligned",
    "ArcFaceLoss",
    "ArtefactError",
    "BackendError",
    "BinaryCrossEntropyLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "Cosine",
    "CosineDistance",
    "CrossEntropyLoss",
    "DataError",
    "DivergenceError",
    "Dot",
    "Euclidean",
    "FastAPLoss",
    "GuaranteeError",
    "InfoNCELoss",
    "InputError",
    "Labels",
    "LiftedStructureLoss",
    "LossSum",
    "Manhattan",
    "MarginLoss",
    "Mask",
    "MultiSimilarityLoss",
    "NCALoss",
    "NPairLoss",
    "NearfarError",
    "PairLoss",
    "ShapeError",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SquaredEuclidean",
    "SupConLoss",
    "TripletLoss",
    "UsageError",
    "distance_weighted",
]


def __getattr__(name: str) -> Any:
    """``nf.app``, ``nf.torch``, ``nf.plot`` and other parts: loaded when first asked for."""
    if name in ("app", "conventions", "engine", "metrics", "plot", "torch"):
        return import_module(f"nearfar.{name}")
    raise AttributeError(f"module 'nearfar' has no attribute {name!r}")
