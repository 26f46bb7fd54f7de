"""Contrastive losses of pairs, as other sources have them."""

from __future__ import annotations

from functools import partial

from nearfar.conventions.named import named
from nearfar.losses import BinaryCrossEntropyLoss, ChopraLoss, ContrastiveLoss, LossSum, MarginLoss
from nearfar.measures import CosineDistance, Distance, Euclidean, Manhattan

ST = {"euclidean": Euclidean(), "manhattan": Manhattan(), "cosine": CosineDistance()}


def hadsell_2006(margin: float = 1.0) -> ContrastiveLoss:
    """½·same·d² + ½·(1−same)·max(m−d, 0)², the paper's pair loss averaged (the paper sums; its label 0 is similar)."""
    return ContrastiveLoss(margin)


def chopra_2005(bound: float) -> ChopraLoss:
    """same·(2/Q)·E² + (1−same)·2Q·exp(−2.77·E/Q), E the L1 distance, Q its bound (its label 0 is similar)."""
    return ChopraLoss(bound)


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


def keras_text(margin: float = 1.0) -> ContrastiveLoss:
    """same·d² + (1−same)·max(m−d, 0)², the mean over pairs: the seed's Keras chapter (``y_true``, ``y_pred`` = d)."""
    return ContrastiveLoss(margin, factors=(1.0, 1.0))


def keras_example(margin: float = 1.0) -> ContrastiveLoss:
    """The mean of (1−y)·d² + y·max(m−d, 0)²: keras-io's siamese example; give ``same`` = 1 − y, whatever y means there.

    Its d has passed a sigmoid: give :meth:`ContrastiveLoss.distances` what its model puts out.
    """
    return ContrastiveLoss(margin, factors=(1.0, 1.0))


def tensorflow_addons(margin: float = 1.0) -> ContrastiveLoss:
    """same·d² + (1−same)·max(m−d, 0)²: ``tfa.losses.ContrastiveLoss`` with Keras' mean."""
    return ContrastiveLoss(margin, factors=(1.0, 1.0))


def sentence_transformers(margin: float = 0.5, distance_metric: str = "cosine") -> ContrastiveLoss:
    """Hadsell's loss with margin 0.5 on the cosine distance: ``sentence_transformers.losses.ContrastiveLoss``.

    ``distance_metric`` is "cosine", "euclidean" or "manhattan"; to the last two torch adds 1e-6 in each coordinate.
    """
    return ContrastiveLoss(margin, measure=named("distance_metric", distance_metric, ST))


def sentence_transformers_contrastive_tension() -> BinaryCrossEntropyLoss:
    """``ContrastiveTensionLoss``: logistic loss of inner products; it sums, ours is the mean over pairs."""
    return BinaryCrossEntropyLoss()


def siamese_triplet_contrastive(margin: float = 1.0) -> ContrastiveLoss:
    """Hadsell's loss, the mean over pairs: siamese-triplet's ``ContrastiveLoss`` (it has no default margin)."""
    return ContrastiveLoss(margin)


def siamese_triplet_online_contrastive(margin: float = 1.0) -> ContrastiveLoss:
    """The same without ½, over all pairs of a batch: its ``OnlineContrastiveLoss`` with ``AllPositivePairSelector``."""
    return ContrastiveLoss(margin, factors=(1.0, 1.0))


def quaterion_contrastive(margin: float = 0.5) -> ContrastiveLoss:
    """Hadsell's loss on the cosine distance, of given pairs: quaterion's ``ContrastiveLoss`` with ``only_pairs``."""
    return ContrastiveLoss(margin, measure=CosineDistance())


def quaterion_online_contrastive(margin: float = 0.5) -> ContrastiveLoss:
    """½·(mean of q over positives + mean of max(m−q, 0) over negatives), q half the cosine distance: mining "all".

    quaterion has each item among its own negatives; a mask with references does so too:
    ``loss(x, Mask(same − eye, 1 − same + eye), references=x)``.
    """
    return ContrastiveLoss(2 * margin, balanced=True, factors=(0.25, 0.25), powers=(1, 1), measure=CosineDistance())


def torch_cosine_embedding(margin: float = 0.0) -> ContrastiveLoss:
    """same·(1−s) + (1−same)·max(s−m, 0): ``torch.nn.CosineEmbeddingLoss``, whose labels are 1 and −1."""
    return ContrastiveLoss(1 - margin, factors=(1.0, 1.0), powers=(1, 1), measure=CosineDistance())


def optax_cosine_distance() -> ContrastiveLoss:
    """The mean of ``optax.losses.cosine_distance``, 1 − s: ``loss.pairs(predictions, targets, [1, …, 1])``."""
    return torch_cosine_embedding()


def keras_cosine_similarity() -> ContrastiveLoss:
    """``keras.losses.CosineSimilarity`` is −s: ``loss.pairs(y_true, y_pred, [1, …, 1]) - 1``."""
    return torch_cosine_embedding()


def lightly_negative_cosine_similarity() -> ContrastiveLoss:
    """``NegativeCosineSimilarity`` is −s, no gradient stopped: ``loss.pairs(x0, x1, [1, …, 1]) - 1``."""
    return torch_cosine_embedding()


def torch_hinge_embedding(margin: float = 1.0) -> ContrastiveLoss:
    """same·d + (1−same)·max(m−d, 0): ``torch.nn.HingeEmbeddingLoss`` on distances; its labels are 1 and −1."""
    return ContrastiveLoss(margin, factors=(1.0, 1.0), powers=(1, 1))


def torch_binary_cross_entropy() -> BinaryCrossEntropyLoss:
    """``torch.nn.BCEWithLogitsLoss``, of the logit "same"; the introduction's eq. (3).

    ``SoftMarginLoss`` is the same; its labels are 1 and −1.
    """
    return BinaryCrossEntropyLoss()


def pytorch_metric_learning_contrastive(
    margin: float = 1.0,
    positive_margin: float = 0.0,
    measure: Distance = Euclidean(),  # noqa: B008
    active_only: bool = True,
) -> LossSum | ContrastiveLoss:
    """Mean of max(d−m₊, 0) over positives + mean of max(m−d, 0) over negatives, plain, each over those above 0.

    Its distances are of unit rows. ``LpDistance(power=2)`` is ``SquaredEuclidean()``; with ``CosineSimilarity()`` its
    margins are of similarities, 1 − m on ``CosineDistance()``. ``active_only=False`` is its ``MeanReducer()``.
    """
    of = partial(ContrastiveLoss, margin, powers=(1, 1), measure=measure, positive_margin=positive_margin)
    if not active_only:
        return of(balanced=True, factors=(1.0, 1.0))
    # Each side's mean is over the pairs of its own that weigh something.
    sides = (of(factors=factors, active_only=True) for factors in ((1.0, 0.0), (0.0, 1.0)))
    return LossSum(tuple((1.0, side) for side in sides))


def pytorch_metric_learning_margin(margin: float = 0.2, beta: float = 1.2) -> MarginLoss:
    """max(m + d − β, 0) of positives, max(m + β − d, 0) of negatives, the mean over those above 0; on unit rows.

    Theirs sums over triplets: a positive counts once for each negative of its anchor and the other way round. The
    weights of a mask say so: ``Mask(positive * negatives_of_anchor, negative * positives_of_anchor)``. Its ``nu`` adds
    ν·β to the loss where β is learned; here that term is yours.
    """
    return MarginLoss(margin, beta, active_only=True)
