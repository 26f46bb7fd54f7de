r"""The losses, each defined once.

Notation: :math:`x_i` an embedding, :math:`y_i` its label; :math:`P_i` the positives of anchor i (same label, not
itself), :math:`N_i` its negatives, :math:`A_i = P_i \cup N_i`; :math:`s_{ij}` a similarity (higher is nearer),
:math:`d_{ij}` a distance (lower is nearer); :math:`\tau` temperature, :math:`m` margin. ``same`` is 1 for similar and
0 for dissimilar pairs. Every loss is a mean over what its docstring names; anchors that lack what it needs count for
nothing, and the mean over nothing is 0 with gradient 0.
"""

from nearfar.losses.base import PairLoss
from nearfar.losses.circle import CircleLoss
from nearfar.losses.contrastive import ContrastiveLoss
from nearfar.losses.entropy import BinaryCrossEntropyLoss, CrossEntropyLoss
from nearfar.losses.lifted import LiftedStructureLoss
from nearfar.losses.margin import MarginLoss
from nearfar.losses.margin_softmax import ArcFaceLoss
from nearfar.losses.multi_similarity import MultiSimilarityLoss
from nearfar.losses.neighbours import NCALoss
from nearfar.losses.ranking import FastAPLoss, SmoothAPLoss
from nearfar.losses.sigmoid import SigLIPLoss
from nearfar.losses.softmax import InfoNCELoss, NPairLoss, SupConLoss
from nearfar.losses.sums import LossSum
from nearfar.losses.triplet import TripletLoss

__all__ = [
    "ArcFaceLoss",
    "BinaryCrossEntropyLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "CrossEntropyLoss",
    "FastAPLoss",
    "InfoNCELoss",
    "LiftedStructureLoss",
    "LossSum",
    "MarginLoss",
    "MultiSimilarityLoss",
    "NCALoss",
    "NPairLoss",
    "PairLoss",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SupConLoss",
    "TripletLoss",
]
