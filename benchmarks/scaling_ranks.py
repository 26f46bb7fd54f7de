"""One rank of the simulation of :mod:`benchmarks.scaling`: what a step of a loss really moves, multiplies and holds.

Started by torchrun over gloo. Everything is counted where PyTorch dispatches it, below this library and any other.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.utils._python_dispatch import TorchDispatchMode

import nearfar as nf
from nearfar.engine import Strips
from nearfar.torch import Ranks

PRODUCTS = {"mm": 0, "addmm": 1, "addmm_": 1}


class Count(TorchDispatchMode):
    """Bytes that arrive from other ranks, operations in matrix products, most bytes of tensors alive at once."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__()
        self.rank, self.world = rank, world
        self.gathered = self.scattered = self.reduced = self.flop = self.peak = self._held = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation."""
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.namespace == "c10d":
            self._message(name, args)
        elif name in PRODUCTS:
            left, right = args[PRODUCTS[name] : PRODUCTS[name] + 2]
            self.flop += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        for tensor in _tensors(out):
            self._hold(tensor.untyped_storage())
        return out

    def _message(self, name: str, args: Any) -> None:
        """The result of a collective without what was on this rank before."""
        whole = sum(t.nbytes for t in _tensors(args[0]))
        if "allgather" in name:
            self.gathered += whole - whole // self.world
        elif name == "alltoall_base_":
            self.scattered += whole - (args[3][self.rank] * args[0][0].nbytes if whole else 0)
        elif name == "scatter_":  # how torch.distributed.nn makes an all-to-all on gloo
            self.scattered += whole if args[3] != self.rank else 0
        elif name == "allreduce_":
            self.reduced += whole
        else:
            raise AssertionError(f"expected a collective that is counted, got {name}; count it")

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self._held += size
        self.peak = max(self.peak, self._held)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._held -= size


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def step(way: str, height: int) -> Callable[..., torch.Tensor]:
    """A loss of rows, other rows and labels."""
    engine, group = Strips(height), Ranks()
    one, two = nf.SupConLoss(temperature=0.2), nf.InfoNCELoss(temperature=0.2)
    if way == "open_clip":
        package = importlib.util.find_spec("open_clip")
        spec = importlib.util.spec_from_file_location("open_clip_loss", Path(package.origin).parent / "loss.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        rank, world = distributed.get_rank(), distributed.get_world_size()
        clip = module.ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)
        return lambda x, r, y: clip(x, r, torch.tensor(5.0))
    return {
        "self": lambda x, r, y: one(x, y, engine=engine, group=group),
        "references": lambda x, r, y: one(x, y, references=r, reference_labels=y, engine=engine, group=group),
        "both": lambda x, r, y: two.aligned(x, r, engine=engine, group=group),
    }[way]


def counted(case: dict[str, Any]) -> dict[str, int]:
    """What one step of this rank counts."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    generator = torch.Generator().manual_seed(rank)
    shape = (case["counts"][rank], case["features"])
    x, r = (torch.randn(shape, generator=generator).to(getattr(torch, case["dtype"])) for _ in range(2))
    y = torch.arange(shape[0]) // 2
    x.requires_grad_()
    r.requires_grad_()
    with Count(rank, world) as count:
        step(case["way"], case["height"])(x, r, y).backward()
    names = ("gathered", "scattered", "reduced", "flop", "peak")
    return {name: getattr(count, name) for name in names}


def main() -> None:
    """Count every case of the argument, a list in JSON; rank 0 writes each rank's counts to the file named first."""
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    own = [counted(case) for case in json.loads(sys.argv[2])]
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, own)
    if os.environ["RANK"] == "0":
        Path(sys.argv[1]).write_text(json.dumps([list(case) for case in zip(*everyone, strict=True)]))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
