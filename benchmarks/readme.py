"""The numbers of README.md and docs, from the files that commands wrote: ``python -m benchmarks.readme [--check]``.

``benchmarks/results/losses.json``, ``small.json`` and ``growth.json`` are written by ``make bench``;
``benchmarks/results/faces.json`` is the file ``eval/folds.json`` of ``nearfar demo --folds``;
``benchmarks/results/scaling.json`` is written by ``python -m benchmarks.scaling_ranks``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import scaling
from benchmarks.growth import svg
from nearfar.bench.catalogue import DENSE, FLOOR, LOSSES, OURS
from nearfar.bench.table import three, time

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
UNKNOWN = "Not measured yet."
MET = {None: "not judged", True: "yes", False: "no"}
NAMES = {
    "default": "softmax + ½ SupCon (the default)",
    "softmax": "softmax (cross-entropy features)",
    "supcon": "SupCon",
    "contrastive": "contrastive (Hadsell, balanced)",
    "eigenfaces": "eigenfaces (PCA)",
    "pixels": "raw pixels",
}


def bench(record: dict[str, Any]) -> str:
    """The table of the README: medians only."""
    lines = [
        "| loss | N | time | of the floor | faster than dense autograd | than the library | memory | the library's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in _there(record):
        memory, peer = row["megabytes"], LOSSES[row["loss"]].peer
        cells = [LOSSES[row["loss"]].title, f"{row['n']:,}", time(row["seconds"][OURS]["median"]), _floor(row)]
        cells += [_ratio(row, DENSE), _ratio(row, peer), _mb(memory.get(OURS)), _mb(memory.get(peer))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed(record: dict[str, Any]) -> str:
    """The table of docs/speed.md: medians and ranges."""
    lines = [
        "| case | ours, s | beside | its time over ours | memory, MB | its memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in _there(record):
        for label in row["ratio"]:
            memory = [_ranged(row["megabytes"].get(key)) for key in (OURS, label)]
            cells = [row["case"], _ranged(row["seconds"][OURS]), label, _ranged(row["ratio"][label]), *memory]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def bars(record: dict[str, Any]) -> str:
    """What was wanted of each case, and what came."""
    told = [(row["case"], bar) for row in _there(record) for bar in row["bars"]]
    lines = [f"| {case} | {bar['wanted']} | {three(bar['got'])} | {MET[bar['met']]} |" for case, bar in told]
    return "\n".join(["| case | wanted | got | met |", "|---|---|---|---|", *lines])


def small(record: dict[str, Any] | None) -> str:
    """Small batches against the better of dense autograd and the peer."""
    if record is None:
        return UNKNOWN
    lines = ["| loss | N | time | faster than dense autograd | than the library | met |", "|---|---|---|---|---|---|"]
    for row in _there(record):
        met = MET[row["bars"][-1]["met"]]
        cells = [LOSSES[row["loss"]].title, str(row["n"]), time(row["seconds"][OURS]["median"]), _ratio(row, DENSE)]
        lines.append(f"| {' | '.join([*cells, _ratio(row, LOSSES[row['loss']].peer), met])} |")
    return "\n".join(lines)


def growth(record: dict[str, Any] | None) -> str:
    """The slopes, and the picture."""
    if record is None:
        return UNKNOWN
    lines = ["![time and memory against the batch, logarithmic](growth.svg)", ""]
    return "\n".join(lines + bars(record).splitlines())


def setting(record: dict[str, Any]) -> str:
    """What the numbers were measured on."""
    machine = record["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    words = f"{machine['processor']}, {machine['threads']} threads, Python {machine['python']}, {packages}"
    rounds = f"{record['rounds']} round{'s' * (record['rounds'] != 1)}"
    return f"{words}; {rounds}" + (f", {machine['date']}." if "date" in machine else ".")


def _there(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that were measured."""
    return [row for row in record["rows"] if "slopes" in row or OURS in row["seconds"]]


def _floor(row: dict[str, Any]) -> str:
    return f"{three(1 / row['ratio'][FLOOR]['median'])} ×" if FLOOR in row["ratio"] else "–"


def _ratio(row: dict[str, Any], label: str | None) -> str:
    return f"{three(row['ratio'][label]['median'])} ×" if label in row["ratio"] else "–"


def _mb(entry: dict[str, float] | None) -> str:
    return "–" if entry is None else f"{entry['high']:,.0f} MB"


def _ranged(entry: dict[str, float] | None) -> str:
    """The median and the range, as far as known."""
    if entry is None:
        return "–"
    if "low" not in entry:
        return three(entry.get("median", entry.get("high")))
    return f"{three(entry['median'])} ({three(entry['low'])}–{three(entry['high'])})"


def folds(record: dict[str, Any]) -> str:
    """The table of ``nearfar demo --folds``: share of same pairs missed, in percent."""
    lines = [
        "| method | missed at FMR 5 %, mean ± sd | Chopra's split | missed at FMR 1 %, mean ± sd | Chopra's split |",
        "|---|---|---|---|---|",
    ]
    for name, title in NAMES.items():
        rates = record["summary"]["methods"][name]
        cells = [
            f"{100 * rates[rate]['mean']:.1f} ± {100 * rates[rate]['sd']:.1f} % | {100 * rates[rate]['last']:.1f} %"
            for rate in ("0.05", "0.01")
        ]
        lines.append(f"| {title} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def differences(record: dict[str, Any]) -> str:
    """Paired differences over the folds, with 95 % intervals."""
    lines = ["| method | against | FMR | difference in points, 95 % interval |", "|---|---|---|---|"]
    for row in record["summary"]["differences"]:
        low, value, high = (100 * row[key] for key in ("low", "value", "high"))
        rate = f"{100 * float(row['fmr']):.0f} %"
        lines.append(
            f"| {NAMES[row['method']]} | {NAMES[row['other']]} | {rate} | {value:+.1f} ({low:+.1f} to {high:+.1f}) |"
        )
    return "\n".join(lines)


def filled(text: str, block: str, content: str) -> str:
    """The text with the content between the block's marks."""
    begin, end = f"<!-- {block}:begin -->", f"<!-- {block}:end -->"
    if begin not in text:
        return text
    head, rest = text.split(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def pages() -> dict[Path, str]:
    """Each page and picture with its numbers filled in."""
    losses, faces = _read("losses"), _read("faces")
    few, grown = _read("small"), _read("growth")
    assert losses is not None
    assert faces is not None
    blocks = {
        "bench": bench(losses),
        "speed": speed(losses),
        "bars": bars(losses),
        "setting": setting(losses),
        "small": small(few),
        "growth": growth(grown),
        "folds": folds(faces),
        "differences": differences(faces),
        **scaling.blocks(_read("scaling")),
    }
    result = {}
    for page in (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("speed", "faces", "scaling"))):
        text = page.read_text()
        for block, content in blocks.items():
            text = filled(text, block, content)
        result[page] = text
    if grown is not None:
        result[ROOT / "docs" / "growth.svg"] = svg([row for row in _there(grown) if row["seconds"]])
    return result


def _read(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    return dict(json.loads(file.read_text())) if file.exists() else None


def _stale() -> dict[Path, str]:
    return {page: text for page, text in pages().items() if not page.exists() or page.read_text() != text}


def main() -> None:
    """Fill the pages in, or say which is stale."""
    stale = _stale()
    if "--check" in sys.argv and stale:
        names = ", ".join(str(page) for page in stale)
        sys.exit(f"expected numbers from benchmarks/results, got others in {names}; run python -m benchmarks.readme")
    for page, text in stale.items():
        page.write_text(text)


if __name__ == "__main__":
    main()
