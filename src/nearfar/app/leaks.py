"""Whether what is judged has been seen before: classes or pictures that are in two parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nearfar._errors import ArtefactError
from nearfar.app.data import Dataset
from nearfar.app.runs import RunConfig
from nearfar.app.split import Split, load_split


def parts(data: Dataset, split: Split) -> dict[str, dict[str, int]]:
    """How many classes and pictures each part holds."""
    sides = (("train", split.train), ("validation", split.val), ("test", split.test))
    return {name: {"classes": len(c), "items": len(data.of(c))} for name, c in sides}


def leaks(data: Dataset, split: Split) -> dict[str, Any]:
    """Whether a class, or a picture under two names, is in two parts."""
    common = set(split.train) & set(split.val) | set(split.test) & (set(split.train) | set(split.val))
    doubles = sum(problem.fatal for problem in data.problems)
    passed = not common and not doubles
    text = "no class and no picture is in two parts."
    if not passed:
        text = f"{len(common)} classes and {doubles} pictures are in two parts: the numbers are too good."
    return {"passed": passed, "shared_classes": len(common), "shared_pictures": doubles, "text": text}


def overlap(run: Path, config: RunConfig, data: Dataset) -> dict[str, Any]:
    """Whether these data are, or seem to be, those the model was trained on."""
    known = set()
    try:
        split = load_split(run / "split.json", config.fingerprint)
        known = {*split.train, *split.val}
    except ArtefactError:
        return {"passed": False, "text": "the split of the run cannot be read, so nothing is known."}
    if data.fingerprint == config.fingerprint:
        text = "these are the data the model was trained on: the numbers are too good."
        return {"passed": False, "shared_classes": len(known), "text": text}
    common = sorted(known & set(data.classes))
    if common:
        text = f"{len(common)} class names occur in training too, such as {common[0]}: see that they are others."
        return {"passed": False, "shared_classes": len(common), "text": text}
    return {"passed": True, "shared_classes": 0, "text": "no class name of the training occurs here."}
