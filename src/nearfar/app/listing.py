"""Which files a folder of classes holds, before any of them is read."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from nearfar._errors import DataError
from nearfar.app.files import shown
from nearfar.app.images import EXTENSIONS

_SYSTEM = frozenset({"thumbs.db", "desktop.ini", "__macosx", "icon\r"})
_ONE_FOLDER_EACH = "give a folder with one sub-folder of pictures for each class"


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file or class, by its path below the root; `fatal` if training cannot go on.

    Example:
        >>> from nearfar.app.listing import Problem
        >>> print(Problem("ann/3.jpg", "an empty file (0 bytes); left out"))
          ann/3.jpg: an empty file (0 bytes); left out
    """

    path: str
    reason: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{'!' if self.fatal else ' '} {shown(self.path)}: {self.reason}"


@dataclass(frozen=True)
class File:
    """A file that may be a picture: its path below the root and its class."""

    path: str
    group: str


def list_classes(root: Path, pattern: str = "*") -> tuple[list[str], list[File], list[Problem]]:
    """Find the class folders and their files.

    Args:
        root: a folder with one sub-folder per class.
        pattern: names of files to look at; others are passed over in silence.

    Returns:
        Class names, the files that may be pictures, and problems with the rest.

    Raises:
        DataError: if `root` is missing, no folder, unreadable, or has no sub-folders.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar.app.listing import list_classes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "ann").mkdir()
        ...     _ = (Path(folder) / "ann" / "1.png").write_bytes(b"")
        ...     list_classes(Path(folder))
        (['ann'], [File(path='ann/1.png', group='ann')], [])
    """
    groups: list[str] = []
    files: list[File] = []
    problems: list[Problem] = []
    loose: list[str] = []
    for entry in _entries_of_root(root):
        if _is_system(entry.name):
            continue
        if _is_folder(entry):
            groups.append(entry.name)
            _list_class(root, entry.name, pattern, files, problems)
        elif fnmatchcase(entry.name, pattern):
            loose.append(entry.name)
    pictures = [name for name in loose if _is_picture_name(name)]
    if not groups:
        found = f"{len(pictures)} pictures and no sub-folder" if pictures else "no sub-folder"
        raise DataError(f"expected one sub-folder per class in {shown(root)}, got {found}; {_ONE_FOLDER_EACH}")
    problems += [Problem(name, _reason_beside(root, name)) for name in loose]
    return groups, files, problems


def _entries_of_root(root: Path) -> list[os.DirEntry[str]]:
    """List the root, or say what stands in its place."""
    try:
        with os.scandir(root) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        found = "nothing there"
        raise DataError(f"expected a folder at {shown(root)}, got {found}; {_ONE_FOLDER_EACH}") from error
    except NotADirectoryError as error:
        raise DataError(f"expected a folder at {shown(root)}, got a file; {_ONE_FOLDER_EACH}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"expected a folder at {shown(root)}, got {reason}; {_ONE_FOLDER_EACH}") from error


def _list_class(root: Path, group: str, pattern: str, files: list[File], problems: list[Problem]) -> None:
    """Walk one class folder to any depth; links are followed, but never into a folder they lie in."""
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(group, (_identity(root),))]
    while waiting:
        folder, above = waiting.pop()
        try:
            here = _identity(root / folder)
            if here in above:
                problems.append(Problem(folder, "a link that leads back to a folder it lies in; left out"))
                continue
            with os.scandir(root / folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(Problem(folder, f"a folder that cannot be listed ({error.strerror}); left out"))
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if _is_system(entry.name):
                continue
            if _is_folder(entry):
                if _is_picture_name(entry.name):
                    problems.append(Problem(path, "a folder with the name of a picture; its pictures count"))
                waiting.append((path, (*above, here)))
            elif fnmatchcase(entry.name, pattern):
                if _is_picture_name(entry.name):
                    files.append(File(path, group))
                else:
                    problems.append(Problem(path, _reason_no_picture(entry)))


def _identity(folder: Path) -> tuple[int, int]:
    """What stays the same under any name that leads to a folder."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """True for a folder or a link to one; a link in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_system(name: str) -> bool:
    """True for hidden files and what operating systems strew."""
    return name.startswith(".") or name.lower() in _SYSTEM


def _is_picture_name(name: str) -> bool:
    """True if the extension is one of a picture's."""
    return PurePath(name).suffix.lower() in EXTENSIONS


def _reason_no_picture(entry: os.DirEntry[str]) -> str:
    """Say why a file without a picture's name is left out."""
    try:
        if not stat.S_ISREG(entry.stat().st_mode):
            return "not a picture (a pipe, socket or device); left out"
    except OSError:
        return "not a picture (a link that leads nowhere); left out"
    extension = PurePath(entry.name).suffix
    return f"not a picture (extension {shown(extension)}); left out" if extension else "not a picture; left out"


def _reason_beside(root: Path, name: str) -> str:
    """Say why a file beside the class folders is left out."""
    if (root / name).is_symlink() and not (root / name).exists():
        return "a link that leads nowhere; left out"
    return "beside the class folders, so it has no class; left out"
