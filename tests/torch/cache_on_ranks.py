"""One rank of test_cache: gradient cache under DistributedDataParallel."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

import nearfar as nf
from nearfar.torch import backward_in_chunks
from ranks import join


class Towers(torch.nn.Module):
    """An encoder with a buffer, and a scale that only the loss uses."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.encoder = torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.Tanh(), torch.nn.Linear(9, 4))
        self.scale = torch.nn.Parameter(torch.tensor(1.5))
        self.register_buffer("shift", torch.tensor(0.1))
        self.double()

    def forward(self, x):
        return self.encoder(x) + self.shift


def ready(**options):
    """The model under DDP, and a list with one entry an all-reduce of gradients."""
    model, reduced = Towers(), []
    ddp = DistributedDataParallel(model, **options)

    def hook(state, bucket):
        reduced.append(bucket.buffer().numel())
        return allreduce_hook(None, bucket)

    ddp.register_comm_hook(None, hook)
    return ddp, reduced


def loss_of(ddp, scaled):
    base = nf.SupConLoss(temperature=0.5, measure=nf.Dot())
    if scaled is None:  # the scale is a parameter that nothing uses
        return base
    if not scaled:
        return lambda z, y: base(z, y) + 0 * ddp.module.scale
    return lambda z, y: base(z * ddp.module.scale, y)


def check(rank, counts, chunk, scaled, steps=3, **options):
    """The cache against the plain DDP step, several steps in a row (DDP rebuilds its buckets after the first)."""
    ours, reduced = ready(**options)
    plain, _ = ready(**options)
    for step in range(steps):
        generator = torch.Generator().manual_seed(100 * step + rank)
        x = torch.randn(counts[rank], 5, generator=generator, dtype=torch.float64)
        y = torch.randint(3, (counts[rank],), generator=generator)
        loss_of(plain, scaled)(plain(x), y).backward()
        backward_in_chunks(ours, loss_of(ours, scaled), x, y, chunk=chunk)
        assert len(reduced) == step + 1, (counts, chunk, step, reduced)
        for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
            if b.grad is None:
                assert a.grad is None
                continue
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-14)
            gathered = [torch.zeros_like(a.grad) for _ in counts]
            distributed.all_gather(gathered, a.grad)
            assert all(torch.equal(g, gathered[0]) for g in gathered)
        if step == 1:  # the third step adds to nothing, the second to the first's gradient
            ours.zero_grad()
            plain.zero_grad()
    assert float(ours.module.encoder[0].weight.grad.abs().max()) > 1e-4
    if scaled:
        assert float(ours.module.scale.grad.abs()) > 1e-4


def check_shared_loss(rank, counts, chunk):
    """With ``group``: the gradient of one big batch in one process."""
    alone, ours = Towers().requires_grad_(False), Towers().requires_grad_(False)
    for towers in (alone, ours):
        towers.encoder.requires_grad_(True)
    ddp = DistributedDataParallel(ours)
    for step, loss in enumerate((nf.SupConLoss(), 0.5 * nf.TripletLoss() + nf.ContrastiveLoss())):
        x = [
            torch.randn(n, 5, generator=torch.Generator().manual_seed(9 * step + r)).double()
            for r, n in enumerate(counts)
        ]
        y = [torch.arange(n) % 3 for n in counts]
        value = loss(alone(torch.cat(x)), torch.cat(y))
        value.backward()
        shared = backward_in_chunks(ddp, loss, x[rank], y[rank], chunk=chunk, group=distributed.group.WORLD)
        torch.testing.assert_close(shared, value.detach(), rtol=1e-12, atol=0)
        for a, b in zip(ours.encoder.parameters(), alone.encoder.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-13)


def main():
    rank, _ = join()
    for scaled in (False, True):
        for counts, chunk in (((8, 8), 3), ((9, 4), 4), ((7, 0), 2), ((0, 5), 10)):
            check(rank, counts, chunk, scaled)
    check(rank, (8, 3), 3, True, gradient_as_bucket_view=True)
    check(rank, (8, 3), 3, True, broadcast_buffers=False)
    check_shared_loss(rank, (8, 5), 3)
    check_shared_loss(rank, (7, 0), 2)
    check(rank, (8, 0), 3, None, find_unused_parameters=True)
    ddp, _ = ready(static_graph=True)
    with pytest.raises(nf.InputError, match="static_graph"):
        backward_in_chunks(ddp, nf.SupConLoss(), torch.zeros(4, 5).double(), torch.arange(4), chunk=2)
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.write("ok\n")
    # Without what runs at an interpreter's end: gloo's threads have aborted there now and then.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
