"""The report: complete, closed to the network, and safe with any name a file may have."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from nearfar._errors import ArtefactError
from nearfar.app import report
from nearfar.app.files import write_json
from nearfar.app.markup import json_block

EVIL = "<img src=x onerror=alert(1)>&\"'</script>"
TITLES = ("nearfar (softmax + ½ SupCon)", "cross-entropy features", "eigenfaces (PCA)", "untrained", EVIL)


def number(value: float, spread: float = 0.04) -> dict[str, object]:
    low, high = max(0.0, value - spread), min(1.0, value + 1.5 * spread)
    return {"value": value, "low": low, "high": high, "n": 10, "unit": "classes"}


def method(rank: int, title: str) -> dict[str, object]:
    fmr = [10 ** (-3.5 + 3.4 * i / 80) for i in range(81)]
    return {
        "key": f"m{rank}",
        "title": title,
        "fnmr_at_fmr": {"0.05": number(0.03 + 0.06 * rank), "0.01": number(0.12 + 0.09 * rank)},
        "eer": number(0.04 + 0.02 * rank),
        "auc": number(0.99 - 0.02 * rank, 0.005),
        "precision_at_1": number(0.98 - 0.01 * rank, 0.01),
        "r_precision": number(0.9 - 0.1 * rank),
        "map_at_r": number(0.88 - 0.11 * rank),
        "det": {"fmr": fmr, "fnmr": [min(1.0, 0.002 * (rank + 1) * (1 / f) ** 0.75) for f in fmr]},
    }


def evaluation(root: Path, classes: int = 10, each: int = 6) -> dict[str, object]:
    draw = random.Random(3)
    names = [f"person {c}" for c in range(classes - 1)] + [EVIL]
    paths = [f"{names[c]}/{i}.png".replace("/script", "script") for c in range(classes) for i in range(each)]
    folder = [names[i // each] for i in range(len(paths))]
    pair = {"a": paths[0], "b": paths[-1], "class_a": folder[0], "class_b": folder[-1], "similarity": 0.71}
    bell = [2.718 ** (-((i - 10) ** 2) / 9) / 5.4 for i in range(40)]
    return {
        "title": "Faces of people never seen",
        "opened": "2025-01-02T03:04:05+00:00",
        "data": {
            "root": str(root),
            "classes": classes,
            "items": len(paths),
            "same_pairs": 150,
            "different_pairs": 1620,
            "drawn": "all pairs",
            "queries_left_out": 2,
        },
        "split": {k: {"classes": c, "items": 10 * c} for k, c in (("train", 22), ("validation", 8), ("test", 10))},
        "leak_check": {"passed": True, "text": "no class and no picture is in two parts."},
        "methods": [method(i, title) for i, title in enumerate(TITLES)],
        "differences": [{"title": t, "fmr": "0.05", "value": -0.1, "low": -0.2, "high": -0.01} for t in TITLES[2:]],
        "threshold": {
            "value": 0.62,
            "certified": False,
            "sentence": "Estimate only: 8 classes are too few to promise a false-match rate.",
            "fmr": number(0.011, 0.004),
            "fnmr": number(0.11),
        },
        "calibration": {
            "ece": number(0.021, 0.01),
            "brier": number(0.03, 0.01),
            "prior": 0.5,
            "bins": [{"probability": i / 9, "frequency": (i / 9) ** 1.2, "count": 9} for i in range(10)],
        },
        "per_class": [
            {"name": n, "items": each, "fnmr": 0.1, "fmr": 0.01, "precision_at_1": 1.0, "map_at_r": 0.9} for n in names
        ],
        "mistakes": {"different": [pair] * 4, "same": [{**pair, "probability": 0.2, "similarity": 0.2}] * 4},
        "histogram": {
            "edges": [-0.5 + i / 26 for i in range(41)],
            "different": bell,
            "same": bell[-20:] + bell[:20],
        },
        "map": {
            "x": [draw.gauss(i // each % 4, 0.2) for i in range(len(paths))],
            "y": [draw.gauss(i // each // 4, 0.2) for i in range(len(paths))],
            "class": folder,
            "path": paths,
            "explained": [0.31, 0.17],
        },
        "credit": "made for a test",
    }


def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "eval").mkdir()
    pictures = tmp_path / "pictures"
    content = evaluation(pictures)
    for i, path in enumerate(content["map"]["path"]):
        if i in (0, 7):
            (pictures / path).parent.mkdir(parents=True, exist_ok=True)
            Image.linear_gradient("L").resize((92, 112)).rotate(40 * i).save(pictures / path)
    write_json(tmp_path / "eval" / "test.json", content)
    write_json(tmp_path / "environment.json", {"python": EVIL, "packages": {"torch": "2"}})
    (tmp_path / "config.yaml").write_text(f"data: {EVIL}\n", encoding="utf-8")
    return tmp_path


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script" and self.lasttag == "script":
            self.scripts.append(data)


@pytest.fixture
def html(tmp_path: Path) -> str:
    return report.write_report(run_folder(tmp_path)).read_text(encoding="utf-8")


@pytest.fixture
def elements(html: str) -> Elements:
    parsed = Elements()
    parsed.feed(html)
    return parsed


def test_the_sections_come_in_the_order_of_the_protocol(elements: Elements) -> None:
    order = [attrs["id"] for tag, attrs in elements.found if tag == "section"]
    assert order == [
        *("data", "methods", "det", "threshold", "retrieval", "mistakes"),
        *("classes", "histogram", "calibration", "map", "limits", "settings"),
    ]


def test_no_element_asks_anything_of_a_network(elements: Elements) -> None:
    for _, attrs in elements.found:
        for name in ("src", "href"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:", "#")), value


def test_the_policy_names_exactly_the_scripts_that_run(elements: Elements) -> None:
    policy = next(a["content"] for _, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    running = [a for tag, a in elements.found if tag == "script" and a.get("type") != "application/json"]
    assert len(running) == 2
    digests = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in elements.scripts}
    assert set(re.findall(r"sha256-([^']+)'", policy)) <= digests


def test_plotly_is_inlined_once(html: str) -> None:
    assert html.count("plotly.js v") == 1


def test_names_from_files_are_never_markup(elements: Elements) -> None:
    assert not [a for _, a in elements.found if "onerror" in a]
    assert not [a for tag, a in elements.found if tag == "img" and a.get("src") == "x"]


def test_figure_data_survives_the_escape(elements: Elements, html: str) -> None:
    for tag, attrs in elements.found:
        if tag == "script" and attrs.get("id") == "figure-map":
            text = re.search(r'id="figure-map">(.*?)</script>', html, re.S)
            names = [trace["name"] for trace in json.loads(text.group(1))["data"]]
            assert "&lt;img" in names[-1]
            assert names[0] == "person 0"
            return
    pytest.fail("no map")


def test_pictures_become_thumbnails_and_missing_ones_are_said(html: str) -> None:
    assert html.count('src="data:image/webp;base64,') == 8
    assert html.count("picture not found") == 8


def test_a_page_without_calibration_says_so(tmp_path: Path) -> None:
    content = evaluation(tmp_path)
    content.update(threshold=None, calibration=None, split=None, leak_check=None, opened=None)
    text = report.page(content, "", {}, lambda path: None)
    assert "No threshold was calibrated" in text
    assert "No probability was calibrated" in text


def test_a_run_without_evaluation_is_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="nearfar evaluate"):
        report.write_report(tmp_path)


def test_data_cannot_end_their_script_element() -> None:
    block = json_block("x", {"path": "</script><script>alert(1)</script>&"})
    inside = block.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert "<" not in inside
    assert json.loads(inside)["path"].startswith("</script>")
