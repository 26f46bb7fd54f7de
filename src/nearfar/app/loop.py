"""The training loop.

Step k depends on the settings, the seed and the weights before it, and on nothing else: its batch, its
augmentation and its learning rate are functions of (seed, k). So a run that was cut off anywhere goes on from
a checkpoint to the same bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from nearfar._errors import ArtefactError, DivergenceError, UsageError
from nearfar.app import checkpoints
from nearfar.app.augment import augment, standardise
from nearfar.app.encoder import ConvEncoder, EncoderConfig
from nearfar.app.files import write_whole
from nearfar.app.health import collapse, health
from nearfar.app.interrupts import interruptible
from nearfar.app.presets import Preset, build_loss
from nearfar.app.progress import Reporter
from nearfar.app.runs import RunConfig
from nearfar.app.state import State, Trainee, deterministic
from nearfar.torch.batches import batch_indices

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainingSet:
    """The pictures to learn from, decoded.

    Args:
        pictures: uint8, shape (n, C, h, w).
        labels: Class of each, 0 … classes − 1, shape (n,).
        paths: Path of each, for messages.
    """

    pictures: torch.Tensor
    labels: torch.Tensor
    paths: Sequence[str]


class _Outcome(NamedTuple):
    """What a step found before it changed the weights."""

    loss: torch.Tensor
    gradient: torch.Tensor
    embeddings: torch.Tensor
    labels: torch.Tensor


def fit(run: Path | None, config: RunConfig, data: TrainingSet, report: Reporter) -> ConvEncoder:
    """Train to the last step, from the newest intact checkpoint if there is one.

    Args:
        run: The run folder; None keeps everything in memory.
        config: Its settings; the mode of the pictures is resolved.
        data: What to learn from.
        report: Who is told.

    Returns:
        The trained encoder, on the CPU.

    Raises:
        DivergenceError: A loss or gradient is not finite; the last checkpoint is intact.
        KeyboardInterrupt: SIGINT arrived; a checkpoint was written.
        SystemExit: SIGTERM or SIGHUP arrived; a checkpoint was written.
        ArtefactError: The checkpoint belongs to other settings.
    """
    settings = config.preset
    with deterministic(config.threads):
        accelerator = _accelerator()
        state = _initial(config, data, accelerator)
        start = 0 if run is None else _restore(run, config, state, accelerator, report)
        loss_of = build_loss(settings)
        report.start(start, settings.steps, "training")
        with interruptible() as stop:
            for step in range(start, settings.steps):
                found = _step(step, config, data, state, accelerator, loss_of)
                done, last = step + 1, step + 1 == settings.steps
                report.advance()
                if done % settings.report_every == 0 or last:
                    _record(run, done, found, settings, report)
                if run is not None and (done % settings.checkpoint_every == 0 or last or stop.requested):
                    _save(run, config, state, accelerator, done)
                if stop.requested:
                    report.stop()
                    report.say(f"stopped after step {done}; continue with: nearfar resume {run}")
                    stop.leave()
        report.stop()
        return state.encoder()


def _accelerator() -> Accelerator:
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
    if accelerator.num_processes > 1:
        raise UsageError(f"expected one process, got {accelerator.num_processes}; start train without a launcher")
    return accelerator


def _initial(config: RunConfig, data: TrainingSet, accelerator: Accelerator) -> State:
    """The state before the first step: weights drawn from the seed, without touching other randomness."""
    settings = config.preset
    channels = data.pictures.shape[1]
    classes = int(data.labels.max()) + 1 if settings.softmax_weight else 0
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        trainee = Trainee(EncoderConfig(channels, settings.size, settings.widths, settings.dim), classes)
    weights = list(trainee.parameters())
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate)
    trainee, optimiser = accelerator.prepare(trainee, optimiser)
    return State(trainee, optimiser, settings.average)


def _step(
    step: int, config: RunConfig, data: TrainingSet, state: State, accelerator: Accelerator, loss_of: Any
) -> _Outcome:
    """One step of the optimiser; nothing is changed where a number is not finite."""
    settings = config.preset
    _set_rate(state.optimiser, settings, step)
    chosen = batch_indices(data.labels.numpy(), settings.P, settings.K, config.seed, step)
    pictures = _views(data.pictures[chosen].to(accelerator.device), settings, config.seed, step)
    labels = data.labels[chosen].repeat(settings.views).to(accelerator.device)
    paths = [data.paths[i] for i in chosen] * settings.views
    embeddings = state.trainee(pictures)
    weights = state.trainee.class_weights
    loss = loss_of(embeddings, labels, **({} if weights is None else {"class_weights": weights}))
    _check_finite("loss", loss, step, embeddings, paths)
    state.optimiser.zero_grad()
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(state.trainee.parameters(), settings.clip)
    _check_finite("gradient", norm, step, embeddings, paths)
    state.optimiser.step()
    state.after_step(step)
    return _Outcome(loss.detach(), norm, embeddings.detach(), labels)


def _restore(run: Path, config: RunConfig, state: State, accelerator: Accelerator, report: Reporter) -> int:
    """Load the newest intact checkpoint; returns how many steps are done. Later traces are removed."""
    folder = run / CHECKPOINTS
    found = checkpoints.newest(folder, warn=report.say)
    done = 0
    if found is not None:
        if found.state.get("settings") != _settings(config):
            raise ArtefactError(
                f"expected a checkpoint of the settings in {run / 'config.yaml'}, got one of other settings; "
                "restore the file or train again"
            )
        if found.state.get("device") != accelerator.device.type:
            report.say(
                f"the run began on {found.state.get('device')} and goes on on {accelerator.device.type}: "
                "the result may differ in the last digits"
            )
        state.load(found.tensors)
        done = found.step
        report.say(f"continuing after step {done} of {config.preset.steps}")
    checkpoints.clear_after(folder, done)
    _cut_metrics(run / METRICS, done)
    return done


def _save(run: Path, config: RunConfig, state: State, accelerator: Accelerator, done: int) -> None:
    record = {"settings": _settings(config), "device": accelerator.device.type}
    checkpoints.save(run / CHECKPOINTS, checkpoints.Checkpoint(done, state.tensors(), record))


def _settings(config: RunConfig) -> dict[str, Any]:
    """What a checkpoint must agree with."""
    return {"preset": config.preset.to_dict(), "seed": config.seed, "fingerprint": config.fingerprint}


def _set_rate(optimiser: torch.optim.Optimizer, settings: Preset, step: int) -> None:
    """Linear warm-up, then half a cosine down to 0."""
    warm = max(1, round(settings.warmup * settings.steps))
    rise = (step + 1) / warm
    fall = (1 + math.cos(math.pi * max(0, step - warm) / max(1, settings.steps - warm))) / 2
    for group in optimiser.param_groups:
        group["lr"] = settings.learning_rate * min(rise, fall)


def _views(pictures: torch.Tensor, settings: Preset, seed: int, step: int) -> torch.Tensor:
    """The views of a batch, one after another; randomness from (seed, step) alone."""
    views = pictures.repeat(settings.views, 1, 1, 1).to(torch.float32) / 255
    if settings.augment:
        entropy = np.random.SeedSequence([seed, step, 1]).generate_state(1, np.uint64)[0]
        views = augment(views, torch.Generator().manual_seed(int(entropy) >> 1))
    return standardise(views)


def _check_finite(what: str, value: torch.Tensor, step: int, embeddings: torch.Tensor, paths: Sequence[str]) -> None:
    if bool(torch.isfinite(value)):
        return
    odd = (~torch.isfinite(embeddings).all(dim=1)).nonzero().flatten().tolist()
    named = ", ".join(dict.fromkeys(paths[i] for i in odd or range(3)))
    raise DivergenceError(
        f"expected a finite {what} in step {step + 1}, got {value.item()}; lower the learning rate or "
        f"raise the temperature (earlier checkpoints are intact; pictures involved: {named[:300]})"
    )


def _record(run: Path | None, done: int, found: _Outcome, settings: Preset, report: Reporter) -> None:
    """One line of health to metrics.jsonl and to the person; a warning where the network collapsed."""
    state = health(found.embeddings, found.labels)
    line = {"step": done, "loss": found.loss.item(), **state, "gradient": found.gradient.item()}
    if run is not None:
        with (run / METRICS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    report.say(
        f"step {done}/{settings.steps}  loss {line['loss']:.4f}  same {line['positive']:+.3f}  "
        f"different {line['negative']:+.3f}  active {line['active']:.0%}  rank {line['rank']:.1f}  "
        f"gradient {line['gradient']:.3g}"
    )
    classes = len(set(found.labels.tolist()))
    warning = collapse(state, classes) if done > settings.steps // 4 else None
    if warning is not None:
        report.say(f"warning: {warning}")


def _cut_metrics(path: Path, done: int) -> None:
    """Drop the lines of steps that will be done again, and a line that was not finished."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_whole(path, "".join(kept))
