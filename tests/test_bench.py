"""`nearfar bench`: the same functions are compared, in turns, each alone; bars are judged; absences are words."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import nearfar as nf
from nearfar import bench, cli
from nearfar.bench import child, job, runner, table
from nearfar.bench.cases import SIZES, Case, Run
from nearfar.bench.catalogue import DENSE, FLOOR, LOSSES, OPEN_CLIP, OURS, PML
from nearfar.bench.judge import judged
from nearfar.bench.libraries import floor, function, installed

ROOT = Path(__file__).parents[1]
CASES = {case.name: case for case in bench.CASES}


def value_and_gradients(library, name):
    x, y, labels = child.inputs(name, 64, 16)
    sides = [side.detach().double().requires_grad_() for side in ((x,) if y is x else (x, y))]
    value = function(library, name)(sides[0], sides[-1], labels)
    value.backward()
    return value.detach().double(), [side.grad for side in sides]


def close(one, other, precision=1e-6):
    assert torch.allclose(one[0], other[0], rtol=precision, atol=0)
    for a, b in zip(one[1], other[1], strict=True):
        assert (a - b).norm() <= precision * b.norm()


@pytest.mark.parametrize("name", LOSSES)
def test_ours_is_the_formula_written_densely(name):
    close(value_and_gradients(OURS, name), value_and_gradients(DENSE, name))


@pytest.mark.parametrize("name", [name for name, entry in LOSSES.items() if entry.peer])
def test_the_formula_is_the_peers_function(name):
    if installed(LOSSES[name].peer) is None:
        pytest.skip(f"{LOSSES[name].peer} is not installed")
    dense, peer = value_and_gradients(DENSE, name), value_and_gradients(LOSSES[name].peer, name)
    if not LOSSES[name].differs:
        close(dense, peer)
    else:
        with pytest.raises(AssertionError):  # what the catalogue calls different is
            close(dense, peer)


def test_the_floor_is_three_products():
    x, y = torch.randn(50, 4, dtype=torch.float64), torch.randn(30, 4, dtype=torch.float64)
    s = x @ y.T
    assert torch.allclose(floor(x, y, torch.arange(50)), (x * (s @ y)).sum() + (y * (s.T @ x)).sum())


def test_inputs_have_eight_items_a_class_and_unit_rows():
    x, y, labels = child.inputs("supcon", 64, 16)
    assert y is x
    assert torch.bincount(labels).tolist() == [8] * 8
    assert not torch.equal(labels, labels.sort().values)
    assert torch.allclose(x.norm(dim=1), torch.ones(64))
    assert child.inputs("cross-entropy", 64, 16)[1].shape == (8, 16)
    _, texts, _ = child.inputs("clip", 64, 16)
    assert texts.shape == (64, 16)
    ordered = child.inputs("smoothap", 64, 16)[2]
    assert torch.equal(ordered, ordered.sort().values)


def test_the_table_of_the_issue_is_there():
    wanted = {
        ("supcon-8192", "faster", 15),
        ("supcon-8192", "time", 1.2),
        ("contrastive-8192", "faster", 8),
        ("multi-similarity-8192", "faster", 20),
        ("circle-8192", "faster", 30),
        ("nca-8192", "faster", 8),
        ("triplet-1024", "faster", 60),
        ("triplet-8192", "time", 6),
        ("nt-xent-256", "faster", 1000),
        ("lifted-256", "faster", 500),
        ("margin-1024", "faster", 80),
        ("fastap-1024", "faster", 6),
        ("smoothap-512", "faster", 15),
        ("clip-4096", "faster", 3),
        ("clip-4096", "share", 0.1),
        ("supcon-65536", "memory", 400),
    }
    assert wanted <= {(case.name, bar.kind, bar.limit) for case in bench.CASES for bar in case.bars}


def test_cases_are_sound():
    assert len(CASES) == len(bench.CASES)
    for case in bench.CASES:
        assert all(bar.rival in case.runs for bar in case.bars if bar.rival), case.name
        assert set(case.groups) <= set(bench.GROUPS)
        assert all(run.loss in LOSSES for run in case.runs.values())
    small = [case for case in bench.CASES if "small" in case.groups]
    assert {(case.loss, case.n) for case in small} == {
        (loss, n) for loss in LOSSES for n in (64, 256) if loss != "contrastive-active"
    }
    assert [case.name for case in bench.chosen([])] == [case.name for case in bench.CASES if "table" in case.groups]


BARS = [
    ("supcon-8192", {OURS: 1.0, PML: 15.0, FLOOR: 1.0}, {OURS: 48.0}, [True, True, True]),
    ("supcon-8192", {OURS: 1.0, PML: 14.9, FLOOR: 0.8}, {OURS: 48.1}, [False, False, False]),
    ("supcon-8192", {OURS: 1.0}, {}, [None, None, None]),
    ("supcon-64", {OURS: 1.0, DENSE: 1.0, PML: 2.0}, {}, [True]),
    ("supcon-64", {OURS: 1.0, DENSE: 2.0, PML: 0.9}, {}, [False]),
    ("supcon-64", {OURS: 1.0, PML: 2.0}, {}, [None]),
    ("clip-4096", {OURS: 1.0, OPEN_CLIP: 3.0}, {OURS: 10.0, OPEN_CLIP: 100.0}, [True, True]),
    ("clip-4096", {OURS: 1.0, OPEN_CLIP: 2.9}, {OURS: 10.1, OPEN_CLIP: 100.0}, [False, False]),
    ("supcon-65536", {OURS: 83.0, "supcon-8192": 1.0}, {OURS: 400.0}, [True, True]),
    ("supcon-65536", {OURS: 84.0, "supcon-8192": 1.0}, {OURS: 401.0}, [False, False]),
]


def row_of(name, seconds, megabytes):
    spread = [
        {k: {"median": v, "low": v, "high": v, "count": 1} for k, v in part.items()} for part in (seconds, megabytes)
    ]
    ratio = {k: {"median": v / seconds[OURS]} for k, v in seconds.items() if OURS in seconds and k != OURS}
    case = CASES[name]
    return {
        "case": name, "groups": list(case.groups), "loss": case.loss, "n": case.n, "d": 128, "missing": {},
        "seconds": spread[0], "megabytes": spread[1], "ratio": ratio,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "seconds", "megabytes", "met"), BARS)
def test_bars_are_judged(name, seconds, megabytes, met):
    row = judged(CASES[name], row_of(name, seconds, megabytes))
    assert [bar["met"] for bar in row["bars"]] == met


@pytest.mark.parametrize(
    ("power", "linear", "met"), [(2, 1, [True, True]), (2.2, 1.2, [False, False]), (1.8, 0.5, [False, True])]
)
def test_growth_is_a_slope(power, linear, met):
    seconds, megabytes = {str(n): (n / 1e4) ** power for n in SIZES}, {str(n): n**linear for n in SIZES}
    row = judged(CASES["supcon-growth"], row_of("supcon-growth", seconds, megabytes))
    assert row["slopes"] == pytest.approx({"seconds": power, "megabytes": linear})
    assert [bar["met"] for bar in row["bars"]] == met
    assert judged(CASES["supcon-growth"], row_of("supcon-growth", {}, {}))["slopes"]["seconds"] is None


def test_libraries_take_turns_and_the_ratio_is_paired(monkeypatch):
    order = []

    def fake(run, budget):
        order.append(run.library)
        slow = {OURS: 1.0, DENSE: 3.0, FLOOR: 0.5}[run.library] * (1 + (len(order) > 3))
        return {"seconds": [slow, slow, 2 * slow], "megabytes": 7.0 + len(order)}

    monkeypatch.setattr(runner, "_in_a_process", fake)
    case = Case("x", ("table",), "supcon", 64, {label: Run(label, "supcon", 64) for label in (OURS, DENSE, FLOOR)})
    row = bench.measured(case, 2, 0.0)
    assert order == [OURS, DENSE, FLOOR] * 2
    assert row["seconds"][OURS] == {"median": 2.0, "low": 1.0, "high": 4.0, "count": 6}  # 1 1 2, 2 2 4
    assert row["megabytes"][OURS] == {"median": 9.5, "low": 8.0, "high": 11.0, "count": 2}
    assert row["ratio"][DENSE] == {"median": 3.0, "low": 3.0, "high": 3.0, "count": 2}


def test_what_is_absent_or_fails_is_said_in_words(monkeypatch):
    monkeypatch.setattr("nearfar.bench.libraries.version", _nothing)
    monkeypatch.setattr(runner, "_in_a_process", lambda run, budget: "failed with code 1: no memory")
    row = judged(CASES["supcon-8192"], bench.measured(CASES["supcon-8192"], 1, 0.0))
    assert row["missing"][PML] == "pytorch-metric-learning is not installed"
    assert row["missing"][DENSE] == "failed with code 1: no memory"
    assert {bar["met"] for bar in row["bars"]} == {None}
    monkeypatch.delattr(nf, "SupConLoss")
    row = judged(CASES["supcon-8192"], bench.measured(CASES["supcon-8192"], 1, 0.0))
    assert table.line(row) == "supcon-8192\n  nearfar has no SupConLoss yet\n"


def _nothing(package):
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(package)


def test_lines_fit_80_columns():
    long = {"median": 0.0999999, "low": 0.0999999, "high": 123.456, "count": 9}
    rows = []
    for case in bench.CASES:
        row = row_of(case.name, dict.fromkeys(case.runs, 0.0999999), dict.fromkeys(case.runs, 12345.6))
        row["seconds"] = dict.fromkeys(case.runs, long)
        row["missing"] = {DENSE: "failed with code 1: " + "no memory for this " * 9}
        rows.append(judged(case, row))
    text = "".join(table.head(row) + table.line(row) for row in rows) + table.LEGEND
    assert max(map(len, text.splitlines())) <= 80
    verdicts = table.verdicts(rows)
    assert verdicts.splitlines()[-1].endswith("bars met")
    assert max(map(len, verdicts.splitlines())) <= 80


@pytest.mark.skipif(not child.forget_peak(), reason="the system does not let a process forget its peak")
def test_the_peak_of_memory_is_seen():
    child.forget_peak()
    before = child.memory("VmRSS")
    # More than a long process of tests may hold free.
    np.ones(512 << 20, dtype=np.uint8).sum()
    assert 256 < child.memory("VmHWM") - before < 528
    child.forget_peak()
    assert child.memory("VmHWM") - child.memory("VmRSS") < 8


def test_a_case_for_real(tmp_path):
    told, shown = [], []
    out = tmp_path / "bench.json"
    record = bench.bench(
        ["n-pair-64"], quick=True, out=out, tell=lambda *step: told.append(step), show=lambda row: shown.append(row)
    )
    (row,) = record["rows"]
    assert json.loads(out.read_text()) == json.loads(json.dumps(record))
    assert shown == [row]
    assert row["seconds"][OURS]["count"] == 1
    assert {OURS, DENSE} <= set(row["seconds"])
    assert row["ratio"][DENSE]["median"] > 0
    assert [step[:2] for step in told] == [(0, 2), (1, 2)]
    assert record["machine"]["versions"]["torch"] == installed("torch")
    assert record["machine"]["threads"] == torch.get_num_threads()


def run(*words, code=""):
    script = f"import sys\nfrom nearfar import cli\n{code}\ncli.main()"
    return subprocess.run(
        [sys.executable, "-c", script, "bench", *map(str, words)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip


def test_help_loads_no_framework():
    done = run("--help", code="import atexit\natexit.register(lambda: print('torch' in sys.modules))")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "False"


def test_without_torch_there_is_a_remedy():
    done = run(code="sys.modules['torch'] = None")
    assert done.returncode == 2
    assert done.stderr == "error: expected the package torch, got none; run: pip install 'nearfar[app]'\n"


@pytest.mark.parametrize("words", [("--case", "supcon-1"), ("--rounds", "0"), ("--out", ROOT / "README.md")])
def test_usage_errors_come_before_any_measurement(words, capsys, monkeypatch):
    monkeypatch.setattr(job, "measured", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(sys, "argv", ["nearfar", "bench", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "expected" in error or "Invalid value for '--rounds'" in error


def test_the_command_shows_rows_or_json(capsys, monkeypatch):
    row = judged(CASES["supcon-8192"], row_of("supcon-8192", {OURS: 1.0, PML: 12.0, FLOOR: 1.0}, {OURS: 40.0}))
    monkeypatch.setattr(job, "measured", lambda *_: row)
    for words in ((), ("--json",)):
        monkeypatch.setattr(sys, "argv", ["nearfar", "bench", "--case", "supcon-8192", *words])
        cli.app(prog_name="nearfar", standalone_mode=False)
        out = capsys.readouterr().out
        if words:
            assert json.loads(out)["rows"][0]["bars"][0] == {
                "wanted": "≥ 15 times as fast as pytorch-metric-learning", "got": 12.0, "met": False,
            }  # fmt: skip
        else:
            assert "2/3\n" in out
            assert "missed supcon-8192: ≥ 15 times as fast as pytorch-metric-learning, got 12\n2 of 3 bars met" in out


def test_the_picture_of_growth(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.growth import svg

    rows = []
    for k, name in enumerate(("supcon", "nca", "circle")):
        seconds = {str(n): (k + 1) * (n / 8192) ** 2 for n in SIZES}
        rows.append(row_of(f"{name}-growth", seconds, {str(n): n / 1000 for n in SIZES}))
    picture = ET.fromstring(svg([judged(CASES[row["case"]], row) for row in rows]))
    places = "{http://www.w3.org/2000/svg}"
    lines = [line.get("points").split() for line in picture.iter(f"{places}polyline")]
    assert len(lines) == 2 * (3 + 1)  # and a line of the slope wanted in each panel
    heights = [[float(point.split(",")[1]) for point in line] for line in lines]
    assert all(upper > lower for line in heights for upper, lower in pairwise(line))
    assert "nca 2.00, 1.00" in {text.text for text in picture.iter(f"{places}text")}
