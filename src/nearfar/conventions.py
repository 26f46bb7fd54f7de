"""Other sources' numbers: for each, our loss configured to reproduce them.

Same name, other function: sources disagree about the factor ½, squares, margins and what the mean counts. Each
function below returns a loss whose value is that source's, with its defaults as ours.
"""

from __future__ import annotations

from nearfar.losses import ContrastiveLoss, TripletLoss
from nearfar.measures import CosineDistance, Euclidean, SquaredEuclidean


def hadsell_2006(margin: float = 1.0) -> ContrastiveLoss:
    """½·same·d² + ½·(1−same)·max(m−d, 0)², the paper's pair loss averaged (the paper sums; its label 0 is similar)."""
    return ContrastiveLoss(margin)


def numpy_text(margin: float = 0.5) -> ContrastiveLoss:
    """½·same·d² + (1−same)·max(m−d, 0)²: the seed text that writes the loss in NumPy.

    Its function ``contrastive_loss(x1, x2, y, margin)`` takes two vectors and a vector of labels. It computes the
    distance of the one pair (x1, x2) and averages the loss of that pair over all the labels, as many as features:

    >>> import numpy as np
    >>> x1, x2 = np.array([0.2, 0.1, 0.4]), np.array([0.1, 0.3, 0.2])
    >>> labels = np.array([0, 1, 1])
    >>> one_pair = np.full(3, np.linalg.norm(x1 - x2))
    >>> float(numpy_text(0.5).distances(one_pair, labels).round(4))
    0.0433

    The right form has one row a pair and one label a row: ``numpy_text(m).pairs(left, right, same)``.
    """
    return ContrastiveLoss(margin, factors=(0.5, 1.0))


def introduction_text(margin: float = 1.0) -> ContrastiveLoss:
    """½·same·d² + (1−same)·max(m−d, 0), the hinge not squared: eq. (4) of the introduction to contrastive losses."""
    return ContrastiveLoss(margin, factors=(0.5, 1.0), powers=(2, 1))


def introduction_text_triplet(margin: float = 1.0) -> TripletLoss:
    """max(‖a−p‖² − ‖a−n‖² + m, 0): eq. (5) of the introduction to contrastive losses; FaceNet's loss."""
    return TripletLoss(margin, measure=SquaredEuclidean())


def keras_text(margin: float = 1.0) -> ContrastiveLoss:
    """same·d² + (1−same)·max(m−d, 0)², the mean over pairs: the seed's Keras chapter (``y_true``, ``y_pred`` = d)."""
    return ContrastiveLoss(margin, factors=(1.0, 1.0))


def tensorflow_addons(margin: float = 1.0) -> ContrastiveLoss:
    """same·d² + (1−same)·max(m−d, 0)²: ``tfa.losses.ContrastiveLoss`` with Keras' mean."""
    return ContrastiveLoss(margin, factors=(1.0, 1.0))


def sentence_transformers(margin: float = 0.5) -> ContrastiveLoss:
    """Hadsell's loss on the cosine distance with margin 0.5: ``sentence_transformers.losses.ContrastiveLoss``."""
    return ContrastiveLoss(margin, measure=CosineDistance())


def facenet(margin: float = 0.2) -> TripletLoss:
    """Squared distances, semi-hard negatives; normalise the embeddings, as FaceNet does."""
    return TripletLoss(margin, mining="semihard", measure=SquaredEuclidean())


def tensorflow_addons_semihard(margin: float = 1.0) -> TripletLoss:
    """``tfa.losses.TripletSemiHardLoss`` (distances not squared)."""
    return TripletLoss(margin, mining="semihard", measure=Euclidean())
