"""Who is trained on and who is asked about: splits and folds by class, never by picture."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from nearfar._errors import ArtefactError, InputError
from nearfar.app.data import LEAST_CLASSES, Dataset, natural_key
from nearfar.app.files import read_json, shown, write_json

FRACTIONS = (0.6, 0.2, 0.2)

_SIDES = ("train", "val", "test")
_LEAST = LEAST_CLASSES // len(_SIDES)
_FORMAT = "nearfar split"


@dataclass(frozen=True)
class Split:
    """Class names of the three sides, each in natural order; no class is in two of them."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def split_classes(dataset: Dataset, seed: int = 0, fractions: tuple[float, float, float] = FRACTIONS) -> Split:
    """Divide the classes of a dataset in three, by chance that depends on the seed and the names alone.

    Args:
        dataset: `LEAST_CLASSES` or more classes.
        seed: another seed, another division.
        fractions: shares of training, validation and test; they sum to 1.

    Returns:
        The three sides, each of two classes or more: so each has both kinds of pairs.

    Raises:
        DataError: if there are too few classes.
        InputError: if the fractions are not positive or do not sum to 1.

    Example:
        >>> from pathlib import Path
        >>> from nearfar.app.data import Dataset
        >>> from nearfar.app.split import split_classes
        >>> data = Dataset(Path("faces"), ("s1", "s2", "s3", "s4", "s5", "s6"), (), (), "")
        >>> split_classes(data, seed=1) == split_classes(data, seed=1)
        True
    """
    if not all(0 < share < 1 for share in fractions) or abs(sum(fractions) - 1) > 1e-9:
        raise InputError(f"expected positive fractions of sum 1, got {fractions}; try {FRACTIONS}")
    dataset.require_classes()
    drawn = sorted(dataset.classes, key=lambda name: hashlib.sha256(f"{seed}/".encode() + os.fsencode(name)).digest())
    train, val, _ = side_sizes(len(drawn), fractions)
    sides = drawn[:train], drawn[train : train + val], drawn[train + val :]
    return Split(*(tuple(sorted(side, key=natural_key)) for side in sides))


def side_sizes(classes: int, fractions: tuple[float, float, float] = FRACTIONS) -> tuple[int, int, int]:
    """How many classes go to training, validation and test.

    Args:
        classes: `LEAST_CLASSES` or more.
        fractions: the shares aimed at.

    Returns:
        Three counts that sum to `classes`, each at least 2.

    Raises:
        InputError: if there are too few classes for that.

    Example:
        >>> from nearfar.app.split import side_sizes
        >>> side_sizes(40), side_sizes(9), side_sizes(6)
        ((24, 8, 8), (5, 2, 2), (2, 2, 2))
    """
    if classes < LEAST_CLASSES:
        raise InputError(f"expected a number of classes from {LEAST_CLASSES} on, got {classes}; a side needs {_LEAST}")
    val = max(_LEAST, round(classes * fractions[1]))
    test = max(_LEAST, round(classes * fractions[2]))
    while classes - val - test < _LEAST:  # fractions with a small share for training
        val, test = (val - 1, test) if val > test else (val, test - 1)
    return classes - val - test, val, test


def folds(classes: Iterable[str], k: int = 8) -> tuple[tuple[str, ...], ...]:
    """Cut the classes, in natural order, into `k` consecutive blocks for cross-validation.

    With the 40 people of the AT&T faces and k = 8 the last block is s36 … s40.

    Args:
        classes: names, in any order.
        k: number of blocks, from 2 to the number of classes.

    Returns:
        `k` blocks whose sizes differ by one at most.

    Raises:
        InputError: if `k` does not fit.

    Example:
        >>> from nearfar.app.split import folds
        >>> folds(["s10", "s9", "s1", "s2"], k=2)
        (('s1', 's2'), ('s9', 's10'))
    """
    ordered = sorted(classes, key=natural_key)
    if not 2 <= k <= len(ordered):
        raise InputError(f"expected k from 2 to the number of classes ({len(ordered)}), got {k}; use fewer folds")
    edges = [len(ordered) * i // k for i in range(k + 1)]
    return tuple(tuple(ordered[start:stop]) for start, stop in pairwise(edges))


def save_split(path: str | os.PathLike[str], split: Split, fingerprint: str) -> None:
    """Write a split with the fingerprint of the data it divides.

    Args:
        path: `split.json` of a run folder.
        split: the three sides.
        fingerprint: `Dataset.fingerprint`.

    Raises:
        UsageError: if the system refuses to write.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar.app.split import Split, load_split, save_split
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_split(Path(folder) / "split.json", Split(("a", "b"), ("c", "d"), ("e", "f")), "f00d")
        ...     load_split(Path(folder) / "split.json", "f00d").val
        ('c', 'd')
    """
    sides = {side: list(getattr(split, side)) for side in _SIDES}
    write_json(path, {"format": _FORMAT, "version": 1, "fingerprint": fingerprint, **sides})


def load_split(path: str | os.PathLike[str], fingerprint: str) -> Split:
    """Read a split and refuse it if the data are no longer those it was made for.

    Args:
        path: `split.json` of a run folder.
        fingerprint: `Dataset.fingerprint` of the data at hand.

    Returns:
        The three sides.

    Raises:
        ArtefactError: if the file is missing, damaged, or belongs to other data.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar import _errors
        >>> from nearfar.app.split import Split, load_split, save_split
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_split(Path(folder) / "split.json", Split(("a", "b"), ("c", "d"), ("e", "f")), "f00d")
        ...     try:
        ...         _ = load_split(Path(folder) / "split.json", "beef")
        ...     except _errors.ArtefactError as error:
        ...         print("got data that have changed" in str(error))
        True
    """
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != _FORMAT or record.get("version") != 1:
        raise ArtefactError(f"expected a split, version 1, at {shown(path)}, got another; retrain")
    sides = [_names(record.get(side)) for side in _SIDES]
    names = [name for side in sides for name in side]
    if not all(sides) or len(names) != len(set(names)):
        raise ArtefactError(
            f"expected three sides without a common class at {shown(path)}, got "
            f"{[len(side) for side in sides]} names, {len(set(names))} different; train again"
        )
    if record.get("fingerprint") != fingerprint:
        raise ArtefactError(
            f"expected the data that {shown(path)} was made for, got data that have changed since; "
            "restore the files, or train again"
        )
    return Split(*sides)


def _names(side: object) -> tuple[str, ...]:
    """The names of one side; none if it is not a list of names."""
    if isinstance(side, list) and all(isinstance(name, str) for name in side):
        return tuple(side)
    return ()
