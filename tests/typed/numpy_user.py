"""What a careful NumPy user writes; ``mypy --strict`` reads it and a test runs it."""
# ruff: noqa: T201

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import nearfar as nf

Rows = NDArray[np.float64]


def descend(loss: nf.PairLoss, rows: Rows, labels: list[int], steps: int = 5, rate: float = 0.1) -> tuple[Rows, float]:
    """Gradient descent on the embeddings themselves."""
    value = np.inf
    for _ in range(steps):
        found, gradient = loss.value_and_grad(rows, labels)
        rows, value = rows - rate * gradient, float(found)
    return rows, value


def main() -> dict[str, float]:
    """One call of each kind."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(8, 4)), [0, 0, 1, 1, 2, 2, 3, 3]
    loss = nf.SupConLoss(temperature=0.2)
    rows, value = descend(loss, x, y)
    both: nf.LossSum = 0.5 * loss + nf.ContrastiveLoss(margin=1.0, measure=nf.Euclidean())
    cut = nf.Matryoshka(loss, dims=(2, 4))
    mask = nf.Mask(np.equal.outer(y, y))
    forces = nf.plot.probe(nf.TripletLoss(margin=0.2))
    each: Rows = loss.per_anchor(x, y, ignore_label=3)
    try:
        loss(x, y[:-1])
    except nf.ShapeError as error:
        print(f"as it should: {error}")
    return {
        "descended": value,
        "sum": float(both(x, y)),
        "cut": float(cut(rows, y)),
        "views": float(nf.InfoNCELoss().views(x, x[::-1])),
        "aligned": float(nf.SigLIPLoss().aligned(x, x[::-1], engine=nf.engine.Strips(4))),
        "mask": float(loss(x, mask)),
        "tags": float(loss(x, nf.MultiLabels(np.eye(4)[y], graded=True))),
        "gallery": float(loss(x, y, references=rows, reference_labels=y)),
        "classes": float(nf.ArcFaceLoss(margin=0.3)(x, y, class_weights=rng.normal(size=(4, 4)))),
        "triplets": float(nf.TripletLoss().triplets(x[:2], x[2:4], x[4:6])),
        "pairs": float(nf.ContrastiveLoss().pairs(x[::2], x[1::2], [1, 1, 0, 0])),
        "push": float(forces.negative.max()),
        "each": float(each.sum()),
    }


if __name__ == "__main__":
    for name, number in main().items():
        print(f"{name}: {number:.4f}")
