"""The numbers of the oracles: float64, or a hundred digits of mpmath where a test asks for them.

Oracles are written once, on plain numbers, with this module's ``math``. Inside :func:`exactly` it is mpmath's, and what
an oracle is given there are mpmath's numbers. Fifty digits of the result are meant to be right: a hundred are carried,
so that what cancels in a loss of 1e-15, and in a difference quotient, comes out of the other fifty.
"""

from __future__ import annotations

import copy
import dataclasses
import math as plain
from contextlib import contextmanager

from mpmath import mp, mpf

DIGITS = 100
STEP = mpf(10) ** -33  # Of a central difference: its error is STEP², and what rounding leaves 1e-100 / STEP.


class _Math:
    """``math``, or mpmath's functions of the same names."""

    exact = False

    def __getattr__(self, name):
        if not self.exact:
            return getattr(plain, name)
        return OTHERS[name] if name in OTHERS else getattr(mp, name)


def _sum(values):
    return sum(values, mp.zero)


def _dist(x, y):
    return mp.sqrt(_sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))


OTHERS = {"fsum": _sum, "dist": _dist}
math = _Math()


@contextmanager
def exactly():
    """Let the oracles count in a hundred digits."""
    before = math.exact
    math.exact = True
    try:
        with mp.workdps(DIGITS):
            yield
    finally:
        math.exact = before


def exact(thing):
    """Numbers, lists of them and the real hyper-parameters of a loss, as mpmath's: float64 is taken as it stands."""
    if isinstance(thing, list | tuple):
        return type(thing)(map(exact, thing))
    if dataclasses.is_dataclass(thing):
        twin = copy.copy(thing)
        for field in dataclasses.fields(thing):
            value = getattr(thing, field.name)
            if isinstance(value, float) or (isinstance(value, tuple) and any(isinstance(v, float) for v in value)):
                object.__setattr__(twin, field.name, exact(value))
        return twin
    return mpf(thing) if isinstance(thing, int | float) and not isinstance(thing, bool) else thing


def slopes(value, rows):
    """The slopes of ``value(rows)`` by each number of ``rows``, from the left and from the right.

    ``rows`` is a list of lists, which ``value`` reads again at each call. The mean of both is the derivative; where
    they differ there is a kink.
    """
    here, found = value(), []
    for row in rows:
        size = max((abs(v) for v in row), default=mpf(0)) or mpf(1)
        found.append([])
        for k, middle in enumerate(row):
            step = STEP * size
            row[k] = middle - step
            before = value()
            row[k] = middle + step
            after = value()
            row[k] = middle
            found[-1].append(((here - before) / step, (after - here) / step))
    return found
