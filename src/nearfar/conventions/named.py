"""Another source's name of an option, looked up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from nearfar._errors import InputError

Key = TypeVar("Key", str, int)
Value = TypeVar("Value")


def named(option: str, name: Key, values: Mapping[Key, Value]) -> Value:
    """What the source means by this name.

    Raises:
        InputError: A name that it does not have.
    """
    if name not in values:
        raise InputError(f"expected {option} of {', '.join(map(repr, values))}, got {name!r}; these the source names")
    return values[name]
