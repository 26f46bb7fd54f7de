"""Pictures and class names that are the same twice: which to count once, and which contradict each other."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import dataclass

from nearfar.app.files import shown
from nearfar.app.listing import Problem


@dataclass(frozen=True)
class Picture:
    """A file that decoded: what is needed to compare it with the others."""

    path: str
    group: str
    size: tuple[int, int]
    content: str
    pixels: str


def leave_out_duplicates(pictures: list[Picture]) -> tuple[list[Picture], list[Problem]]:
    """Keep the first of equal pictures of a class; equal pictures of two classes contradict each other.

    Args:
        pictures: of all classes, in the order in which they are looked at.

    Returns:
        The pictures that count, and a problem for each one left out or found in two classes.

    Example:
        >>> from nearfar.app.alike import Picture, leave_out_duplicates
        >>> pictures = [Picture(path, path[:3], (1, 1), "", "f00d") for path in ("ann/1", "ann/2", "bob/1")]
        >>> kept, problems = leave_out_duplicates(pictures)
        >>> [picture.path for picture in kept], [problem.fatal for problem in problems]
        (['ann/1', 'bob/1'], [False, True])
    """
    kept: list[Picture] = []
    problems: list[Problem] = []
    seen: dict[str, dict[str, str]] = defaultdict(dict)  # pixels → class → first path
    for picture in pictures:
        first = seen[picture.pixels]
        if picture.group in first:
            problems.append(Problem(picture.path, f"the same picture as {shown(first[picture.group])}; counted once"))
            continue
        problems += [
            Problem(picture.path, f"the same picture as {shown(other)}, in another class; keep one", fatal=True)
            for other in first.values()
        ]
        first[picture.group] = picture.path
        kept.append(picture)
    return kept, problems


def same_but_for_case(groups: list[str]) -> list[Problem]:
    """Point at class names that some file systems, and most readers, take for one.

    Args:
        groups: names of classes.

    Returns:
        A problem, never fatal, for each name but the first of those that are alike.

    Example:
        >>> from nearfar.app.alike import same_but_for_case
        >>> [problem.path for problem in same_but_for_case(["cat", "dog", "Cat"])]
        ['cat']
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(groups):
        alike[unicodedata.normalize("NFC", name).casefold()].append(name)
    return [
        Problem(other, f"differs from class {shown(first)} only in letter case or accents' form; kept apart")
        for first, *others in alike.values()
        for other in others
    ]
