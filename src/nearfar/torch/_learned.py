"""Hyper-parameters of a loss that are tensors of the caller's graph: what the engine is asked for, their gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from nearfar._errors import ShapeError
from nearfar.engine import Outcome, Task
from nearfar.engine.moments import MOMENTS, refusal, slope, with_values


@dataclass(frozen=True)
class Learned:
    """The hyper-parameters of one call that are tensors.

    Attributes:
        loss: The loss that holds them.
        values: They, by name.
    """

    loss: Any
    values: dict[str, torch.Tensor]

    def asked_of(self, task: Task) -> Task:
        """The task that gives their moments; values of each anchor become the origin of its row."""
        if not self.values:
            return task
        moments = {MOMENTS[self.loss.learnable[name]] for name, v in self.values.items() if v.requires_grad}
        # In the dtype of the table: numbers derived from them (1 / τ) are as exact as what they meet.
        values: dict[str, Any] = {name: v.detach().to(task.anchors.dtype) for name, v in self.values.items()}
        origin = None
        for name, value in values.items():
            if value.ndim:
                _expect_each(name, value, task.anchors)
                values, origin = values | {name: 0.0}, value
        return replace(task, loss=with_values(self.loss, values), moments=tuple(sorted(moments)), origin=origin)

    def gradients(self, outcome: Outcome) -> list[torch.Tensor | None]:
        """Of the value by each of them; None where nothing was asked for."""
        return [self._gradient(name, value.detach(), outcome) for name, value in self.values.items()]

    def _gradient(self, name: str, value: torch.Tensor, outcome: Outcome) -> torch.Tensor | None:
        kind = self.loss.learnable[name]
        moment: torch.Tensor | None = outcome.scale if MOMENTS[kind] == "scale" else outcome.shift
        if moment is None:
            return None
        if kind == "divisor" or value.ndim:
            return cast("torch.Tensor", slope(kind, value, moment, moment, 1.0))
        temperature = getattr(self.loss, "temperature", 1.0)
        temperature = temperature.detach() if isinstance(temperature, torch.Tensor) else temperature
        return cast("torch.Tensor", slope(kind, value, None, moment.sum(dtype=torch.float64), temperature))


def learned(loss: Any) -> Learned:
    """The hyper-parameters of the loss that are tensors."""
    values = {name: v for name, v in getattr(loss, "__dict__", {}).items() if isinstance(v, torch.Tensor)}
    for name, value in list(values.items()):
        if name not in loss.learnable:
            if value.requires_grad:
                raise refusal(loss, name)
            del values[name]
        elif value.ndim and loss.learnable[name] != "origin":
            raise ShapeError(f"expected {name} to be a tensor of shape (), got {tuple(value.shape)}; give one number")
    return Learned(loss, values)


def _expect_each(name: str, value: torch.Tensor, anchors: torch.Tensor) -> None:
    if tuple(value.shape) != (anchors.shape[0],):
        raise ShapeError(
            f"expected {name} of shape ({anchors.shape[0]},), one an anchor, got {tuple(value.shape)}; "
            "give one label an item"
        )
