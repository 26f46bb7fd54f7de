"""Gradients of hyper-parameters from moments of the pair weights: no second pass over the table.

A weight of a pair is ∂loss/∂measure. Where a loss sees a hyper-parameter v only through an affine map of the measure,
its gradient is a sum over the weights. A loss says in ``learnable`` which do, and how:

- ``"divisor"``: through measure / v.
- ``"offset"``: through measure / temperature + v.
- ``"origin"``: through measure − v; one v an anchor will do as well.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from nearfar._errors import InputError

L = TypeVar("L")

MOMENTS = {"divisor": "scale", "offset": "shift", "origin": "shift"}
"""The moment that a gradient is made of: "scale", Σ weight · measure, or "shift", Σ weight."""


def with_values(loss: L, values: dict[str, Any]) -> L:
    """The loss with other hyper-parameters, whose values are not looked at: no wait for a device."""
    other = copy.copy(loss)
    for name, value in values.items():
        object.__setattr__(other, name, value)
    return other


def refusal(loss: Any, name: str) -> InputError:
    """That a hyper-parameter has no gradient, and which have."""
    names = ", ".join(sorted(loss.learnable)) or "none"
    return InputError(
        f"expected a hyper-parameter of {type(loss).__name__} that can be learned ({names}), got {name!r}; "
        "its gradient is no moment of the pair weights: choose it on held-out data"
    )


def slope(kind: str, value: Any, scale: Any, shift: Any, temperature: Any) -> Any:
    """∂loss/∂value of a hyper-parameter of this kind, from the moments."""
    if kind == "divisor":
        return -scale / value
    return -shift if kind == "origin" else shift * temperature


__all__ = ["MOMENTS", "refusal", "slope", "with_values"]
