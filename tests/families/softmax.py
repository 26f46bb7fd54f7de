"""Softmax losses on pairs."""

from __future__ import annotations

import torch

import nearfar as nf
from digits import math
from parts import log_sum_exp, masked_lse, soft_plus, soft_plus_of

BACK = ("query_to_doc", "doc_to_query")
VARIANTS: dict = {
    "SupConLoss": [
        nf.SupConLoss(temperature=0.1),
        nf.SupConLoss(temperature=0.7),
        nf.SupConLoss(0.3, form="in"),
        *(nf.SupConLoss(0.3, form=f, denominator=d) for f in ("out", "in") for d in ("one", "negatives")),
    ],
    "DecoupledContrastiveLoss": [nf.DecoupledContrastiveLoss(), nf.DecoupledContrastiveLoss(0.6)],
    "DebiasedContrastiveLoss": [
        nf.DebiasedContrastiveLoss(),
        nf.DebiasedContrastiveLoss(0.3, 0.4),
        nf.DebiasedContrastiveLoss(0.4, 0.0),
    ],
    "HardNegativeContrastiveLoss": [
        nf.HardNegativeContrastiveLoss(),
        nf.HardNegativeContrastiveLoss(0.4, 0.2, 2.5),
        nf.HardNegativeContrastiveLoss(0.4, 0.0, 0.5),
    ],
    "NPairLoss": [nf.NPairLoss(), nf.NPairLoss(one_versus_one=True)],
    "NCALoss": [nf.NCALoss(), nf.NCALoss(temperature=0.3), nf.NCALoss(log=False), nf.NCALoss(0.4, log=False)],
    "SoftNearestNeighborLoss": [nf.SoftNearestNeighborLoss(2.0), nf.SoftNearestNeighborLoss(0.3)],
    "MultipleNegativesRankingLoss": [
        nf.MultipleNegativesRankingLoss(0.2),
        nf.MultipleNegativesRankingLoss(0.3, BACK),
    ],
}
NAMED_BY = ("form", "denominator", "one_versus_one", "log", "prior", "directions")
ONE_WAY = (nf.MultipleNegativesRankingLoss,)
WHOLE_TABLE = ("MultipleNegativesRankingLoss",)
SMOOTH = (nf.SoftNearestNeighborLoss,)
STEEPNESS = {nf.HardNegativeContrastiveLoss: lambda loss: (1 + loss.beta) / loss.temperature}

# ------------------------------------------------------------ loops


def _weighed(positive, z):
    return [(w, v) for w, v in zip(positive, z, strict=True) if w]


def _sup_con(form, denominator, temperature, s, positive, negative):
    if not sum(positive) or (denominator != "all" and not sum(negative)):
        return []
    z = [v / temperature for v in s]
    rest = list(zip(negative, z, strict=True))
    below = {
        "all": lambda v: log_sum_exp([*rest, *zip(positive, z, strict=True)]),
        "one": lambda v: log_sum_exp([*rest, (1, v)]),
        "negatives": lambda v: log_sum_exp(rest),
    }[denominator]
    logs = [(w, v - below(v)) for w, v in _weighed(positive, z)]
    if form == "in":
        return [(1, math.log(sum(positive)) - log_sum_exp(logs))]
    return [(1, -math.fsum(w * v for w, v in logs) / sum(positive))]


def _corrected(loss, s, positive, negative):
    """Each positive against what the prior leaves of the pool of negatives."""
    if not sum(positive) or not sum(negative):
        return []
    z, beta, count = [v / loss.temperature for v in s], getattr(loss, "beta", 0.0), sum(negative)
    hard = log_sum_exp([(w, (1 + beta) * v) for w, v in _weighed(negative, z)])
    pool = math.log(count) + hard - log_sum_exp([(w, beta * v) for w, v in _weighed(negative, z)])
    own = log_sum_exp(_weighed(positive, z)) - math.log(sum(positive))
    kept = math.log(count) - 1 / loss.temperature
    part = -math.inf if loss.prior == 0 else math.log(loss.prior * count) + own - pool
    if part < 0:
        kept = max(kept, pool + math.log(-math.expm1(part)) - math.log1p(-loss.prior))
    return [(1, math.fsum(w * soft_plus(kept - v) for w, v in _weighed(positive, z)) / sum(positive))]


def _n_pair(loss, s, positive, negative):
    if not loss.one_versus_one:
        return _sup_con("out", "one", 1.0, s, positive, negative)
    if not sum(positive) or not sum(negative):
        return []
    each = [p * n * soft_plus(u - v) for p, v in _weighed(positive, s) for n, u in _weighed(negative, s)]
    return [(1, math.fsum(each) / sum(positive))]


def _neighbours(loss, d, positive, negative):
    if not sum(positive):
        return []
    z = [-v / loss.temperature for v in d]
    odds = log_sum_exp(_weighed(negative, z)) - log_sum_exp(_weighed(positive, z))
    if getattr(loss, "log", True):
        return [(1, soft_plus(odds))]
    return [(1, 1 / (1 + math.exp(-odds)) if odds > 0 else math.exp(odds) / (1 + math.exp(odds)))]


def _multiple_negatives(loss, s, positive, negative):
    """The whole table: asked back, a pair also feels the negatives of its column."""
    z = [[v / loss.temperature for v in row] for row in s]
    back, terms = "doc_to_query" in loss.directions, []
    columns = range(len(z[0]) if z else 0)
    theirs = [log_sum_exp([(n[j], v[j]) for n, v in zip(negative, z, strict=True)]) for j in columns]
    for row, p, n in zip(z, positive, negative, strict=True):
        if not sum(p) or not sum(n):
            terms.append([])
            continue
        own, each = log_sum_exp(_weighed(n, row)), []
        for j in columns:
            if p[j]:
                among = [(1, own), (1, row[j])] + ([(1, theirs[j]), (1, row[j])] if back else [])
                each.append(p[j] * (log_sum_exp(among) - row[j]))
        terms.append([(1, math.fsum(each) / sum(p))])
    return terms


RULES: dict = {
    "SupConLoss": lambda loss, *row: _sup_con(loss.form, loss.denominator, loss.temperature, *row),
    "DecoupledContrastiveLoss": lambda loss, *row: _sup_con("out", "negatives", loss.temperature, *row),
    "DebiasedContrastiveLoss": _corrected,
    "HardNegativeContrastiveLoss": _corrected,
    "NPairLoss": _n_pair,
    "NCALoss": _neighbours,
    "SoftNearestNeighborLoss": _neighbours,
    "MultipleNegativesRankingLoss": _multiple_negatives,
}

# ------------------------------------------------------------ dense


def _safe(z):
    return torch.where(z > -math.inf, z, 0.0)


def _dense_sup_con(form, denominator, temperature, s, p, n):
    z, count = s / temperature, p.sum(1)
    has = (count > 0) & ((n.sum(1) > 0) | torch.tensor(denominator == "all"))
    below = _safe(masked_lse(z, n + p if denominator == "all" else n))[:, None]
    below = torch.logaddexp(below.expand_as(z), z) if denominator == "one" else below
    below = torch.where(n.sum(1, keepdim=True) > 0, below, z) if denominator == "one" else below
    logs = z - below
    if form == "in":
        value = count.clamp(min=1).log() - _safe(masked_lse(logs, p))
    else:
        value = -(p * logs).sum(1) / count.clamp(min=1)
    return torch.where(has, value, 0.0), has.to(s)


def _dense_corrected(loss, s, p, n):
    z, beta, has = s / loss.temperature, getattr(loss, "beta", 0.0), (p.sum(1) > 0) & (n.sum(1) > 0)
    count = torch.where(has, n.sum(1), 1.0).log()
    pool = count + _safe(masked_lse((1 + beta) * z, n)) - _safe(masked_lse(beta * z, n))
    own = _safe(masked_lse(z, p)) - torch.where(has, p.sum(1), 1.0).log()
    part = own + (math.log(loss.prior) if loss.prior else -math.inf) + count - pool
    some = part < 0
    kept = pool + torch.log(-torch.expm1(torch.where(some, part, -1.0))) - math.log1p(-loss.prior)
    floor = count - 1 / loss.temperature
    kept = torch.where(some & (kept > floor), kept, floor)
    each = soft_plus_of(kept[:, None] - z)
    return torch.where(has, (p * each).sum(1) / p.sum(1).clamp(min=1), 0.0), has.to(s)


def _dense_n_pair(loss, s, p, n):
    if not loss.one_versus_one:
        return _dense_sup_con("out", "one", 1.0, s, p, n)
    has = ((p.sum(1) > 0) & (n.sum(1) > 0)).to(s)
    each = p[:, :, None] * n[:, None, :] * soft_plus_of(s[:, None, :] - s[:, :, None])
    return has * each.sum((1, 2)) / p.sum(1).clamp(min=1), has


def _dense_neighbours(loss, d, p, n):
    z, has = -d / loss.temperature, p.sum(1) > 0
    own, rest = torch.where(has, masked_lse(z, p), 0.0), masked_lse(z, n)
    odds = torch.where(has, rest - own, 0.0)
    if getattr(loss, "log", True):
        return has * soft_plus_of(odds), has.to(d)
    return has * torch.where(odds > -math.inf, torch.sigmoid(_safe(odds)), 0.0), has.to(d)


def _dense_multiple_negatives(loss, s, p, n):
    z, has = s / loss.temperature, ((p.sum(1) > 0) & (n.sum(1) > 0)).to(s)
    parts = [masked_lse(z, n)[:, None].expand_as(z), z]
    if "doc_to_query" in loss.directions:
        parts += [masked_lse(z.T, n.T)[None, :].expand_as(z), z]
    parts = torch.stack(parts, dim=-1)
    each = masked_lse(parts, (parts > -math.inf).to(z)) - z
    return has * (p * each).sum(1) / p.sum(1).clamp(min=1), has


DENSE: dict = {
    "SupConLoss": lambda loss, *row: _dense_sup_con(loss.form, loss.denominator, loss.temperature, *row),
    "DecoupledContrastiveLoss": lambda loss, *row: _dense_sup_con("out", "negatives", loss.temperature, *row),
    "DebiasedContrastiveLoss": _dense_corrected,
    "HardNegativeContrastiveLoss": _dense_corrected,
    "NPairLoss": _dense_n_pair,
    "NCALoss": _dense_neighbours,
    "SoftNearestNeighborLoss": _dense_neighbours,
    "MultipleNegativesRankingLoss": _dense_multiple_negatives,
}
