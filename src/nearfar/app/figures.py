"""The figures of the report, as Plotly specifications without colours of paper, text or grid.

The page sets those colours from its own style sheet, so that one figure serves light, dark and print.
Every function takes parts of an evaluation (see `nearfar.app.evaluation`) and returns plain JSON data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import plotly.graph_objects as go

COLOURS = ("#1f83c6", "#e08a00", "#009e73", "#8c8c8c", "#d55e00", "#b3569b", "#56b4e9", "#a89a00")
DASHES = ("solid", "dash", "dot", "longdashdot", "dashdot", "longdash", "solid", "dash")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
DET_TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
_DET_X, _DET_Y = (0.0005, 0.6), (0.002, 0.97)
Figure = dict[str, Any]


def det(methods: Sequence[Mapping[str, Any]], chosen: tuple[float, float] | None = None) -> Figure:
    """The DET curve: misses against false matches, both axes in normal deviates.

    Args:
        methods: evaluations of methods, each with `title` and `det` = {"fmr": [...], "fnmr": [...]}.
        chosen: (FMR, FNMR) of the model at its threshold, marked; at the edge where it lies outside.

    Returns:
        A Plotly figure as JSON data.

    Example:
        >>> from nearfar.app.figures import det
        >>> figure = det([{"title": "model", "det": {"fmr": [0.01, 0.5], "fnmr": [0.5, 0.01]}}])
        >>> [round(x, 2) for x in figure["data"][0]["x"]]
        [-2.33, 0.0]
    """
    figure = _figure(height=440)
    if chosen:
        figure.add_scatter(
            x=[_deviate(min(max(chosen[0], _DET_X[0]), _DET_X[1]))],
            y=[_deviate(min(max(chosen[1], _DET_Y[0]), _DET_Y[1]))],
            mode="markers",
            name="the chosen threshold",
            marker={"size": 13, "symbol": "circle-open", "color": COLOURS[4], "line": {"width": 3}},
            hovertemplate=f"false matches {100 * chosen[0]:.2f} %<br>misses {100 * chosen[1]:.1f} %",
            cliponaxis=False,
        )
    for i, method in reversed(list(enumerate(methods))):
        fmr, fnmr = method["det"]["fmr"], method["det"]["fnmr"]
        points = [(x, y) for x, y in zip(fmr, fnmr, strict=True) if 0 < x < 1 and 0 < y < 1]
        figure.add_scatter(
            x=[_deviate(x) for x, _ in points],
            y=[_deviate(y) for _, y in points],
            customdata=[[100 * x, 100 * y] for x, y in points],
            mode="lines",
            name=_text(method["title"]),
            line={"color": COLOURS[i % 8], "width": 3 if i == 0 else 1.6, "dash": DASHES[i % 8]},
            hovertemplate="false matches %{customdata[0]:.2f} %<br>misses %{customdata[1]:.1f} %",
        )
    ticks = {"tickvals": [_deviate(t) for t in DET_TICKS], "ticktext": [f"{100 * t:g} %" for t in DET_TICKS]}
    figure.update_xaxes(title="different pairs accepted (FMR)", range=[_deviate(r) for r in _DET_X], **ticks)
    figure.update_yaxes(title="same pairs missed (FNMR)", range=[_deviate(r) for r in _DET_Y], **ticks)
    figure.update_layout(legend={"traceorder": "reversed"})
    return _plain(figure)


def whiskers(methods: Sequence[Mapping[str, Any]], rates: Sequence[str]) -> Figure:
    """Misses of each method at each false-match rate, with the 95 % interval.

    Args:
        methods: evaluations of methods with `title` and `fnmr_at_fmr`, the model first.
        rates: keys of `fnmr_at_fmr` to draw, such as "0.05".

    Returns:
        A Plotly figure as JSON data.

    Example:
        >>> from nearfar.app.figures import whiskers
        >>> number = {"value": 0.2, "low": 0.1, "high": 0.4}
        >>> whiskers([{"title": "m", "fnmr_at_fmr": {"0.05": number}}], ["0.05"])["data"][0]["x"]
        [20.0]
    """
    figure = _figure(height=90 + 46 * len(methods))
    for i, rate in enumerate(rates):
        numbers = [m["fnmr_at_fmr"][rate] for m in methods]
        values = [100 * n["value"] for n in numbers]
        figure.add_scatter(
            x=values,
            y=[len(methods) - 1 - j + (0.14 if i == 0 else -0.14 * i) for j in range(len(methods))],
            mode="markers",
            name=f"at FMR {100 * float(rate):g} %",
            marker={"color": COLOURS[i], "size": 10, "symbol": SYMBOLS[i]},
            error_x={
                "array": [100 * n["high"] - v for n, v in zip(numbers, values, strict=True)],
                "arrayminus": [v - 100 * n["low"] for n, v in zip(numbers, values, strict=True)],
                "thickness": 2,
                "width": 0,
            },
            hovertemplate="%{x:.1f} % missed",
        )
    names = [_wrap(m["title"]) for m in methods]
    figure.update_yaxes(tickvals=list(range(len(methods) - 1, -1, -1)), ticktext=names, showgrid=False)
    figure.update_xaxes(title="same pairs missed, lower is better", ticksuffix=" %", rangemode="tozero")
    return _plain(figure)


def histogram(data: Mapping[str, Any], threshold: float | None = None) -> Figure:
    """How similar same and different pairs are, each as a share of its own kind.

    Args:
        data: `edges` (k+1), `same` (k) and `different` (k) shares.
        threshold: similarity from which a pair is called the same, drawn as a line.

    Returns:
        A Plotly figure as JSON data.

    Example:
        >>> from nearfar.app.figures import histogram
        >>> histogram({"edges": [0, 0.5, 1], "same": [0.1, 0.9], "different": [1, 0]})["data"][0]["x"]
        [0.25, 0.75]
    """
    figure = _figure(height=330)
    edges = data["edges"]
    centres = [(a + b) / 2 for a, b in pairwise(edges)]
    for key, title, colour in (("different", "different", COLOURS[1]), ("same", "same", COLOURS[0])):
        figure.add_bar(
            x=centres,
            y=[100 * share for share in data[key]],
            name=f"{title} pairs",
            marker={"color": colour, "opacity": 0.65},
            hovertemplate="similarity %{x:.2f}: %{y:.1f} %",
        )
    if threshold is not None:
        figure.add_vline(x=threshold, line={"dash": "dash", "width": 2, "color": COLOURS[4]})
        label = {"text": "threshold", "x": threshold, "y": 1, "yref": "paper", "yanchor": "bottom"}
        figure.add_annotation(label, showarrow=False)
    figure.update_layout(barmode="overlay", bargap=0.04)
    figure.update_xaxes(title="cosine similarity")
    figure.update_yaxes(title="share of the pairs of that kind", ticksuffix=" %")
    return _plain(figure)


def reliability(bins: Sequence[Mapping[str, float]]) -> Figure:
    """Promised probability of "same" against how often it was true.

    Args:
        bins: each with mean `probability`, observed `frequency` and `count`.

    Returns:
        A Plotly figure as JSON data.

    Example:
        >>> from nearfar.app.figures import reliability
        >>> reliability([{"probability": 0.2, "frequency": 0.25, "count": 8}])["data"][1]["y"]
        [25.0]
    """
    figure = _figure(height=360)
    line = {"dash": "dot", "width": 1.5, "color": COLOURS[3]}
    figure.add_scatter(x=[0, 100], y=[0, 100], mode="lines", name="perfect", line=line, hoverinfo="skip")
    figure.add_scatter(
        x=[100 * b["probability"] for b in bins],
        y=[100 * b["frequency"] for b in bins],
        customdata=[b["count"] for b in bins],
        mode="lines+markers",
        name="this model",
        line={"color": COLOURS[0], "width": 2.5},
        marker={"size": 8},
        hovertemplate="said %{x:.0f} %, was %{y:.0f} % (%{customdata} pairs)",
    )
    figure.update_xaxes(title="probability of “same” the model gives", ticksuffix=" %", range=[-3, 103])
    figure.update_yaxes(title="how often it was the same", ticksuffix=" %", range=[-3, 103])
    return _plain(figure)


def embedding_map(data: Mapping[str, Any]) -> Figure:
    """The test embeddings on their two widest directions, one colour and symbol per class.

    Args:
        data: equally long lists `x`, `y`, `class` (names), `path`; `explained` = two shares of variance.

    Returns:
        A Plotly figure as JSON data; `customdata` is each point's position in the lists.

    Example:
        >>> from nearfar.app.figures import embedding_map
        >>> data = {"x": [0, 1], "y": [1, 0], "class": ["a", "b"], "path": ["p", "q"], "explained": [0.5, 0]}
        >>> [trace["name"] for trace in embedding_map(data)["data"]]
        ['a', 'b']
    """
    figure = _figure(height=480)
    for i, name in enumerate(dict.fromkeys(data["class"])):
        rows = [r for r, owner in enumerate(data["class"]) if owner == name]
        figure.add_scatter(
            x=[data["x"][r] for r in rows],
            y=[data["y"][r] for r in rows],
            customdata=rows,
            text=[_text(data["path"][r]) for r in rows],
            mode="markers",
            name=_text(name),
            marker={"color": COLOURS[i % 8], "symbol": SYMBOLS[(i + i // 8) % 8], "size": 9, "opacity": 0.85},
            hovertemplate="%{text}",
        )
    first, second = data["explained"]
    figure.update_xaxes(title=f"first direction ({100 * first:.0f} % of the variance)", showticklabels=False)
    figure.update_yaxes(title=f"second direction ({100 * second:.0f} %)", showticklabels=False, scaleanchor="x")
    figure.update_layout(hovermode="closest")
    return _plain(figure)


def _figure(height: int) -> Any:
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.03, "yanchor": "bottom"}
    figure = go.Figure()
    figure.update_layout(
        template=go.layout.Template(),
        height=height,
        margin={"l": 60, "r": 12, "t": 20, "b": 56},
        legend=legend,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
    )
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
    return figure


def _plain(figure: Any) -> Figure:
    result: Figure = json.loads(figure.to_json())
    return result


def _deviate(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def _wrap(title: str) -> str:
    words, lines = title.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 22 and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(_text(line) for line in lines)


def _text(text: str) -> str:
    """Plotly reads some tags and entities in text; quotes it takes as they are."""
    return escape(text, quote=False)
