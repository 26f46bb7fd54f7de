"""Eight class-disjoint folds of the AT&T faces: every person is once among the five that nothing has seen.

The last fold is the split of Chopra, Hadsell and LeCun (2005). Each fold is written when it is done, so an
interruption costs one fold at most, and the same call goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nearfar._errors import UsageError
from nearfar.app.baselines import Eigenfaces, fit_classes, raw_pixels
from nearfar.app.data import Dataset
from nearfar.app.faces import PATTERN, scan_faces
from nearfar.app.files import read_json, shown, write_json
from nearfar.app.fold_table import TITLES, words
from nearfar.app.pictures import read_pictures
from nearfar.app.presets import Preset, preset
from nearfar.app.progress import Reporter
from nearfar.app.runs import RunConfig
from nearfar.app.scoring import Judged
from nearfar.app.split import folds
from nearfar.app.tables import write
from nearfar.metrics import fnmr_at_fmr, mean_sd, paired_difference_interval

TRAINED = ("default", "supcon", "contrastive", "softmax")
PLAIN = ("eigenfaces", "pixels")
RATES = ("0.05", "0.01")
_FOLDS = 8
_EVERY = 5  # one in so many training people chooses the eigenfaces' setting


def run_folds(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
    steps: int | None = None,
    trained: Sequence[str] = TRAINED,
) -> dict[str, Any]:
    """Train and judge every method in eight folds; write `eval/folds.json` in the folder `<out>-folds`.

    Args:
        out: the folder is named after it.
        seed: of weights, batches and augmentation.
        overwrite: begin again where folds of other settings lie there.
        progress: tell about it on standard error.
        steps: optimiser steps, where they differ from the presets'.
        trained: presets to train.

    Returns:
        The folds and their summary, as in the file.

    Raises:
        DataError: the package that carries the faces is not installed.
        UsageError: folds of other settings lie there and may not be overwritten.
    """
    folder = Path(out).with_name(f"{Path(out).name}-folds")
    data = scan_faces()
    presets = {name: preset(name, mode="L", steps=steps) for name in trained}
    settings = {
        "seed": seed,
        "fingerprint": data.fingerprint,
        "presets": {k: p.to_dict() for k, p in presets.items()},
    }
    path = folder / "eval" / "folds.json"
    done = _earlier(path, settings, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    groups = folds(data.classes, _FOLDS)
    with Reporter(progress) as report:
        report.say(f"{_FOLDS} folds of {len(groups[0])} people, {len(presets)} trainings each; results in {path}")
        for number, people in enumerate(groups, start=1):
            if number <= len(done):
                continue
            work = folder / "work" / f"fold-{number}"
            methods = _fold(work, data, people, presets, seed, report)
            done.append({"fold": number, "people": list(people), "methods": methods})
            write_json(path, {**settings, "folds": done, "summary": summary(done)})
            shutil.rmtree(work, ignore_errors=True)
            report.say(f"fold {number} of {_FOLDS}: " + _line(methods))
    shutil.rmtree(folder / "work", ignore_errors=True)
    result = {**settings, "folds": done, "summary": summary(done)}
    write(words(result))
    return result


def summary(done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and sd over folds, the last fold beside, and paired differences between methods.

    Args:
        done: folds, each with `methods` → {"0.05": FNMR, "0.01": FNMR}.

    Returns:
        `methods` and, from two folds on, `differences`; intervals are Student's t over folds.

    Example:
        >>> from nearfar.app.folds import summary
        >>> fold = {"default": {"0.05": 0.1, "0.01": 0.2}, "pixels": {"0.05": 0.3, "0.01": 0.4}}
        >>> summary([{"methods": fold}])["methods"]["pixels"]["0.05"]["mean"]
        0.3
    """
    names = [name for name in (*TITLES, *done[0]["methods"]) if name in done[0]["methods"]]
    names = list(dict.fromkeys(names))
    values = {n: {r: [fold["methods"][n][r] for fold in done] for r in RATES} for n in names}
    methods: dict[str, Any] = {}
    for name in names:
        methods[name] = {}
        for rate in RATES:
            mean, sd = mean_sd(values[name][rate])
            spread = sd if len(done) > 1 else None
            methods[name][rate] = {
                "mean": mean,
                "sd": spread,
                "n": len(done),
                "unit": "folds",
                "last": values[name][rate][-1],
            }
    differences = []
    for name in names if len(done) > 1 else ():
        for other in ("pixels", "eigenfaces", "softmax"):
            if name not in PLAIN and name != other and other in values:
                for rate in RATES:
                    found = paired_difference_interval(values[name][rate], values[other][rate])
                    differences.append({"method": name, "other": other, "fmr": rate, **found.as_dict()})
    return {"methods": methods, "differences": differences}


def _earlier(path: Path, settings: Mapping[str, Any], overwrite: bool) -> list[dict[str, Any]]:
    """The folds that are done already with the same settings."""
    if not path.is_file():
        return []
    record = read_json(path)
    if all(record.get(key) == value for key, value in settings.items()):
        return list(record["folds"]) if not overwrite else []
    if overwrite:
        shutil.rmtree(path.parent.parent / "work", ignore_errors=True)
        return []
    raise UsageError(
        f"expected folds of the same settings in {shown(path)}, got others; "
        "replace them with overwrite, or name another folder"
    )


def _fold(
    work: Path,
    data: Dataset,
    people: Sequence[str],
    presets: Mapping[str, Preset],
    seed: int,
    report: Reporter,
) -> dict[str, dict[str, float]]:
    """All methods on five people; none of what is trained or fitted has seen them."""
    known = [name for name in data.classes if name not in people]
    items = data.of(people)
    labels = np.array([item.label for item in items], dtype=np.int64)
    threads = torch.get_num_threads()
    found: dict[str, dict[str, float]] = {}
    for name, chosen in presets.items():
        config = RunConfig(data.root, data.fingerprint, chosen, seed, 0.05, threads, PATTERN)
        model = fit_classes(work / name, config, data, known, report)
        found[name] = _rates(model.embed([data.root / item.path for item in items]), labels)
    size = next(iter(presets.values()), preset("default")).size
    pictures = _read(data, people, size)
    choosers = known[_EVERY - 1 :: _EVERY]
    fitted = Eigenfaces(_read(data, [name for name in known if name not in choosers], size))
    chooser_labels = np.array([item.label for item in data.of(choosers)], dtype=np.int64)
    share, whiten = fitted.choose(_read(data, choosers, size), chooser_labels)
    faces = Eigenfaces(_read(data, known, size)).project(pictures, share, whiten)
    found["eigenfaces"] = _rates(faces, labels)
    found["pixels"] = _rates(raw_pixels(pictures), labels)
    return found


def _read(data: Dataset, classes: Sequence[str], size: tuple[int, int]) -> torch.Tensor:
    return read_pictures([data.root / item.path for item in data.of(classes)], size, "L")


def _rates(embeddings: Any, labels: Any) -> dict[str, float]:
    pairs = Judged("", "", embeddings, labels).pairs
    return {rate: fnmr_at_fmr(pairs.genuine, pairs.impostor, float(rate))[0] for rate in RATES}


def _line(methods: Mapping[str, Mapping[str, float]]) -> str:
    return "  ".join(f"{name} {100 * rates['0.05']:.1f} %" for name, rates in methods.items())
