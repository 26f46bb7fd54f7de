"""Losses with margins on distances, and those that pull and push by energies and angles."""

from __future__ import annotations

import torch

import nearfar as nf
from digits import math
from parts import log_sum_exp, masked_lse, soft_plus, soft_plus_of

VARIANTS = {
    "ChopraLoss": [nf.ChopraLoss(bound=3.0), nf.ChopraLoss(bound=1.5, decay=1.0)],
    "GeneralizedLiftedStructureLoss": [
        nf.GeneralizedLiftedStructureLoss(margin=1.1),
        nf.GeneralizedLiftedStructureLoss(margin=-3.2),
    ],
    "RankedListLoss": [
        nf.RankedListLoss(margin=0.4, alpha=1.3, positive_scale=2.0, negative_scale=3.0),
        nf.RankedListLoss(0.5, 1.1, 1.0, 4.0, balance=0.3, through_weights=True),
        nf.RankedListLoss(balance=0.8),
        nf.RankedListLoss(0.4, 1.3, 2.0, 3.0, through_weights=True, one_sided=True),
    ],
    "LMNNLoss": [
        nf.LMNNLoss(neighbours=2, margin=0.4),
        nf.LMNNLoss(neighbours=1, margin=0.3, push=0.8),
        nf.LMNNLoss(neighbours=9),
    ],
    "MagnetLoss": [nf.MagnetLoss(margin=0.5, variance=0.4), nf.MagnetLoss(margin=-1.2, variance=1.5)],
    "TupletMarginLoss": [
        nf.TupletMarginLoss(margin=0.5, scale=4.0),
        nf.TupletMarginLoss(),
        nf.TupletMarginLoss(margin=0.3, scale=5.0, by_pair=True),
    ],
    "AngularLoss": [nf.AngularLoss(angle=0.5), nf.AngularLoss(), nf.AngularLoss(angle=0.6, by_pair=True)],
    "QuadrupletLoss": [nf.QuadrupletLoss(margin=0.4, other_margin=0.2)],
}
# The gradient of the ranked list takes its weights as constants, unless told otherwise.
STOP_GRADIENT = (nf.RankedListLoss,)
MEASURES = {nf.TupletMarginLoss: (nf.CosineDistance(),)}
STEEPNESS = {
    nf.ChopraLoss: lambda loss: max(loss.decay / loss.bound, 2 / loss.bound),
    nf.RankedListLoss: lambda loss: max(loss.positive_scale, loss.negative_scale, 1.0),
    nf.MagnetLoss: lambda loss: 0.5 / loss.variance,
    nf.TupletMarginLoss: lambda loss: loss.scale,
    nf.AngularLoss: lambda loss: 8 * math.tan(loss.angle) ** 2 + 2 * (1 + math.tan(loss.angle) ** 2),
}
NAMED_BY = ("bound", "balance", "through_weights", "neighbours", "push", "variance", "angle", "swap")
# Losses on distances whose weights are exponentials; those that take the whole table, one of them with the references'
# own table below it.
SMOOTH = (nf.ChopraLoss, nf.GeneralizedLiftedStructureLoss, nf.RankedListLoss, nf.MagnetLoss, nf.TupletMarginLoss)
ON_ANGLES = (nf.TupletMarginLoss,)
LABELS_ONLY = (nf.QuadrupletLoss,)
WHOLE_TABLE = ("AngularLoss", "QuadrupletLoss")
WITH_REFERENCES = ("AngularLoss",)


def _listed(weights, values):
    return [(w, v) for w, v in zip(weights, values, strict=True) if w]


# ------------------------------------------------------------ loops


def _chopra(loss, d, positive, negative):
    q = loss.bound
    near = [(p, 2 / q * v * v) for p, v in _listed(positive, d)]
    return near + [(n, 2 * q * math.exp(-loss.decay * v / q)) for n, v in _listed(negative, d)]


def _general_lifted(loss, d, positive, negative):
    near, far = _listed(positive, d), _listed(negative, d)
    if not near or not far:
        return []
    return [(1, max(log_sum_exp(near) + log_sum_exp([(n, loss.margin - v) for n, v in far]), 0.0))]


def _weighed(gaps, scale):
    """The mean of the gaps above 0, each weighed by an exponential of it; triples (weight, gap, gap to weigh by)."""
    gaps = [(w, g, h) for w, g, h in gaps if h > 0]
    top = max((scale * h for _, _, h in gaps), default=0.0)
    total = math.fsum(w * math.exp(scale * h - top) for w, _, h in gaps)
    return math.fsum(w * math.exp(scale * h - top) * g for w, g, h in gaps) / total if gaps else 0.0


def _ranked_list(loss, d, positive, negative, held=None):
    """``held`` are the distances that the weights are taken at, where they are held constant."""
    if not (sum(positive) or sum(negative) if loss.one_sided else sum(positive) and sum(negative)):
        return []
    held, reach = d if held is None or loss.through_weights else held, loss.alpha - loss.margin
    near = [(p, v - reach, u - reach) for p, v, u in zip(positive, d, held, strict=True) if p]
    far = [(n, loss.alpha - v, loss.alpha - u) for n, v, u in zip(negative, d, held, strict=True) if n]
    pull, push = _weighed(near, loss.positive_scale), _weighed(far, loss.negative_scale)
    return [(1, (1 - loss.balance) * pull + loss.balance * push)]


def _lmnn(loss, d, positive, negative):
    left, terms = loss.neighbours, []
    for v, weight in sorted((v, p) for p, v in _listed(positive, d)):
        taken = min(weight, left)
        left -= taken
        impostors = math.fsum(n * max(v - u + loss.margin, 0.0) for n, u in _listed(negative, d))
        if taken:
            terms.append((taken, (1 - loss.push) * v + loss.push * impostors))
    return terms


def _magnet(loss, d, positive, negative):
    near, far = _listed(positive, d), _listed(negative, d)
    if not near or not far:
        return []
    rate = 1 / (2 * loss.variance)
    return [(1, max(loss.margin + rate * min(v for _, v in near) + log_sum_exp([(n, -rate * v) for n, v in far]), 0.0))]


def _tuplet(loss, d, positive, negative):
    near, far = _listed(positive, d), _listed(negative, d)
    if not near or not far:
        return []
    others = log_sum_exp([(n, loss.scale * (1 - v)) for n, v in far])
    terms = []
    for p, v in near:
        angle = 2 * math.asin(min(math.sqrt(max(v, 0.0) / 2), 1.0))
        terms.append(p * soft_plus(others - loss.scale * math.cos(angle - loss.margin)))
    return [(sum(positive) if loss.by_pair else 1, math.fsum(terms) / sum(positive))]


def _angular(loss, s, positive, negative):
    """The whole table, and below it the references' own, if they are others than the anchors."""
    tangent, rows = math.tan(loss.angle) ** 2, []
    own = s[len(positive) :] or s
    for i, (ps, ns) in enumerate(zip(positive, negative, strict=True)):
        terms = []
        for j, p in enumerate(ps):
            if p and sum(ns):
                z = [4 * tangent * (u + v) - 2 * (1 + tangent) * s[i][j] for u, v in zip(s[i], own[j], strict=True)]
                terms.append(p * soft_plus(log_sum_exp(list(zip(ns, z, strict=True)))))
        rows.append([(sum(ps) if loss.by_pair else 1, math.fsum(terms) / sum(ps))] if terms else [])
    return rows


def _same_class(positive, negative):
    """Whether two anchors are of one class: for an anchor with a positive, their rows tell."""
    itself = len(positive) == len(positive[0]) and not any(
        p[i] or n[i] for i, (p, n) in enumerate(zip(positive, negative, strict=True))
    )

    def same(i, k):
        return i == k or bool(positive[i][k]) if itself else positive[i] == positive[k]

    return same


def _quadruplets(loss, d, positive, negative):
    """Each anchor's share of both means, as one term that counts its share of the triplets."""
    if not positive or not positive[0]:
        return [[] for _ in positive]
    same, n = _same_class(positive, negative), len(positive)
    first, second, counts = [], [], []
    for i in range(n):
        near, far = _listed(positive[i], d[i]), _listed(negative[i], d[i])
        others = [
            d[k][j] for k in range(n) if not same(i, k) for j, w in enumerate(negative[k]) if w and negative[i][j]
        ]
        first.append(math.fsum(max(v - u + loss.margin, 0.0) for _, v in near for _, u in far))
        second.append(math.fsum(max(v - u + loss.other_margin, 0.0) for _, v in near for u in others))
        pairs = sum(p for p, _ in near)
        counts.append((pairs * sum(n for n, _ in far), pairs * len(others)))
    triplets, quadruplets = (max(sum(c[k] for c in counts), 1) for k in (0, 1))
    return [
        [(c / triplets, one / c + two / quadruplets * triplets / c)] if c else []
        for one, two, (c, _) in zip(first, second, counts, strict=True)
    ]


RULES = {
    "ChopraLoss": _chopra,
    "GeneralizedLiftedStructureLoss": _general_lifted,
    "RankedListLoss": _ranked_list,
    "LMNNLoss": _lmnn,
    "MagnetLoss": _magnet,
    "TupletMarginLoss": _tuplet,
    "AngularLoss": _angular,
    "QuadrupletLoss": _quadruplets,
}


# ------------------------------------------------------------ dense


def _both(p, n, like):
    return ((p.sum(1) > 0) & (n.sum(1) > 0)).to(like)


def _dense_chopra(loss, d, p, n):
    q = loss.bound
    return (p * 2 / q * d**2 + n * 2 * q * torch.exp(-loss.decay * d / q)).sum(1), (p + n).sum(1)


def _dense_general_lifted(loss, d, p, n):
    has = _both(p, n, d)
    pools = [torch.where(has > 0, pool, 0.0) for pool in (masked_lse(d, p), masked_lse(loss.margin - d, n))]
    return has * torch.relu(pools[0] + pools[1]), has


def _dense_weighed(loss, gap, weight, scale):
    weight = weight * (gap.detach() > 0)
    z = scale * (gap if loss.through_weights else gap.detach())
    total = masked_lse(z, weight)[:, None]
    share = weight * torch.exp(torch.where(weight > 0, z - torch.where(total > -math.inf, total, 0.0), 0.0))
    return (share * torch.where(weight > 0, gap, 0.0)).sum(1)


def _dense_ranked_list(loss, d, p, n):
    has = ((p + n).sum(1) > 0).to(d) if loss.one_sided else _both(p, n, d)
    pull = _dense_weighed(loss, d - (loss.alpha - loss.margin), p, loss.positive_scale)
    push = _dense_weighed(loss, loss.alpha - d, n, loss.negative_scale)
    return has * ((1 - loss.balance) * pull + loss.balance * push), has


def _dense_lmnn(loss, d, p, n):
    order = torch.where(p > 0, d.detach(), math.inf).argsort(dim=1, stable=True)
    before = p.gather(1, order).cumsum(1) - p.gather(1, order)
    taken = torch.zeros_like(p).scatter(
        1, order, torch.minimum(p.gather(1, order), (loss.neighbours - before).clamp(min=0))
    )
    hinge = torch.relu(d[:, :, None] - d[:, None, :] + loss.margin)
    each = (1 - loss.push) * d + loss.push * (n[:, None, :] * hinge).sum(2)
    return (taken * each).sum(1), taken.sum(1)


def _dense_magnet(loss, d, p, n):
    has, rate = _both(p, n, d), 1 / (2 * loss.variance)
    if not d.shape[1]:
        return d.sum(1), has
    place = torch.where(p > 0, d.detach(), math.inf).argmin(1)[:, None]
    pool = torch.where(has > 0, masked_lse(-rate * d, n), 0.0)
    return has * torch.relu(loss.margin + rate * d.gather(1, place)[:, 0] + pool), has


def _dense_tuplet(loss, d, p, n):
    has, square = _both(p, n, d), d * (2 - d)
    sine = torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)
    target = (1 - d) * math.cos(loss.margin) + sine * math.sin(loss.margin)
    pool = torch.where(has > 0, masked_lse(loss.scale * (1 - d), n), 0.0)[:, None]
    return _mean_of_positives(loss, p, p * soft_plus_of(pool - loss.scale * target), has)


def _dense_angular(loss, s, p, n):
    tangent = math.tan(loss.angle) ** 2
    if not s.shape[1]:
        return s.sum(1)[: len(p)], p.sum(1)
    s, own = s[: len(p)], s[len(p) :] if len(s) > len(p) else s
    has = _both(p, n, s)
    z = 4 * tangent * (s[:, None, :] + own[None, :, :]) - 2 * (1 + tangent) * s[:, :, None]
    each = soft_plus_of(masked_lse(z, n[:, None, :].expand_as(z)))
    return _mean_of_positives(loss, p, p * each, has)


def _mean_of_positives(loss, p, terms, has):
    if loss.by_pair:
        return has * terms.sum(1), has * p.sum(1)
    return has * terms.sum(1) / p.sum(1).clamp(min=1), has


def _dense_quadruplets(loss, d, p, n):
    if not d.numel():
        return d.sum(1), d.sum(1)
    near, far = d[:, :, None] - d[:, None, :] + loss.margin, p[:, :, None] * n[:, None, :]
    same = _same_class(p.tolist(), n.tolist())
    apart = torch.tensor([[not same(i, k) for k in range(len(d))] for i in range(len(d))]).to(d)
    between = apart[:, :, None] * n[None] * n[:, None, :]
    four = p[:, :, None, None] * between[:, None]
    other = d[:, :, None, None] - d[None, None] + loss.other_margin
    triplets, quadruplets = far.sum().clamp(min=1), four.sum().clamp(min=1)
    first = (far * torch.relu(torch.where(far > 0, near, 0.0))).sum((1, 2)) / triplets
    second = (four * torch.relu(torch.where(four > 0, other, 0.0))).sum((1, 2, 3)) / quadruplets
    return first + second, far.sum((1, 2)) / triplets


DENSE = {
    "ChopraLoss": _dense_chopra,
    "GeneralizedLiftedStructureLoss": _dense_general_lifted,
    "RankedListLoss": _dense_ranked_list,
    "LMNNLoss": _dense_lmnn,
    "MagnetLoss": _dense_magnet,
    "TupletMarginLoss": _dense_tuplet,
    "AngularLoss": _dense_angular,
    "QuadrupletLoss": _dense_quadruplets,
}
