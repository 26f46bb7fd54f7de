"""`report.html`: one file that tells the truth about a run and opens without a network.

The page forbids every request and every script but its own two by a content security policy.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from plotly.offline import get_plotlyjs

from nearfar._errors import ArtefactError
from nearfar.app import sections
from nearfar.app.files import read_json, write_whole

_SIDE = 112  # pixels of a thumbnail's longer side


def write_report(run: str | Path) -> Path:
    """Write `report.html` into a run folder that has been evaluated.

    Args:
        run: a run folder with `eval/test.json`.

    Returns:
        The path of the page.

    Raises:
        ArtefactError: where the run has no evaluation.
    """
    run = Path(run)
    source = run / "eval" / "test.json"
    if not source.is_file():
        raise ArtefactError(f"expected an evaluation at {source}, got none; run `nearfar evaluate` first")
    evaluation = read_json(source)
    settings = (run / "config.yaml").read_text(encoding="utf-8") if (run / "config.yaml").is_file() else ""
    environment = read_json(run / "environment.json") if (run / "environment.json").is_file() else {}
    path = run / "report.html"
    write_whole(path, page(evaluation, settings, environment, thumbnails(evaluation["data"]["root"])).encode())
    return path


def page(
    evaluation: Mapping[str, Any],
    settings: str,
    environment: Mapping[str, Any],
    picture: Callable[[str], str | None],
) -> str:
    """The whole report as one HTML document.

    Args:
        evaluation: what `nearfar.app.evaluation` wrote.
        settings: the resolved settings, as YAML.
        environment: versions and devices, by name.
        picture: path of an item → data URI of its thumbnail, or None where it cannot be read.

    Returns:
        HTML that makes no request.
    """
    parts = (
        ("data", "Data and split", sections.data_and_split(evaluation)),
        ("methods", "Beside the baselines", sections.headline(evaluation)),
        ("det", "Every trade-off: the DET curve", sections.det(evaluation)),
        ("threshold", "The threshold, in words", sections.threshold(evaluation)),
        ("retrieval", "Search among unseen classes", sections.retrieval(evaluation)),
        ("mistakes", "The worst mistakes", sections.mistakes(evaluation, picture)),
        ("classes", "Class by class", sections.per_class(evaluation)),
        ("histogram", "Same and different pairs", sections.histogram(evaluation)),
        ("calibration", "Can the probability be believed?", sections.calibration(evaluation)),
        ("map", "A map of the embedding", sections.embedding_map(evaluation, picture)),
        ("limits", "What this does not show", sections.limits(evaluation)),
        ("settings", "Settings and environment", _settings(settings, environment)),
    )
    links = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title, _ in parts)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{escape(title)}</h2>{text}</section>'
        for key, title, text in parts
    )
    title = evaluation.get("title") or "nearfar report"
    top = f"<h1>{escape(title)}</h1>{_asked(evaluation)}{_hero(evaluation)}"
    nav = f'<nav aria-label="Contents"><ol>{links}</ol></nav>'
    return _document(title, f"<main><header>{top}{nav}</header>{body}{_footer(evaluation)}</main>")


def thumbnails(root: str | Path) -> Callable[[str], str | None]:
    """A function that turns a path below `root` into a small picture inside a data URI.

    Args:
        root: the folder the paths are relative to.

    Returns:
        path → `data:image/webp;base64,…`, or None where there is no readable picture.
    """
    folder = Path(root)

    @cache
    def picture(path: str) -> str | None:
        try:
            with Image.open(folder / path) as opened:
                small = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        small.thumbnail((_SIDE, _SIDE))
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=80)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

    return picture


def _asked(evaluation: Mapping[str, Any]) -> str:
    question = evaluation.get("question") or (
        "Given two pictures of classes the model never saw in training: are they of the same class?"
    )
    return f'<p><span class="soft">What was asked.</span> {escape(question)}</p>'


def _hero(evaluation: Mapping[str, Any]) -> str:
    model = evaluation["methods"][0]
    tiles = []
    for rate, number in [(r, model["fnmr_at_fmr"][r]) for r in sections.rates(evaluation)[:2]]:
        tiles.append((number, f"of same pairs missed when {100 * float(rate):g} % of different pairs are let through"))
    tiles.append((model["precision_at_1"], "of pictures find one of their own class as the nearest (P@1)"))
    cells = "".join(
        f'<div><span class="number">{100 * n["value"]:.1f}<small>&#8239;%</small></span>'
        f'<p>{escape(text)}<br><span class="soft">95 % interval '
        f"{100 * n['low']:.1f} to {100 * n['high']:.1f}</span></p></div>"
        for n, text in tiles
    )
    return f'<div class="headline"><div class="tiles">{cells}</div></div>'


def _settings(settings: str, environment: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(_flat(v))}</dd>" for k, v in environment.items())
    return f"<h3>Settings</h3><pre>{escape(settings)}</pre><h3>Environment</h3><dl>{rows}</dl>"


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_flat(v) for v in value)
    return str(value)


def _footer(evaluation: Mapping[str, Any]) -> str:
    credit = evaluation.get("credit")
    said = f" Data: {escape(credit)}" if credit else ""
    text = f"Written by nearfar. This page holds everything it shows and asks nothing of a network.{said}"
    return f'<footer class="soft"><p>{text}</p></footer>'


def _document(title: str, body: str) -> str:
    plotly, script = get_plotlyjs(), _resource("report.js")
    sources = " ".join(f"'sha256-{_digest(text)}'" for text in (plotly, script))
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {sources}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{_resource("report.css")}</style></head>'
        f"<body>{body}<script>{plotly}</script><script>{script}</script></body></html>"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _resource(name: str) -> str:
    return (resources.files("nearfar.app") / name).read_text(encoding="utf-8")
