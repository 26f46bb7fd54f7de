"""One measurement in a process of its own: ``python -m nearfar.bench.child LIBRARY LOSS N D SECONDS`` prints JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.bench.catalogue import FLOOR, LOSSES, OURS
from nearfar.bench.libraries import function

ITEMS_PER_CLASS = 8
MOST_RUNS = 200
# Our losses run the smallest tables by NumPy, the others by torch, whose threads have to be there as well.
WARM = 368


def inputs(name: str, n: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random unit rows, the second batch (the first again where the loss has one) and labels.

    Args:
        name: A loss of the catalogue.
        n: Items, a multiple of eight.
        d: Features.
    """
    kind, generator = LOSSES[name].inputs, torch.Generator().manual_seed(0)
    labels = torch.arange(n) // ITEMS_PER_CLASS
    if kind != "sorted":
        labels = labels[torch.randperm(n, generator=generator)]

    def rows(count: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(count, d, generator=generator)).requires_grad_()

    x = rows(n)
    if kind == "aligned":
        return x, rows(n), labels
    return x, rows(n // ITEMS_PER_CLASS) if kind == "classes" else x, labels


def memory(field: str) -> float | None:
    """Resident memory (``VmRSS``) or its peak (``VmHWM``) in MB; None where the system does not say."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return None


def forget_peak() -> bool:
    """Start the peak anew; False where the system refuses."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def measure(library: str, name: str, n: int, d: int, budget: float) -> dict[str, Any]:
    """Seconds of forward and backward passes, and the peak of memory above the inputs.

    Args:
        library: Whose function.
        name: A loss of the catalogue.
        n: Items.
        d: Features.
        budget: Seconds to go on for; one pass at least.
    """
    loss = function(library, name)
    step = _step(loss, library != FLOOR)
    for items in (4 * ITEMS_PER_CLASS, WARM) if library == OURS else (4 * ITEMS_PER_CLASS,):
        step(*inputs(name, items, d))  # code and threads are there
    batch = inputs(name, n, d)
    cleared, before = forget_peak(), memory("VmRSS")
    step(*batch)  # finds its memory; no library is timed on it
    seconds: list[float] = []
    end = time.perf_counter() + budget
    while not seconds or (time.perf_counter() < end and len(seconds) < MOST_RUNS):
        seconds.append(step(*batch))
    peak = memory("VmHWM")
    known = cleared and before is not None and peak is not None
    return {
        "seconds": seconds,
        "megabytes": peak - before if known and peak is not None and before is not None else None,
        "threads": torch.get_num_threads(),
    }


def _step(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], backward: bool
) -> Callable[[Tensor, Tensor, Tensor], float]:
    """One timed pass."""

    def step(x: Tensor, y: Tensor, labels: Tensor) -> float:
        x.grad = y.grad = None
        start = time.perf_counter()
        value = loss(x, y, labels)
        if backward:
            value.backward()  # type: ignore[no-untyped-call]
        return time.perf_counter() - start

    return step


if __name__ == "__main__":
    chosen, title, *numbers = sys.argv[1:]
    sys.stdout.write(json.dumps(measure(chosen, title, int(numbers[0]), int(numbers[1]), float(numbers[2]))) + "\n")
