"""Files written whole and read with suspicion: atomic replacement and strict JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from pathlib import Path
from typing import Any, NoReturn

from nearfar._errors import ArtefactError, InputError, UsageError

TEMPORARY = ".nearfar-"
"""Start of the name of a file that is not yet complete; a leftover of a killed process may be deleted."""

_LARGEST_JSON = 256 * 2**20


def shown(path: str | os.PathLike[str]) -> str:
    r"""Return a file name fit for one line of any terminal: what cannot be printed is escaped.

    Args:
        path: any file name, with line breaks or bytes that are not UTF-8 if need be.

    Returns:
        The name with each unprintable character replaced by its escape.

    Example:
        >>> from nearfar.app.files import shown
        >>> print(shown("two\nlines.png"))
        two\nlines.png
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in os.fspath(path))


def write_whole(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new one.

    The bytes go to a temporary file in the same folder, reach the disk (fsync), and take the name in one
    step (rename); then the folder is synced too.

    Args:
        path: the file; its folder must exist.
        data: bytes, or text, encoded as UTF-8 (what UTF-8 cannot hold is escaped).

    Raises:
        UsageError: if the system refuses (no space, no permission, no such folder); the old file is intact.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar.app.files import write_whole
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "a.txt", "near")
        ...     (Path(folder) / "a.txt").read_text()
        'near'
    """
    target = Path(path)
    content = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    temporary = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}.tmp"
    try:
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise UsageError(
            f"expected to write {shown(target)}, got {error.strerror or error}; "
            "free space, fix the permissions or name another place"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, where the system can sync folders.

    Args:
        folder: the folder that holds the new name.

    Raises:
        OSError: if the system cannot open or sync it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar.app.files import sync_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "hidden").mkdir()
        ...     whole = (Path(folder) / "hidden").rename(Path(folder) / "whole")
        ...     sync_folder(whole.parent)
    """
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems cannot sync a folder, and say so in one of these words
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike[str], obj: object) -> None:
    """Write `obj` as JSON, whole (see `write_whole`), keys sorted, so equal content is equal bytes.

    Args:
        path: the file; its folder must exist.
        obj: dicts, lists, strings, finite numbers, booleans and None.

    Raises:
        InputError: if JSON has no form for it, NaN and infinity included.
        UsageError: if the system refuses to write.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar.app.files import read_json, write_json
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"n": 3})
        ...     read_json(Path(folder) / "a.json")
        {'n': 3}
    """
    try:
        text = json.dumps(obj, sort_keys=True, allow_nan=False, indent=2)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"expected plain data with finite numbers for {shown(path)}, got {error}; use None for a gap"
        ) from error
    write_whole(path, text + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file strictly: UTF-8, finite numbers, no key twice.

    Args:
        path: the file.

    Returns:
        What the file holds.

    Raises:
        ArtefactError: if it is missing, unreadable, or not such a file; names the path and the reason.

    Example:
        >>> from nearfar import _errors
        >>> from nearfar.app.files import read_json
        >>> try:
        ...     read_json("no-such-run/config.json")
        ... except _errors.ArtefactError as error:
        ...     print(error)
        expected a JSON file at no-such-run/config.json, got No such file or directory; name a complete run
    """
    try:
        if (size := Path(path).stat().st_size) > _LARGEST_JSON:
            raise ValueError(f"{size} bytes, more than the {_LARGEST_JSON} allowed")
        return json.loads(
            Path(path).read_bytes().decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
        )
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ArtefactError(f"expected a JSON file at {shown(path)}, got {reason}; name a complete run") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, or refuse one that names a key twice (parsers differ on which value counts)."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object with the same key twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    """Refuse the NaN and Infinity that Python's parser would let through."""
    raise ValueError(f"{name}, which is not JSON")
