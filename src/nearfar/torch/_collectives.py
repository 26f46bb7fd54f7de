"""The few things that ranks say to each other: the only module that calls torch.distributed's collectives.

Every method is called by all ranks of the group, in the same order. Rows of uneven ranks travel padded to the longest,
where the backend cannot do without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import distributed

from nearfar._errors import InputError


@dataclass(frozen=True)
class Collectives:
    """Collectives over one process group; None is the default group."""

    group: Any = None

    def __post_init__(self) -> None:
        """Refuse a group that cannot be spoken to."""
        if not distributed.is_available() or not distributed.is_initialized():
            raise InputError(
                "expected an initialised torch.distributed, got none; call torch.distributed.init_process_group() "
                "first, or leave group out"
            )
        if self.group is not None and not isinstance(self.group, distributed.ProcessGroup):
            raise InputError(
                f"expected group to be a ProcessGroup or nearfar.torch.Ranks, got {self.group!r}; "
                "Ranks() means all ranks of the job"
            )

    @cached_property
    def size(self) -> int:
        """How many ranks there are."""
        return distributed.get_world_size(self.group)

    @cached_property
    def rank(self) -> int:
        """The place of this rank among them."""
        return distributed.get_rank(self.group)

    @cached_property
    def _backends(self) -> dict[str, str]:
        """Backend of each kind of device."""
        return dict(part.split(":") for part in distributed.get_backend_config(self.group).split(","))

    @cached_property
    def _desk(self) -> torch.device:
        """Where small messages lie: on the host where the group can, which then waits for no device."""
        if "cpu" in self._backends:
            return torch.device("cpu")
        kind = next(iter(self._backends))
        return torch.device(kind, torch.get_device_module(kind).current_device())

    def numbers(self, own: list[int]) -> list[list[int]]:
        """Everyone's numbers, as many from each rank."""
        sent = torch.tensor(own, dtype=torch.int64, device=self._desk)
        return cast("list[list[int]]", self._gathered(sent).reshape(self.size, -1).tolist())

    def texts(self, own: str, lengths: list[int]) -> list[str]:
        """Everyone's text; ``lengths`` in bytes are known."""
        sent = torch.tensor(list(own.encode()), dtype=torch.uint8, device=self._desk)
        rows = torch.split(self.gathered(sent, lengths).cpu(), lengths)
        return [bytes(row.tolist()).decode() for row in rows]

    def gathered(self, own: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """The rows of all ranks in rank order."""
        longest = max(counts)
        if longest == 0:
            return own
        everyone = self._gathered(_padded(own, longest))
        if min(counts) == longest:
            return everyone
        parts = everyone.reshape(self.size, longest, *own.shape[1:])
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def scattered(self, whole: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """The sum of everyone's ``whole``, of which each rank keeps its own rows."""
        count, features = counts[self.rank], tuple(whole.shape[1:])
        if max(counts) == 0:
            return whole
        if self._backends.get(whole.device.type) in ("gloo", "mpi"):
            # Gloo's reduce-scatter is an all-reduce, of twice the bytes (measured with torch 2.13).
            received = whole.new_empty((self.size * count, *features))
            distributed.all_to_all_single(received, whole.contiguous(), [count] * self.size, counts, group=self.group)
            return received.reshape(self.size, count, *features).sum(0)
        longest = max(counts)
        if min(counts) < longest:
            whole = torch.cat([_padded(part, longest) for part in torch.split(whole, counts)])
        kept = whole.new_empty((longest, *features))
        _reduce_scatter(kept, whole.contiguous(), group=self.group)
        return kept[:count]

    def passed_on(self, own: torch.Tensor, count: int, tag: int = 0) -> Callable[[], torch.Tensor]:
        """Starts to send rows to the next rank, and to receive ``count`` from the one before; call to wait for them.

        Both know how many rows travel: none are not sent. Messages under way at one time have ``tag``s of their own.
        """
        own, arriving = own.contiguous(), own.new_empty((count, *own.shape[1:]))
        ranks = cast("distributed.ProcessGroup", self.group or distributed.group.WORLD)
        operations = []
        for call, rows, step in ((distributed.isend, own, 1), (distributed.irecv, arriving, -1)):
            if rows.numel():
                peer = distributed.get_global_rank(ranks, (self.rank + step) % self.size)
                operations.append(distributed.P2POp(call, rows, peer, self.group, tag))
        works = distributed.batch_isend_irecv(operations) if operations else []

        def arrived() -> torch.Tensor:
            for work in works:
                work.wait()
            operations.clear()  # until here they hold what is sent
            return arriving

        return arrived

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, the same bits on each."""
        values = values.clone()
        distributed.all_reduce(values, group=self.group)
        return values

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """The largest over all ranks."""
        values = values.clone()
        distributed.all_reduce(values, distributed.ReduceOp.MAX, group=self.group)
        return values

    def _gathered(self, own: torch.Tensor) -> torch.Tensor:
        everyone = own.new_empty((self.size * own.shape[0], *own.shape[1:]))
        _all_gather(everyone, own.contiguous(), group=self.group)
        return everyone


def _padded(own: torch.Tensor, count: int) -> torch.Tensor:
    """``own`` with rows of 0 behind it."""
    if own.shape[0] == count:
        return own
    rows = own.new_zeros((count, *own.shape[1:]))
    rows[: own.shape[0]] = own
    return rows


# New names of the same collectives; the old ones warn where both exist.
def _all_gather(into: torch.Tensor, own: torch.Tensor, group: Any) -> None:
    getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)(into, own, group=group)


def _reduce_scatter(into: torch.Tensor, whole: torch.Tensor, group: Any) -> None:
    getattr(distributed, "reduce_scatter_single", distributed.reduce_scatter_tensor)(into, whole, group=group)


__all__ = ["Collectives"]
