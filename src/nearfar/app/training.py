"""Training from a folder to a finished run, and going on with one that was cut off.

A run is a list of phases; each can be done again, and what is done is on disk: settings, split, the steps of
the training (checkpoints), model, calibration, evaluation. ``resume`` walks the same list.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nearfar._errors import ArtefactError, UsageError
from nearfar.app.calibration import CALIBRATION, calibrate, enrol, save_calibration
from nearfar.app.data import Dataset, scan
from nearfar.app.encoder import ConvEncoder
from nearfar.app.files import write_json
from nearfar.app.loop import TrainingSet, fit
from nearfar.app.model import MODEL, Model, save_model
from nearfar.app.pictures import mode_of, read_pictures
from nearfar.app.presets import Preset, with_steps
from nearfar.app.progress import Reporter
from nearfar.app.runs import (
    FINISHED,
    RunConfig,
    check_free,
    clear_leftovers,
    environment,
    locked,
    read_config,
    write_config,
)
from nearfar.app.split import Split, load_split, save_split, split_classes

_SPLIT = "split.json"
_ENVIRONMENT = "environment.json"


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    preset: str | Preset = "default",
    steps: int | None = None,
    seed: int = 0,
    fmr: float = 0.01,
    overwrite: bool = False,
    progress: bool = True,
    pattern: str = "*",
) -> Path:
    """Learn an embedding from a folder of pictures with one sub-folder for each class.

    Args:
        data: The folder.
        out: Where the run is written; missing or empty, or a run to be overwritten.
        preset: Name of a preset, or settings.
        steps: Optimiser steps, where they differ from the preset's.
        seed: Of the split, the first weights, the batches and the augmentation.
        fmr: False-match rate that the threshold aims at.
        overwrite: Replace an earlier run at ``out``.
        progress: Tell about it on standard error.
        pattern: Names of the files that count, such as ``"*.png"``.

    Returns:
        The run folder, complete.

    Raises:
        UsageError: An argument or the output folder cannot be used.
        DataError: The data cannot be trained on; names each path and reason.
        DivergenceError: The training left the finite numbers; its last checkpoint is intact.
        KeyboardInterrupt: Stopped by SIGINT; `resume` goes on.
    """
    run, settings = Path(out), with_steps(preset, steps)
    _check_arguments(seed, fmr)
    check_free(run, overwrite)
    with Reporter(progress) as report:
        dataset = _scan(Path(data), pattern, report)
        split = split_classes(dataset, seed)
        if settings.mode == "auto":
            settings = replace(settings, mode=mode_of([dataset.root / item.path for item in dataset.items]))
        config = RunConfig(
            data=Path(data).resolve(),
            fingerprint=dataset.fingerprint,
            preset=settings,
            seed=seed,
            fmr=fmr,
            threads=torch.get_num_threads(),
            pattern=pattern,
        )
        _make(run)
        with locked(run):
            check_free(run, overwrite)
            write_config(run, config)
            _carry_out(run, config, dataset, split, report)
    return run


def resume(run: str | os.PathLike[str], *, progress: bool = True) -> Path:
    """Go on with a run that was cut off, to the same bits as if it had not been.

    Args:
        run: The run folder.
        progress: Tell about it on standard error.

    Returns:
        The run folder, complete.

    Raises:
        UsageError: The folder is not a run, or another process is training it.
        DataError: The data can no longer be read.
        ArtefactError: The settings or the data have changed since.
        DivergenceError: The training left the finite numbers; its last checkpoint is intact.
        KeyboardInterrupt: Stopped by SIGINT; `resume` goes on.
    """
    folder = Path(run)
    config = read_config(folder)
    with Reporter(progress) as report, locked(folder):
        if (folder / FINISHED).exists():
            report.say(f"{folder} is finished: nothing is left to do")
            return folder
        clear_leftovers(folder)
        dataset = _scan(config.data, config.pattern, report)
        if dataset.fingerprint != config.fingerprint:
            raise ArtefactError(
                f"expected the data that {folder} began with in {config.data}, got data that have changed; "
                "restore the files, or train again"
            )
        _carry_out(folder, config, dataset, split_classes(dataset, config.seed), report)
    return folder


def _carry_out(run: Path, config: RunConfig, dataset: Dataset, split: Split, report: Reporter) -> None:
    """All phases, from wherever the run stands."""
    if (run / _SPLIT).exists():
        split = load_split(run / _SPLIT, config.fingerprint)
    else:
        save_split(run / _SPLIT, split, config.fingerprint)
    if not (run / _ENVIRONMENT).exists():
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        write_json(run / _ENVIRONMENT, environment(device, config.threads))
    encoder = fit(run, config, _training_set(dataset, split, config.preset), report)
    _finish(run, config, dataset, split, encoder, report)


def _finish(
    run: Path, config: RunConfig, dataset: Dataset, split: Split, encoder: ConvEncoder, report: Reporter
) -> None:
    """Enrol all classes, save the model, calibrate it on the validation classes, evaluate, and say so."""
    from nearfar.app.evaluation import evaluate_run

    report.say("embedding all classes and calibrating")
    model = Model(encoder, config.preset.mode)
    labels = np.array([item.label for item in dataset.items])
    embeddings = model.embed([dataset.root / item.path for item in dataset.items])
    model = replace(model, classes=dataset.classes, references=enrol(embeddings, labels, len(dataset.classes)))
    save_model(run / MODEL, model)
    # Test classes are enrolled for the user, but no threshold looks at them.
    opened = np.array(sorted(dataset.classes.index(name) for name in (*split.train, *split.val)))
    held_out = np.isin(labels, [dataset.classes.index(name) for name in split.val])
    places = np.searchsorted(opened, labels[held_out])
    references = _known(model)[opened]
    calibration = calibrate(model.fingerprint, embeddings[held_out], places, references, config.fmr, config.seed)
    save_calibration(run / CALIBRATION, calibration)
    report.say(calibration.words)
    report.say("evaluating on the test classes")
    evaluate_run(run)
    write_json(run / FINISHED, {"steps": config.preset.steps, "model": model.fingerprint})


def _known(model: Model) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    if model.references is None:
        raise ArtefactError("expected enrolled classes, got none; report this")
    return model.references


def _training_set(dataset: Dataset, split: Split, settings: Preset) -> TrainingSet:
    """The training classes' pictures, their classes numbered from 0."""
    items = dataset.of(split.train)
    number = {label: i for i, label in enumerate(sorted({item.label for item in items}))}
    paths: Sequence[Path] = [dataset.root / item.path for item in items]
    return TrainingSet(
        pictures=read_pictures(paths, settings.size, settings.mode),
        labels=torch.tensor([number[item.label] for item in items]),
        paths=[item.path for item in items],
    )


def _scan(data: Path, pattern: str, report: Reporter) -> Dataset:
    """Read the data; problems that do not stop the training are told."""
    dataset = scan(data, pattern)
    dataset.require_trainable()
    for problem in dataset.problems:
        report.say(str(problem))
    report.say(f"{len(dataset.items)} pictures of {len(dataset.classes)} classes in {data}")
    return dataset


def _check_arguments(seed: int, fmr: float) -> None:
    if seed < 0:
        raise UsageError(f"expected a seed of at least 0, got {seed}; use another number")
    if not 0 < fmr < 1:
        raise UsageError(f"expected a false-match rate between 0 and 1, got {fmr}; write 1 % as 0.01")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"expected to make the folder {folder}, got {error.strerror}; name another place") from error
