"""Softmax losses of pairs and the neighbourhood losses, as other sources have them."""

from __future__ import annotations

import math

from nearfar.losses import (
    DecoupledContrastiveLoss,
    InfoNCELoss,
    LossSum,
    MultipleNegativesRankingLoss,
    NCALoss,
    NPairLoss,
    SupConLoss,
    TupletMarginLoss,
)
from nearfar.measures import Cosine, CosineDistance, Dot, SquaredEuclidean


def pytorch_metric_learning_ntxent(temperature: float = 0.07, by_pair: bool = True) -> InfoNCELoss:
    """Each positive alone against the negatives, the mean over positive pairs.

    ``by_pair=False`` is its ``PerAnchorReducer``, whose mean over anchors leaves out those at exactly 0.
    """
    return InfoNCELoss(temperature, by_pair=by_pair)


def optax_ntxent(temperature: float = 0.07) -> InfoNCELoss:
    """``optax.losses.ntxent``: that of pytorch-metric-learning, with the same mean over pairs."""
    return InfoNCELoss(temperature, by_pair=True)


def pytorch_metric_learning_supcon(temperature: float = 0.1) -> SupConLoss:
    """No factor before the loss; theirs leaves anchors whose loss is exactly 0 out of the mean.

    Without a negative in the batch theirs is 0; the paper's formula, and ours, is not where an anchor has two
    positives.
    """
    return SupConLoss(temperature)


def supcontrast(temperature: float = 0.07, base_temperature: float = 0.07) -> LossSum:
    """The authors' code: τ / base times the paper's loss, nothing normalised; its mean counts every anchor.

    Its features of shape (items, views, features) are :meth:`SupConLoss.views` or repeated labels here.
    """
    return LossSum(((temperature / base_temperature, SupConLoss(temperature, Dot())),))


def setfit_supcon(temperature: float = 0.07, base_temperature: float = 0.07) -> LossSum:
    """SetFit's copy of it, which normalises."""
    return LossSum(((temperature / base_temperature, SupConLoss(temperature)),))


def google_supcon(temperature: float = 1.0, summation: str = "out", denominator: str = "all") -> LossSum:
    """google-research's ``contrastive_loss``: τ times the loss, nothing normalised; of several views.

    ``summation`` and ``denominator`` as ``form`` and ``denominator`` of :class:`SupConLoss`: ALL, ONE_POSITIVE and
    ONLY_NEGATIVES there. With a single view theirs divides by the number of positives twice.
    """
    return LossSum(((temperature, SupConLoss(temperature, Dot(), summation, denominator)),))


def lightly_ntxent(temperature: float = 0.5) -> InfoNCELoss:
    """SimCLR's loss of two views: ``loss.views(z1, z2)``."""
    return InfoNCELoss(temperature)


def lightly_dcl(temperature: float = 0.1) -> DecoupledContrastiveLoss:
    """``DCLLoss`` of two views, since 1.5.21; before, it added a log-sum-exp for the negatives of each view."""
    return DecoupledContrastiveLoss(temperature)


def lightly_dclw(temperature: float = 0.1, sigma: float = 0.5) -> DecoupledContrastiveLoss:
    """``DCLWLoss`` of two views, since 1.5.21 as ``DCLLoss``."""
    return DecoupledContrastiveLoss(temperature, sigma=sigma)


def tensorflow_similarity_simclr(temperature: float = 0.05) -> LossSum:
    """``SimCLRLoss`` adds the losses of both views where others halve: ``loss.views(z1, z2)``."""
    return LossSum(((2.0, InfoNCELoss(temperature)),))


def tensorflow_similarity_multiple_negatives(scale: float = 20.0) -> InfoNCELoss:
    """``MultiNegativesRankLoss``: inner products not normalised, and 1 more in the denominator.

    That 1 is a document of zeros: ``loss(queries, [0, …, n−1], references=documents and a row of zeros,
    reference_labels=[0, …, n−1, −1])``.
    """
    return InfoNCELoss(1 / scale, Dot())


def sentence_transformers_multiple_negatives(
    scale: float = 20.0, directions: tuple[str, ...] = ("query_to_doc",)
) -> MultipleNegativesRankingLoss:
    """``MultipleNegativesRankingLoss`` of ``aligned(queries, documents, negatives)``, its joint partition."""
    return MultipleNegativesRankingLoss(1 / scale, directions)


def sentence_transformers_multiple_negatives_symmetric(scale: float = 20.0) -> InfoNCELoss:
    """``MultipleNegativesSymmetricRankingLoss``: the mean of both directions, ``loss.aligned(queries, documents)``."""
    return InfoNCELoss(1 / scale)


def sentence_transformers_contrastive_tension_in_batch(scale: float = 20.0) -> InfoNCELoss:
    """``ContrastiveTensionLossInBatchNegatives``: the mean of both directions, ``loss.aligned(first, second)``."""
    return InfoNCELoss(1 / scale)


def sentence_transformers_gist(temperature: float = 0.01) -> InfoNCELoss:
    """Negatives that a guide finds nearer than the positive are left out: called with :class:`nearfar.Guided`.

    ``GISTEmbedLoss`` puts four directions in one softmax; this is its first, query to document, alone, as with
    ``contrast_anchors=False, contrast_positives=False``. A query that keeps no negative is a 0 of its mean, and counts
    for nothing here. Its relative margin was (1 − m) times the positive's similarity before 6.0.
    """
    return InfoNCELoss(temperature)


def quaterion_multiple_negatives(scale: float = 20.0) -> InfoNCELoss:
    """Its similarity is (s + 1)/2: half the scale; ``loss(queries, Aligned(), references=documents)``."""
    return InfoNCELoss(2 / scale)


def open_clip_clip(logit_scale: float = 1 / 0.07) -> InfoNCELoss:
    """``ClipLoss``: the mean of both directions, ``loss.aligned(images, texts)``."""
    return InfoNCELoss(1 / logit_scale)


def sohn_2016() -> NPairLoss:
    """Multi-class N-pair loss: raw inner products, ``loss.aligned(anchors, positives)``; its regulariser is yours."""
    return NPairLoss()


def pytorch_metric_learning_npairs() -> NPairLoss:
    """Its "dot product" normalises; the first pair of each class, ``loss.aligned(first, second)``."""
    return NPairLoss(Cosine())


def tensorflow_addons_npairs() -> SupConLoss:
    """Cross-entropy against all of the same label, an item itself among them: give the batch as references too."""
    return SupConLoss(1.0, Dot())


def pytorch_metric_learning_tuplet_margin(margin: float = 5.73, scale: float = 64.0) -> TupletMarginLoss:
    """``TupletMarginLoss``, whose margin is in degrees: the mean over positive pairs."""
    return TupletMarginLoss(math.radians(margin), scale, by_pair=True)


def scikit_learn_nca() -> NCALoss:
    """scikit-learn and metric-learn maximise Σ p of n items: n·(1 − loss); metric-learn's cost is n·(loss − 1).

    n counts the items that have another of their class: of the others p is 0.
    """
    return NCALoss(log=False)


def pytorch_metric_learning_nca(softmax_scale: float = 1.0) -> NCALoss:
    """−log p of squared distances of unit vectors, which are twice the cosine distance."""
    return NCALoss(0.5 / softmax_scale, CosineDistance())


def tensorflow_similarity_soft_nearest_neighbor(temperature: float = 1.0) -> NCALoss:
    """Squared distances, not normalised; theirs adds 1e-9 in the logarithm and counts anchors without a positive.

    So an anchor costs at most 20.7 there, and NaN where all its exponentials underflow.
    """
    return NCALoss(temperature, SquaredEuclidean())
