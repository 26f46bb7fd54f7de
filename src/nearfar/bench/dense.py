"""Each loss as its formula over the whole table, left to autograd: what a careful person writes by hand.

Rows are of unit length where the loss is defined on distances or cosines. Classes have the same number of items.
"""

# ruff: noqa: D103  (each function is the loss of its name)
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, relu, softplus

INF = float("inf")
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _masks(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positives, negatives, and the diagonal."""
    same = labels[:, None] == labels[None, :]
    own = torch.eye(len(labels), dtype=torch.bool)
    return same & ~own, ~same, own


def _cosine(x: Tensor) -> Tensor:
    x = normalize(x)
    return x @ x.T


def _euclidean(x: Tensor) -> Tensor:
    """Of unit rows; the clamp keeps the root's slope finite."""
    return (2 - 2 * _cosine(x)).clamp_min(1e-12).sqrt()


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()


def _lse(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, -INF).logsumexp(1)


def _at_positives(values: Tensor, positive: Tensor) -> Tensor:
    """(anchors, positives)."""
    return values.gather(1, positive.nonzero()[:, 1].view(len(values), -1))


def supcon(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, _, own = _masks(labels)
    s = _cosine(x) / 0.1
    return (_lse(s, ~own) - (s * positive).sum(1) / positive.sum(1)).mean()


def _one_positive(s: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    return softplus(_lse(s, negative)[:, None] - _at_positives(s, positive)).mean()


def nt_xent(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    return _one_positive(_cosine(x) / 0.07, labels)


def n_pair(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    return _one_positive(x @ x.T, labels)


def contrastive(x: Tensor, y: Tensor, labels: Tensor, margin: float = 1.0) -> Tensor:
    positive, negative, _ = _masks(labels)
    d = _euclidean(x)
    return _mean(d, positive) + _mean(relu(margin - d), negative)


def contrastive_active(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    return contrastive(x, y, labels, 2**0.5)


def multi_similarity(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    s = _cosine(x) - 0.5
    return (softplus(_lse(-2 * s, positive)) / 2 + softplus(_lse(50 * s, negative)) / 50).mean()


def multi_similarity_mined(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    s = _cosine(x)
    least, most = s.masked_fill(~positive, INF).amin(1, True), s.masked_fill(~negative, -INF).amax(1, True)
    far = softplus(_lse(50 * s - 25, negative & (s + 0.1 > least))) / 50
    return (softplus(_lse(1 - 2 * s, positive & (s - 0.1 < most))) / 2 + far).mean()


def circle(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    s = _cosine(x)
    near, far = relu(1.4 - s.detach()) * (s - 0.6), relu(s.detach() + 0.4) * (s - 0.4)
    return softplus(_lse(-80 * near, positive) + _lse(80 * far, negative)).mean()


def nca(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, _, own = _masks(labels)
    s = 2 * _cosine(x) - 2
    return (_lse(s, ~own) - _lse(s, positive)).mean()


def triplet(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    d = _euclidean(x)
    hinge = relu(_at_positives(d, positive)[:, :, None] - d[:, None, :] + 0.2) * negative[:, None, :]
    return hinge.sum() / (hinge > 0).sum().clamp_min(1)


def triplet_hard(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    d = _euclidean(x)
    far, near = d.masked_fill(~positive, -INF).amax(1), d.masked_fill(~negative, INF).amin(1)
    return relu(far - near + 0.2).mean()


def triplet_semihard(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    d = _euclidean(x)
    pull, push = _at_positives(d, positive), d.masked_fill(~negative, -INF)
    beyond = torch.where(push[:, None, :] > pull[:, :, None], push[:, None, :], INF).amin(2)
    return relu(pull - torch.where(beyond < INF, beyond, push.amax(1, keepdim=True)) + 0.2).mean()


def lifted(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    d = _euclidean(x)
    pushed = _lse(1 - d, negative)
    return _mean(relu(torch.logaddexp(pushed[:, None], pushed[None, :]) + d) ** 2 / 2, positive)


def margin(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    d = _euclidean(x)
    hinge = relu(0.2 + torch.where(positive, d - 1.2, 1.2 - d)) * (positive | negative)
    return hinge.sum() / (hinge > 0).sum().clamp_min(1)


def fastap(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    centres = torch.linspace(0, 4, 11, dtype=x.dtype)
    pulse = relu(1 - (2 - 2 * _cosine(x) - centres[:, None, None]).abs() / 0.4)
    near, every = (pulse * positive).sum(2), (pulse * (positive | negative)).sum(2)
    precision = near * near.cumsum(0) / every.cumsum(0).clamp_min(1e-12)
    return (1 - precision.sum(0) / positive.sum(1)).mean()


def smoothap(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, _, own = _masks(labels)
    s = _cosine(x) / 0.01
    at = positive.nonzero()[:, 1].view(len(s), -1)
    above = torch.sigmoid(s.masked_fill(own, -INF)[:, None, :] - s.gather(1, at)[:, :, None])
    above = above.scatter(2, at[:, :, None], 0.0)  # an item is not above itself
    return 1 - ((1 + (above * positive[:, None, :]).sum(2)) / (1 + above.sum(2))).mean()


def binary(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    positive, negative, _ = _masks(labels)
    s = x @ x.T
    return _mean(softplus(torch.where(positive, -s, s)), positive | negative)


def clip(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    s = normalize(x) @ normalize(y).T / 0.07
    rows = torch.arange(len(s))
    return (cross_entropy(s, rows) + cross_entropy(s.T, rows)) / 2


def siglip(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    s = 10 * (normalize(x) @ normalize(y).T) - 10
    return softplus(torch.where(torch.eye(len(s), dtype=torch.bool), -s, s)).sum() / len(s)


def plain_softmax(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(x @ y.T, labels)


def arcface(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    s = normalize(x) @ normalize(y).T
    own = torch.eye(len(y), dtype=torch.bool)[labels]
    return cross_entropy(64 * torch.where(own, (s.clamp(-1 + 1e-6, 1 - 1e-6).acos() + 0.5).cos(), s), labels)


DENSE: dict[str, Loss] = {
    "supcon": supcon,
    "contrastive": contrastive,
    "contrastive-active": contrastive_active,
    "multi-similarity": multi_similarity,
    "multi-similarity-hard": multi_similarity_mined,
    "circle": circle,
    "nca": nca,
    "triplet": triplet,
    "triplet-hard": triplet_hard,
    "triplet-semihard": triplet_semihard,
    "nt-xent": nt_xent,
    "n-pair": n_pair,
    "lifted": lifted,
    "margin": margin,
    "fastap": fastap,
    "smoothap": smoothap,
    "binary": binary,
    "clip": clip,
    "siglip": siglip,
    "cross-entropy": plain_softmax,
    "arcface": arcface,
}
