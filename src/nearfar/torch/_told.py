"""Losses, relations and arrays of a call as text, tensors and whole numbers, which an operator of PyTorch can be given.

Written by code that ``torch.compile`` can read: hyper-parameters become part of the text, and of what a compiled
program depends on; tensors and whole numbers stay arguments. An object is told by the name of its class and all its
attributes, so that it is rebuilt as it is, hyper-parameters that are tensors among them, and checked no second time.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from nearfar._errors import InputError

# Of classes that are told by their attributes; anything else might hold what is no attribute.
MARKS = ("__dataclass_fields__", "bind", "strip_of")


class Told:
    """What was written so far.

    Attributes:
        text: One line a value.
        tensors: In the order of the lines that stand for them.
        numbers: Whole numbers, likewise.
    """

    def __init__(self) -> None:
        self.text = ""
        self.tensors: list[torch.Tensor] = []
        self.numbers: list[int] = []

    def write(self, value: Any) -> None:
        """Add a value."""
        if isinstance(value, torch.Tensor):
            self.tensors.append(value)
            self.text += "t\n"
        elif isinstance(value, np.ndarray):
            self.write(torch.as_tensor(value))
        elif value is None:
            self.text += "n\n"
        elif isinstance(value, bool):
            self.text += "1\n" if value else "0\n"
        elif isinstance(value, int):
            self.numbers.append(value)
            self.text += "i\n"
        elif isinstance(value, float):
            self.text += "f" + value.hex() + "\n"
        elif isinstance(value, str):
            self.text += "s" + value.replace("\\", "\\\\").replace("\n", "\\n") + "\n"
        elif isinstance(value, tuple | list):
            self.text += ("(" if isinstance(value, tuple) else "[") + f"{len(value)}\n"
            for item in value:
                self.write(item)
        elif any(hasattr(type(value), mark) for mark in MARKS):
            self._write_object(value)
        elif hasattr(value, "__code__"):
            self.text += "g" + _address(value.__module__, value.__code__.co_qualname) + "\n"
        else:
            raise InputError(
                f"expected a loss of numbers, texts, tensors and objects made of them, got {type(value).__name__}; "
                "call the loss outside torch.compile and torch.func"
            )

    def _write_object(self, value: Any) -> None:
        attributes = vars(value)
        self.text += f"{len(attributes)}" + "@" + _address(type(value).__module__, type(value).__qualname__) + "\n"
        for name in attributes:
            self.text += name + "\n"
            self.write(attributes[name])


def _address(module: str, name: str) -> str:
    """Where a class or function is found."""
    if "<" in name:
        raise InputError(
            f"expected classes and functions that have a name in their module, got {name}; "
            "define it outside of functions, or call the loss outside torch.compile and torch.func"
        )
    return module + ":" + name


def read(text: str, tensors: Sequence[torch.Tensor], numbers: Sequence[int]) -> Any:
    """The value that was written, with these tensors and numbers."""
    return _Reader(text, tensors, numbers).value()


class _Reader:
    def __init__(self, text: str, tensors: Sequence[torch.Tensor], numbers: Sequence[int]) -> None:
        self.lines: Iterator[str] = iter(text.split("\n"))
        self.tensors, self.numbers = iter(tensors), iter(numbers)

    def value(self) -> Any:
        """The next one."""
        line = next(self.lines)
        head, rest = line[0], line[1:]
        if head == "t":
            return next(self.tensors)
        if head == "i" and not rest:
            return next(self.numbers)
        if head in "([":
            items = [self.value() for _ in range(int(rest))]
            return tuple(items) if head == "(" else items
        if head == "f":
            return float.fromhex(rest)
        if head == "s":
            return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], rest)
        if head == "g":
            return _found(rest)
        if "@" in line:
            return self._object(line)
        return {"n": None, "0": False, "1": True}[line]

    def _object(self, line: str) -> Any:
        count, address = line.split("@")
        value = object.__new__(_found(address))
        for _ in range(int(count)):
            name = next(self.lines)
            object.__setattr__(value, name, self.value())
        return value


def _found(address: str) -> Any:
    module, _, name = address.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
