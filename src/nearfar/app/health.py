"""What the health line of a training says, and when it warns."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

_ALIKE = 0.98
_FEW_DIRECTIONS = 1.5


def health(embeddings: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """How a batch lies on the sphere.

    Effective rank: exp of the entropy of the shares of the centred embeddings' singular values (Roy and
    Vetterli 2007); 1 when they lie on a line. Active: a pair that still has something to say, a positive
    farther than the anchor's nearest negative or a negative nearer than its farthest positive.

    Args:
        embeddings: Shape (B, dim).
        labels: Class of each row, shape (B,).

    Returns:
        ``positive`` and ``negative`` (mean cosines), ``active`` (share of pairs), ``rank``; 0 without a pair.

    Example:
        >>> import torch
        >>> from nearfar.app.health import health
        >>> corners = torch.eye(4)[[0, 0, 1, 1]]
        >>> {name: round(value, 3) for name, value in health(corners, torch.tensor([0, 0, 1, 1])).items()}
        {'positive': 1.0, 'negative': 0.0, 'active': 0.0, 'rank': 1.0}
    """
    x = normalize(embeddings.detach().double(), dim=1)
    cosine = x @ x.T
    same = labels[:, None] == labels[None, :]
    itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
    positive, negative = same & ~itself, ~same
    farthest = cosine.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
    nearest = cosine.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
    active = (positive & (cosine < nearest)) | (negative & (cosine > farthest))
    return {
        "positive": _mean(cosine, positive),
        "negative": _mean(cosine, negative),
        "active": _mean(active.double(), positive | negative),
        "rank": _effective_rank(x),
    }


def collapse(line: dict[str, float], classes: int) -> str | None:
    """A warning in plain words where everything is mapped to nearly one place or line, else None.

    Args:
        line: What `health` returned.
        classes: Classes in the batch; two classes may well lie on a line.

    Returns:
        The warning, or None.

    Example:
        >>> from nearfar.app.health import collapse
        >>> collapse({"negative": 0.1, "rank": 9.0}, classes=12) is None
        True
    """
    if line["negative"] > _ALIKE:
        return (
            f"the embeddings of different classes are almost equal (mean cosine {line['negative']:.3f}): the "
            "network has collapsed; lower the learning rate, raise the temperature or check the labels"
        )
    if classes > 2 and line["rank"] < _FEW_DIRECTIONS:
        return (
            f"the embeddings lie on a line (effective rank {line['rank']:.1f}): the network has collapsed; "
            "lower the learning rate or raise the temperature"
        )
    return None


def _mean(values: torch.Tensor, where: torch.Tensor) -> float:
    return float(values[where].mean()) if bool(where.any()) else 0.0


def _effective_rank(x: torch.Tensor) -> float:
    spectrum = torch.linalg.svdvals(x - x.mean(dim=0))
    total = spectrum.sum()
    if not total > 1e-9:
        return 0.0
    share = (spectrum / total).clamp_min(1e-300)
    return float(torch.exp(-(share * share.log()).sum()))
