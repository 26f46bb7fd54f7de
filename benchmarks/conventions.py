"""The page of other sources' conventions, with all values computed.

`python -m benchmarks.conventions` writes docs/conventions.md.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.convention_rows import ROWS, SETUP
from nearfar import conventions

PAGE = Path(__file__).parents[1] / "docs" / "conventions.md"
HEAD = """# Same name, other function

Sources disagree about factors, squares, margins and what the mean counts; on one batch their values differ by a factor
of over a hundred. `nearfar.conventions` returns, for each source, our loss configured to have its value. It defines no
loss of its own: read in a call below what that source means. The last section lists what no loss here reproduces.

This page is made by `python -m benchmarks.conventions`, which computes all values. "Theirs" is the value of the
source on the same batch: its formula, transcribed twice, independently, from its code, or what it gave when it was run
(sentence-transformers 6.2.0, lightly 1.6.0, TensorFlow Addons 0.23.0, TensorFlow Similarity 0.17.1, PyTorch 2.13.0,
optax 0.2.8, Keras 3.15.1). Where it is missing the source was neither transcribed nor run; and where
pytorch-metric-learning, optax, PyTorch, open_clip, Keras and scikit-learn have the loss the tests compare with them as
installed (`tests/losses/test_parity.py` and `test_peers*.py`).

## The batch

Twelve vectors of four classes; `X` are unit rows, `R` the raw ones. "On unit rows" below means that the source
normalises its input and the loss does not: give it unit rows.

```python
"""
TEXT = """## The NumPy text's function

`contrastive_loss(x1, x2, y, margin)` there takes two *vectors* and a vector of labels of the same length. It sums over
all features to one distance, the distance of one pair, and then averages that one pair's loss over the labels. So it
computes the loss of a single pair under ten different answers:

```python
rng = np.random.default_rng(0)
x1, x2 = 0.1 * rng.standard_normal(10), 0.1 * rng.standard_normal(10)
answers = np.array([0, 0, 1, 1, 1, 0, 0, 1, 0, 1])

squared = np.sum(np.square(x1 - x2))
terms = answers * squared * 0.5 + (1 - answers) * np.square(max(0, 0.5 - np.sqrt(squared)))
theirs = np.sum(terms) / len(x1)
ours = conventions.numpy_text(0.5).distances(np.full(10, np.sqrt(squared)), answers)
assert np.isclose(theirs, ours)
```

The right form has one row a pair and one label a row:

```python
left, right = rng.standard_normal((2, 10, 4))
loss = conventions.numpy_text(margin=0.5).pairs(left, right, answers)
```
"""


class Line(NamedTuple):
    """One row of the page: our value of a call and the source's, where it is known."""

    section: str
    source: str
    call: str
    value: float
    theirs: float | None


def lines() -> list[Line]:
    """All rows, evaluated on the batch as a reader of the page would."""
    names: dict[str, Any] = {}
    exec(SETUP, names)
    return [
        Line(section, source, call, float(eval(call, names)), theirs)
        for section, rows in ROWS.items()
        for source, call, theirs in rows
    ]


def meaning(call: str) -> str:
    """The first line of the docstring of the function in a call."""
    found = [name for name in conventions.__all__ if f"conventions.{name}(" in call]
    return (inspect.getdoc(getattr(conventions, found[0])) or "").partition("\n")[0].replace("``", "`")


def number(value: float | None) -> str:
    """Six digits behind the point."""
    return "–" if value is None else f"{value:.6f}"


def page() -> str:
    """The page as text."""
    parts = [f"{HEAD}{SETUP.strip()}\n```\n"]
    computed = lines()
    for section in ROWS:
        parts.append(f"## {section}\n\n| source | call | ours | theirs | |\n|---|---|---:|---:|---|")
        parts += [
            f"| {line.source} | `{line.call}` | {number(line.value)} | {number(line.theirs)} | {meaning(line.call)} |"
            for line in computed
            if line.section == section
        ]
        parts.append("")
    parts += [TEXT, "## What is not reproduced\n\n| source | what | why | theirs |\n|---|---|---|---:|"]
    parts += [
        f"| {one.source} | {one.name} | {one.reason} | {number(one.value)} |" for one in conventions.NOT_REPRODUCED
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
