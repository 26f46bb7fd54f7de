"""The honest evaluation of a run: on classes never seen, beside baselines, every number with its interval.

The test classes of a run are opened once: `eval/test.json` says when, and for which model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nearfar._errors import DataError
from nearfar.app import scoring
from nearfar.app.baselines import CROSS_ENTROPY, Eigenfaces, raw_pixels, untrained
from nearfar.app.data import Dataset, Item, scan
from nearfar.app.files import read_json, shown, write_json
from nearfar.app.leaks import leaks, overlap, parts
from nearfar.app.model import MODEL, Model, load
from nearfar.app.pictures import read_pictures
from nearfar.app.reliability import PRIOR, reliability
from nearfar.app.report import write_report
from nearfar.app.runs import RunConfig, read_config
from nearfar.app.scoring import Judged
from nearfar.app.split import Split, load_split

MOST_ITEMS = 2000
"""More pictures than this are sampled, so that all pairs of them can be compared."""
HEADLINE = 0.05


@dataclass(frozen=True)
class Subject:
    """What is judged: some items of a dataset, and in words how their pairs came about."""

    data: Dataset
    items: tuple[Item, ...]
    drawn: str

    @property
    def paths(self) -> list[str]:
        """Paths below the root."""
        return [item.path for item in self.items]

    @property
    def labels(self) -> scoring.Labels:
        """The class of each item, a position in `data.classes`."""
        return np.array([item.label for item in self.items], dtype=np.int64)

    def pictures(self, model: Model) -> torch.Tensor:
        """The items as the model sees them."""
        return _read(self.data, self.items, model)


def evaluate_run(run: str | Path, about: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Judge a trained run on its test classes; write `eval/test.json` and `report.html`.

    A second call for the same model computes nothing anew, unless the cross-entropy baseline has been trained
    since; the time at which the test classes were opened stays the first.

    Args:
        run: the run folder.
        about: `title`, `question` and `credit` for the report, where the usual ones do not do.

    Returns:
        The evaluation, as in `eval/test.json`.

    Raises:
        DataError: where the test classes cannot be judged.
        ArtefactError: where the run is damaged or its data have changed.
    """
    run = Path(run)
    config, model = read_config(run), load(run)
    path = run / "eval" / "test.json"
    earlier: dict[str, Any] = read_json(path) if path.is_file() else {}
    if earlier.get("model") != model.fingerprint:
        earlier = {}
    rivals = [m["key"] for m in earlier.get("methods", ())]
    if earlier and ("softmax" in rivals or not (run / CROSS_ENTROPY / MODEL).is_dir()):
        write_report(run)
        return earlier
    data = scan(config.data, config.pattern)
    split = load_split(run / "split.json", data.fingerprint)
    opened = earlier.get("opened") or datetime.now(UTC).isoformat(timespec="seconds")
    subject = _subject(data, data.of(split.test), config.seed)
    judged = [_model(model, subject, config), *_baselines(run, config, split, subject, model)]
    result = _evaluation(judged, subject, model)
    result |= {"name": "test", "opened": opened, "split": parts(data, split), **(about or {})}
    result["leak_check"] = leaks(data, split)
    path.parent.mkdir(exist_ok=True)
    write_json(path, result)
    write_report(run)
    return result


def evaluate(run: str | Path, data: str | Path | Dataset, name: str | None = None) -> dict[str, Any]:
    """Judge a run on other data; write `eval/<name>.json`.

    Args:
        run: the run folder.
        data: a folder with one sub-folder per class, or what `scan` found in one.
        name: of the evaluation; by default the folder's name.

    Returns:
        The evaluation.

    Raises:
        DataError: where the data hold fewer than two usable classes.
        ArtefactError: where the run is damaged.
    """
    run = Path(run)
    config, model = read_config(run), load(run)
    dataset = data if isinstance(data, Dataset) else scan(data)
    name = name or dataset.root.resolve().name or "data"
    subject = _subject(dataset, dataset.items, config.seed)
    pixels = Judged("pixels", "raw pixels", raw_pixels(subject.pictures(model)), subject.labels)
    result = _evaluation([_model(model, subject, config), pixels], subject, model)
    result |= {"name": name, "opened": None, "split": None, "leak_check": overlap(run, config, dataset)}
    path = run / "eval" / f"{_file_name(name)}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, result)
    return result


def _subject(data: Dataset, items: tuple[Item, ...], seed: int) -> Subject:
    """Take all items, or evenly over the classes as many as can be compared pair by pair."""
    labels = np.array([item.label for item in items], dtype=np.int64)
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"expected at least two classes of two or more pictures in {shown(data.root)}, "
            f"got {len(np.unique(labels))}; add classes (one sub-folder each)"
        )
    if len(items) <= MOST_ITEMS:
        return Subject(data, items, "all pairs")
    order = np.random.default_rng(seed).permutation(len(items))
    turn = np.zeros(len(items), dtype=np.int64)  # the how-manieth of its class an item is
    for label in np.unique(labels):
        members = order[labels[order] == label]
        turn[members] = np.arange(len(members))
    chosen = np.sort(order[np.argsort(turn[order], kind="stable")][:MOST_ITEMS])
    words = f"all pairs of {MOST_ITEMS:,} pictures, drawn from {len(items):,} evenly over the classes"
    return Subject(data, tuple(items[i] for i in chosen), words)


def _read(data: Dataset, items: Iterable[Item], model: Model) -> torch.Tensor:
    paths = [data.root / item.path for item in items]
    return read_pictures(paths, model.encoder.config.size, model.mode)


def _model(model: Model, subject: Subject, config: RunConfig) -> Judged:
    embeddings = model.embed([subject.data.root / path for path in subject.paths])
    return Judged("model", f"nearfar ({config.preset.name})", embeddings, subject.labels)


def _baselines(run: Path, config: RunConfig, split: Split, subject: Subject, model: Model) -> list[Judged]:
    """The same pictures seen by everything that the model should beat."""
    data, pictures, labels = subject.data, subject.pictures(model), subject.labels
    validation = data.of(split.val)
    known = np.array([item.label for item in validation], dtype=np.int64)
    faces = Eigenfaces(_read(data, data.of(split.train), model))
    share, whiten = faces.choose(_read(data, validation, model), known)
    title = f"eigenfaces (PCA{', whitened' if whiten else ''})"
    found = []
    if (run / CROSS_ENTROPY / MODEL).is_dir():
        rival = load(run / CROSS_ENTROPY)
        embeddings = rival.embed([data.root / path for path in subject.paths])
        found.append(Judged("softmax", "cross-entropy features", embeddings, labels))
    return [
        *found,
        Judged("eigenfaces", title, faces.project(pictures, share, whiten), labels),
        Judged("pixels", "raw pixels", raw_pixels(pictures), labels),
        Judged("untrained", "untrained network", untrained(pictures, model.encoder.config, config.seed), labels),
    ]


def _evaluation(judged: list[Judged], subject: Subject, model: Model) -> dict[str, Any]:
    """Everything that is said about the first method, and the numbers of all."""
    first, names, paths = judged[0], subject.data.classes, subject.paths
    cut = model.calibration.verify.value if model.calibration else scoring.cut_at(first.pairs, 0.01)
    differences = [
        {"key": m.key, "title": m.title, "fmr": f"{HEADLINE:g}", **first.difference(m, HEADLINE).as_dict()}
        for m in judged[1:]
    ]
    return {
        "format": 1,
        "title": f"{subject.data.root.resolve().name}: same or different?",
        "model": model.fingerprint,
        "data": _counts(first, subject),
        "methods": [m.numbers() for m in judged],
        "differences": differences,
        "per_class": scoring.per_class(first, names, cut),
        "mistakes": _with_probability(scoring.worst(first, paths, names), model),
        "histogram": scoring.histogram(first.pairs),
        "map": scoring.flat_map(first, paths, names),
        "threshold": _threshold(first, model),
        "calibration": reliability(first.pairs, model.calibration.probability) if model.calibration else None,
        "limits": _limits(first),
    }


def _counts(first: Judged, subject: Subject) -> dict[str, Any]:
    return {
        "root": str(subject.data.root.resolve()),
        "fingerprint": subject.data.fingerprint,
        "classes": first.pairs.unit_count,
        "items": len(subject.items),
        "same_pairs": len(first.pairs.genuine),
        "different_pairs": len(first.pairs.impostor),
        "drawn": subject.drawn,
        "queries_left_out": int(np.isnan(first.ranks["map_at_r"]).sum()),
    }


def _threshold(first: Judged, model: Model) -> dict[str, Any] | None:
    """The calibrated threshold: what it promises, and what came out here."""
    if model.calibration is None:
        return None
    promise = model.calibration.verify
    sentence = f"{promise.reason[:1].upper()}{promise.reason[1:]}."
    if promise.certified:
        sentence = (
            f"Of 1,000 different pairs expect at most {1000 * promise.fmr_target:g} accepted, with 95 % "
            f"confidence, from {promise.classes} classes that training did not see."
        )
    return {**asdict(promise), "sentence": sentence, **scoring.realised(first, promise.value)}


def _with_probability(mistakes: dict[str, Any], model: Model) -> dict[str, Any]:
    """The probability of "same", at even odds, that the model gave to each pair."""
    if model.calibration is not None:
        for pair in (*mistakes["different"], *mistakes["same"]):
            chance = model.calibration.probability.probability(pair["similarity"], prior=PRIOR)
            pair["probability"] = float(chance)
    return mistakes


def _limits(first: Judged) -> list[str]:
    """What this particular evaluation cannot carry, in words."""
    few = [r for r in scoring.RATES[:2] if len(first.pairs.impostor) * r < scoring.ENOUGH]
    return [
        f"FMR {100 * r:g} % is fewer than {scoring.ENOUGH} of {len(first.pairs.impostor):,} different pairs."
        for r in few
    ]


def _file_name(name: str) -> str:
    """A name for a file that is never that of the run's own evaluation."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "data"
    return f"{plain}-data" if plain == "test" else plain
