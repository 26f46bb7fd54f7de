"""One rank of test_queue: uneven and empty ranks fill equal queues."""

from __future__ import annotations

import os
import sys

import torch
from torch import distributed

from nearfar.torch import EmbeddingQueue, Ranks
from ranks import join


def rows_of(rank, step, count):
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(count, 3, generator=generator), torch.randint(9, (count,), generator=generator)


def check(rank, size, counts_of_steps):
    """Against one queue that is given the rows of all ranks in rank order; the collectives of each step are counted."""
    queue, alone, calls = EmbeddingQueue(size, 3), EmbeddingQueue(size, 3), []
    original = distributed.all_gather

    def counted(into, own, group=None):
        calls.append(tuple(own.shape))
        return original(into, own, group=group)

    for step, counts in enumerate(counts_of_steps):
        x, y = rows_of(rank, step, counts[rank])
        # A rank without rows often has them in another dtype.
        x = x if len(x) else x.double()
        del calls[:]
        distributed.all_gather = counted
        queue.add(x.requires_grad_(), y, group=distributed.group.WORLD)
        distributed.all_gather = original
        longest = min(max(counts), size)
        assert calls == ([(), (longest, 3), (longest,)] if longest else [()]), calls
        parts = [rows_of(r, step, count) for r, count in enumerate(counts)]
        alone.add(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))
        for a, b in zip(queue.contents(), alone.contents(), strict=True):
            assert torch.equal(a, b), (size, step, counts)
        state = [torch.empty_like(queue.embeddings) for _ in counts]
        distributed.all_gather(state, queue.embeddings)
        assert all(torch.equal(s, state[0]) for s in state)


def main():
    rank, _ = join()
    steps = [(4, 4, 4), (5, 2, 0), (0, 0, 3), (0, 0, 0), (0, 7, 1), (1, 1, 1), (2, 0, 9), (30, 1, 0)]
    for size in (1, 8, 11, 200):
        check(rank, size, steps)
    part = distributed.new_group([0, 2])
    queue = EmbeddingQueue(8, 3)
    if rank != 1:
        queue.add(*rows_of(rank, 0, 2 + rank), group=Ranks(part) if rank else part)
        expected = torch.cat([rows_of(r, 0, 2 + r)[0] for r in (0, 2)])
        assert torch.equal(queue.contents()[0], expected)
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.write("ok\n")
    # Without what runs at an interpreter's end: gloo's threads have aborted there now and then.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
