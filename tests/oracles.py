"""What each loss is, twice over, and without a line of the library.

``loops`` is the paper in plain Python floats: a value, slowly. ``dense`` is the whole table at once in PyTorch, for
automatic differentiation. Both take the table's relation as two weight matrices (how often a pair is positive, how
often negative) and read nothing from a loss but its name and hyper-parameters.
"""

from __future__ import annotations

import math

import torch

# ------------------------------------------------------------ the relation


def relation(labels, reference_labels=None, ignore=None):
    """Positive and negative weight of every pair of a labelled batch, as nested lists."""
    own, is_self = list(labels), reference_labels is None
    other = own if is_self else list(reference_labels)

    def weight(i, j, same):
        if ignore is not None and ignore in (own[i], other[j]):
            return 0
        return int(bool(own[i] == other[j]) is same and not (is_self and i == j))

    positive = [[weight(i, j, True) for j in range(len(other))] for i in range(len(own))]
    negative = [[weight(i, j, False) for j in range(len(other))] for i in range(len(own))]
    return positive, negative


# ------------------------------------------------------------ loops: measures


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


def cosine_distance(x, y):
    if not any(x) or not any(y):
        return 1.0
    return math.fsum((a - b) ** 2 for a, b in zip(unit(x), unit(y), strict=True)) / 2


MEASURES = {
    "Dot": dot,
    "Cosine": cosine,
    "Euclidean": math.dist,
    "SquaredEuclidean": lambda x, y: math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True)),
    "CosineDistance": cosine_distance,
    "Manhattan": lambda x, y: math.fsum(abs(a - b) for a, b in zip(x, y, strict=True)),
}

# ------------------------------------------------------------ loops: losses
# Each takes one anchor's row of the table and gives its terms: a list of (multiplicity, loss).


def log_sum_exp(weighted):
    top = max((z for w, z in weighted if w), default=-math.inf)
    return top + math.log(math.fsum(w * math.exp(z - top) for w, z in weighted if w)) if top > -math.inf else top


def soft_plus(z):
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def _all_against_mean_positive(loss, s, positive, negative):
    count = sum(positive)
    if not count:
        return []
    z = [v / loss.temperature for v in s]
    everything = log_sum_exp([(p + n, v) for p, n, v in zip(positive, negative, z, strict=True)])
    return [(1, everything - math.fsum(p * v for p, v in zip(positive, z, strict=True)) / count)]


def _each_positive_against_negatives(temperature, s, positive, negative):
    if not sum(positive) or not sum(negative):
        return []
    z = [v / temperature for v in s]
    against = [(n, v) for n, v in zip(negative, z, strict=True)]
    terms = [w * (log_sum_exp([*against, (1, v)]) - v) for w, v in zip(positive, z, strict=True) if w]
    return [(1, math.fsum(terms) / sum(positive))]


def _contrastive(loss, d, positive, negative):
    pull, push = loss.factors
    terms = [(p, pull * v ** loss.powers[0]) for p, v in zip(positive, d, strict=True) if p]
    return terms + [
        (n, push * max(loss.margin - v, 0.0) ** loss.powers[1]) for n, v in zip(negative, d, strict=True) if n
    ]


def _binary(loss, s, positive, negative):
    terms = [(p, soft_plus(-v / loss.temperature)) for p, v in zip(positive, s, strict=True) if p]
    return terms + [(n, soft_plus(v / loss.temperature)) for n, v in zip(negative, s, strict=True) if n]


def chosen_triplets(mining, d, positive, negative):
    """(multiplicity, d_ap, d_an) of one anchor."""
    near = [(p, v) for p, v in zip(positive, d, strict=True) if p]
    far = [(n, v) for n, v in zip(negative, d, strict=True) if n]
    if not near or not far:
        return []
    if mining == "all":
        return [(p * n, v, u) for p, v in near for n, u in far]
    if mining == "hard":
        return [(1, max(v for _, v in near), min(u for _, u in far))]
    farthest = max(u for _, u in far)
    return [(p, v, min((u for _, u in far if u > v), default=farthest)) for p, v in near]


def _triplet(loss, d, positive, negative):
    terms = []
    for count, near, far in chosen_triplets(loss.mining, d, positive, negative):
        z = near - far + loss.margin
        if loss.active_only and z <= 0:
            continue
        terms.append((count, soft_plus(z) if loss.soft else max(z, 0.0)))
    return terms


RULES = {
    "SupConLoss": _all_against_mean_positive,
    "CrossEntropyLoss": _all_against_mean_positive,
    "InfoNCELoss": lambda loss, *row: _each_positive_against_negatives(loss.temperature, *row),
    "NPairLoss": lambda loss, *row: _each_positive_against_negatives(1.0, *row),
    "ContrastiveLoss": _contrastive,
    "BinaryCrossEntropyLoss": _binary,
    "TripletLoss": _triplet,
}


def table(loss, x, y=None):
    measure = MEASURES[type(loss.measure).__name__]
    return [[measure(a, b) for b in (x if y is None else y)] for a in x]


def loops_on_table(loss, s, positive, negative):
    """The mean loss from a table of measures, and each anchor's mean over its own terms."""
    rule, name = RULES[type(loss).__name__], type(loss).__name__
    if name == "ContrastiveLoss" and loss.balanced:
        return _balanced(loss, s, positive, negative)
    rows = [rule(loss, *row) for row in zip(s, positive, negative, strict=True)]
    sums = [(sum(w for w, _ in row), math.fsum(w * v for w, v in row)) for row in rows]
    count = sum(c for c, _ in sums)
    value = math.fsum(v for _, v in sums) / count if count else 0.0
    return value, [v / c if c else 0.0 for c, v in sums]


def _balanced(loss, s, positive, negative):
    pull, push = loss.factors
    near = [
        (p, pull * v ** loss.powers[0]) for ps, d in zip(positive, s, strict=True) for p, v in zip(ps, d, strict=True)
    ]
    far = [
        (n, push * max(loss.margin - v, 0.0) ** loss.powers[1])
        for ns, d in zip(negative, s, strict=True)
        for n, v in zip(ns, d, strict=True)
    ]
    means = [math.fsum(w * v for w, v in part) / max(sum(w for w, _ in part), 1) for part in (near, far)]
    return sum(means), None


def loops(loss, x, positive, negative, y=None):
    """The mean loss of rows of plain floats."""
    return loops_on_table(loss, table(loss, x, y), positive, negative)[0]


# ------------------------------------------------------------ dense: the table in PyTorch


def _unit(x):
    """Unit rows; the row's largest entry is a constant factor, which changes neither value nor gradient."""
    top = x.detach().abs().amax(-1, keepdim=True)
    scaled = x / torch.where(top > 0, top, 1.0)
    square = (scaled * scaled).sum(-1, keepdim=True)
    return torch.where(square > 0, scaled / torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def _length(difference):
    top = difference.detach().abs().amax(-1, keepdim=True)
    scaled = difference / torch.where(top > 0, top, 1.0)
    square = (scaled * scaled).sum(-1)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0) * top[..., 0]


def dense_table(name, x, y):
    if name == "Dot":
        return (x[:, None] * y[None]).sum(-1)
    if name == "Cosine":
        return (_unit(x)[:, None] * _unit(y)[None]).sum(-1)
    difference = x[:, None] - y[None]
    if name == "Euclidean":
        return _length(difference)
    if name == "SquaredEuclidean":
        return (difference**2).sum(-1)
    if name == "Manhattan":
        return difference.abs().sum(-1)
    apart = ((_unit(x)[:, None] - _unit(y)[None]) ** 2).sum(-1) / 2
    void = (x == 0).all(-1)[:, None] | (y == 0).all(-1)[None]
    return torch.where(void, 1.0, apart)


def _masked_lse(z, weight):
    """Log-sum-exp with multiplicities, −inf over nothing, safe to differentiate."""
    filled = torch.where(weight > 0, z, -math.inf)
    top = filled.detach().amax(-1, keepdim=True) if z.shape[-1] else filled.new_zeros((*z.shape[:-1], 1))
    top = torch.where(top > -math.inf, top, 0.0)
    total = (weight * torch.where(weight > 0, z - top, 0.0).exp()).sum(-1)
    some = total > 0
    return torch.where(some, torch.where(some, total, 1.0).log() + top[..., 0], -math.inf)


def _hinge(loss, z):
    return torch.nn.functional.softplus(z, threshold=700.0) if loss.soft else torch.where(z > 0, z, 0.0)


def _dense_softmax(loss, s, p, n):
    z, count = s / loss.temperature, p.sum(1)
    positive = (p * z).sum(1) / count.clamp(min=1)
    has = (count > 0).to(s)
    total = _masked_lse(z, p + n)
    return torch.where(has > 0, torch.where(has > 0, total, 0.0) - positive, 0.0), has


def _dense_one_positive(temperature, s, p, n):
    z, count = s / temperature, p.sum(1)
    against = _masked_lse(z, n)[:, None]
    safe = torch.where(against > -math.inf, against, 0.0)
    term = torch.where(against > -math.inf, torch.logaddexp(safe.expand_as(z), z) - z, 0.0)
    has = ((count > 0) & (n.sum(1) > 0)).to(s)
    return has * (p * term).sum(1) / count.clamp(min=1), has


def _dense_contrastive(loss, d, p, n):
    near = loss.factors[0] * d ** loss.powers[0]
    gap = torch.where(d < loss.margin, loss.margin - d, 0.0)
    far = loss.factors[1] * gap ** loss.powers[1]
    if not loss.balanced:
        return (p * near + n * far).sum(1), (p + n).sum(1)
    each = (p * near).sum(1) / p.sum().clamp(min=1) + (n * far).sum(1) / n.sum().clamp(min=1)
    return each, (p + n).sum(1) / (p + n).sum().clamp(min=1)


def _dense_binary(loss, s, p, n):
    z = s / loss.temperature
    zero = torch.zeros_like(z)
    return (p * torch.logaddexp(zero, -z) + n * torch.logaddexp(zero, z)).sum(1), (p + n).sum(1)


def _dense_triplet(loss, d, p, n):
    weight = p[:, :, None] * n[:, None, :]
    z = d[:, :, None] - d[:, None, :] + loss.margin
    exists = (n.sum(1) > 0).to(d)
    if loss.mining != "all":
        z, weight = _mined(loss, d, p, n)
        weight = weight * exists[:, None]
    if loss.active_only:
        weight = weight * (z.detach() > 0)
    value = torch.where(weight > 0, _hinge(loss, torch.where(weight > 0, z, 0.0)), 0.0)
    axes = tuple(range(1, z.ndim))
    return (weight * value).sum(axes), weight.sum(axes)


def _mined(loss, d, p, n):
    """Logits and weights of the mined triplets: one column an anchor (hard), one column a positive (semi-hard)."""
    if d.shape[1] == 0:
        return d, d
    inside, outside = d.detach().masked_fill(p == 0, -math.inf), d.detach().masked_fill(n == 0, math.inf)
    if loss.mining == "hard":
        far, near = inside.argmax(1, keepdim=True), outside.argmin(1, keepdim=True)
        return d.gather(1, far) - d.gather(1, near) + loss.margin, (p.sum(1, keepdim=True) > 0).to(d)
    beyond = torch.where(outside[:, None, :] > d.detach()[:, :, None], outside[:, None, :], math.inf)
    last = d.detach().masked_fill(n == 0, -math.inf).argmax(1)[:, None].expand(d.shape)
    pick = torch.where(beyond.amin(2) < math.inf, beyond.argmin(2), last)
    return d - d.gather(1, pick) + loss.margin, p


DENSE = {
    "SupConLoss": _dense_softmax,
    "CrossEntropyLoss": _dense_softmax,
    "InfoNCELoss": lambda loss, *row: _dense_one_positive(loss.temperature, *row),
    "NPairLoss": lambda loss, *row: _dense_one_positive(1.0, *row),
    "ContrastiveLoss": _dense_contrastive,
    "BinaryCrossEntropyLoss": _dense_binary,
    "TripletLoss": _dense_triplet,
}


def dense_on_table(loss, s, positive, negative):
    """Sum of each anchor's terms and their number, from a table."""
    p, n = (torch.as_tensor(w, dtype=s.dtype).reshape(s.shape) for w in (positive, negative))
    return DENSE[type(loss).__name__](loss, s, p, n)


def dense(loss, x, positive, negative, y=None):
    """The mean loss as a tensor of the graph."""
    s = dense_table(type(loss.measure).__name__, x, x if y is None else y)
    sums, counts = dense_on_table(loss, s, positive, negative)
    return sums.sum() / torch.where(counts.sum() > 0, counts.sum(), 1.0)


def dense_gradients(loss, x, positive, negative, y=None):
    """Value and gradients by automatic differentiation, as NumPy arrays; the second gradient only with references."""
    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, y) if a is not None]
    value = dense(loss, leaves[0], positive, negative, *leaves[1:])
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    zeros = [torch.zeros_like(a) if g is None else g for a, g in zip(leaves, gradients, strict=True)]
    return value.item(), *(g.numpy() for g in zeros)
