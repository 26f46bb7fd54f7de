"""What each loss is, twice over, and without a line of the library.

``loops`` is the paper in plain Python floats: a value, slowly. ``dense`` is the whole table at once in PyTorch, for
automatic differentiation. Both take the table's relation as two weight matrices (how often a pair is positive, how
often negative) and read nothing from a loss but its name and hyper-parameters.
"""

from __future__ import annotations

import torch

import families
from digits import math
from parts import cosine, dot, log_sum_exp, masked_lse, soft_plus, soft_plus_of, unit

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


def cosine_distance(x, y):
    if not any(x) or not any(y):
        return 1.0
    return math.fsum((a - b) ** 2 for a, b in zip(unit(x), unit(y), strict=True)) / 2


MEASURES = {
    "Dot": dot,
    "Cosine": cosine,
    "Euclidean": lambda x, y: math.dist(x, y),  # asked for at each call: in which numbers may change
    "SquaredEuclidean": lambda x, y: math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True)),
    "CosineDistance": cosine_distance,
    "Manhattan": lambda x, y: math.fsum(abs(a - b) for a, b in zip(x, y, strict=True)),
}

# ------------------------------------------------------------ loops: losses
# Each takes one anchor's row of the table and gives its terms: a list of (multiplicity, loss).


def _all_against_mean_positive(loss, s, positive, negative):
    count = sum(positive)
    if not count:
        return []
    z = [v / loss.temperature for v in s]
    everything = log_sum_exp([(p + n, v) for p, n, v in zip(positive, negative, z, strict=True)])
    return [(1, everything - math.fsum(p * v for p, v in zip(positive, z, strict=True)) / count)]


def _each_positive_against_negatives(temperature, s, positive, negative, by_pair=False):
    if not sum(positive) or not sum(negative):
        return []
    z = [v / temperature for v in s]
    against = [(n, v) for n, v in zip(negative, z, strict=True)]
    terms = [w * (log_sum_exp([*against, (1, v)]) - v) for w, v in zip(positive, z, strict=True) if w]
    return [(sum(positive) if by_pair else 1, math.fsum(terms) / sum(positive))]


def _contrastive(loss, d, positive, negative):
    near, far = _contrastive_sides(loss, d)
    terms = [(p, v) for p, v in zip(positive, near, strict=True) if p]
    terms += [(n, v) for n, v in zip(negative, far, strict=True) if n]
    return [(w, v) for w, v in terms if v > 0] if loss.active_only else terms


def _contrastive_sides(loss, d):
    """What each pair would cost as a positive and as a negative."""
    pull, push = loss.factors
    near = [pull * (max(v - loss.positive_margin, 0.0) if loss.positive_margin else v) ** loss.powers[0] for v in d]
    return near, [push * max(loss.margin - v, 0.0) ** loss.powers[1] for v in d]


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
    if mining == "easy":
        return [(1, min(v for _, v in near), min(u for _, u in far))]
    farthest = max(u for _, u in far)
    if mining == "easy-semihard":
        near = [(1, min(v for _, v in near))]
    return [(p, v, min((u for _, u in far if u > v), default=farthest)) for p, v in near]


def _triplet(loss, d, positive, negative):
    terms = []
    for count, near, far in chosen_triplets(loss.mining, d, positive, negative):
        z = near - far + loss.margin
        if loss.active_only and z <= 0:
            continue
        terms.append((count, soft_plus(z) if loss.soft else max(z, 0.0)))
    return terms


def _fast_ap(loss, d, positive, negative):
    if not sum(positive):
        return []
    step = loss.span / loss.bins

    def node(weights, k):
        return math.fsum(
            w * max(0.0, 1 - abs(min(v, loss.span) / step - k)) for w, v in zip(weights, d, strict=True) if w
        )

    own = [node(positive, k) for k in range(loss.bins + 1)]
    rest = [node(negative, k) for k in range(loss.bins + 1)]
    total, own_so_far, so_far = 0.0, 0.0, 0.0
    for h, n in zip(own, rest, strict=True):
        own_so_far, so_far = own_so_far + h, so_far + h + n
        total += h * own_so_far / so_far if so_far else 0.0
    return [(1, 1 - total / sum(positive))]


def _smooth_ap(loss, s, positive, negative):
    """Multiplicities are pairs listed several times, one after the other."""
    listed = [v / loss.temperature for p, v in zip(positive, s, strict=True) for _ in range(int(p))]
    others = [v / loss.temperature for n, v in zip(negative, s, strict=True) for _ in range(int(n))]

    def above(z):
        return 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))

    precision = []
    for k, v in enumerate(listed):
        right = 1 + math.fsum(above(u - v) for i, u in enumerate(listed) if i != k)
        precision.append(right / (right + math.fsum(above(u - v) for u in others)))
    return [(1, 1 - math.fsum(precision) / len(listed))] if listed else []


def _arc_face(loss, d, positive, negative):
    if not sum(positive):
        return []

    def angle(v):
        return 2 * math.asin(min(math.sqrt(max(v, 0.0) / 2), 1.0))

    def target(v):
        if angle(v) < math.pi - loss.margin:
            return math.cos(angle(v) + loss.margin)
        return math.cos(angle(v)) - loss.margin * math.sin(loss.margin)

    own = [(p, target(v) / loss.temperature) for p, v in zip(positive, d, strict=True) if p]
    rest = [(n, (1 - v) / loss.temperature) for n, v in zip(negative, d, strict=True) if n]
    return [(1, log_sum_exp(own + rest) - math.fsum(p * v for p, v in own) / sum(positive))]


def _multi_similarity(loss, s, positive, negative):
    near = [(p, v) for p, v in zip(positive, s, strict=True) if p]
    far = [(n, v) for n, v in zip(negative, s, strict=True) if n]
    if not (near or far if loss.one_sided else near and far):
        return []
    if loss.epsilon is not None:
        least, most = min((v for _, v in near), default=math.inf), max((v for _, v in far), default=-math.inf)
        near = [(p, v) for p, v in near if v - loss.epsilon < most]
        far = [(n, v) for n, v in far if v + loss.epsilon > least]
    pull = soft_plus(log_sum_exp([(p, -loss.alpha * (v - loss.base)) for p, v in near])) / loss.alpha if near else 0.0
    push = soft_plus(log_sum_exp([(n, loss.beta * (v - loss.base)) for n, v in far])) / loss.beta if far else 0.0
    return [(1, pull + push)]


def _circle(loss, s, positive, negative, held=None):
    """``held`` are the similarities that both α are taken at, where they are held constant."""
    if not sum(positive) or not sum(negative):
        return []
    m, g, held = loss.margin, loss.scale, held or s
    pull = [(p, -g * max(1 + m - u, 0.0) * (v - (1 - m))) for p, v, u in zip(positive, s, held, strict=True)]
    push = [(n, g * max(u + m, 0.0) * (v - m)) for n, v, u in zip(negative, s, held, strict=True)]
    pull, push = log_sum_exp(pull), log_sum_exp(push)
    return [(1, soft_plus(pull + push))]


def _sigmoid(loss, s, positive, negative):
    if not sum(positive) and not sum(negative):
        return []
    z = [v / loss.temperature + loss.bias for v in s]
    terms = [p * soft_plus(-v) for p, v in zip(positive, z, strict=True) if p]
    return [(1, math.fsum(terms + [n * soft_plus(v) for n, v in zip(negative, z, strict=True) if n]))]


def _margin(loss, d, positive, negative):
    terms = [(p, loss.margin + (v - loss.beta)) for p, v in zip(positive, d, strict=True) if p]
    terms += [(n, loss.margin - (v - loss.beta)) for n, v in zip(negative, d, strict=True) if n]
    return [(w, max(z, 0.0)) for w, z in terms if z > 0 or not loss.active_only]


def _lifted(loss, d, positive, negative):
    """The whole table: a pair feels the negatives of its row and of its column."""
    z = [[loss.margin - v for v in row] for row in d]
    rows = [log_sum_exp(list(zip(n, v, strict=True))) for n, v in zip(negative, z, strict=True)]
    columns = [
        log_sum_exp([(n[j], v[j]) for n, v in zip(negative, z, strict=True)]) for j in range(len(d[0]) if d else 0)
    ]
    terms = []
    for i, row in enumerate(d):
        both = [log_sum_exp([(1, rows[i]), (1, columns[j])]) + v for j, v in enumerate(row)]
        terms.append(
            [(p, max(j, 0.0) ** 2 / 2) for p, j in zip(positive[i], both, strict=True) if p and sum(negative[i])]
        )
    return terms


RULES = {
    "CrossEntropyLoss": _all_against_mean_positive,
    "InfoNCELoss": lambda loss, *row: _each_positive_against_negatives(loss.temperature, *row, loss.by_pair),
    "ContrastiveLoss": _contrastive,
    "BinaryCrossEntropyLoss": _binary,
    "TripletLoss": _triplet,
    "FastAPLoss": _fast_ap,
    "SmoothAPLoss": _smooth_ap,
    "ArcFaceLoss": _arc_face,
    "MultiSimilarityLoss": _multi_similarity,
    "CircleLoss": _circle,
    "SigLIPLoss": _sigmoid,
    "MarginLoss": _margin,
    "LiftedStructureLoss": _lifted,
    **families.RULES,
}


def table(loss, x, y=None):
    measure = MEASURES[type(loss.measure).__name__]
    own = y if y is not None and type(loss).__name__ in families.WITH_REFERENCES else []
    return [[measure(a, b) for b in (x if y is None else y)] for a in [*x, *own]]


def loops_on_table(loss, s, positive, negative, held=None):
    """The mean loss from a table of measures, and each anchor's mean over its own terms.

    A loss whose gradient takes a part of it as constant reads that part from the table ``held``.
    """
    rule, name = RULES[type(loss).__name__], type(loss).__name__
    if name == "ContrastiveLoss" and loss.balanced:
        return _balanced(loss, s, positive, negative)
    if name in ("LiftedStructureLoss", *families.WHOLE_TABLE):
        rows = rule(loss, s, positive, negative)
    else:
        rows = [rule(loss, *row) for row in zip(s, positive, negative, *([held] if held else []), strict=True)]
    sums = [(sum(w for w, _ in row), math.fsum(w * v for w, v in row)) for row in rows]
    count = sum(c for c, _ in sums)
    value = math.fsum(v for _, v in sums) / count if count else 0.0
    return value, [v / c if c else 0.0 for c, v in sums]


def _balanced(loss, s, positive, negative):
    sides = zip(*(_contrastive_sides(loss, d) for d in s), strict=True) if s else ((), ())
    near, far = (
        [pair for ws, row in zip(weights, costs, strict=True) for pair in zip(ws, row, strict=True)]
        for weights, costs in zip((positive, negative), sides, strict=True)
    )
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


def _hinge(loss, z):
    return torch.nn.functional.softplus(z, threshold=700.0) if loss.soft else torch.where(z > 0, z, 0.0)


def _dense_softmax(loss, s, p, n):
    z, count = s / loss.temperature, p.sum(1)
    positive = (p * z).sum(1) / count.clamp(min=1)
    has = (count > 0).to(s)
    total = masked_lse(z, p + n)
    return torch.where(has > 0, torch.where(has > 0, total, 0.0) - positive, 0.0), has


def _dense_one_positive(temperature, s, p, n, by_pair=False):
    z, count = s / temperature, p.sum(1)
    against = masked_lse(z, n)[:, None]
    safe = torch.where(against > -math.inf, against, 0.0)
    term = torch.where(against > -math.inf, torch.logaddexp(safe.expand_as(z), z) - z, 0.0)
    has = ((count > 0) & (n.sum(1) > 0)).to(s)
    if by_pair:
        return has * (p * term).sum(1), has * count
    return has * (p * term).sum(1) / count.clamp(min=1), has


def _dense_contrastive(loss, d, p, n):
    over = d - loss.positive_margin
    near = loss.factors[0] * (torch.where(over > 0, over, 0.0) if loss.positive_margin else d) ** loss.powers[0]
    gap = torch.where(d < loss.margin, loss.margin - d, 0.0)
    far = loss.factors[1] * gap ** loss.powers[1]
    if not loss.balanced:
        counted = p * (near > 0) + n * (far > 0) if loss.active_only else p + n
        return (p * near + n * far).sum(1), counted.sum(1)
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
    easy = d.detach().masked_fill(p == 0, math.inf).argmin(1, keepdim=True)
    if loss.mining in ("hard", "easy"):
        far = easy if loss.mining == "easy" else inside.argmax(1, keepdim=True)
        near = outside.argmin(1, keepdim=True)
        return d.gather(1, far) - d.gather(1, near) + loss.margin, (p.sum(1, keepdim=True) > 0).to(d)
    if loss.mining == "easy-semihard":
        p = torch.zeros_like(p).scatter(1, easy, (p.sum(1, keepdim=True) > 0).to(d))
    beyond = torch.where(outside[:, None, :] > d.detach()[:, :, None], outside[:, None, :], math.inf)
    last = d.detach().masked_fill(n == 0, -math.inf).argmax(1)[:, None].expand(d.shape)
    pick = torch.where(beyond.amin(2) < math.inf, beyond.argmin(2), last)
    return d - d.gather(1, pick) + loss.margin, p


def _dense_fast_ap(loss, d, p, n):
    """Each pair shared out to the two nodes of its bin; the positives' sum is their number, so 1 − AP has no 1."""
    place = torch.where(d < loss.span, d, loss.span) * (loss.bins / loss.span)
    cell = torch.nan_to_num(place.detach()).floor()
    node, after = (torch.nn.functional.one_hot(cell.long() + k, loss.bins + 2).to(d) for k in (0, 1))
    beside = ((cell + 1 - place)[..., None] * node + (place - cell)[..., None] * after)[..., :-1]
    own, rest = (p[..., None] * beside).sum(1), (n[..., None] * beside).sum(1).cumsum(1)
    total = own.cumsum(1) + rest
    ratio = own * rest / torch.where(total > 0, total, 1.0)
    has = (p.sum(1) > 0).to(d)
    return has * ratio.sum(1) / p.sum(1).clamp(min=1), has


def _dense_smooth_ap(loss, s, p, n):
    above = torch.sigmoid((s[:, None, :] - s[:, :, None]) / loss.temperature)
    right = 0.5 + (p[:, None, :] * above).sum(2)  # the ½ of a positive against itself is among them
    precision = right / (right + (n[:, None, :] * above).sum(2))
    has = (p.sum(1) > 0).to(s)
    return has * (1 - (p * precision).sum(1) / p.sum(1).clamp(min=1)), has


def _dense_arc_face(loss, d, p, n):
    square = d * (2 - d)
    sine = torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)
    turned = (1 - d) * math.cos(loss.margin) - sine * math.sin(loss.margin)
    own = torch.where(1 - d > -math.cos(loss.margin), turned, 1 - d - loss.margin * math.sin(loss.margin))
    z = torch.where(p > 0, own, 1 - d) / loss.temperature
    has = (p.sum(1) > 0).to(d)
    total = torch.where(has > 0, masked_lse(z, p + n), 0.0)
    return has * (total - (p * z).sum(1) / p.sum(1).clamp(min=1)), has


def _dense_multi_similarity(loss, s, p, n):
    near, far = p.sum(1) > 0, n.sum(1) > 0
    has = (near | far if loss.one_sided else near & far).to(s)
    if loss.epsilon is not None and s.shape[1]:
        given = s.detach()
        least = given.masked_fill(p == 0, math.inf).amin(1, keepdim=True)
        most = given.masked_fill(n == 0, -math.inf).amax(1, keepdim=True)
        p, n = p * (given - loss.epsilon < most), n * (given + loss.epsilon > least)
    pull = soft_plus_of(masked_lse(-loss.alpha * (s - loss.base), p)) / loss.alpha
    push = soft_plus_of(masked_lse(loss.beta * (s - loss.base), n)) / loss.beta
    return has * (pull + push), has


def _dense_circle(loss, s, p, n):
    """Both α detached, as in the paper's code: its derivative is the loss's gradient, not that of its value."""
    m, given, has = loss.margin, s.detach(), (p.sum(1) > 0) & (n.sum(1) > 0)
    pull = masked_lse(-loss.scale * torch.relu(1 + m - given) * (s - (1 - m)), p)
    push = masked_lse(loss.scale * torch.relu(given + m) * (s - m), n)
    both = torch.where(has, torch.where(has, pull, 0.0) + torch.where(has, push, 0.0), -math.inf)
    return soft_plus_of(both), has.to(s)


def _dense_sigmoid(loss, s, p, n):
    z = s / loss.temperature + loss.bias
    return (p * soft_plus_of(-z) + n * soft_plus_of(z)).sum(1), ((p + n).sum(1) > 0).to(s)


def _dense_margin(loss, d, p, n):
    near, far = loss.margin + (d - loss.beta), loss.margin - (d - loss.beta)
    counted = (p * (near > 0) + n * (far > 0)) if loss.active_only else p + n
    return (p * torch.where(near > 0, near, 0.0) + n * torch.where(far > 0, far, 0.0)).sum(1), counted.sum(1)


def _dense_lifted(loss, d, p, n):
    z, has = loss.margin - d, (n.sum(1) > 0).to(d)
    rows, columns = masked_lse(z, n)[:, None], masked_lse(z.T, n.T)[None, :]
    pair = torch.stack([rows.expand_as(d), columns.expand_as(d)], dim=-1)
    both = masked_lse(pair, torch.ones_like(pair))
    hinge = torch.where(both > -math.inf, torch.relu(torch.where(both > -math.inf, both, 0.0) + d), 0.0)
    return has * (p * hinge**2 / 2).sum(1), has * p.sum(1)


DENSE = {
    "LiftedStructureLoss": _dense_lifted,
    "CrossEntropyLoss": _dense_softmax,
    "InfoNCELoss": lambda loss, *row: _dense_one_positive(loss.temperature, *row, loss.by_pair),
    "ContrastiveLoss": _dense_contrastive,
    "BinaryCrossEntropyLoss": _dense_binary,
    "TripletLoss": _dense_triplet,
    "FastAPLoss": _dense_fast_ap,
    "SmoothAPLoss": _dense_smooth_ap,
    "ArcFaceLoss": _dense_arc_face,
    "MultiSimilarityLoss": _dense_multi_similarity,
    "CircleLoss": _dense_circle,
    "SigLIPLoss": _dense_sigmoid,
    "MarginLoss": _dense_margin,
    **families.DENSE,
}


def dense_on_table(loss, s, positive, negative):
    """Sum of each anchor's terms and their number, from a table."""
    p, n = (torch.as_tensor(w, dtype=s.dtype).reshape(len(w), s.shape[1]) for w in (positive, negative))
    return DENSE[type(loss).__name__](loss, s, p, n)


def dense(loss, x, positive, negative, y=None):
    """The mean loss as a tensor of the graph."""
    own = [y] if y is not None and type(loss).__name__ in families.WITH_REFERENCES else []
    s = dense_table(type(loss.measure).__name__, torch.cat([x, *own]), x if y is None else y)
    sums, counts = dense_on_table(loss, s, positive, negative)
    return sums.sum() / torch.where(counts.sum() > 0, counts.sum(), 1.0)


def dense_gradients(loss, x, positive, negative, y=None):
    """Value and gradients by automatic differentiation, as NumPy arrays; the second gradient only with references."""
    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, y) if a is not None]
    value = dense(loss, leaves[0], positive, negative, *leaves[1:])
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    zeros = [torch.zeros_like(a) if g is None else g for a, g in zip(leaves, gradients, strict=True)]
    return value.item(), *(g.numpy() for g in zeros)
