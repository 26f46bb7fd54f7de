"""The few pieces of HTML that the sections of the report are made of.

Text that comes from files passes through `html.escape` before it is placed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any


def percent(number: Mapping[str, Any] | None, digits: int = 1) -> str:
    """A share as a percentage, with its interval in small type.

    Example:
        >>> from nearfar.app.markup import percent
        >>> percent({"value": 0.125, "low": 0.05, "high": 0.2})
        '12.5 %<small>5.0 to 20.0</small>'
    """
    if number is None or number["value"] is None:
        return "–"
    text = f"{100 * number['value']:.{digits}f} %"
    if number.get("low") is None or number.get("high") is None:
        return text
    return f"{text}<small>{100 * number['low']:.{digits}f} to {100 * number['high']:.{digits}f}</small>"


def percent_plain(number: Mapping[str, Any]) -> str:
    """A share as a percentage with its interval on one line."""
    text = f"{100 * number['value']:.1f} %"
    if number.get("low") is None or number.get("high") is None:
        return text
    return f"{text} ({100 * number['low']:.1f} to {100 * number['high']:.1f})"


def table(caption: str, heads: Sequence[str], rows: str) -> str:
    """A table that scrolls by itself on a narrow screen; `rows` is markup."""
    columns = "".join(f"<th scope=col>{escape(h)}</th>" for h in heads)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def plot(name: str, figure: Mapping[str, Any], text: str, extra: str = "") -> str:
    """A place for a figure, its data, and a caption that says how to read it."""
    height = figure["layout"]["height"]
    return (
        f'<figure><div class="plot" style="height:{height}px" role="img" aria-label="{escape(text)}" '
        f'data-figure="figure-{name}" {extra}></div><figcaption>{escape(text)}</figcaption></figure>'
        f"{json_block(f'figure-{name}', figure)}"
    )


def json_block(name: str, data: Any) -> str:
    """Data for the page's script; no character in it can end the element."""
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026")
    return f'<script type="application/json" id="{name}">{text}</script>'


def signed(points: float) -> str:
    """A difference with its sign."""
    return f"{points:+.1f}".replace("-", "−")


def moment(stamp: str) -> str:
    """A time stamp for people."""
    return datetime.fromisoformat(stamp).astimezone(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
