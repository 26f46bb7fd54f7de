"""The page of the mutants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
REASONS = ROOT / "benchmarks" / "results" / "mutants.tsv"
PAGE = ROOT / "docs" / "mutants.md"
Key: TypeAlias = tuple[str, str, str]  # file, line, change
NO_REASON = "**no test notices it, and nobody has looked yet**"
HEAD = """# Do the tests notice?

Small errors are put into a copy of `losses/`, `measures/` and `relations/`, one at a time: another comparison or
operator, a number plus one, `True` for `False`, swapped branches, a missing statement, `None` returned. Then the tests
that call the changed function run, one case of each test first, until one fails: the mutant is killed. One that makes
the tests run for ever is killed by time. The tests are those of `make test` and the doctests that need no other
process, and of them as many for each mutant as take half a minute; JAX, Keras and ranks are not among them.

This page is made by `python -m benchmarks.mutants`; reasons stand in `benchmarks/results/mutants.tsv`.

"""


def page(result: dict[str, Any]) -> str:
    """The counts, and every survivor with its reason."""
    found, known = result["mutants"], reasons()
    drawn = len(found) < result["of"]
    lines = [HEAD, f"{len(found)} of {result['of']} mutants" + (f", drawn with seed {result['seed']}" if drawn else "")]
    lines.append(". The interval is Wilson's, 95 %." if drawn else ".")
    lines.append(
        "\n\n| directory | mutants | killed | by time | equal | other survivors | killed | of those not equal |\n"
    )
    lines.append("|---|---|---|---|---|---|---|---|\n")
    names = (*sorted({m["key"][0].split("/")[0] for m in found}), "")
    lines += [_row(n or "all", [m for m in found if m["key"][0].startswith(n)], known, drawn) for n in names]
    for title, equal in (("Survivors", False), ("Equal", True)):
        rest = [m for m in found if not m["by"] and _equal(m, known) == equal]
        lines.append(f"\n## {title}\n\n" + (EQUAL if equal else OTHERS))
        lines += [_item(m, known) for m in rest] or ["None.\n"]
    return "".join(lines)


EQUAL = "No caller can see these: the changed code computes the same, or only slower.\n\n"
OTHERS = "What the tests do not notice and could.\n\n"


def reasons() -> dict[Key, str]:
    """By file, line and change; those that begin with "equal: " are no errors."""
    table = {}
    for line in REASONS.read_text().splitlines() if REASONS.exists() else []:
        file, text, change, reason = line.split("\t")
        table[file, text, change] = reason
    return table


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.959964
    middle, half = hits + z * z / 2, z * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return (middle - half) / (n + z * z), (middle + half) / (n + z * z)


def _equal(mutant: dict[str, Any], known: dict[Key, str]) -> bool:
    return known.get(tuple(mutant["key"]), "").startswith("equal: ")


def _row(name: str, found: list[dict[str, Any]], known: dict[Key, str], drawn: bool) -> str:
    n, killed = len(found), sum(bool(m["by"]) for m in found)
    equal = sum(not m["by"] and _equal(m, known) for m in found)
    shares = [_share(killed, n, drawn), _share(killed, n - equal, drawn)]
    late = sum(m["by"] == "time" for m in found)
    return f"| {name} | {n} | {killed} | {late} | {equal} | {n - killed - equal} | {shares[0]} | {shares[1]} |\n"


def _share(killed: int, n: int, drawn: bool) -> str:
    if not n:
        return "–"
    low, high = wilson(killed, n)
    return f"{killed / n:.1%}" + (f" ({low:.1%} to {high:.1%})" if drawn else "")


def _item(mutant: dict[str, Any], known: dict[Key, str]) -> str:
    file, text, change = mutant["key"]
    reason = known.get((file, text, change), NO_REASON).removeprefix("equal: ")
    return f"- `{file}`: ``{text}``<br>``{change}``<br>{reason}\n"
