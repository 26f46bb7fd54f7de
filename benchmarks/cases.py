"""What is timed: one function a library and case; ``python -m benchmarks.cases CASE LIBRARY N D REPEATS`` runs it.

Each run has a process of its own, so that no library's memory or threads count for another.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ITEMS_PER_CLASS = 8
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def nearfar(case: str) -> Loss:
    """Our loss."""
    import nearfar as nf

    losses: dict[str, Loss] = {
        "SupCon": nf.SupConLoss(),
        "Contrastive": nf.ContrastiveLoss(measure=nf.Euclidean()),
        "Triplet, all": nf.TripletLoss(),
        "NT-Xent": nf.InfoNCELoss(),
    }
    return losses[case]


def pytorch_metric_learning(case: str) -> Loss:
    """The peer's loss, in its defaults' normalisation."""
    from pytorch_metric_learning import losses

    return {
        "SupCon": losses.SupConLoss,
        "Contrastive": losses.ContrastiveLoss,
        "Triplet, all": losses.TripletMarginLoss,
        "NT-Xent": losses.NTXentLoss,
    }[case]()


def floor(case: str) -> Loss:
    """The three matrix products that no dense gradient can avoid, in the same strips."""

    def products(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            total = torch.zeros_like(x)
            height = max(16, (1 << 20) // x.shape[0])
            for k in range(0, x.shape[0], height):
                strip = x[k : k + height]
                s = strip @ x.T
                total[k : k + height].addmm_(s, x)
                total.addmm_(s.T, strip)
        return (x * total).sum()

    return products


LIBRARIES = {"nearfar": nearfar, "pytorch-metric-learning": pytorch_metric_learning, "floor": floor}


def _memory(field: str) -> float:
    """Resident memory (``VmRSS``) or its peak (``VmHWM``) in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return float("nan")


def measure(case: str, library: str, n: int, d: int, repeats: int) -> dict[str, object]:
    """Seconds of each forward and backward pass, and peak memory above the inputs."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(n) // ITEMS_PER_CLASS)[torch.randperm(n, generator=generator)]
    x = torch.randn(n, d, generator=generator).requires_grad_()
    loss = LIBRARIES[library](case)
    small = torch.randn(32, d, generator=generator).requires_grad_()
    loss(small, torch.arange(32) // ITEMS_PER_CLASS).backward() if library != "floor" else None
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    seconds = []
    for _ in range(repeats + 1):
        x.grad = None
        start = time.perf_counter()
        value = loss(x, labels)
        if library != "floor":
            value.backward()
        seconds.append(time.perf_counter() - start)
    # The first run finds memory and threads; no library is timed on it.
    return {"seconds": seconds[1:], "megabytes": _memory("VmHWM") - before, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    case, library, *numbers = sys.argv[1:]
    print(json.dumps(measure(case, library, *map(int, numbers))))
