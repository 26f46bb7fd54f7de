"""Hyper-parameters of the kind that their field says, before a loss looks at their values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from numbers import Real
from typing import Any

from nearfar._arrays import is_jax, is_torch
from nearfar._errors import BackendError, InputError


def expect_kinds(loss: Any) -> None:
    """Raise unless numbers are numbers and switches True or False.

    Arrays of one number are numbers; what JAX traces has no value to look at.
    """
    for field in fields(loss):
        name, value = field.name, getattr(loss, field.name)
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        if kind not in KINDS or is_jax(value):
            continue
        is_kind, words = KINDS[kind]
        if not is_kind(value):
            raise InputError(
                f"expected {name} of {type(loss).__name__} to be {words}, got {value!r}; "
                f"its default is {field.default!r}"
            )


def expect_no_tensor(loss: Any) -> None:
    """Raise for a hyper-parameter that is a tensor beside embeddings that are none."""
    for name, value in vars(loss).items():
        if is_torch(value):
            raise BackendError(f"expected {name} as a number beside other arrays, got a tensor; pass float({name})")


def _is_number(value: Any) -> bool:
    if not isinstance(value, Real):
        return getattr(value, "ndim", None) == 0 and hasattr(value, "dtype")
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _is_numbers(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_number, value))


KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "float": (_is_number, "a number"),
    "float | None": (lambda value: value is None or _is_number(value), "a number or None"),
    "str": (lambda value: isinstance(value, str), "a string"),
    "tuple[str, ...]": (
        lambda value: isinstance(value, tuple) and all(isinstance(v, str) for v in value),
        "strings in a tuple",
    ),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "tuple[float, float]": (lambda value: _is_numbers(value) and len(value) == 2, "two numbers in a tuple"),
    "tuple[int, int]": (lambda value: _is_numbers(value) and len(value) == 2, "two numbers in a tuple"),
    "tuple[float, ...] | None": (lambda value: value is None or _is_numbers(value), "numbers in a tuple, or None"),
}
