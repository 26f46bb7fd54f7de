"""The losses of features, and those of pairs with scores: the papers in plain numbers, for lists of rows."""

from __future__ import annotations

import nearfar as nf
from digits import math
from parts import cosine, dot, log_sum_exp, unit

# One of each with its defaults, and others.
LOSSES = {
    "BarlowTwins": nf.BarlowTwinsLoss(),
    "BarlowTwins-0.3": nf.BarlowTwinsLoss(redundancy=0.3),
    "VICReg": nf.VICRegLoss(),
    "VICReg-target": nf.VICRegLoss(invariance=0.5, variance=2.0, covariance=3.0, target=1.4, epsilon=0.01),
    "Alignment": nf.AlignmentLoss(),
    "Alignment-1": nf.AlignmentLoss(power=1.0),
    "Alignment-3-raw": nf.AlignmentLoss(power=3.0, unit=False),
    "Uniformity": nf.UniformityLoss(),
    "Uniformity-raw": nf.UniformityLoss(t=0.3, unit=False),
    "KoLeo": nf.KoLeoLoss(),
    "KoLeo-raw": nf.KoLeoLoss(unit=False),
    "BYOL": nf.BYOLLoss(),
}

# ------------------------------------------------------------ features


def mean(values):
    return math.fsum(values) / len(values)


def correlation(x, y):
    a, b = ([v - mean(row) for v in row] for row in (x, y))
    return dot(unit(a), unit(b))


def _barlow(loss, z1, z2):
    one, two = (list(zip(*z, strict=True)) for z in (z1, z2))
    table = [[correlation(x, y) for y in two] for x in one]
    near = [(1 - row[i]) ** 2 for i, row in enumerate(table)]
    return math.fsum(near) + loss.redundancy * math.fsum(
        v * v for i, row in enumerate(table) for j, v in enumerate(row) if i != j
    )


def _vicreg(loss, *views):
    n, d = len(views[0]), len(views[0][0])
    value = loss.invariance * mean(
        [(a - b) ** 2 for x, y in zip(*views, strict=True) for a, b in zip(x, y, strict=True)]
    )
    if n < 2:
        return value
    for z in views:
        rows = [[v - mean(row) for v in row] for row in zip(*z, strict=True)]
        table = [[dot(x, y) / (n - 1) for y in rows] for x in rows]
        value += loss.variance * mean(
            [max(loss.target - math.sqrt(row[j] + loss.epsilon), 0.0) for j, row in enumerate(table)]
        )
        value += (
            loss.covariance / d * math.fsum(v * v for i, row in enumerate(table) for j, v in enumerate(row) if i != j)
        )
    return value


def placed(loss, z):
    return [unit(row) for row in z] if getattr(loss, "unit", True) else z


def _alignment(loss, z1, z2):
    return mean([math.dist(x, y) ** loss.power for x, y in zip(placed(loss, z1), placed(loss, z2), strict=True)])


def _uniformity(loss, z):
    z = placed(loss, z)
    pairs = [-loss.t * math.dist(x, y) ** 2 for i, x in enumerate(z) for j, y in enumerate(z) if i != j]
    top = max(pairs)
    return math.log(mean([math.exp(v - top) for v in pairs])) + top


def _koleo(loss, z):
    z = placed(loss, z)
    near = [min(math.dist(x, y) for j, y in enumerate(z) if i != j) for i, x in enumerate(z)]
    return -mean([math.log(max(v, loss.floor)) for v in near])


def _byol(loss, p, z):
    return mean([2 - 2 * cosine(x, y) for x, y in zip(p, z, strict=True)])


LOOPS = {
    nf.BarlowTwinsLoss: _barlow,
    nf.VICRegLoss: _vicreg,
    nf.AlignmentLoss: _alignment,
    nf.UniformityLoss: _uniformity,
    nf.KoLeoLoss: _koleo,
    nf.BYOLLoss: _byol,
}

# ------------------------------------------------------------ pairs with scores


def angle(a, b):
    """Of complex rows, real parts first: the real and imaginary part of their product, added."""
    a, b, half = unit(a), unit(b), len(a) // 2
    (re, im), (c, d) = ((v[:half], v[half:]) for v in (a, b))
    return abs(dot(re, c) + dot(im, d) + dot(im, c) - dot(re, d))


def in_order(similarity, score, temperature):
    """log(1 + Σ exp((s_j − s_i) / τ)) over all i scored above j."""
    odds = [
        (1, (low - high) / temperature)
        for high, y in zip(similarity, score, strict=True)
        for low, x in zip(similarity, score, strict=True)
        if y > x
    ]
    return log_sum_exp([(1, 0 * similarity[0]), *odds])
