"""The numbers of README.md, from the files that commands wrote: ``python -m benchmarks.readme [--check]``.

``benchmarks/results/losses.json`` is written by ``make bench``; ``benchmarks/results/faces.json`` is the file
``eval/folds.json`` of ``nearfar demo --folds``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NAMES = {
    "default": "softmax + ½ SupCon (the default)",
    "softmax": "softmax (cross-entropy features)",
    "supcon": "SupCon",
    "contrastive": "contrastive (Hadsell, balanced)",
    "eigenfaces": "eigenfaces (PCA)",
    "pixels": "raw pixels",
}


def bench(record: dict[str, Any]) -> str:
    """The table of ``make bench``."""
    lines = [
        "| loss | N | time | pytorch-metric-learning | faster | × floor | memory | its memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        seconds, memory = row["median_seconds"], row["peak_megabytes"]
        peer = "pytorch-metric-learning"
        lines.append(
            f"| {row['case']} | {row['n']} | {seconds['nearfar']:.3f} s | {seconds[peer]:.3f} s "
            f"| {row['times_faster']:.1f} × | {row['times_floor']:.1f} | {memory['nearfar']:.0f} MB "
            f"| {memory[peer]:,.0f} MB |"
        )
    return "\n".join(lines)


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
    """Each page with its numbers filled in."""
    losses = json.loads((RESULTS / "losses.json").read_text())
    faces = json.loads((RESULTS / "faces.json").read_text())
    blocks = {"bench": bench(losses), "folds": folds(faces), "differences": differences(faces)}
    result = {}
    for page in (ROOT / "README.md", ROOT / "docs" / "faces.md"):
        text = page.read_text()
        for block, content in blocks.items():
            text = filled(text, block, content)
        result[page] = text
    return result


def main() -> None:
    """Fill the pages in, or say which is stale."""
    stale = [page for page, text in pages().items() if page.read_text() != text]
    if "--check" in sys.argv and stale:
        sys.exit(f"expected numbers from benchmarks/results, got others in {stale}; run python -m benchmarks.readme")
    for page in stale:
        page.write_text(pages()[page])


if __name__ == "__main__":
    main()
