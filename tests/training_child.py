"""Trainings in processes of their own, to be interrupted; and the small data they learn from."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import types
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from PIL import Image

from nearfar.app.presets import Preset, preset

STEPS = 18


def tiny(**changes: object) -> Preset:
    """Settings of a training that takes a fraction of a second."""
    small = {"steps": STEPS, "widths": [4, 8], "dim": 6, "size": [20, 16], "P": 3, "K": 3}
    return preset("default", **{**small, "report_every": 3, "checkpoint_every": 4, **changes})


def write_stripes(root: Path, classes: int = 6, items: int = 6, colour: bool = False) -> Path:
    """Striped pictures: the direction and distance of the stripes make the class."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:20, :16]
    for c in range(classes):
        (root / f"c{c}").mkdir(parents=True)
        for i in range(items):
            wave = np.sin((x * np.cos(c) + y * np.sin(c)) * (0.4 + 0.15 * c) + rng.uniform(0, 1))
            grey = (128 + 80 * wave + rng.normal(0, 12, wave.shape)).clip(0, 255).astype(np.uint8)
            pixels = np.stack([grey, grey // 2, 255 - grey], axis=-1) if colour else grey
            Image.fromarray(pixels).save(root / f"c{c}" / f"{i}.png")
    return root


def without_evaluation() -> types.ModuleType:
    """A stand-in for the evaluation, which has tests of its own and takes longer than these trainings."""
    module = types.ModuleType("nearfar.app.evaluation")
    module.evaluate_run = lambda run: (run / "report.html").write_text("judged")  # type: ignore[attr-defined]
    return module


def digest(run: Path) -> dict[str, str]:
    """SHA-256 of everything in a run that must not depend on interruptions."""
    names = (
        "model/weights.safetensors",
        "model/references.safetensors",
        "model/model.json",
        "metrics.jsonl",
        "calibration.json",
        f"checkpoints/step-{STEPS:08d}/tensors.safetensors",
    )
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names}


def start(data: Path, run: Path, die_at: int = 0, slow: float = 0.0) -> BaseProcess:
    """Begin a training, or resume it, in a process of its own; `die_at` counts writes until SIGKILL."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_child", "nearfar.app.training", "torch._dynamo"])
    process = context.Process(target=_work, args=(data, run, die_at, slow), daemon=True)
    process.start()
    return process


def _work(data: Path, run: Path, die_at: int, slow: float) -> None:
    import torch

    from nearfar.app import loop, training
    from nearfar.app.runs import is_run

    torch.set_num_threads(1)
    sys.modules["nearfar.app.evaluation"] = without_evaluation()
    if die_at:
        _die_at(die_at)
    if slow:
        _slow_down(loop, slow)
    if is_run(run):
        training.resume(run, progress=False)
    else:
        training.train(data, run, preset=tiny(), seed=5, fmr=0.05, progress=False)


def _die_at(count: int) -> None:
    """Kill this process just before its `count`-th fsync, rename or removal."""
    left = [count]

    def wrap(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, counted)

    for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"), (os, "rmdir"), (os, "unlink")):
        wrap(owner, name)


def _slow_down(loop: types.ModuleType, seconds: float) -> None:
    import time

    original = loop.batch_indices

    def slowly(*args: object) -> object:
        time.sleep(seconds)
        return original(*args)

    loop.batch_indices = slowly
