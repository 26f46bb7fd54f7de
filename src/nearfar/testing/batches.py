"""Batches that break losses elsewhere: one list, for ``check_loss`` and for the tests of nearfar's own losses.

Each is a float64 matrix of embeddings and one label an item. Values that a narrow dtype cannot hold are brought to its
largest number where a batch is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.float64]
Battery: TypeAlias = Mapping[str, tuple[Values, Any]]

X: Values = np.random.default_rng(41).normal(size=(8, 4))
Y = np.array([0, 0, 1, 1, 2, 2, 3, 3])


def clustered(spread: float, offset: float = 0.0) -> Values:
    """Four classes of two items, ``spread`` apart within a class, the whole moved by ``offset``."""
    centre = np.random.default_rng(5).normal(size=(4, 4))
    return np.asarray(centre[Y] + spread * X + offset)


def patched(places: Any, value: float) -> Values:
    """The ordinary batch with another number at some places."""
    x = X.copy()
    x[places] = value
    return x


SIZES: Battery = {
    "empty": (np.zeros((0, 4)), []),
    "one": (X[:1], [0]),
    "two same": (X[:2], [0, 0]),
    "two different": (X[:2], [0, 1]),
    "pair and singleton": (X[:3], [0, 0, 1]),
    "one feature": (X[:, :1], Y),
    "8192 features": (np.random.default_rng(1).normal(size=(6, 8192)) / 90, [0, 0, 1, 1, 2, 2]),
}
LABELS: Battery = {
    "one class": (X, [0] * 8),
    "all singletons": (X, list(range(8))),
    "one singleton": (X, [0, 0, 0, 1, 1, 1, 1, 2]),
    "8 to 1": (np.concatenate([X, X[:1] + 1]), [0] * 8 + [1]),
    "two classes": (X, Y % 2),
    "one pair among 62": (np.random.default_rng(2).normal(size=(64, 3)), [0, 0, *range(1, 63)]),
}
GEOMETRY: Battery = {
    "positives duplicated": (X[[0, 0, 2, 2, 4, 4, 6, 6]], Y),
    "negatives duplicated": (X[[0, 1, 0, 1, 4, 5, 4, 5]], Y),
    "all identical": (X[[3] * 8], Y),
    "antipodal": (np.concatenate([X[:4], -X[:4]]), [0, 1, 2, 3, 0, 1, 2, 3]),
    "collinear": (np.outer([1, 2.3, 3.1, 5.7, -1.4, -2.9, 4.2, 7.9], X[0]), Y),
    "spread 1e-2": (clustered(1e-2), Y),
    "spread 1e-4": (clustered(1e-4), Y),
    "spread 1e-6": (clustered(1e-6), Y),
    "offset 1e3": (clustered(0.3, 1e3), Y),
    "offset 1e6": (clustered(0.3, 1e6), Y),
}
MAGNITUDE: Battery = {
    "a zero row": (patched(2, 0.0), Y),
    "two zero rows, one class": (patched([2, 3], 0.0), Y),
    "all zero": (np.zeros((8, 4)), Y),
    "minus zero": (patched([1, 4], -0.0), Y),
    **{f"scale {s:g}": (s * X, Y) for s in (1e-42, 1e-38, 1e-30, 1e-20, 1e-8, 1e4, 1e10, 1e19, 1e30)},
    "largest": (X / np.abs(X).max() * 1e308, Y),
    "one huge row": (np.where(np.arange(8)[:, None] == 3, 1e19, 1e-6) * X, Y),
    "cancelling rows": (np.stack([1e4 * X[:, 0], -1e4 * X[:, 0], X[:, 1], X[:, 2]], axis=1), Y),
}
BATCHES: Battery = {**SIZES, **LABELS, **GEOMETRY, **MAGNITUDE}

# Not finite: the value must not be either.
BAD: Battery = {
    "one NaN": (patched((1, 2), np.nan), Y),
    "one Inf": (patched((1, 2), np.inf), Y),
    "one -Inf": (patched((4, 0), -np.inf), Y),
    "a row of NaN": (patched(6, np.nan), Y),
    "NaN in a singleton": (patched((7, 0), np.nan), [0, 0, 1, 1, 2, 2, 3, 4]),
}

# The classes of ``Y`` in other words: not a bit of the result may change.
SAME_LABELS: Mapping[str, Any] = {
    **{t: np.array(Y, dtype=t) for t in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "list": Y.tolist(),
    "tuple": tuple(Y.tolist()),
    "strings": [f"class {c}" for c in Y],
    "objects": np.array([f"class {c}" for c in Y], dtype=object),
    "bytes": np.array([b"a", b"b", b"c", b"d"])[Y],
    "2^62": 2**62 + Y.astype(np.int64),
    "negative": -1 - Y,
    "big-endian": Y.astype(">i4"),
    "strided": np.repeat(Y, 3)[::3],
}
# No labels of ``X``: refused by name.
BAD_LABELS: Mapping[str, Any] = {
    "floats": Y.astype(float),
    "integral floats > 2^24": 2.0**30 + Y,
    "NaN": np.array([0, 0, 1, 1, np.nan, 2, 3, 3]),
    "complex": Y.astype(complex),
    "a column": Y[:, None],
    "too few": Y[:7],
    "too many": np.r_[Y, 1],
    "none": None,
    "a scalar": 3,
    "a word": "labels",
    "dates": Y.astype("datetime64[D]"),
    "ragged": [[0], [0, 1], 1, 1, 2, 2, 3, 3],
    "one-hot": np.eye(4)[Y],
}


def within(x: Values, largest: float) -> Values:
    """The batch, brought to the largest number of a dtype where it is beyond."""
    top = np.abs(x).max(initial=0.0)
    return x / top * largest if largest < top < np.inf else x
