"""What a step of a loss really moves, multiplies and holds on each rank: ``python -m benchmarks.scaling_ranks``.

Real processes, started by torchrun over gloo on this computer, with small batches; everything is counted where PyTorch
dispatches it, below this library and any other. Beside the model of :mod:`benchmarks.scaling` it goes to
``benchmarks/results/scaling.json``; ``python -m benchmarks.readme`` fills the tables in.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.utils._python_dispatch import TorchDispatchMode

import nearfar as nf
from benchmarks.scaling import BYTES, FORMS, Cost, blocks, dense_cost, schemes, step_cost, steps
from nearfar.engine import Strips
from nearfar.torch import Ranks

ROOT = Path(__file__).parents[1]
PRODUCTS = {"mm": 0, "addmm": 1, "addmm_": 1}
SPLITS = {
    1: [[256]],
    2: [[128, 128], [160, 96], [256, 0]],
    3: [[96, 96, 96], [120, 144, 24]],
    4: [[64] * 4, [96, 24, 120, 16]],
}


class Count(TorchDispatchMode):
    """Bytes that arrive from other ranks, operations in matrix products, most bytes of tensors alive at once."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__()
        self.rank, self.world = rank, world
        self.rows = self.gradient = self.small = self.reduced = self.flop = self.memory = 0
        self._alive: dict[int, int] = {}

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
            # Rows are the matrices; labels and numbers are not.
            kind = "rows" if next(_tensors(args[0])).ndim == 2 else "small"
            setattr(self, kind, getattr(self, kind) + whole - whole // self.world)
        elif name == "alltoall_base_":
            self.gradient += whole - (args[3][self.rank] * args[0][0].nbytes if whole else 0)
        elif name == "scatter_":  # how torch.distributed.nn makes an all-to-all on gloo
            self.gradient += whole if args[3] != self.rank else 0
        elif name == "allreduce_":
            self.reduced += whole
        else:
            raise AssertionError(f"expected a collective that is counted, got {name}; count it")

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._alive:
            return
        self._alive[key] = storage.nbytes()
        weakref.finalize(storage, self._alive.pop, key, None)
        if self._held() > self.memory:
            time.sleep(2e-3)  # gloo's threads keep a message for a moment after it came
            self.memory = max(self.memory, self._held())

    def _held(self) -> int:
        return sum(list(self._alive.values()))


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


def counted_here(case: dict[str, Any]) -> dict[str, int]:
    """What one step of this rank counts."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    generator = torch.Generator().manual_seed(rank)
    shape = (case["counts"][rank], case["features"])
    x, r = (torch.randn(shape, generator=generator).to(getattr(torch, case["dtype"])) for _ in range(2))
    y = torch.arange(shape[0]) // 2
    x.requires_grad_()
    r.requires_grad_()
    call, counts = step(case["way"], case["height"]), []
    for _ in range(3):
        x.grad = r.grad = None
        with Count(rank, world) as count:
            call(x, r, y).backward()
        counts.append({name: getattr(count, name) for name in (*BYTES, "flop", "memory")})
    # Where a thread of gloo was late, more is alive than the step itself holds.
    least = min(c["memory"] for c in counts)
    first, *others = [c | {"memory": least} for c in counts]
    assert all(c == first for c in others), counts
    return first


def model(case: dict[str, Any], rank: int) -> dict[str, int]:
    """The same by the model."""
    if case["way"] == "open_clip":
        return _told(dense_cost(case["counts"], case["features"]))
    width = {"float32": 4, "bfloat16": 2, "float64": 8}[case["dtype"]]
    cost = step_cost(case["way"], case["counts"], case["features"], width, case["height"], rank=rank, gloo=True)
    return _told(cost)


def _told(cost: Cost) -> dict[str, int]:
    return {name: getattr(cost, name) for name in (*BYTES, "flop", "memory")}


def cases(world: int) -> list[dict[str, Any]]:
    """Even and uneven splits, an empty rank; narrow numbers; strips that outweigh the rows."""
    made = [
        {"way": way, "counts": counts, "features": 512, "dtype": dtype, "height": 16}
        for way in FORMS
        for counts in SPLITS[world]
        for dtype in ("float32", "bfloat16")
    ]
    even = {"counts": [1024 // world] * world, "features": 64, "dtype": "float32", "height": 512 // world}
    made += [{"way": way} | even for way in FORMS]
    if importlib.util.find_spec("open_clip") and world > 1:
        made.append({"way": "open_clip"} | even)
    return made


def launch(world: int, told: list[dict[str, Any]], seconds: float = 300) -> list[dict[str, Any]]:
    """Each case with what each rank counts, and the model of it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        command += ["--nproc-per-node", str(world), __file__, str(out), json.dumps(told)]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        try:
            errors = process.communicate(timeout=seconds)[1]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            raise RuntimeError(errors)
        counts = json.loads(out.read_text())
    return [
        {"case": case, "ranks": ranks, "model": [model(case, rank) for rank in range(world)]}
        for case, ranks in zip(told, counts, strict=True)
    ]


def main() -> None:
    """In a process of torchrun: count. Else: start them, compare, write."""
    if "RANK" in os.environ:
        _rank(Path(sys.argv[1]), json.loads(sys.argv[2]))
        return
    counted = [row for world in SPLITS for row in launch(world, cases(world))]
    record = {"steps": steps(), "schemes": schemes(), "counted": counted}
    (ROOT / "benchmarks" / "results" / "scaling.json").write_text(json.dumps(record, indent=1) + "\n")
    print(blocks(record)["scaling-counted"])


def _rank(out: Path, told: list[dict[str, Any]]) -> None:
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    own = [counted_here(case) for case in told]
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, own)
    if distributed.get_rank() == 0:
        out.write_text(json.dumps([list(case) for case in zip(*everyone, strict=True)]))
    # Together, and without what runs at an interpreter's end: gloo's threads have aborted there now and then.
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)


if __name__ == "__main__":
    main()
