"""What the oracles of all families share: unit rows, log-sum-exps, softplus; in plain floats and in PyTorch."""

from __future__ import annotations

import torch

from digits import math


def unit(row):
    top = max(map(abs, row))
    if top == 0:
        return [0.0] * len(row)
    length = math.sqrt(math.fsum((v / top) ** 2 for v in row))
    return [v / top / length for v in row]


def dot(x, y):
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def cosine(x, y):
    return dot(unit(x), unit(y))


def log_sum_exp(weighted):
    top = max((z for w, z in weighted if w), default=-math.inf)
    return top + math.log(math.fsum(w * math.exp(z - top) for w, z in weighted if w)) if top > -math.inf else top


def soft_plus(z):
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def masked_lse(z, weight):
    """Log-sum-exp with multiplicities, −inf over nothing, safe to differentiate."""
    filled = torch.where(weight > 0, z, -math.inf)
    top = filled.detach().amax(-1, keepdim=True) if z.shape[-1] else filled.new_zeros((*z.shape[:-1], 1))
    top = torch.where(top > -math.inf, top, 0.0)
    total = (weight * torch.where(weight > 0, z - top, 0.0).exp()).sum(-1)
    some = total > 0
    return torch.where(some, torch.where(some, total, 1.0).log() + top[..., 0], -math.inf)


def soft_plus_of(z):
    """softplus, safe to differentiate at −inf."""
    return torch.where(z > -math.inf, torch.logaddexp(torch.zeros_like(z), torch.where(z > -math.inf, z, 0.0)), 0.0)
