"""The exceptions of nearfar, in one tree.

::

    NearfarError
    ├── InputError (ValueError)      what was passed cannot be used
    │   ├── ShapeError               shapes do not fit each other
    │   └── BackendError (TypeError) not an array, or arrays of several libraries, dtypes or devices
    ├── UsageError                   a command or option that cannot be carried out        exit code 2
    ├── DataError                    files that cannot be used; names each path and reason exit code 3
    ├── GuaranteeError               the guarantee asked for cannot be given               exit code 4
    ├── ArtefactError                a run or model file that is damaged or does not fit   exit code 5
    ├── DivergenceError              training left the finite numbers                      exit code 6
    └── CheckError (AssertionError)  a loss that does not keep the contract of losses

Every message reads ``expected …, got …; remedy``.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any


class NearfarError(Exception):
    """Base of all errors that nearfar raises on purpose."""

    exit_code = 70


class InputError(NearfarError, ValueError):
    """An argument has a value that cannot be used."""

    exit_code = 2


class ShapeError(InputError):
    """Shapes do not fit each other."""


class BackendError(InputError, TypeError):
    """Not an array, or arrays of several libraries, dtypes or devices."""


class UsageError(NearfarError):
    """A command or option that cannot be carried out as given."""

    exit_code = 2


class DataError(NearfarError):
    """Data files that cannot be used; the message names each path and reason."""

    exit_code = 3


class GuaranteeError(NearfarError):
    """The guarantee asked for cannot be given from this data."""

    exit_code = 4


class ArtefactError(NearfarError):
    """A run, model or calibration file that is damaged or does not fit the rest."""

    exit_code = 5


class DivergenceError(NearfarError):
    """Training produced a loss or gradient that is not finite."""

    exit_code = 6


def expect_whole(name: str, value: Any, least: int = 1, remedy: str = "give a count") -> int:
    """The count, if it is one."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"expected {name} to be a whole number, {least} or more, got {value!r}; {remedy}")
    return int(value)


class CheckError(NearfarError, AssertionError):
    """A loss that does not keep the contract of losses; ``report`` holds all findings."""

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report
