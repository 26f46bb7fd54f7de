"""Triplet losses, as other sources have them."""

from __future__ import annotations

from nearfar.conventions.named import named
from nearfar.losses import LMNNLoss, LossSum, TripletLoss
from nearfar.measures import CosineDistance, Distance, Euclidean, Manhattan, SquaredEuclidean

TFA = {"L2": Euclidean(), "squared-L2": SquaredEuclidean(), "angular": CosineDistance()}
ST = {"euclidean": Euclidean(), "manhattan": Manhattan(), "cosine": CosineDistance()}


def introduction_text_triplet(margin: float = 1.0) -> TripletLoss:
    """max(‖a−p‖² − ‖a−n‖² + m, 0): eq. (5) of the introduction to contrastive losses; FaceNet's loss."""
    return TripletLoss(margin, measure=SquaredEuclidean())


def facenet(margin: float = 0.2) -> TripletLoss:
    """Squared distances, semi-hard negatives; normalise the embeddings, as FaceNet does."""
    return TripletLoss(margin, mining="semihard", measure=SquaredEuclidean())


def hermans_2017(margin: float | None = None) -> TripletLoss:
    """Each anchor's hardest triplet, distances not squared; without a margin softplus: the paper's eq. (5)."""
    return TripletLoss(0.0 if margin is None else margin, mining="hard", soft=margin is None)


def pytorch_metric_learning_triplet(margin: float = 0.05, smooth: bool = False, swap: bool = False) -> TripletLoss:
    """All triplets, the mean over those above 0, on unit rows; ``smooth`` keeps the margin; ``swap`` of given ones."""
    return TripletLoss(margin, soft=smooth, active_only=not smooth, swap=swap)


def open_metric_learning_triplet(margin: float | None = None) -> TripletLoss:
    """The mean over all triplets, zeros included; margin None is the soft form, which has none."""
    return TripletLoss(0.0 if margin is None else margin, soft=margin is None)


def tensorflow_addons_semihard(margin: float = 1.0, distance_metric: str = "L2") -> TripletLoss:
    """``tfa.losses.TripletSemiHardLoss``: of "L2", "squared-L2" or "angular" (1 − cos) distances.

    "L2" was squared before tensorflow/addons#1966. An anchor without a negative takes the least distance of its row for
    one there, which is its own 0; here it counts for nothing.
    """
    return TripletLoss(margin, mining="semihard", measure=named("distance_metric", distance_metric, TFA))


def tensorflow_addons_hard(margin: float = 1.0, soft: bool = False, distance_metric: str = "L2") -> TripletLoss:
    """``tfa.losses.TripletHardLoss``; its soft form has no margin, its distances are those of the semi-hard loss.

    It also counts an anchor without a positive, at a positive distance of 0, or without a negative.
    """
    measure = named("distance_metric", distance_metric, TFA)
    return TripletLoss(0.0 if soft else margin, mining="hard", soft=soft, measure=measure)


def tensorflow_similarity_triplet(margin: float | None = None) -> TripletLoss:
    """``TripletLoss(negative_mining_strategy="hard")`` on the cosine distance; no margin is the soft form."""
    return TripletLoss(0.0 if margin is None else margin, mining="hard", soft=margin is None, measure=CosineDistance())


def sentence_transformers_triplet(margin: float = 5.0, distance_metric: str = "euclidean") -> TripletLoss:
    """``TripletLoss`` of given triplets; ``distance_metric`` "euclidean", "manhattan" or "cosine"."""
    return TripletLoss(margin, measure=named("distance_metric", distance_metric, ST))


def sentence_transformers_batch_all(margin: float = 5.0) -> TripletLoss:
    """``BatchAllTripletLoss``: the mean over the triplets above 0 (theirs adds 1e-16 to their number)."""
    return TripletLoss(margin, active_only=True)


def sentence_transformers_batch_hard(margin: float = 5.0) -> TripletLoss:
    """``BatchHardTripletLoss``; it also counts an anchor without a positive, at a positive distance of 0."""
    return TripletLoss(margin, mining="hard")


def sentence_transformers_batch_hard_soft_margin() -> TripletLoss:
    """``BatchHardSoftMarginTripletLoss``: softplus of the hardest positive minus the hardest negative."""
    return TripletLoss(0.0, mining="hard", soft=True)


def sentence_transformers_batch_semi_hard(margin: float = 5.0) -> TripletLoss:
    """``BatchSemiHardTripletLoss``."""
    return TripletLoss(margin, mining="semihard")


def omoindrot_batch_all(margin: float, squared: bool = False) -> TripletLoss:
    """tensorflow-triplet-loss' ``batch_all_triplet_loss``: the mean over the triplets above 0."""
    return TripletLoss(margin, active_only=True, measure=SquaredEuclidean() if squared else Euclidean())


def omoindrot_batch_hard(margin: float, squared: bool = False) -> TripletLoss:
    """tensorflow-triplet-loss' ``batch_hard_triplet_loss``."""
    return TripletLoss(margin, mining="hard", measure=SquaredEuclidean() if squared else Euclidean())


def siamese_triplet_triplet(margin: float) -> TripletLoss:
    """Squared distances, the mean over the given triplets; its ``AllTripletSelector`` lists each positive pair once."""
    return TripletLoss(margin, measure=SquaredEuclidean())


def quaterion_triplet(margin: float = 0.5) -> LossSum:
    """All triplets, the mean over those above 0, of distances (1 − s)/2: half the loss of 1 − s at twice the margin."""
    return LossSum(((0.5, TripletLoss(2 * margin, active_only=True, measure=CosineDistance())),))


def torch_triplet_margin(margin: float = 1.0, swap: bool = False, p: int = 2) -> TripletLoss:
    """``torch.nn.TripletMarginLoss`` of given triplets with ``eps=0``; ``p`` 1 or 2.

    Its default adds 1e-6 to each coordinate of a difference: without swap, ``loss.triplets(a + 1e-6, p, n)``.
    """
    return TripletLoss(margin, swap=swap, measure=named("p", p, {1: Manhattan(), 2: Euclidean()}))


def torch_triplet_margin_with_distance(
    margin: float = 1.0,
    swap: bool = False,
    distance: Distance = Euclidean(),  # noqa: B008  (frozen)
) -> TripletLoss:
    """``torch.nn.TripletMarginWithDistanceLoss``; its default distance is torch's, with its 1e-6, ours without."""
    return TripletLoss(margin, swap=swap, measure=distance)


def optax_triplet_margin(margin: float = 1.0) -> TripletLoss:
    """``optax.losses.triplet_margin_loss`` of given triplets with ``eps=0``, whose array our mean is of.

    Its default adds 1e-6 under the root, which is a coordinate of 0.001 that anchors alone have.
    """
    return TripletLoss(margin)


def metric_learn_lmnn(n_neighbors: int = 3, regularization: float = 0.5) -> LMNNLoss:
    """metric-learn's ``LMNN``, squared distances and margin 1; it sums, ours is the mean over its target pairs.

    Its targets are fixed: ``loss(embeddings, loss.targets(inputs, labels))``.
    """
    return LMNNLoss(n_neighbors, margin=1.0, push=1 - regularization)
