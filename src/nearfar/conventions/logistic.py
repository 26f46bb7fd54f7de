"""Logistic losses, lifted structure and losses of scored pairs, as other sources have them."""

from __future__ import annotations

import math

from nearfar.losses import (
    AnglELoss,
    AngularLoss,
    CircleLoss,
    CoSENTLoss,
    GeneralizedLiftedStructureLoss,
    LiftedStructureLoss,
    MultiSimilarityLoss,
    SigLIPLoss,
)


def open_clip_siglip(logit_scale: float = 10.0, logit_bias: float = -10.0) -> SigLIPLoss:
    """``SigLipLoss``: every pair, summed, over the batch: ``loss.aligned(images, texts)``."""
    return SigLIPLoss(1 / logit_scale, logit_bias)


def sun_2020(margin: float = 0.4, scale: float = 80.0) -> CircleLoss:
    """Circle loss, its factors α held constant in the gradient."""
    return CircleLoss(margin, scale)


def pytorch_metric_learning_circle(margin: float = 0.4, scale: float = 80.0) -> CircleLoss:
    """``CircleLoss(m, gamma)``; its mean leaves anchors out whose loss is exactly 0."""
    return CircleLoss(margin, scale)


def keras_circle(margin: float = 0.4, scale: float = 80.0) -> CircleLoss:
    """``keras.losses.Circle(gamma, margin)`` in value; its gradient goes through α, ours and the authors' does not."""
    return CircleLoss(margin, scale)


def wang_2019(alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1) -> MultiSimilarityLoss:
    """Multi-similarity loss with its mining."""
    return MultiSimilarityLoss(alpha, beta, base, epsilon)


def pytorch_metric_learning_multi_similarity(
    alpha: float = 2.0, beta: float = 50.0, base: float = 0.5
) -> MultiSimilarityLoss:
    """The loss without its mining: the mean over all anchors, also those that have one side only."""
    return MultiSimilarityLoss(alpha, beta, base, epsilon=None, one_sided=True)


def tensorflow_similarity_multi_similarity(
    alpha: float = 2.0, beta: float = 40.0, lmda: float = 0.5, epsilon: float = 0.1
) -> MultiSimilarityLoss:
    """Mining inside; an anchor that fails it, or has no positive, counts as 0 in the mean."""
    return MultiSimilarityLoss(alpha, beta, lmda, epsilon, one_sided=True)


def song_2016(margin: float = 1.0) -> LiftedStructureLoss:
    """Lifted structure of raw rows; ``tfa.losses.LiftedStructLoss`` is the same."""
    return LiftedStructureLoss(margin)


def pytorch_metric_learning_lifted_structure(neg_margin: float = 1.0) -> LiftedStructureLoss:
    """``LiftedStructureLoss``, on unit rows."""
    return LiftedStructureLoss(neg_margin)


def pytorch_metric_learning_generalized_lifted_structure(neg_margin: float = 1.0) -> GeneralizedLiftedStructureLoss:
    """``GeneralizedLiftedStructureLoss``, Hermans' form, on unit rows.

    Theirs takes the log-sum-exp of no pairs for 0: an anchor without a positive costs max(log Σ e^(m−d), 0), one
    without a negative log Σ e^d, and both are in the mean. Ours leaves both out.
    """
    return GeneralizedLiftedStructureLoss(neg_margin)


def pytorch_metric_learning_angular(alpha: float = 40.0) -> AngularLoss:
    """Angle in degrees; on unit rows.

    Theirs does not normalise its negatives. The mean is over positive pairs.
    """
    return AngularLoss(math.radians(alpha), by_pair=True)


def sentence_transformers_cosent(scale: float = 20.0) -> CoSENTLoss:
    """``CoSENTLoss`` of pairs with scores."""
    return CoSENTLoss(1 / scale)


def sentence_transformers_angle(scale: float = 20.0) -> AnglELoss:
    """``AnglELoss`` of pairs with scores."""
    return AnglELoss(1 / scale)
