"""Ranking losses and losses of feature statistics, as other sources have them."""

from __future__ import annotations

from nearfar.losses import (
    AlignmentLoss,
    BarlowTwinsLoss,
    FastAPLoss,
    HistogramLoss,
    KoLeoLoss,
    LossSum,
    PNPLoss,
    RankedListLoss,
    SmoothAPLoss,
    UniformityLoss,
    VICRegLoss,
)


def pytorch_metric_learning_fast_ap(num_bins: int = 10) -> FastAPLoss:
    """Bins of half the squared distance of unit vectors, which is the cosine distance: the same bins."""
    return FastAPLoss(num_bins)


def pytorch_metric_learning_smooth_ap(temperature: float = 0.01) -> SmoothAPLoss:
    """An anchor ranks itself among its positives there: give the batch as references too.

    Its batches hold runs of as many rows a class as there are classes, whatever their labels.
    """
    return SmoothAPLoss(temperature)


def pytorch_metric_learning_pnp(
    b: float = 2.0, alpha: float = 1.0, anneal: float = 0.01, variant: str = "O"
) -> PNPLoss:
    """An anchor is among its own positives there, as in its Smooth-AP: give the batch as references too.

    An anchor without another positive is left out of its mean: leave it out of the anchors, not of the references.
    """
    return PNPLoss(variant, alpha, b, anneal)


def pytorch_metric_learning_histogram(n_bins: int = 100) -> HistogramLoss:
    """``HistogramLoss``; theirs leaves out pairs of two items neither of which has a positive.

    Theirs raises an IndexError for a pair whose cosine is 1, such as duplicates.
    """
    return HistogramLoss(n_bins)


def pytorch_metric_learning_ranked_list(
    margin: float, scale: float, imbalance: float = 0.5, alpha: float | None = None, positive_scale: float = 0.0
) -> RankedListLoss:
    """``RankedListLoss(margin, Tn, imbalance, alpha, Tp)`` on unit rows, and its gradient, which goes through weights.

    Its mean is over all anchors. Theirs adds 1e-5 for every item of the batch to the sum of an anchor's weights, and a
    negative at distance 0, the worst there is, weighs nothing in it.
    """
    boundary = 1 + margin / 2 if alpha is None else alpha
    return RankedListLoss(margin, boundary, positive_scale, scale, imbalance, through_weights=True, one_sided=True)


def pytorch_metric_learning_vicreg(
    invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, eps: float = 1e-4
) -> VICRegLoss:
    """``VICRegLoss``, as the authors' code: the variance term halved."""
    return VICRegLoss(invariance, variance / 2, covariance, epsilon=eps)


def lightly_vicreg(lambda_param: float = 25.0, mu_param: float = 25.0, nu_param: float = 1.0) -> VICRegLoss:
    """``VICRegLoss``, as the authors' code: the variance term halved."""
    return VICRegLoss(lambda_param, mu_param / 2, nu_param)


def lightly_hypersphere(t: float = 1.0, lam: float = 1.0, alpha: float = 2.0) -> LossSum:
    """``HypersphereLoss``: alignment plus uniformity of two views, ``loss.views(z1, z2)``; the paper's t is 2."""
    return LossSum(((1.0, AlignmentLoss(alpha)), (lam, UniformityLoss(t))))


def lightly_koleo() -> KoLeoLoss:
    """``KoLeoLoss``; theirs adds 1e-8 to each coordinate of a difference and to the distance, ours has a floor there.

    So equal rows cost 17.54 to 17.73 there and 18.42 here, without a gradient in both; an item alone costs 0 here.
    """
    return KoLeoLoss()


def tensorflow_similarity_barlow(lambda_: float = 5e-3) -> BarlowTwinsLoss:
    """``Barlow``; theirs adds 1e-12."""
    return BarlowTwinsLoss(lambda_)
