"""What a folder of pictures can be used for, in numbers and in plain words: the answer of `nearfar check`."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

from nearfar.app.data import LEAST_CLASSES, Dataset
from nearfar.app.files import shown
from nearfar.app.split import side_sizes
from nearfar.metrics import CLASSES_FOR_FMR


def summary(dataset: Dataset) -> dict[str, Any]:
    """Count classes, pictures, sizes, pairs and problems, and say which false-match rate the data support.

    Args:
        dataset: what `scan` found.

    Returns:
        Plain data for JSON: `root`, `classes`, `pictures`, `per_class`, `sizes`, `pairs`, `split`,
        `false_match_rate`, `problems`, `trainable`, `fingerprint`.

    Example:
        >>> from pathlib import Path
        >>> from nearfar.app.data import Dataset, Item
        >>> from nearfar.app.summary import summary
        >>> items = tuple(Item(f"{name}/{i}", label) for label, name in enumerate("abcdef") for i in "12")
        >>> result = summary(Dataset(Path("letters"), tuple("abcdef"), items, (), ""))
        >>> result["pairs"], result["trainable"]
        ({'same': 6, 'different': 60}, True)
    """
    counts = dataset.counts
    fatal = sum(problem.fatal for problem in dataset.problems)
    return {
        "root": str(dataset.root),
        "classes": len(counts),
        "pictures": len(dataset.items),
        "per_class": {"min": min(counts), "median": median(counts), "max": max(counts)} if counts else None,
        "sizes": _sizes(dataset),
        "pairs": _pairs(counts),
        "split": _split(dataset),
        "false_match_rate": _false_match_rate(dataset),
        "problems": [{"path": p.path, "reason": p.reason, "fatal": p.fatal} for p in dataset.problems],
        "trainable": not fatal and len(counts) >= LEAST_CLASSES,
        "fingerprint": dataset.fingerprint,
    }


def lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Put a summary in words.

    Args:
        found: what `summary` returned.

    Returns:
        (name, value) for each row of a table; the problems are only counted.

    Example:
        >>> from pathlib import Path
        >>> from nearfar.app.data import Dataset
        >>> from nearfar.app.summary import lines, summary
        >>> lines(summary(Dataset(Path("letters"), (), (), (), "")))[1]
        ('usable', '0 pictures in 0 classes')
    """
    per_class, sizes, split = found["per_class"], found["sizes"], found["split"]
    fatal = sum(problem["fatal"] for problem in found["problems"])
    table = [
        ("folder", shown(found["root"])),
        ("usable", f"{found['pictures']} pictures in {found['classes']} classes"),
    ]
    if per_class and sizes:
        table += [
            ("per class", f"{per_class['min']} to {per_class['max']}, median {per_class['median']:g}"),
            ("sizes", _size_words(sizes)),
            ("pairs", f"{found['pairs']['same']:,} same, {found['pairs']['different']:,} different"),
        ]
    if split:
        table.append(("classes for", f"training {split['train']}, validation {split['val']}, test {split['test']}"))
        table.append(("promise", found["false_match_rate"]["words"]))
    table.append(("problems", f"{len(found['problems'])}" + (f", {fatal} fatal (marked !)" if fatal else "")))
    return table


def _size_words(sizes: dict[str, Any]) -> str:
    """Width × height of the pictures."""
    smallest, common, largest = (
        f"{sizes[key][1]} × {sizes[key][0]}" for key in ("smallest", "most_frequent", "largest")
    )
    if smallest == largest:
        return f"{common}, all alike"
    return f"{smallest} to {largest}, most often {common} ({sizes['share']:.0%})"


def _sizes(dataset: Dataset) -> dict[str, Any] | None:
    """Smallest, most frequent and largest picture as [height, width]."""
    sizes = Counter(item.size for item in dataset.items)
    if not sizes:
        return None
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    common, often = min(sizes.items(), key=lambda entry: (-entry[1], entry[0]))
    return {
        "smallest": list(by_area[0]),
        "most_frequent": list(common),
        "share": often / len(dataset.items),
        "largest": list(by_area[-1]),
    }


def _pairs(counts: tuple[int, ...]) -> dict[str, int]:
    """Unordered pairs of one class and of two."""
    total = sum(counts)
    same = sum(n * (n - 1) // 2 for n in counts)
    return {"same": same, "different": total * (total - 1) // 2 - same}


def _split(dataset: Dataset) -> dict[str, int] | None:
    """Classes on each side of the usual split."""
    if len(dataset.classes) < LEAST_CLASSES:
        return None
    return dict(zip(("train", "val", "test"), side_sizes(len(dataset.classes)), strict=True))


def _false_match_rate(dataset: Dataset) -> dict[str, Any]:
    """The smallest rate that the validation classes can certify, and what is missing to the next.

    Training calibrates on the validation classes. Pictures of one class are not independent trials, so
    classes count, not pairs.
    """
    classes = len(dataset.classes)
    held = _calibration_classes(classes)
    pairs = round(_pairs(dataset.counts)["different"] * (held / classes) ** 2) if held else 0
    certified = [rate for rate, least in CLASSES_FOR_FMR if held >= least]
    missing = [(rate, least) for rate, least in CLASSES_FOR_FMR if held < least]
    words = f"{held} classes and about {pairs:,} pairs of different classes stay for calibration. "
    words += (
        f"A false-match rate of {100 * min(certified):g} % can be promised."
        if certified
        else "No false-match rate can be promised: thresholds are estimates only."
    )
    if missing:
        rate, least = missing[0]
        needed = _classes_needed(least)
        words += f" {100 * rate:g} % needs {least} of them: about {needed - classes} more classes in all."
    return {
        "calibration_classes": held,
        "different_pairs": pairs,
        "certified": min(certified) if certified else None,
        "words": words,
    }


def _calibration_classes(classes: int) -> int:
    """How many of the classes the usual split keeps for validation, where training calibrates."""
    return side_sizes(classes)[1] if classes >= LEAST_CLASSES else 0


def _classes_needed(held: int) -> int:
    """The least number of classes of which the usual split keeps `held` for calibration."""
    total = LEAST_CLASSES
    while _calibration_classes(total) < held:
        total += 1
    return total
