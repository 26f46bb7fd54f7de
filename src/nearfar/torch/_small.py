"""Small tables on the CPU are run by NumPy: the same engine and the same rules, whose calls cost less than torch's.

At 64 items it is the number of calls that takes the time, not what they compute. Arrays are shared, not copied.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from nearfar import _numpy
from nearfar.engine import Outcome, Task
from nearfar.engine.moments import with_values
from nearfar.relations import Aligned, Classes, Labels, Mask, Rows

# Pairs of the table, and numbers of both batches, up to which calls take more time than elements.
PAIRS, NUMBERS = 1 << 17, 1 << 18
RELATIONS = (Labels, Aligned, Mask, Rows, Classes)


def _product(left: Any, right: Any) -> Any:
    """By torch: threads of NumPy's own products would get into the way of torch's."""
    return torch.mm(torch.from_numpy(left), torch.from_numpy(right)).numpy()


NUMPY = SimpleNamespace(**{**vars(_numpy), "matmul": _product})


def fits(task: Task, rows: int | None) -> bool:
    """Whether the task is small, lies on the CPU, and was left to the engine."""
    a, b = task.anchors, task.anchors if task.references is None else task.references
    return (
        rows is None
        and type(task) is Task
        and a.shape[0] * b.shape[0] <= PAIRS
        and max(a.numel(), b.numel()) <= NUMBERS
        and type(task.relation) in RELATIONS
        and task.peers is None
        and _plain(a)
        and (b is a or _plain(b))
        and not torch.compiler.is_compiling()
    )


def run(task: Task, gradient: bool, upstream: torch.Tensor | None) -> Outcome:
    """What the task gives, as tensors."""
    values = {name: v.numpy(force=True) for name, v in vars(task.loss).items() if isinstance(v, torch.Tensor)}
    small = Task(
        loss=with_values(task.loss, values) if values else task.loss,
        xp=NUMPY,
        anchors=task.anchors.numpy(),
        references=None if task.references is None else task.references.numpy(),
        relation=task.relation,
        both=task.both,
        moments=task.moments,
        origin=None if task.origin is None else task.origin.numpy(),
    )
    outcome = small.run(None, gradient, None if upstream is None else upstream.numpy())
    left, right = outcome.gradients
    return Outcome(
        _tensor(outcome.value),
        _tensor(outcome.per_anchor),
        (_tensor(left), _tensor(right)),
        _tensor(outcome.scale),
        _tensor(outcome.shift),
    )


def _plain(tensor: torch.Tensor) -> bool:
    """On the CPU; no subclass, no other layout, nothing that waits to be worked out."""
    return type(tensor) is torch.Tensor and tensor.is_cpu and tensor.layout is torch.strided and not tensor.is_neg()


def _tensor(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return torch.from_numpy(values)
    return None if values is None else torch.tensor(values, device="cpu")
