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
    BinaryCrossEntropyLoss,
    ContrastiveLoss,
    CrossEntropyLoss,
    InfoNCELoss,
    LossSum,
    NPairLoss,
    PairLoss,
    SupConLoss,
    TripletLoss,
)
from nearfar.measures import Cosine, CosineDistance, Dot, Euclidean, Manhattan, SquaredEuclidean
from nearfar.relations import Aligned, Labels, Mask

__version__ = "0.1.0"

__all__ = [
    "Aligned",
    "ArtefactError",
    "BackendError",
    "BinaryCrossEntropyLoss",
    "ContrastiveLoss",
    "Cosine",
    "CosineDistance",
    "CrossEntropyLoss",
    "DataError",
    "DivergenceError",
    "Dot",
    "Euclidean",
    "GuaranteeError",
    "InfoNCELoss",
    "InputError",
    "Labels",
    "LossSum",
    "Manhattan",
    "Mask",
    "NPairLoss",
    "NearfarError",
    "PairLoss",
    "ShapeError",
    "SquaredEuclidean",
    "SupConLoss",
    "TripletLoss",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    """``nf.app``, ``nf.torch``, ``nf.metrics``, ``nf.conventions``: loaded when first asked for."""
    if name in ("app", "conventions", "engine", "metrics", "torch"):
        return import_module(f"nearfar.{name}")
    raise AttributeError(f"module 'nearfar' has no attribute {name!r}")
