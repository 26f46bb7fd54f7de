"""Losses against class weights or proxies."""

from __future__ import annotations

import torch

import nearfar as nf
from digits import math
from parts import log_sum_exp, masked_lse, soft_plus, soft_plus_of

VARIANTS = {
    "CosFaceLoss": [nf.CosFaceLoss(margin=0.2, temperature=0.3), nf.CosFaceLoss()],
    "SphereFaceLoss": [
        nf.SphereFaceLoss(margin=2, temperature=0.4),
        nf.SphereFaceLoss(),
        nf.SphereFaceLoss(margin=3, temperature=0.5),
    ],
    "SubCenterArcFaceLoss": [
        nf.SubCenterArcFaceLoss(margin=0.4, temperature=0.3, per_class=2),
        nf.SubCenterArcFaceLoss(temperature=1 / 16),
    ],
    "SoftTripleLoss": [
        nf.SoftTripleLoss(margin=0.1, temperature=0.3, gamma=0.4, per_class=2),
        nf.SoftTripleLoss(per_class=1),
    ],
    "ProxyNCALoss": [
        nf.ProxyNCALoss(temperature=0.7),
        nf.ProxyNCALoss(),
        nf.ProxyNCALoss(temperature=1 / 18, include_own=True),
    ],
    "ProxyAnchorLoss": [nf.ProxyAnchorLoss(alpha=3.0, margin=0.2), nf.ProxyAnchorLoss()],
}
MEASURES = {loss: (nf.CosineDistance(),) for loss in (nf.SphereFaceLoss, nf.SubCenterArcFaceLoss)}
STEEPNESS = {
    nf.SphereFaceLoss: lambda loss: loss.margin**2 / loss.temperature,
    # A centre's weight follows its similarity by its share of the class as well.
    nf.SoftTripleLoss: lambda loss: (1 + 2 / loss.gamma) / loss.temperature,
    nf.ProxyAnchorLoss: lambda loss: loss.alpha,
}
SMOOTH = (nf.ProxyNCALoss,)
NAMED_BY = ("include_own", "alpha")
ON_ANGLES = (nf.SubCenterArcFaceLoss, nf.SphereFaceLoss)

# ------------------------------------------------------------ loops: an anchor's row


def _own_among_all(own, negative, others):
    """LSE over the own logits and the others minus the mean of the own; logits with multiplicities."""
    rest = [(n, v) for n, v in zip(negative, others, strict=True) if n]
    count = sum(w for w, _ in own)
    return log_sum_exp(own + rest) - math.fsum(w * v for w, v in own) / count


def _cos_face(loss, s, positive, negative):
    own = [(p, (v - loss.margin) / loss.temperature) for p, v in zip(positive, s, strict=True) if p]
    return [(1, _own_among_all(own, negative, [v / loss.temperature for v in s]))] if own else []


def _angle(d):
    return 2 * math.asin(min(math.sqrt(max(d, 0.0) / 2), 1.0))


def _sphere_face(loss, d, positive, negative):
    def target(v):
        k = 0
        while _angle(v) > (k + 1) * math.pi / loss.margin:
            k += 1
        return (-1) ** k * math.cos(loss.margin * _angle(v)) - 2 * k

    own = [(p, target(v) / loss.temperature) for p, v in zip(positive, d, strict=True) if p]
    return [(1, _own_among_all(own, negative, [(1 - v) / loss.temperature for v in d]))] if own else []


def _sub_center(loss, d, positive, negative):
    """On references that are no class weights: the nearest positive, every negative alone."""
    near = [v for p, v in zip(positive, d, strict=True) if p]
    if not near:
        return []
    angle = _angle(min(near))
    if angle < math.pi - loss.margin:
        target = math.cos(angle + loss.margin)
    else:
        target = math.cos(angle) - loss.margin * math.sin(loss.margin)
    rest = [(n, (1 - v) / loss.temperature) for n, v in zip(negative, d, strict=True) if n]
    return [(1, soft_plus(log_sum_exp(rest) - target / loss.temperature) if rest else 0.0)]


def _soft_triple(loss, s, positive, negative):
    own = [(p, v) for p, v in zip(positive, s, strict=True) if p]
    if not own:
        return []
    whole = log_sum_exp([(p, v / loss.gamma) for p, v in own])
    mean = math.fsum(p * math.exp(v / loss.gamma - whole) * v for p, v in own)
    rest = [(n, v / loss.temperature) for n, v in zip(negative, s, strict=True) if n]
    return [(1, soft_plus(log_sum_exp(rest) - (mean - loss.margin) / loss.temperature) if rest else 0.0)]


def _proxy_nca(loss, d, positive, negative):
    z = [-v / loss.temperature for v in d]
    own = [(p, v) for p, v in zip(positive, z, strict=True) if p]
    if loss.include_own:
        return [(1, _own_among_all(own, negative, z))] if own else []
    if not own or not sum(negative):
        return []
    rest = log_sum_exp(list(zip(negative, z, strict=True)))
    return [(1, rest - math.fsum(p * v for p, v in own) / sum(positive))]


def _proxy_anchor(loss, s, positive, negative):
    """The whole table: the first sum's mean is over the anchors with a positive."""
    share = len(s) / max(1, sum(1 for row in positive if sum(row)))

    def term(row, p, n):
        near = log_sum_exp([(w, -loss.alpha * (v - loss.margin)) for w, v in zip(p, row, strict=True)])
        far = log_sum_exp([(w, loss.alpha * (v + loss.margin)) for w, v in zip(n, row, strict=True)])
        return share * (soft_plus(near) if sum(p) else 0.0) + (soft_plus(far) if sum(n) else 0.0)

    return [[(1, term(*row))] for row in zip(s, positive, negative, strict=True)]


WHOLE_TABLE = ("ProxyAnchorLoss",)
RULES = {
    "CosFaceLoss": _cos_face,
    "SphereFaceLoss": _sphere_face,
    "SubCenterArcFaceLoss": _sub_center,
    "SoftTripleLoss": _soft_triple,
    "ProxyNCALoss": _proxy_nca,
    "ProxyAnchorLoss": _proxy_anchor,
}

# ------------------------------------------------------------ dense


def _dense_own_among_all(own, others, p, n):
    """``own`` where positive, ``others`` where negative."""
    has = (p.sum(1) > 0).to(own)
    z = torch.where(p > 0, own, others)
    total = torch.where(has > 0, masked_lse(z, p + n), 0.0)
    return has * (total - (p * torch.where(p > 0, own, 0.0)).sum(1) / p.sum(1).clamp(min=1)), has


def _dense_cos_face(loss, s, p, n):
    return _dense_own_among_all((s - loss.margin) / loss.temperature, s / loss.temperature, p, n)


def _sine(d):
    square = d * (2 - d)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def _dense_sphere_face(loss, d, p, n):
    """θ by the chord, whose derivative is taken where the sine is not 0."""
    moves = _sine(d.detach()) > 0
    chord = torch.where(moves, d, d.detach()).clamp(0, 2)
    safe = torch.where(moves, chord, 1.0)
    angle = torch.where(moves, 2 * torch.atan2(safe.sqrt(), (2 - safe).sqrt()), torch.where(d > 1, math.pi, 0.0))
    turned = loss.margin * angle
    k = (turned.detach() / math.pi).floor()
    own = torch.cos(turned - math.pi * k) - 2 * k
    return _dense_own_among_all(own / loss.temperature, (1 - d) / loss.temperature, p, n)


def _against(own, z, p, n):
    """softplus of the pool of negatives minus the own class's logit."""
    has = p.sum(1) > 0
    return has * soft_plus_of(torch.where(has, masked_lse(z, n) - own, -math.inf)), has.to(z)


def _dense_sub_center(loss, d, p, n):
    if d.shape[1] == 0:
        return d.sum(1), d.sum(1)
    best = d.detach().masked_fill(p == 0, math.inf).argmin(1, keepdim=True)
    near = d.gather(1, best)[:, 0]
    turned = (1 - near) * math.cos(loss.margin) - _sine(near) * math.sin(loss.margin)
    own = torch.where(1 - near > -math.cos(loss.margin), turned, 1 - near - loss.margin * math.sin(loss.margin))
    return _against(own / loss.temperature, (1 - d) / loss.temperature, p, n)


def _dense_soft_triple(loss, s, p, n):
    z = s / loss.gamma
    whole = masked_lse(z, p)
    some = whole > -math.inf
    share = p * torch.exp(torch.where(p > 0, z - torch.where(some, whole, 0.0)[:, None], -math.inf))
    mean = (share * torch.where(p > 0, s, 0.0)).sum(1)
    return _against((mean - loss.margin) / loss.temperature, s / loss.temperature, p, n)


def _dense_proxy_nca(loss, d, p, n):
    z = -d / loss.temperature
    if loss.include_own:
        return _dense_own_among_all(z, z, p, n)
    has = (p.sum(1) > 0) & (n.sum(1) > 0)
    rest = torch.where(has, masked_lse(z, n), 0.0)
    return has * (rest - (p * z).sum(1) / p.sum(1).clamp(min=1)), has.to(d)


def _dense_proxy_anchor(loss, s, p, n):
    pull = soft_plus_of(masked_lse(-loss.alpha * (s - loss.margin), p)) * (p.sum(1) > 0)
    push = soft_plus_of(masked_lse(loss.alpha * (s + loss.margin), n))
    with_positive = (p.sum(1) > 0).sum().clamp(min=1)
    return pull * len(s) / with_positive + push, torch.ones_like(push)


DENSE = {
    "CosFaceLoss": _dense_cos_face,
    "SphereFaceLoss": _dense_sphere_face,
    "SubCenterArcFaceLoss": _dense_sub_center,
    "SoftTripleLoss": _dense_soft_triple,
    "ProxyNCALoss": _dense_proxy_nca,
    "ProxyAnchorLoss": _dense_proxy_anchor,
}
