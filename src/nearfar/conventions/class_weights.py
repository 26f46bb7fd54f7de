"""Losses against class weights and proxies, as other sources have them; called with ``class_weights=``."""

from __future__ import annotations

import math

from nearfar.losses import (
    ArcFaceLoss,
    CosFaceLoss,
    CrossEntropyLoss,
    ProxyAnchorLoss,
    ProxyNCALoss,
    SoftTripleLoss,
    SphereFaceLoss,
    SubCenterArcFaceLoss,
)
from nearfar.measures import Cosine


def torch_cross_entropy() -> CrossEntropyLoss:
    """``torch.nn.CrossEntropyLoss`` of logits; the introduction's eq. (1), (2).

    Its ``ignore_index`` is our ``ignore_label`` and has to be named. With class weights w it is ``(w[y] * each).sum() /
    w[y].sum()``, where ``each`` is ``loss.per_anchor(logits, y)``; with label smoothing ε over C classes it is (1 − ε)
    times the loss and ε / C times the sum of ``loss(logits, [c, …, c])`` over all classes c.
    """
    return CrossEntropyLoss()


def pytorch_metric_learning_normalized_softmax(temperature: float = 0.05) -> CrossEntropyLoss:
    """``NormalizedSoftmaxLoss``: cosines."""
    return CrossEntropyLoss(temperature, Cosine())


def pytorch_metric_learning_arcface(margin: float = 28.6, scale: float = 64.0) -> ArcFaceLoss:
    """``ArcFaceLoss``, whose margin is in degrees."""
    return ArcFaceLoss(math.radians(margin), 1 / scale)


def open_metric_learning_arcface(m: float = 0.5, s: float = 64.0) -> ArcFaceLoss:
    """``ArcFaceLoss`` without label smoothing, in radians; quaterion's is the same."""
    return ArcFaceLoss(m, 1 / s)


def pytorch_metric_learning_sub_center_arcface(
    margin: float = 28.6, scale: float = 64.0, sub_centers: int = 3
) -> SubCenterArcFaceLoss:
    """``SubCenterArcFaceLoss``, whose margin is in degrees."""
    return SubCenterArcFaceLoss(math.radians(margin), 1 / scale, sub_centers)


def pytorch_metric_learning_cosface(margin: float = 0.35, scale: float = 64.0) -> CosFaceLoss:
    """``CosFaceLoss``."""
    return CosFaceLoss(margin, 1 / scale)


def pytorch_metric_learning_sphereface(margin: float = 4.0, norm: float = 1.0) -> SphereFaceLoss:
    """``SphereFaceLoss`` of embeddings that all have this norm, which is its scale; its gradient grows the norm too."""
    return SphereFaceLoss(margin, 1 / norm)


def pytorch_metric_learning_soft_triple(
    centers_per_class: int = 10, la: float = 20.0, gamma: float = 0.1, margin: float = 0.01
) -> SoftTripleLoss:
    """``SoftTripleLoss``."""
    return SoftTripleLoss(margin, 1 / la, gamma, centers_per_class)


def movshovitz_attias_2017() -> ProxyNCALoss:
    """ProxyNCA: the own proxy is not in the sum, so that the loss can be negative."""
    return ProxyNCALoss()


def pytorch_metric_learning_proxy_nca(softmax_scale: float = 1.0) -> ProxyNCALoss:
    """``ProxyNCALoss``: the own proxy is in the sum; squared distances of unit vectors, twice the cosine distance."""
    return ProxyNCALoss(0.5 / softmax_scale, include_own=True)


def pytorch_metric_learning_proxy_anchor(margin: float = 0.1, alpha: float = 32.0) -> ProxyAnchorLoss:
    """``ProxyAnchorLoss``."""
    return ProxyAnchorLoss(alpha, margin)
