"""The gallery: one picture of forces a loss, and the page that shows them.

`python -m benchmarks.gallery` writes docs/forces/*.svg and docs/gallery.md.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib import pyplot

import nearfar as nf

DOCS = Path(__file__).parents[1] / "docs"
# Bases and sums; losses on pairs with scores, which have neither positives nor negatives.
ASIDE = {"PairLoss", "FeatureLoss", "LossSum", "AnglELoss", "CoSENTLoss"}
PAGE = """# What each loss does to a pair

One anchor, one positive, one negative. The blue line is the force on the positive as it moves while the negative
stays at distance 1 (the dotted line); the orange line is the force on the negative as it moves while the positive
stays there. Below zero a force pulls the pair together, above zero it pushes it apart. On measures of angles the
distance is the chord on the unit sphere. Each picture has a scale of its own; hyper-parameters are the defaults.

`nf.plot.forces(loss)` draws one; `nf.plot.probe(loss)` gives its numbers. This page is made by
`python -m benchmarks.gallery`. Losses of feature statistics compare no pairs, and CoSENT and AnglE order given pairs by
scores: they have no such picture.
"""


def pictured() -> list[str]:
    """Losses that compare pairs, by name."""
    names = (name for name in nf.losses.__all__ if name not in ASIDE)
    return sorted(name for name in names if issubclass(getattr(nf.losses, name), nf.PairLoss))


def main() -> None:
    """Draw all, and write the page."""
    matplotlib.use("svg")
    # The same file for the same picture.
    matplotlib.rcParams["svg.hashsalt"] = "nearfar"
    (DOCS / "forces").mkdir(exist_ok=True)
    parts = [PAGE]
    for name in pictured():
        loss = getattr(nf, name)()
        axes = nf.plot.forces(loss)
        axes.figure.savefig(DOCS / "forces" / f"{name}.svg", metadata={"Date": None}, facecolor="white")
        pyplot.close(axes.figure)
        summary = (type(loss).__doc__ or "").partition("\n")[0]
        parts.append(f"## {name}\n\n{summary}\n\n![forces of {name}](forces/{name}.svg)\n")
    (DOCS / "gallery.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
