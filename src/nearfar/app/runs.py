"""The run folder: its settings, its lock, and what may be overwritten.

::

    config.yaml       what the run was asked for, in full
    split.json        which classes train, validate and test
    environment.json  versions, device and threads of the process that began the run
    metrics.jsonl     one line of health every few steps
    checkpoints/      the last two states of the training
    model/            the model: safetensors, JSON and a manifest with checksums
    calibration.json  thresholds and probability, bound to the model
    eval/, report.html
    finished.json     written last: nothing is left to do
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from nearfar._errors import ArtefactError, UsageError
from nearfar.app.files import TEMPORARY, write_whole
from nearfar.app.presets import Preset

CONFIG = "config.yaml"
FINISHED = "finished.json"
_LOCK = ".lock"
_FORMAT = "nearfar-run-1"
_PACKAGES = ("nearfar", "numpy", "torch", "accelerate", "kornia", "pillow", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class RunConfig:
    """What a run was asked for.

    Args:
        data: Folder of the data, absolute.
        fingerprint: Fingerprint of the data when the run began.
        preset: All settings, resolved.
        seed: Seed of initial weights, batches, augmentation and split.
        fmr: False-match rate that the threshold aims at.
        threads: Threads of the arithmetic; another number may round otherwise.
        pattern: Names of the files that count as data.
    """

    data: Path
    fingerprint: str
    preset: Preset
    seed: int
    fmr: float
    threads: int = 1
    pattern: str = "*"


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run's settings."""
    try:
        return (folder / CONFIG).is_file() and _FORMAT in (folder / CONFIG).read_text("utf-8")[:200]
    except (OSError, UnicodeDecodeError):
        return False


def check_free(out: Path, overwrite: bool) -> None:
    """See that a run may be written to a folder, before any work is done.

    Args:
        out: Where the run is to be.
        overwrite: Whether an earlier run there may be replaced.

    Raises:
        UsageError: It is not a folder, holds a run that may not be replaced, or holds something else.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"expected a folder for the run, got the file {out}; name another folder")
    if not _contents(out):
        return
    if not is_run(out):
        raise UsageError(
            f"expected an empty folder or a run of nearfar, got {out} with other files; name another folder"
        )
    if not overwrite:
        raise UsageError(
            f"expected an empty folder for the run, got the run {out}; "
            "continue it with resume, or replace it with overwrite"
        )


def write_config(run: Path, config: RunConfig) -> None:
    """Empty the folder of an earlier run and write the settings; the caller holds the lock.

    The old settings go last, so a crash here leaves either a run or an empty folder.
    """
    clear_leftovers(run)
    for path in sorted(_contents(run), key=lambda path: path.name == CONFIG):
        _remove(path)
    record = {
        "format": _FORMAT,
        "nearfar": _version("nearfar"),
        "data": str(config.data),
        "fingerprint": config.fingerprint,
        "seed": config.seed,
        "fmr": config.fmr,
        "threads": config.threads,
        "pattern": config.pattern,
        "preset": config.preset.to_dict(),
    }
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
    write_whole(run / CONFIG, text.encode("utf-8"))


def clear_leftovers(run: Path) -> None:
    """Remove what interrupted writes left in the run; the caller holds the lock."""
    for path in sorted(run.rglob(f"{TEMPORARY}*"), reverse=True):  # what lies inside goes first
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def read_config(run: Path) -> RunConfig:
    """The settings of a run.

    Args:
        run: The run folder.

    Returns:
        The settings.

    Raises:
        UsageError: The folder is not a run.
        ArtefactError: The settings cannot be read.
    """
    if not is_run(run):
        raise UsageError(f"expected a run folder with {CONFIG}, got {run}; start one with train")
    try:
        record = yaml.safe_load((run / CONFIG).read_text("utf-8"))
        return RunConfig(
            data=Path(record["data"]),
            fingerprint=str(record["fingerprint"]),
            preset=Preset.from_dict(record["preset"]),
            seed=int(record["seed"]),
            fmr=float(record["fmr"]),
            threads=int(record["threads"]),
            pattern=str(record["pattern"]),
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise ArtefactError(
            f"expected the settings of a run in {run / CONFIG}, got {error}; restore the file or train again"
        ) from error


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder for one trainer; the system lets go when the process dies, however it dies.

    Raises:
        UsageError: Another process holds it.
    """
    handle = _acquire(run / _LOCK)
    try:
        yield
    finally:
        with suppress(OSError):
            (run / _LOCK).unlink()
        os.close(handle)


def _acquire(path: Path) -> int:
    """An open, locked file under this name; one that was removed while we waited is tried again."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _take(handle):
            owner = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise UsageError(
                f"expected a run that nobody is training, got {path.parent}, held by process {owner}; "
                "wait for it, or stop it and resume"
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode("ascii"))
                return handle
        os.close(handle)


def _take(handle: int) -> bool:
    """Lock an open file without waiting; False where another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def environment(device: str, threads: int) -> dict[str, Any]:
    """Versions, device and threads, for the record."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": threads,
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _contents(folder: Path) -> list[Path]:
    """What the folder holds beside the lock and the leftovers of an interrupted write."""
    ours = (_LOCK, TEMPORARY)
    return [path for path in folder.iterdir() if not path.name.startswith(ours)]
