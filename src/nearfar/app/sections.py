"""The sections of the report, each a function from an evaluation to a piece of HTML.

Text that comes from files (paths, class names, settings) passes through `html.escape` before it is placed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from nearfar.app import figures
from nearfar.app.markup import json_block, moment, percent, percent_plain, plot, signed
from nearfar.app.markup import table as html_table

Evaluation = Mapping[str, Any]
Picture = Callable[[str], str | None]  # a path → a data URI, or nothing where it cannot be read
_FOLD = 24  # rows of the per-class table that are shown at once


def rates(evaluation: Evaluation) -> list[str]:
    """The false-match rates judged, the highest first."""
    return sorted(evaluation["methods"][0]["fnmr_at_fmr"], key=float, reverse=True)


def data_and_split(evaluation: Evaluation) -> str:
    """How many classes and items each part holds, and whether the parts are apart."""
    data, leak = evaluation["data"], evaluation.get("leak_check")
    parts = evaluation.get("split") or {}
    known = [name for name in ("train", "validation", "test") if name in parts]
    rows = [(name, parts[name]["classes"], parts[name]["items"]) for name in known]
    if not rows:
        rows = [("evaluated", data["classes"], data["items"])]
    cells = "".join(f"<tr><th scope=row>{escape(n)}</th><td>{c:,}</td><td>{i:,}</td></tr>" for n, c, i in rows)
    pairs = (
        f"<p>Here judged: {data['same_pairs']:,} same and {data['different_pairs']:,} different pairs, "
        f"{escape(data['drawn'])}. Intervals are 95 %, by bootstrap over the {data['classes']} classes.</p>"
    )
    table = html_table("Classes and pictures in each part", ("part", "classes", "pictures"), cells)
    opened = evaluation.get("opened")
    when = (
        f" The test classes were opened on {escape(moment(opened))}, once, after every choice was made."
        if opened
        else ""
    )
    verdict = ""
    if leak:
        tone = "good" if leak["passed"] else "warn"
        verdict = f'<p class="verdict {tone}">Leak check: {escape(leak["text"])}{when}</p>'
    return table + pairs + verdict


def headline(evaluation: Evaluation) -> str:
    """The misses at the stated false-match rates, beside the baselines, in a table and a figure."""
    methods = evaluation["methods"]
    keys = rates(evaluation)
    heads = ["method", *(f"missed at FMR {100 * float(r):g}\u00a0%" for r in keys), "P@1", "MAP@R", "AUC"]
    rows = []
    for i, m in enumerate(methods):
        numbers = [m["fnmr_at_fmr"][r] for r in keys] + [m["precision_at_1"], m["map_at_r"], m["auc"]]
        cells = "".join(f"<td>{percent(n)}</td>" for n in numbers)
        rows.append(f"<tr{' class=model' if i == 0 else ''}><th scope=row>{escape(m['title'])}</th>{cells}</tr>")
    caption = "Lower is better for misses (FNMR); higher is better for P@1, MAP@R and AUC"
    table = html_table(caption, heads, "".join(rows))
    text = "Misses at each false-match rate with 95 % intervals."
    if evaluation.get("differences"):
        text += " To compare two methods, read the paired differences, not how the bars overlap."
    return table + _differences(evaluation) + plot("whiskers", figures.whiskers(methods, keys[:2]), text)


def _differences(evaluation: Evaluation) -> str:
    lines = []
    for d in evaluation.get("differences", ()):
        low, high, points = d["low"], d["high"], 100 * d["value"]
        if high < 0:
            verdict = "fewer misses, clear of chance"
        elif low > 0:
            verdict = "more misses, clear of chance"
        else:
            verdict = "not told apart by these classes"
        span = f"{signed(100 * low)} to {signed(100 * high)}"
        lines.append(f"<li>against {escape(d['title'])}: {signed(points)} points ({span}): <b>{verdict}</b></li>")
    if not lines:
        return ""
    rate = f"{100 * float(evaluation['differences'][0]['fmr']):g}"
    return f"<h3>Paired difference in misses at FMR {rate} %</h3><ul class=plain>{''.join(lines)}</ul>"


def det(evaluation: Evaluation) -> str:
    """The DET curve with the chosen point."""
    threshold = evaluation.get("threshold")
    chosen = (threshold["fmr"]["value"], threshold["fnmr"]["value"]) if threshold else None
    text = "Nearer to the lower left is better; a straight line means normally distributed scores."
    return plot("det", figures.det(evaluation["methods"], chosen), text)


def threshold(evaluation: Evaluation) -> str:
    """What the calibrated threshold promises, in words, and what came out here."""
    t = evaluation.get("threshold")
    if t is None:
        return "<p>No threshold was calibrated for this run.</p>"
    tone = "good" if t["certified"] else "warn"
    rows = (("different pairs accepted (FMR)", t["fmr"]), ("same pairs missed (FNMR)", t["fnmr"]))
    cells = "".join(f"<tr><th scope=row>{name}</th><td>{percent(n, 2)}</td></tr>" for name, n in rows)
    table = html_table("What came out on the classes judged here", ("", "measured"), cells)
    return (
        f'<p class="verdict {tone}">{escape(t["sentence"])}</p>'
        f"<p>Two pictures are called the same from a similarity of <b>{t['value']:.3f}</b> upwards.</p>"
        f"{table}"
    )


def retrieval(evaluation: Evaluation) -> str:
    """How well the nearest pictures are of the same class, for classes never trained on."""
    heads = ("method", "P@1", "R-precision", "MAP@R")
    rows = []
    for i, m in enumerate(evaluation["methods"]):
        cells = "".join(f"<td>{percent(m[k])}</td>" for k in ("precision_at_1", "r_precision", "map_at_r"))
        rows.append(f"<tr{' class=model' if i == 0 else ''}><th scope=row>{escape(m['title'])}</th>{cells}</tr>")
    left_out = evaluation["data"].get("queries_left_out", 0)
    note = f"<p class=soft>{left_out} pictures have no other of their class and ask nothing.</p>" if left_out else ""
    text = (
        "<p>Each picture in turn searches all the others. P@1: is the nearest of its class? "
        "R-precision and MAP@R: are all the nearest?</p>"
    )
    return text + html_table("Search among classes never seen in training", heads, "".join(rows)) + note


def mistakes(evaluation: Evaluation, picture: Picture) -> str:
    """The most similar different pairs and the least similar same pairs, as thumbnails."""
    groups = (
        ("different", "Different, yet the most alike to the model"),
        ("same", "Same, yet the least alike to the model"),
    )
    parts = []
    for key, title in groups:
        cards = "".join(_card(pair, picture) for pair in evaluation["mistakes"][key])
        parts.append(f"<h3>{title}</h3><ul class=mistakes>{cards}</ul>" if cards else "")
    return "".join(parts)


def _card(pair: Mapping[str, Any], picture: Picture) -> str:
    sides = "".join(_thumbnail(pair[side], picture) for side in ("a", "b"))
    chance = pair.get("probability")
    said = f", probability of same {100 * chance:.0f} %" if chance is not None else ""
    names = f"{escape(pair['a'])}<br>{escape(pair['b'])}"
    verdict = f"similarity <b>{pair['similarity']:.3f}</b>{said}"
    return f"<li><div class=pair>{sides}</div><p>{verdict}</p><p class=soft>{names}</p></li>"


def _thumbnail(path: str, picture: Picture) -> str:
    source = picture(path)
    if source is None:
        return '<span class="missing">picture not found</span>'
    return f'<img alt="{escape(path)}" loading="lazy" src="{source}">'


def per_class(evaluation: Evaluation) -> str:
    """One row per class, the hardest first."""
    rows = []
    for c in evaluation["per_class"]:
        shares = (c.get("fnmr"), c.get("fmr"), c.get("precision_at_1"), c.get("map_at_r"))
        cells = "".join(f"<td>{'–' if s is None else f'{100 * s:.1f} %'}</td>" for s in shares)
        rows.append(f"<tr><th scope=row>{escape(c['name'])}</th><td>{c['items']}</td>{cells}</tr>")
    heads = ("class", "pictures", "missed", "falsely accepted", "P@1", "MAP@R")
    where = "at the chosen threshold" if evaluation.get("threshold") else "at FMR 1 %"
    first = html_table(f"Hardest first; misses and false accepts {where}", heads, "".join(rows[:_FOLD]))
    if len(rows) <= _FOLD:
        return first
    rest = html_table("The other classes", heads, "".join(rows[_FOLD:]))
    return f"{first}<details><summary>{len(rows) - _FOLD} more classes</summary>{rest}</details>"


def histogram(evaluation: Evaluation) -> str:
    """How far apart same and different pairs lie."""
    t = evaluation.get("threshold")
    figure = figures.histogram(evaluation["histogram"], t["value"] if t else None)
    return plot("histogram", figure, "What overlaps cannot be told apart by any threshold.")


def calibration(evaluation: Evaluation) -> str:
    """Whether the probability of "same" can be believed."""
    c = evaluation.get("calibration")
    if c is None:
        return "<p>No probability was calibrated for this run.</p>"
    text = (
        f"Expected calibration error {percent_plain(c['ece'])}, Brier score {c['brier']['value']:.3f}, on "
        f"the pairs judged here, weighted so that {100 * c['prior']:.0f} % are the same. "
        "On the line, the probability is to be believed."
    )
    return plot("reliability", figures.reliability(c["bins"]), text)


def embedding_map(evaluation: Evaluation, picture: Picture) -> str:
    """The test embeddings in two dimensions; pointing at one shows its picture."""
    data = evaluation["map"]
    pictures = [picture(path) for path in data["path"]]
    text = "Principal components: two of many dimensions, so overlap here need not be confusion there."
    store = json_block("pictures", pictures)
    return plot("map", figures.embedding_map(data), text, 'data-pictures="pictures"') + store


def limits(evaluation: Evaluation) -> str:
    """What a reader should not conclude."""
    n = evaluation["data"]["classes"]
    points = [
        f"Everything here rests on {n} classes. With few classes, bootstrap intervals are too narrow.",
        "It says nothing about other cameras, other places or other kinds of picture than these.",
        "The rates at FMR 5 % and 1 % cut these very pairs; the calibrated threshold was fixed before.",
        "An interval without width, as at 0 % or 100 %, only says that no class here differed.",
        "One training run, one seed. Another seed moves the numbers.",
        "No one tried to deceive the model. A forged or altered picture is another question.",
    ]
    points += evaluation.get("limits", ())
    return f"<ul class=plain>{''.join(f'<li>{escape(p)}</li>' for p in points)}</ul>"
