"""The fused kernels beside other ways on one GPU: ``python -m benchmarks.gpu``. Never run on a GPU so far.

Two aligned batches in both directions (CLIP) beside torch's ``linear_cross_entropy`` called twice and the dense table;
labels (SupCon) beside the strips of this library and the dense table. Forward and backward, float32 without TF32,
medians in turns, as ratios to the fused kernels; losses and gradients are first compared with the dense ones. Up to
256 features, the most the kernels take.
``TRITON_INTERPRET=1 python -m benchmarks.gpu --device cpu --sizes 64`` tries the script itself; its times mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import array_api_compat.torch as xp
import torch
from torch.nn import functional

import nearfar as nf
from nearfar.engine import Strips
from nearfar.torch.fused import executor

TEMPERATURE = 0.1
Way = Callable[[], tuple[torch.Tensor, torch.Tensor]]


def fused(loss: nf.SupConLoss | nf.InfoNCELoss, x: torch.Tensor, y: torch.Tensor | None, relation: object) -> Way:
    bound = relation.bind(xp, x, y)
    left = nf.Dot().prepare(xp, x, None)
    sides = (left, left if y is None else nf.Dot().prepare(xp, y, None))

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        made = executor(loss, 1 / TEMPERATURE, bound, sides, by_class=isinstance(loss, nf.SupConLoss))
        ran = made.run(True, None)
        return ran.losses.mean(), ran.left / len(x)

    return run


def backward(value: Callable[..., torch.Tensor], *given: torch.Tensor) -> Way:
    def run() -> tuple[torch.Tensor, torch.Tensor]:
        leaves = [g.detach().requires_grad_() for g in given]
        loss = value(*leaves)
        return loss.detach(), torch.autograd.grad(loss, leaves)[0]

    return run


def clip(x: torch.Tensor, y: torch.Tensor) -> dict[str, Way]:
    target = torch.arange(len(x), device=x.device)

    def dense(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        s = a @ b.T / TEMPERATURE
        return (functional.cross_entropy(s, target) + functional.cross_entropy(s.T, target)) / 2

    def linear(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        options = torch.nn.LinearCrossEntropyOptions()
        there = functional.linear_cross_entropy(a / TEMPERATURE, b, target, options=options)
        return (there + functional.linear_cross_entropy(b / TEMPERATURE, a, target, options=options)) / 2

    ours = fused(nf.InfoNCELoss(TEMPERATURE), x, y, nf.Aligned())
    return {"fused": ours, "linear_cross_entropy": backward(linear, x, y), "dense": backward(dense, x, y)}


def supcon(x: torch.Tensor, labels: torch.Tensor) -> dict[str, Way]:
    loss = nf.SupConLoss(TEMPERATURE, measure=nf.Dot())
    strips = Strips(max(1, 2**24 // len(x)))

    def dense(a: torch.Tensor) -> torch.Tensor:
        alone = torch.eye(len(a), dtype=torch.bool, device=a.device)
        logs = torch.log_softmax((a @ a.T / TEMPERATURE).masked_fill(alone, -torch.inf), 1).masked_fill(alone, 0.0)
        positive = (labels[:, None] == labels) & ~alone
        return -((logs * positive).sum(1) / positive.sum(1)).mean()

    ours = backward(lambda a: loss(a, labels, engine=strips), x)
    return {"fused": fused(loss, x, None, nf.Labels(labels)), "strips": ours, "dense": backward(dense, x)}


def seconds(way: Way, device: str) -> float:
    for timed in (False, True):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        way()
        if device == "cuda":
            torch.cuda.synchronize()
        if timed:
            return time.perf_counter() - start
    raise AssertionError


def main() -> None:
    """Compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 16384, 32768])
    parser.add_argument("--features", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    print(torch.cuda.get_device_name() if options.device == "cuda" else options.device, torch.__version__)
    for n in options.sizes:
        for d in options.features:
            torch.manual_seed(n + d)
            x, y = (functional.normalize(torch.randn(n, d, device=options.device), dim=1) for _ in range(2))
            labels = torch.arange(n, device=options.device) // 8
            for case, ways in (("CLIP", clip(x, y)), ("SupCon", supcon(x, labels))):
                values = {name: way() for name, way in ways.items()}
                scale = float(values["dense"][1].abs().max())
                for value, gradient in values.values():
                    torch.testing.assert_close(value, values["dense"][0], rtol=1e-5, atol=1e-5)
                    torch.testing.assert_close(gradient, values["dense"][1], rtol=0, atol=1e-4 * scale)
                turns = [
                    {name: seconds(way, options.device) for name, way in ways.items()} for _ in range(options.rounds)
                ]
                medians = {name: statistics.median(turn[name] for turn in turns) for name in ways}
                others = ", ".join(f"{k} {v / medians['fused']:.2f}×" for k, v in medians.items() if k != "fused")
                print(f"{case:7} N {n:6} D {d:4}  fused {1e3 * medians['fused']:9.3f} ms;  {others}", flush=True)


if __name__ == "__main__":
    main()
