"""Hyper-parameters of a loss that are tensors of the caller's graph: what the engine is asked for, their gradients.

A weight of a pair is ∂loss/∂measure. Where a loss sees a hyper-parameter only through an affine map of the measure,
its gradient is a moment of the weights: no second pass over the table.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from nearfar._errors import InputError, ShapeError
from nearfar.engine import Outcome, Task

MOMENTS = {"divisor": "scale", "offset": "shift", "origin": "shift"}
"""How the loss sees a hyper-parameter v, and the moment that its gradient is made of.

- ``"divisor"``: through measure / v.
- ``"offset"``: through measure / temperature + v.
- ``"origin"``: through measure − v; one v an anchor will do as well.
"""


def with_values(loss: Any, values: dict[str, Any]) -> Any:
    """The loss with other hyper-parameters, whose values are not looked at: no wait for a device."""
    other = copy.copy(loss)
    for name, value in values.items():
        object.__setattr__(other, name, value)
    return other


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
        if kind == "divisor":
            return -moment / value
        if value.ndim:
            return -moment
        total = moment.sum(dtype=torch.float64)
        if kind == "origin":
            return -total
        temperature = self.loss.temperature
        return total * (temperature.detach() if isinstance(temperature, torch.Tensor) else temperature)


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


def refusal(loss: Any, name: str) -> InputError:
    """That a hyper-parameter has no gradient, and which have."""
    names = ", ".join(sorted(loss.learnable)) or "none"
    return InputError(
        f"expected a hyper-parameter of {type(loss).__name__} that can be learned ({names}), got {name!r}; "
        "its gradient is no moment of the pair weights: choose it on held-out data"
    )


def _expect_each(name: str, value: torch.Tensor, anchors: torch.Tensor) -> None:
    if tuple(value.shape) != (anchors.shape[0],):
        raise ShapeError(
            f"expected {name} of shape ({anchors.shape[0]},), one an anchor, got {tuple(value.shape)}; "
            "give one label an item"
        )
