"""A loss is a value: frozen, hashable, equal to its copies, and readable back from its ``repr``."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from collections.abc import Callable
from typing import Any

import nearfar
from nearfar._errors import InputError
from nearfar.losses import FeatureLoss, LossSum, Matryoshka
from nearfar.measures import Cosine, Euclidean
from nearfar.testing.cells import Cell
from nearfar.testing.forms import NotApplicable


def is_frozen(loss: Any, cell: Cell) -> None:
    """A frozen dataclass that hashes and compares by its hyper-parameters."""
    if not dataclasses.is_dataclass(loss):
        raise AssertionError(
            f"expected a frozen dataclass, got {type(loss).__name__}; decorate it @dataclass(frozen=True)"
        )
    for field in dataclasses.fields(loss):
        try:
            setattr(loss, field.name, getattr(loss, field.name))
        except dataclasses.FrozenInstanceError:
            continue
        raise AssertionError(f"expected {field.name} to be frozen, got it set; decorate it @dataclass(frozen=True)")
    try:
        hash(loss)
    except TypeError as error:
        raise AssertionError(f"expected hyper-parameters that hash, got {error}; use tuples for lists") from error
    same: Any = copy.copy(loss)
    if same != loss or hash(same) != hash(loss):
        raise AssertionError("expected two losses of the same hyper-parameters to be equal, got unequal ones")


def copies_are_equal(loss: Any, cell: Cell) -> None:
    """``copy``, ``deepcopy`` and ``pickle`` give an equal loss with the same value."""
    (batch, *_) = cell.samples()
    before = cell.run(loss, batch).value
    ways: dict[str, Callable[[Any], Any]] = {
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda v: pickle.loads(pickle.dumps(v)),  # noqa: S301  (its own bytes)
    }
    if type(loss).__module__ not in sys.modules:
        del ways["pickle"]  # Made by code that is no module, such as a page of documents.
    for name, way in ways.items():
        try:
            other = way(loss)
        except Exception as error:
            raise AssertionError(
                f"expected {name} to work, got {type(error).__name__}: {error}; "
                "define the loss at the top of a module, with hyper-parameters that pickle"
            ) from error
        if other != loss or cell.run(other, batch).value != before:
            raise AssertionError(f"expected the {name} to equal the loss, got another one")


def reads_back(loss: Any, cell: Cell) -> None:
    """``eval(repr(loss))`` is the loss, with the names of nearfar and of the loss's own module."""
    own = sys.modules.get(type(loss).__module__, nearfar)
    names = {**vars(nearfar), **vars(own), type(loss).__name__: type(loss)}
    try:
        other = eval(repr(loss), names)
    except Exception as error:
        raise AssertionError(f"expected repr to read back, got {type(error).__name__} for {loss!r}") from error
    if other != loss:
        raise AssertionError(f"expected repr to read back as the loss, got {other!r} for {loss!r}")


def refuses_the_other_kind_of_measure(loss: Any, cell: Cell) -> None:
    """A loss on similarities refuses a distance by name, and the other way round."""
    if isinstance(loss, LossSum | Matryoshka | FeatureLoss):
        raise NotApplicable("it has no measure of its own")
    if not next(f.init for f in dataclasses.fields(loss) if f.name == "measure"):
        raise NotApplicable("its measure is its own and cannot be chosen")
    wrong = Cosine() if loss.measure.kind == "distance" else Euclidean()
    try:
        dataclasses.replace(loss, measure=wrong)
    except InputError:
        return
    raise AssertionError(f"expected an InputError for {wrong!r}, got none; say kind = {loss.measure.kind!r}")
