"""All ranks make the same call, or all raise the same error, at once; nobody is left waiting."""

from __future__ import annotations

import zlib

from nearfar import _errors
from nearfar._errors import InputError, NearfarError
from nearfar.torch._collectives import Collectives
from nearfar.torch._own import Own


def agreed(among: Collectives, own: Own | Exception) -> tuple[Own, list[list[int]]]:
    """This rank's part, and each rank's counts of anchors and references and the sides whose gradient it asks for.

    Raises:
        NearfarError: A check failed on some rank, or the calls differ; the same error on all ranks.
    """
    if isinstance(own, Exception):
        text, head = _told(own), [0, 0, 0, 0]
    else:
        text, head = own.text, [*own.counts, *map(int, own.asked)]
    data = text.encode()
    table = among.numbers([int(isinstance(own, Exception)), zlib.crc32(data), len(data), *head])
    failed = [bool(row[0]) for row in table]
    if not isinstance(own, Exception) and not any(failed) and len({row[1] for row in table}) == 1:
        return own, [row[3:] for row in table]
    error = _refusal(failed, among.texts(text, [row[2] for row in table]))
    raise error from (own if isinstance(own, Exception) else None)


def _told(error: Exception) -> str:
    """The name of one of nearfar's errors, and what it says."""
    if isinstance(error, NearfarError):
        return f"{type(error).__name__}:{error}"
    return f"InputError:expected a call that works on every rank, got {type(error).__name__}: {error}; see that rank"


def _refusal(failed: list[bool], texts: list[str]) -> NearfarError:
    """What does not fit, and on which ranks: first what failed on one rank alone."""
    if any(failed):
        rank = failed.index(True)
        kind, _, message = texts[rank].partition(":")
        found: NearfarError = getattr(_errors, kind, InputError)(f"{message} (on rank {rank})")
        return found
    calls: dict[str, list[str]] = {}
    for rank, text in enumerate(texts):
        calls.setdefault(text, []).append(str(rank))
    got = "; ".join(f"on rank {', '.join(ranks)}: {text}" for text, ranks in calls.items())
    return InputError(f"expected the same call on every rank of the group, got {got}; make them alike")
