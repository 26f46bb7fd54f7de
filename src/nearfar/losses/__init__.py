r"""The losses, each defined once.

Notation: :math:`x_i` an embedding, :math:`y_i` its label; :math:`P_i` the positives of anchor i (same label, not
itself), :math:`N_i` its negatives, :math:`A_i = P_i \cup N_i`; :math:`s_{ij}` a similarity (higher is nearer),
:math:`d_{ij}` a distance (lower is nearer); :math:`\tau` temperature, :math:`m` margin. ``same`` is 1 for similar and
0 for dissimilar pairs. Every loss is a mean over what its docstring names; anchors that lack what it needs count for
nothing, and the mean over nothing is 0 with gradient 0.
"""

from nearfar.losses.angular import AngularLoss
from nearfar.losses.base import PairLoss
from nearfar.losses.centres import SoftTripleLoss, SubCenterArcFaceLoss
from nearfar.losses.chopra import ChopraLoss
from nearfar.losses.circle import CircleLoss
from nearfar.losses.contrastive import ContrastiveLoss
from nearfar.losses.debiased import DebiasedContrastiveLoss, HardNegativeContrastiveLoss
from nearfar.losses.decoupled import DecoupledContrastiveLoss
from nearfar.losses.deviance import BinomialDevianceLoss
from nearfar.losses.entropy import BinaryCrossEntropyLoss, CrossEntropyLoss
from nearfar.losses.features import FeatureLoss
from nearfar.losses.histogram import HistogramLoss
from nearfar.losses.lifted import GeneralizedLiftedStructureLoss, LiftedStructureLoss
from nearfar.losses.lmnn import LMNNLoss
from nearfar.losses.magnet import MagnetLoss
from nearfar.losses.margin import MarginLoss
from nearfar.losses.margin_softmax import ArcFaceLoss, CosFaceLoss
from nearfar.losses.matryoshka import Matryoshka
from nearfar.losses.multi_similarity import MultiSimilarityLoss
from nearfar.losses.multiple_negatives import MultipleNegativesRankingLoss
from nearfar.losses.neighbours import NCALoss, SoftNearestNeighborLoss
from nearfar.losses.noise import NoiseContrastiveLoss
from nearfar.losses.npair import NPairLoss
from nearfar.losses.proxy_anchor import ProxyAnchorLoss
from nearfar.losses.proxy_nca import ProxyNCALoss
from nearfar.losses.quadruplet import QuadrupletLoss
from nearfar.losses.ranked_list import RankedListLoss
from nearfar.losses.ranking import FastAPLoss, SmoothAPLoss
from nearfar.losses.recall import PNPLoss, RecallAtKLoss
from nearfar.losses.scores import AnglELoss, CoSENTLoss
from nearfar.losses.sigmoid import SigLIPLoss
from nearfar.losses.softmax import InfoNCELoss
from nearfar.losses.sphere import AlignmentLoss, BYOLLoss, KoLeoLoss, UniformityLoss
from nearfar.losses.sphere_face import SphereFaceLoss
from nearfar.losses.statistics import BarlowTwinsLoss, VICRegLoss
from nearfar.losses.sums import LossSum
from nearfar.losses.supcon import SupConLoss
from nearfar.losses.triplet import TripletLoss
from nearfar.losses.tuplet import TupletMarginLoss

__all__ = [
    "AlignmentLoss",
    "AnglELoss",
    "AngularLoss",
    "ArcFaceLoss",
    "BYOLLoss",
    "BarlowTwinsLoss",
    "BinaryCrossEntropyLoss",
    "BinomialDevianceLoss",
    "ChopraLoss",
    "CircleLoss",
    "CoSENTLoss",
    "ContrastiveLoss",
    "CosFaceLoss",
    "CrossEntropyLoss",
    "DebiasedContrastiveLoss",
    "DecoupledContrastiveLoss",
    "FastAPLoss",
    "FeatureLoss",
    "GeneralizedLiftedStructureLoss",
    "HardNegativeContrastiveLoss",
    "HistogramLoss",
    "InfoNCELoss",
    "KoLeoLoss",
    "LMNNLoss",
    "LiftedStructureLoss",
    "LossSum",
    "MagnetLoss",
    "MarginLoss",
    "Matryoshka",
    "MultiSimilarityLoss",
    "MultipleNegativesRankingLoss",
    "NCALoss",
    "NPairLoss",
    "NoiseContrastiveLoss",
    "PNPLoss",
    "PairLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "QuadrupletLoss",
    "RankedListLoss",
    "RecallAtKLoss",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SoftNearestNeighborLoss",
    "SoftTripleLoss",
    "SphereFaceLoss",
    "SubCenterArcFaceLoss",
    "SupConLoss",
    "TripletLoss",
    "TupletMarginLoss",
    "UniformityLoss",
    "VICRegLoss",
]
