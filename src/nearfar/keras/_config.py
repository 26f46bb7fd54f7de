"""Losses as plain values that JSON holds, by the names of their hyper-parameters."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from nearfar import losses, measures
from nearfar._errors import InputError

KIND = "nearfar"


def _kind(name: Any) -> Any:
    """The public loss or measure of this name."""
    for part in (losses, measures):
        if isinstance(name, str) and name in part.__all__:
            return getattr(part, name)
    return None


def written(value: Any) -> Any:
    """A loss, a measure or a hyper-parameter as numbers, strings, lists and dicts."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [written(item) for item in value]
    name = type(value).__name__
    if not is_dataclass(value) or _kind(name) is not type(value):
        raise InputError(
            f"expected losses and hyper-parameters of nearfar to save, got {type(value).__qualname__}; "
            "compile the model with it after loading"
        )
    return {KIND: name, **{field.name: written(getattr(value, field.name)) for field in fields(value) if field.init}}


def read(value: Any) -> Any:
    """What :func:`written` was given; lists become tuples, which hyper-parameters are."""
    if isinstance(value, list):
        return tuple(read(item) for item in value)
    if not isinstance(value, dict):
        return value
    name = value.get(KIND)
    kind: Any = _kind(name)
    if not isinstance(kind, type) or not is_dataclass(kind):
        raise InputError(f"expected the name of a loss of nearfar, got {name!r}; was it saved by a newer version?")
    return kind(**{key: read(item) for key, item in value.items() if key != KIND})
