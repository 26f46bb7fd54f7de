"""A folder of labelled pictures: what is in it, what is wrong with it, and whether it can be trained on.

One sub-folder is one class. Every picture is decoded once, so that a damaged one is found here, with its path
and its reason, and not in the middle of training.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nearfar._errors import DataError
from nearfar.app.alike import Picture, leave_out_duplicates, same_but_for_case
from nearfar.app.files import shown
from nearfar.app.images import UnreadableError, decode, read_bytes
from nearfar.app.listing import File, list_classes
from nearfar.app.listing import Problem as Problem

LEAST_PICTURES = 2
"""A class of one picture has no positive pair."""
LEAST_CLASSES = 6
"""Two each for training, validation and test, so that each side has same and different pairs."""


@dataclass(frozen=True)
class Item:
    """One picture: its path below the root, the number of its class, and its (height, width) upright."""

    path: str
    label: int
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Dataset:
    """The usable pictures of a folder, by class, and all that was found wrong.

    Args:
        root: the folder.
        classes: names in natural order ("s2" before "s10"); `Item.label` counts in it.
        items: every usable picture, class by class, paths in natural order.
        problems: every file or class that was left out or needs a decision.
        fingerprint: SHA-256 over the items' paths and contents; equal data, equal fingerprint.

    Example:
        >>> from pathlib import Path
        >>> from nearfar.app.data import Dataset, Item
        >>> items = Item("ann/1.png", 0), Item("bob/1.png", 1)
        >>> data = Dataset(Path("faces"), ("ann", "bob"), items, (), "")
        >>> data.counts
        (1, 1)
        >>> data.of(["bob"])
        (Item(path='bob/1.png', label=1, size=(0, 0)),)
    """

    root: Path
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    problems: tuple[Problem, ...]
    fingerprint: str

    @property
    def counts(self) -> tuple[int, ...]:
        """Pictures of each class, in the order of `classes`."""
        counts = [0] * len(self.classes)
        for item in self.items:
            counts[item.label] += 1
        return tuple(counts)

    def of(self, classes: Iterable[str]) -> tuple[Item, ...]:
        """Return the items of some classes, in the order of `items`; labels stay those of the whole."""
        wanted = set(classes)
        return tuple(item for item in self.items if self.classes[item.label] in wanted)

    def require_classes(self) -> None:
        """Refuse too few classes to divide among training, validation and test.

        Raises:
            DataError: if there are fewer than `LEAST_CLASSES`; lists every problem found.

        Example:
            >>> from pathlib import Path
            >>> from nearfar import _errors
            >>> from nearfar.app.data import Dataset
            >>> try:
            ...     Dataset(Path("faces"), ("ann", "bob"), (), (), "").require_classes()
            ... except _errors.DataError as error:
            ...     print(str(error).split(";")[0])
            expected 6 or more classes of 2 or more readable pictures in faces, got 2
        """
        if len(self.classes) < LEAST_CLASSES:
            raise self._refusal(
                f"expected {LEAST_CLASSES} or more classes of {LEAST_PICTURES} or more readable pictures in "
                f"{shown(self.root)}, got {len(self.classes)}; add classes (one sub-folder each)"
            )

    def require_trainable(self) -> None:
        """Refuse data that training cannot use.

        Raises:
            DataError: if classes are too few or a problem is fatal; lists every problem found.

        Example:
            >>> from pathlib import Path
            >>> from nearfar import _errors
            >>> from nearfar.app.data import Dataset, Problem
            >>> twin = Problem("ann/2.png", "the same picture as bob/1.png", fatal=True)
            >>> try:
            ...     Dataset(Path("faces"), tuple("abcdef"), (), (twin,), "").require_trainable()
            ... except _errors.DataError as error:
            ...     print(str(error).split(";")[0])
            expected data without contradiction in faces, got 1 fatal problem
        """
        self.require_classes()
        fatal = sum(problem.fatal for problem in self.problems)
        if fatal:
            raise self._refusal(
                f"expected data without contradiction in {shown(self.root)}, got {fatal} "
                f"fatal problem{'s' if fatal > 1 else ''}; correct what is marked with !"
            )

    def _refusal(self, head: str) -> DataError:
        """The error, followed by every problem found."""
        if self.problems:
            head += f"\n{len(self.problems)} found:"
        return DataError("\n".join([head, *(str(problem) for problem in self.problems)]))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that counts: "s2" before "s10".

    Args:
        name: a class name or path.

    Returns:
        Runs of digits as numbers, the rest as text; the name itself decides between equals ("01" and "1").

    Example:
        >>> from nearfar.app.data import natural_key
        >>> sorted(["s10", "s2", "s1"], key=natural_key)
        ['s1', 's2', 's10']
    """
    parts = re.split(r"([0-9]+)", name)
    key = [(0, int(part), "") if part[:1].isdigit() and part.isascii() else (1, 0, part) for part in parts]
    return (*key, (2, 0, name))


def scan(
    folder: str | os.PathLike[str],
    pattern: str = "*",
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read a folder with one sub-folder per class; pictures in nested folders belong to the topmost.

    Every file is accounted for: it is an item, or a problem says why not. Only hidden files, `Thumbs.db`,
    `desktop.ini` and `__MACOSX` are passed over in silence. A skipped file never changes another's label.

    Args:
        folder: the root.
        pattern: file names to look at, such as "*.pgm"; others are passed over.
        progress: called with (files read, files in all) after each file.

    Returns:
        The usable classes (two or more different pictures) and every problem.

    Raises:
        DataError: if the folder is missing, cannot be read or has no sub-folders.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar.app.data import scan
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, grey in [("ann/1.pgm", 10), ("ann/2.pgm", 20), ("bob/1.pgm", 30)]:
        ...         (Path(folder) / name).parent.mkdir(exist_ok=True)
        ...         _ = (Path(folder) / name).write_bytes(b"P5 1 1 255 " + bytes([grey]))
        ...     data = scan(folder)
        >>> data.classes, len(data.items)
        (('ann',), 2)
        >>> print(data.problems[0])
          bob: a class of one picture has no pair of the same; left out
    """
    root = Path(folder)
    groups, files, problems = list_classes(root, pattern)
    pictures: list[Picture] = []
    for number, file in enumerate(sorted(files, key=lambda file: natural_key(file.path)), start=1):
        try:
            pictures.append(_read(root, file))
        except UnreadableError as reason:
            problems.append(Problem(file.path, f"{reason}; left out"))
        if progress is not None:
            progress(number, len(files))
    pictures, duplicates = leave_out_duplicates(pictures)
    classes, too_small = _usable_classes(groups, pictures)
    problems += duplicates + too_small + same_but_for_case(groups)
    label = {name: number for number, name in enumerate(classes)}
    kept = sorted((p for p in pictures if p.group in label), key=lambda p: (label[p.group], natural_key(p.path)))
    return Dataset(
        root=root,
        classes=tuple(classes),
        items=tuple(Item(p.path, label[p.group], p.size) for p in kept),
        problems=tuple(sorted(problems, key=lambda p: (not p.fatal, natural_key(p.path), p.reason))),
        fingerprint=_fingerprint(kept),
    )


def _read(root: Path, file: File) -> Picture:
    """Decode one file to the end and take its marks."""
    content = read_bytes(root / file.path)
    picture = decode(content)
    width, height = picture.size
    pixels = hashlib.sha256(f"{width}×{height}:".encode() + picture.tobytes())
    return Picture(file.path, file.group, (height, width), hashlib.sha256(content).hexdigest(), pixels.hexdigest())


def _usable_classes(groups: list[str], pictures: list[Picture]) -> tuple[list[str], list[Problem]]:
    """Tell the classes that can make a pair from those that cannot."""
    counts = dict.fromkeys(groups, 0)
    for picture in pictures:
        counts[picture.group] += 1
    reasons = {
        0: "an empty class (no readable picture); left out",
        1: "a class of one picture has no pair of the same; left out",
    }
    problems = [Problem(name, reasons[count]) for name, count in counts.items() if count in reasons]
    usable = [name for name, count in counts.items() if count >= LEAST_PICTURES]
    return sorted(usable, key=natural_key), problems


def _fingerprint(pictures: list[Picture]) -> str:
    """SHA-256 over (path, SHA-256 of the bytes), sorted by path."""
    total = hashlib.sha256()
    for path, content in sorted((os.fsencode(picture.path), picture.content) for picture in pictures):
        total.update(path + b"\0" + content.encode() + b"\n")
    return total.hexdigest()
