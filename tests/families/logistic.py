"""Logistic losses on pairs."""

from __future__ import annotations

import nearfar as nf
from digits import math
from parts import soft_plus, soft_plus_of

VARIANTS: dict = {
    "NoiseContrastiveLoss": [nf.NoiseContrastiveLoss()],
    "BinomialDevianceLoss": [
        nf.BinomialDevianceLoss(),
        nf.BinomialDevianceLoss(3.0, 0.2, 1.0),
        nf.BinomialDevianceLoss(cost=25.0, by_anchor=True),
        nf.BinomialDevianceLoss(1.5, -0.1, 0.7, by_anchor=True),
    ],
}
NAMED_BY = ("by_anchor", "cost")
WHOLE_TABLE = ("BinomialDevianceLoss",)
STEEPNESS = {nf.BinomialDevianceLoss: lambda loss: loss.alpha * max(1.0, loss.cost)}


def _samples(loss, s, positive, negative):
    if not sum(positive) and not sum(negative):
        return []
    near = [p * soft_plus(-v) for p, v in zip(positive, s, strict=True) if p]
    return [(1, math.fsum(near + [n * soft_plus(v) for n, v in zip(negative, s, strict=True) if n]))]


def _deviance(loss, s, positive, negative):
    """The whole table, since each side is divided by how many pairs it has there, or in the row."""
    all_near, all_far = (sum(map(sum, side)) for side in (positive, negative))
    terms = []
    for row, p, n in zip(s, positive, negative, strict=True):
        near = math.fsum(w * soft_plus(loss.alpha * (loss.base - v)) for w, v in zip(p, row, strict=True) if w)
        far = math.fsum(
            w * soft_plus(loss.alpha * loss.cost * (v - loss.base)) for w, v in zip(n, row, strict=True) if w
        )
        pairs = sum(p) + sum(n)
        if not pairs:
            terms.append([])
        elif loss.by_anchor:
            terms.append([(1, near / (sum(p) or 1) + far / (sum(n) or 1))])
        else:
            share = pairs / (all_near + all_far)
            terms.append([(share, (near / max(all_near, 1) + far / max(all_far, 1)) / share)])
    return terms


def _dense_samples(loss, s, p, n):
    return (p * soft_plus_of(-s) + n * soft_plus_of(s)).sum(1), ((p + n).sum(1) > 0).to(s)


def _dense_deviance(loss, s, p, n):
    near = (p * soft_plus_of(loss.alpha * (loss.base - s))).sum(1)
    far = (n * soft_plus_of(loss.alpha * loss.cost * (s - loss.base))).sum(1)
    pairs = (p + n).sum(1)
    if loss.by_anchor:
        near, far = (v / (k + (k == 0)) for v, k in ((near, p.sum(1)), (far, n.sum(1))))
        return near + far, (pairs > 0).to(s)
    return near / p.sum().clamp(min=1) + far / n.sum().clamp(min=1), pairs / pairs.sum().clamp(min=1)


RULES: dict = {"NoiseContrastiveLoss": _samples, "BinomialDevianceLoss": _deviance}
DENSE: dict = {"NoiseContrastiveLoss": _dense_samples, "BinomialDevianceLoss": _dense_deviance}
