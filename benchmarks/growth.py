"""The picture of growth: time and memory against the batch, both axes logarithmic, as an SVG written by hand."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor, log10
from typing import Any

WIDTH, HEIGHT, TOP, LEFT, GAP, PANEL = 1000, 440, 40, 60, 70, 300
Row = dict[str, Any]


def svg(rows: list[Row]) -> str:
    """Two panels and a legend; one line a loss.

    Args:
        rows: The rows of the group ``growth``.
    """
    rows = sorted(rows, key=lambda row: -_last(row)["median"])
    colours = {row["loss"]: f"hsl({360 * k // len(rows)} 75% {35 + 15 * (k % 2)}%)" for k, row in enumerate(rows)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        "<style>text {font-size: 12px}</style>",
        "<title>Time and memory against the batch size, both axes logarithmic</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_panel(rows, colours, LEFT, "seconds", "median", "seconds, forward and backward", 2),
        *_panel(rows, colours, LEFT + PANEL + GAP, "megabytes", "high", "MB above the inputs", 1),
    ]
    left = LEFT + 2 * PANEL + GAP + 25
    parts.append(f'<text x="{left}" y="{TOP}" font-weight="bold">slope of time, of memory</text>')
    parts.append(f'<text x="{left}" y="{HEIGHT - TOP + 18}" fill="#666">dashed: slope 2 and slope 1</text>')
    for k, row in enumerate(rows):
        y, (time, memory) = TOP + 20 * (k + 1), (row["slopes"][key] for key in ("seconds", "megabytes"))
        slopes = ", ".join("–" if slope is None else f"{slope:.2f}" for slope in (time, memory))
        parts.append(f'<path d="M{left} {y - 4}h18" stroke="{colours[row["loss"]]}" stroke-width="3"/>')
        parts.append(f'<text x="{left + 24}" y="{y}">{row["loss"]} {slopes}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _last(row: Row) -> dict[str, float]:
    return dict(row["seconds"][max(row["seconds"], key=int)])


def _panel(
    rows: list[Row], colours: dict[str, str], left: int, key: str, field: str, title: str, slope: int
) -> list[str]:
    """Axes, a dashed line of the slope wanted, and the losses."""
    lines = {row["loss"]: [(int(n), max(row[key][n][field], 1e-3)) for n in sorted(row[key], key=int)] for row in rows}
    points = [point for line in lines.values() for point in line]
    sizes = sorted({n for n, _ in points})
    low, high = floor(log10(min(v for _, v in points))), ceil(log10(max(v for _, v in points)) + 1e-9)
    bottom = HEIGHT - TOP

    def x(n: float) -> float:
        return left + PANEL * log10(n / sizes[0]) / log10(sizes[-1] / sizes[0])

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (log10(value) - low) / (high - low)

    parts = [f'<text x="{left}" y="{TOP - 14}" font-weight="bold">{title}</text>']
    for power in range(low, high + 1):
        parts.append(f'<path d="M{left} {y(10**power):.1f}h{PANEL}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y(10**power) + 4:.1f}" text-anchor="end">{10**power:g}</text>')
    parts += [f'<text x="{x(n):.1f}" y="{bottom + 18}" text-anchor="middle">{n}</text>' for n in sizes]
    start = min(v for n, v in points if n == sizes[0])
    parts.append(_line([(n, start * (n / sizes[0]) ** slope) for n in sizes], x, y, "#999", ' stroke-dasharray="5 4"'))
    return parts + [_line(line, x, y, colours[loss]) for loss, line in lines.items()]


def _line(
    points: list[tuple[int, float]],
    x: Callable[[float], float],
    y: Callable[[float], float],
    colour: str,
    more: str = "",
) -> str:
    places = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"{more}/>'
