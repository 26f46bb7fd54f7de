"""The main job on real faces, with nothing to prepare: train, judge on people never seen, decide."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from nearfar.app.baselines import cross_entropy_features
from nearfar.app.data import Dataset, scan
from nearfar.app.evaluation import evaluate_run
from nearfar.app.faces import CREDIT, PATTERN, att_faces
from nearfar.app.fold_table import as_text
from nearfar.app.folds import run_folds
from nearfar.app.model import load
from nearfar.app.progress import Reporter
from nearfar.app.runs import is_run, locked, read_config
from nearfar.app.split import Split, load_split
from nearfar.app.tables import write
from nearfar.app.training import resume, train

ABOUT = {
    "title": "AT&T faces: the same person?",
    "question": "Given two pictures of people the model never saw in training: are they of the same person?",
    "credit": CREDIT,
}
_INTRODUCTION = """\
nearfar demo: learns from pictures of some people to tell whether
two pictures of other people show the same person.
1. train a small Siamese network on 24 of the 40 AT&T people
2. find the threshold on 8 others
3. train the same network with cross-entropy alone, to compare
4. judge all on the 8 people that nothing has seen
About four minutes on two cores; Ctrl-C keeps what is done."""


def demo(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    overwrite: bool = False,
    folds: bool = False,
    progress: bool = True,
    steps: int | None = None,
) -> dict[str, Any]:
    """Train on the AT&T faces, compare with the baselines on people never seen, and decide on pictures.

    Called again on an interrupted or finished demo it goes on from there.

    Args:
        out: the run folder to write.
        seed: of everything left to chance.
        overwrite: replace an earlier run at `out`.
        folds: instead judge all forty people in eight folds, in a folder beside `out`; see `run_folds`.
        progress: tell about it on standard error.
        steps: optimiser steps, where they differ from the preset's.

    Returns:
        The evaluation.

    Raises:
        DataError: the package that carries the faces is not installed.
        UsageError: the folder holds something else.
    """
    if folds:
        return run_folds(out, seed=seed, overwrite=overwrite, progress=progress, steps=steps)
    folder, run = att_faces(), Path(out)
    with Reporter(progress) as report:
        report.say(_INTRODUCTION)
        if not overwrite and _begun(run, folder, seed):
            resume(run, progress=progress)
        else:
            train(folder, run, seed=seed, overwrite=overwrite, progress=progress, pattern=PATTERN, steps=steps)
        config = read_config(run)
        data = scan(config.data, config.pattern)
        split = load_split(run / "split.json", data.fingerprint)
        report.say("the same network and budget with cross-entropy alone, to compare")
        with locked(run):
            try:
                cross_entropy_features(run, config, data, split.train, report)
            except (KeyboardInterrupt, SystemExit):
                report.say("the model is complete; the same demo command goes on with the comparison")
                raise
            report.say("judging all methods on people never seen")
            result = evaluate_run(run, ABOUT)
    write(_words(result))
    write(_verdicts(run, data, split))
    write(_next(run, data, split))
    return result


def _begun(run: Path, folder: Path, seed: int) -> bool:
    """Whether the run is this very demo."""
    if not is_run(run):
        return False
    config = read_config(run)
    return config.data == folder.resolve() and config.seed == seed


def _words(result: Mapping[str, Any]) -> str:
    """The comparison as a table, each number above its interval."""
    data = result["data"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("method", width=15)
    for head in ("missed at\nFMR 5 %", "missed at\nFMR 1 %", "P@1", "MAP@R"):
        table.add_column(head, justify="right", no_wrap=True)
    for method in result["methods"]:
        at = method["fnmr_at_fmr"]
        numbers = (at["0.05"], at["0.01"], method["precision_at_1"], method["map_at_r"])
        table.add_row(method["title"], *(_cell(number) for number in numbers))
    head = (
        f"\n{data['classes']} people never seen, {data['items']} pictures: {data['same_pairs']:,} same and\n"
        f"{data['different_pairs']:,} different pairs. Below each number its 95 % interval.\n"
    )
    return head + as_text(table)


def _cell(number: Mapping[str, Any]) -> str:
    return f"{100 * number['value']:.1f} %\n{100 * number['low']:.0f}–{100 * number['high']:.0f}"


def _pictures(data: Dataset, split: Split) -> tuple[Path, Path, Path]:
    """The first and last picture of one unseen person, and the first of another."""
    one, other = data.of(split.test[:1]), data.of(split.test[1:2])
    return data.root / one[0].path, data.root / one[-1].path, data.root / other[0].path


def _verdicts(run: Path, data: Dataset, split: Split) -> str:
    """What the model says about a same and a different pair, and what is true."""
    model = load(run)
    first, last, other = _pictures(data, split)
    lines = []
    for a, b, truth in ((first, last, "same"), (first, other, "different")):
        verdict = model.verify(a, b)
        said = "same" if verdict.same else "different"
        lines.append(
            f"{_short(a)} and {_short(b)}: {said} person ({'right' if said == truth else 'wrong'})\n"
            f"  similarity {verdict.score:.3f}, threshold {verdict.threshold:.3f}, "
            f"P(same) {verdict.probability:.0%}\n"
        )
    return "Two verdicts on people never seen\n" + "".join(lines)


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _next(run: Path, data: Dataset, split: Split) -> str:
    first, last, _ = (shlex.quote(str(path)) for path in _pictures(data, split))
    place = shlex.quote(str(run))
    return (
        f"\nReport (open it in a browser): {run / 'report.html'}\n\nTry next\n"
        f"  nearfar verify {place} {first} {last}\n"
        f"  nearfar classify {place} {first}\n"
        f"  nearfar train YOUR_PICTURES --out runs/mine\n"
    )
