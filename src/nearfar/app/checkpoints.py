"""Checkpoints: written whole or not at all, checked before use, the last two kept.

A folder of tensors and JSON is written under a hidden name, synced, given its checksums, and takes its
real name by one rename; so a folder ``step-00000050`` is complete, and its checksums tell of later rot.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from nearfar._errors import ArtefactError, UsageError
from nearfar.app.files import TEMPORARY, read_json, shown, sync_folder, write_json, write_whole
from nearfar.app.manifest import check_manifest, write_manifest

_KEPT = 2
_PREFIX = "step-"
_TENSORS = "tensors.safetensors"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A state of the training.

    Args:
        step: Steps done.
        tensors: Weights and optimiser tensors by name.
        state: Everything else, plain values.
    """

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Fill a folder under a hidden name; on leaving the block it gets its checksums and its real name.

    Args:
        target: The folder; one that exists is replaced.

    Yields:
        The hidden folder to write into, with `write_whole` or `write_json`.

    Raises:
        UsageError: The system refuses (no space, no permission); an old folder is intact.
    """
    hidden = target.parent / f"{TEMPORARY}{target.name}"
    old = target.parent / f"{TEMPORARY}old-{target.name}"
    try:
        for leftover in (hidden, old):
            if leftover.exists():
                shutil.rmtree(leftover)
        hidden.mkdir(parents=True)
        yield hidden
        write_manifest(hidden)
        sync_folder(hidden)
        if target.exists():
            target.rename(old)
        hidden.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UsageError(
            f"expected to write the folder {shown(target)}, got {error.strerror or error}; "
            "free space, fix the permissions or name another place"
        ) from error


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, then drop all but the last two.

    Args:
        folder: Where the checkpoints are.
        checkpoint: What to write; tensors on any device.

    Returns:
        The checkpoint's folder.

    Raises:
        UsageError: The system refuses to write; earlier checkpoints are intact.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from nearfar.app.checkpoints import Checkpoint, newest, save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = save(Path(folder), Checkpoint(3, {"w": torch.ones(2)}, {"seed": 0}))
        ...     newest(Path(folder)).tensors
        {'w': tensor([1., 1.])}
    """
    target = folder / f"{_PREFIX}{checkpoint.step:08d}"
    with whole_folder(target) as hidden:
        write_whole(hidden / _TENSORS, encode_tensors(checkpoint.tensors))
        write_json(hidden / _STATE, {"step": checkpoint.step, "state": checkpoint.state})
    for _, path in _listed(folder)[_KEPT:]:
        _drop(path)
    return target


def newest(folder: Path, warn: Callable[[str], None] | None = None) -> Checkpoint | None:
    """The newest checkpoint whose checksums hold, or None.

    Args:
        folder: Where the checkpoints are; it may be missing.
        warn: Told in words of each damaged checkpoint that is passed over.

    Returns:
        The checkpoint, its tensors on the CPU.
    """
    for step, path in _listed(folder):
        try:
            return _read(step, path)
        except ArtefactError as error:
            if warn is not None:
                warn(f"checkpoint of step {step} is passed over: {error}")
    return None


def clear_after(folder: Path, step: int) -> None:
    """Remove leftovers of interrupted writes and every checkpoint of a later step (they were passed over)."""
    if not folder.is_dir():
        return
    for leftover in folder.glob(f"{TEMPORARY}*"):
        _drop(leftover)
    for number, path in _listed(folder):
        if number > step:
            _drop(path)


def encode_tensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Tensors of any device as the bytes of a safetensors file."""
    stored: bytes = save_tensors({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    return stored


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file, on the CPU.

    Raises:
        ArtefactError: The file is missing or no such file.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_tensors(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ArtefactError(f"expected tensors in {shown(path)}, got {error}; use a complete run folder") from error
    return tensors


def _read(step: int, path: Path) -> Checkpoint:
    check_manifest(path)
    record = read_json(path / _STATE)
    if record.get("step") != step:
        raise ArtefactError(f"expected step {step} in {shown(path)}, got {record.get('step')}; restore it")
    return Checkpoint(step, read_tensors(path / _TENSORS), record["state"])


def _listed(folder: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints, newest first."""
    found = []
    for path in folder.glob(f"{_PREFIX}*"):
        number = path.name.removeprefix(_PREFIX)
        if number.isascii() and number.isdigit() and path.is_dir():
            found.append((int(number), path))
    return sorted(found, reverse=True)


def _drop(path: Path) -> None:
    """Remove a folder; it loses its name first, so a crash leaves no half checkpoint under it."""
    if not path.name.startswith(TEMPORARY):
        hidden = path.parent / f"{TEMPORARY}dropped-{path.name}"
        shutil.rmtree(hidden, ignore_errors=True)
        path = path.rename(hidden)
    shutil.rmtree(path, ignore_errors=True)
