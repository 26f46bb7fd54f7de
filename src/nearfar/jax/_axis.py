"""The devices of a mesh axis that share a table."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
from jax import lax
from nearfar._arrays import Array

Axis: TypeAlias = "str | tuple[str, ...]"


def total(values: Array, axis: Axis | None) -> Array:
    """The sum over the devices."""
    return values if axis is None else lax.psum(values, axis)


def largest(values: Array, axis: Axis | None) -> Array:
    """The largest over the devices."""
    return values if axis is None else lax.pmax(values, axis)


def gathered(rows: Array, axis: Axis | None) -> Array:
    """The rows of all devices, one after the other."""
    return rows if axis is None else lax.all_gather(rows, axis, tiled=True)


def scattered(rows: Array, axis: Axis | None) -> Array:
    """Of the sum over the devices each one's own rows."""
    return rows if axis is None else lax.psum_scatter(rows, axis, tiled=True)


def start(count: int, axis: Axis | None) -> Any:
    """The place of the device's first row among those of all devices, ``count`` on each."""
    return 0 if axis is None else lax.axis_index(axis) * count


def varying(value: Array, *like: Array) -> Array:
    """``value`` as one that differs from device to device wherever one of the others does, as loops ask for."""
    missing = tuple(frozenset().union(*(_axes(a) for a in like)) - _axes(value))
    return lax.pcast(value, missing, to="varying") if missing else value


def tracked(rows: Array, axis: Axis) -> bool:
    """Whether JAX knows that the rows differ from device to device of the axis."""
    return set((axis,) if isinstance(axis, str) else axis) <= _axes(rows)


def _axes(a: Array) -> frozenset[str]:
    """The mesh axes over which JAX knows an array to differ."""
    kind = jax.typeof(a)
    found = kind.mat.varying if hasattr(kind, "mat") else getattr(kind, "vma", ())
    return frozenset(found)
