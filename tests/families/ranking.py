"""Losses of rankings: recall at k, PNP, histogram."""

from __future__ import annotations

import torch

import nearfar as nf
from digits import math

VARIANTS = {
    "RecallAtKLoss": [
        nf.RecallAtKLoss(k=(1, 3), temperature=0.2),
        nf.RecallAtKLoss(k=(2,), temperature=0.05, rank_temperature=0.6),
    ],
    "PNPLoss": [
        nf.PNPLoss(temperature=0.2),
        nf.PNPLoss(variant="O", temperature=0.1),
        nf.PNPLoss(variant="Iu", temperature=0.2),
        nf.PNPLoss(variant="Ib", b=3.0, temperature=0.2),
        nf.PNPLoss(variant="Ds", temperature=0.2),
        nf.PNPLoss(variant="Dq", alpha=0.7, temperature=0.05),
    ],
    "HistogramLoss": [nf.HistogramLoss(bins=7, span=(-1.3, 1.1)), nf.HistogramLoss(bins=31)],
}
NAMED_BY = ("variant", "k")
MEASURES = {}
STEEPNESS = {nf.HistogramLoss: lambda loss: loss.bins / (loss.span[1] - loss.span[0])}
WHOLE_TABLE = ("HistogramLoss",)

# ------------------------------------------------------------ loops


def step(z):
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def _recall(loss, s, positive, negative):
    """The rank of each positive among all others, counted one by one."""
    total, found = sum(positive), []
    if not total:
        return []
    for p, weight in enumerate(positive):
        if weight:
            above = [
                (a + b - (i == p)) * step((v - s[p]) / loss.temperature)
                for i, (v, a, b) in enumerate(zip(s, positive, negative, strict=True))
            ]
            found.append((weight, 1 + math.fsum(above)))
    recall = [
        math.fsum(w * step((k - rank) / loss.rank_temperature) for w, rank in found) / min(k, total) for k in loss.k
    ]
    return [(1, 1 - math.fsum(recall) / len(loss.k))]


def _penalty(loss, wrong):
    return {
        "O": lambda: wrong,
        "Iu": lambda: (1 + wrong) * math.log(1 + wrong),
        "Ib": lambda: (loss.b * wrong - math.log1p(loss.b * wrong)) / loss.b**2,
        "Ds": lambda: math.log(1 + wrong),
        "Dq": lambda: 1 - (1 + wrong) ** -loss.alpha,
    }[loss.variant]()


def _pnp(loss, s, positive, negative):
    if not sum(positive):
        return []
    terms = [
        w * _penalty(loss, math.fsum(n * step((v - s[p]) / loss.temperature) for v, n in zip(s, negative, strict=True)))
        for p, w in enumerate(positive)
        if w
    ]
    return [(1, math.fsum(terms) / sum(positive))]


def _histogram(loss, s, positive, negative):
    """The whole table: each positive against the histogram of all negatives."""
    (low, high), nodes = loss.span, loss.bins + 1
    width = (high - low) / loss.bins

    def beside(v):
        place = min(max((v - low) / width, 0.0), float(loss.bins))
        return [max(1 - abs(place - node), 0.0) for node in range(nodes)]

    far = [0.0] * nodes
    for row, weights in zip(s, negative, strict=True):
        for v, w in zip(row, weights, strict=True):
            far = [a + w * b for a, b in zip(far, beside(v), strict=True)] if w else far
    total = math.fsum(far) or 1.0
    above = [math.fsum(far[node:]) / total for node in range(nodes)]
    return [
        [
            (w, math.fsum(a * b for a, b in zip(above, beside(v), strict=True)))
            for v, w in zip(row, weights, strict=True)
            if w
        ]
        for row, weights in zip(s, positive, strict=True)
    ]


RULES = {"RecallAtKLoss": _recall, "PNPLoss": _pnp, "HistogramLoss": _histogram}

# ------------------------------------------------------------ dense


def _above(loss, s):
    """σ of each reference above each positive: anchors × positives × references."""
    return torch.sigmoid((s[:, None, :] - s[:, :, None]) / loss.temperature)


def _dense_recall(loss, s, p, n):
    above = _above(loss, s)
    rank = 0.5 + ((p + n)[:, None, :] * above).sum(2)  # the ½ of a positive against itself is among them
    total, has = p.sum(1), (p.sum(1) > 0).to(s)
    value = torch.zeros_like(total)
    for k in loss.k:
        inside = torch.sigmoid((k - rank) / loss.rank_temperature)
        value = value + (p * inside).sum(1) / total.clamp(min=1, max=k) / len(loss.k)
    return has * (1 - value), has


def _dense_pnp(loss, s, p, n):
    wrong = (n[:, None, :] * _above(loss, s)).sum(2)
    cost = {
        "O": lambda: wrong,
        "Iu": lambda: (1 + wrong) * wrong.log1p(),
        "Ib": lambda: (loss.b * wrong - (loss.b * wrong).log1p()) / loss.b**2,
        "Ds": lambda: wrong.log1p(),
        "Dq": lambda: -torch.expm1(-loss.alpha * wrong.log1p()),
    }[loss.variant]()
    has = (p.sum(1) > 0).to(s)
    return has * (p * cost).sum(1) / p.sum(1).clamp(min=1), has


def _dense_histogram(loss, s, p, n):
    """Each pair shared out to the two nodes of its bin, and the table of both histograms."""
    low, high = loss.span
    place = (s - low) * (loss.bins / (high - low))
    place = torch.where(place >= loss.bins, float(loss.bins), torch.where(place < 0, 0.0, place))
    cell = torch.nan_to_num(place.detach()).floor()
    node, after = (torch.nn.functional.one_hot(cell.long() + k, loss.bins + 2).to(s) for k in (0, 1))
    beside = ((cell + 1 - place)[..., None] * node + (place - cell)[..., None] * after)[..., :-1]
    far = (n[..., None] * beside).sum((0, 1))
    above = far.flip(0).cumsum(0).flip(0) / n.sum().clamp(min=1)
    return (p * (beside * above).sum(2)).sum(1), p.sum(1)


DENSE = {"RecallAtKLoss": _dense_recall, "PNPLoss": _dense_pnp, "HistogramLoss": _dense_histogram}
