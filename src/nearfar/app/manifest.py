"""Checksums of a folder: what was written is what is read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Any

from nearfar._errors import ArtefactError
from nearfar.app.files import read_json, shown, write_json

MANIFEST = "checksums.json"

_FORMAT = "nearfar checksums"
_VERSION = 1


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes.

    Args:
        path: the file.

    Returns:
        64 hexadecimal digits.

    Raises:
        ArtefactError: if the file cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar.app.manifest import sha256
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a").write_bytes(b"")
        ...     sha256(Path(folder) / "a")[:8]
        'e3b0c442'
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ArtefactError(
            f"expected a readable file at {shown(path)}, got {error.strerror or error}; name a complete run"
        ) from error


def write_manifest(folder: str | os.PathLike[str]) -> None:
    """Record size and SHA-256 of every file below `folder` in its `checksums.json`, written last.

    Hidden files are left out: they are leftovers or belong to the system.

    Args:
        folder: a folder whose files are all in place.

    Raises:
        ArtefactError: if a file cannot be read.
        UsageError: if the system refuses to write.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar.app.files import write_whole
        >>> from nearfar.app.manifest import check_manifest, write_manifest
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "weights", b"1234")
        ...     write_manifest(folder)
        ...     check_manifest(folder)
    """
    root = Path(folder)
    files = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if name.as_posix() == MANIFEST or any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        files[name.as_posix()] = {"sha256": sha256(path), "size": path.stat().st_size}
    write_json(root / MANIFEST, {"files": files, "format": _FORMAT, "version": _VERSION})


def check_manifest(folder: str | os.PathLike[str]) -> None:
    """Compare every file that `checksums.json` lists with its recorded size and SHA-256.

    A checksum finds rot and mixed-up files, not a forger: who can change a file can change the list.

    Args:
        folder: a folder that `write_manifest` has seen.

    Raises:
        ArtefactError: if the list or a listed file is missing, damaged or of an unknown version; names it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar import _errors
        >>> from nearfar.app.files import write_whole
        >>> from nearfar.app.manifest import check_manifest, write_manifest
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "weights", b"1234")
        ...     write_manifest(folder)
        ...     write_whole(Path(folder) / "weights", b"1235")
        ...     try:
        ...         check_manifest(folder)
        ...     except _errors.ArtefactError as error:
        ...         print("weights, got other content" in str(error))
        True
    """
    root = Path(folder)
    for name, entry in _manifest_files(root / MANIFEST).items():
        path = root / name
        try:
            size = path.stat().st_size
        except (OSError, ValueError) as error:
            raise _damaged(path, "no such file") from error
        if size != entry["size"]:
            raise _damaged(path, f"{size} bytes instead of {entry['size']}")
        if sha256(path) != entry["sha256"]:
            raise _damaged(path, "other content (its SHA-256 differs)")


def _manifest_files(path: Path) -> dict[str, dict[str, Any]]:
    """Read the list of files, refusing what `write_manifest` would not write."""
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise _damaged(path, "a file that is no list of checksums")
    if record.get("version") != _VERSION:
        raise ArtefactError(
            f"expected version {_VERSION} in {shown(path)}, got {record.get('version')!r}; "
            "update nearfar, or make the folder again"
        )
    files = record.get("files")
    if not isinstance(files, dict):
        raise _damaged(path, "no list of files")
    for name, entry in files.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or "\\" in name or ":" in name:
            raise _damaged(path, f"a name that leads out of the folder ({shown(name)})")
        if not isinstance(entry, dict) or set(entry) != {"sha256", "size"}:
            raise _damaged(path, f"no size and SHA-256 for {shown(name)}")
    return files


def _damaged(path: Path, reason: str) -> ArtefactError:
    """Say that a file is not the one that was written."""
    return ArtefactError(
        f"expected the file that was written as {shown(path)}, got {reason}; copy or make the folder again"
    )
