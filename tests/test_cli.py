"""The command line from outside: what it prints where, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nearfar as nf  # noqa: F401, named in code that a test executes
from nearfar import cli

HEAVY = ("torch", "jax", "keras", "kornia", "accelerate", "sklearn", "plotly", "PIL", "rich", "safetensors")


def nearfar(*words: object, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with `code` run first in it."""
    script = f"import sys\nfrom nearfar import cli\n{code}\ncli.main()"
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=120,
    )


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    rng = np.random.default_rng(11)
    for name in ("ann", "bob", "cid", "dee", "eli", "fay"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def dirty(clean: Path) -> Path:
    (clean / "ann" / "note.jpg").write_text("not a picture")
    whole = (clean / "bob" / "1.png").read_bytes()
    (clean / "bob" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (clean / "cid" / "twin.png").write_bytes((clean / "ann" / "0.png").read_bytes())
    (clean / "empty").mkdir()
    (clean / "single").mkdir()
    Image.new("L", (5, 5)).save(clean / "single" / "0.png")
    return clean


FAULTS = ("ann/note.jpg", "bob/cut.png", "cid/twin.png", "empty", "single")


def test_help_names_the_commands_and_loads_nothing_heavy():
    code = f"import atexit\natexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules]))"
    done = nearfar("--help", code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("demo", "check", "train", "resume", "evaluate", "verify", "classify", "doctor"):
        assert f"\n  {command} " in done.stdout
    assert "..." not in done.stdout.split("Commands:")[1]


def test_the_test_above_can_fail():
    code = "import rich\nimport atexit\natexit.register(lambda: print('rich' in sys.modules))"
    assert nearfar("--help", code=code).stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("no-such-command",),
        ("check",),
        ("check", "a", "b"),
        ("check", "a", "--no-such-option"),
        ("train", "data"),
        ("train", "data", "--out", "x", "--steps", "0"),
        ("train", "data", "--out", "x", "--steps", "many"),
        ("train", "data", "--out", "x", "--seed", "-1"),
        ("train", "data", "--out", "x", "--fmr", "0"),
        ("train", "data", "--out", "x", "--fmr", "nan"),
        ("verify", "run", "a"),
        ("classify", "run"),
    ],
)
def test_usage_errors_end_with_2(words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nearfar", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "Usage: nearfar" in "".join(capsys.readouterr())


def test_check_of_clean_data(clean):
    done = nearfar("check", clean, COLUMNS="60")
    assert done.returncode == 0, done.stderr
    assert "12 pictures in 6 classes" in done.stdout
    assert "No false-match rate can be promised" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 60
    assert done.stderr == ""


def test_check_of_dirty_data_names_everything_and_ends_with_3(dirty):
    done = nearfar("check", dirty)
    assert done.returncode == 3
    listed = [line for line in done.stdout.splitlines() if line[:2] in ("  ", "! ")]
    for fault in FAULTS:
        assert sum(line[2:].startswith(f"{fault}: ") for line in listed) == 1
    assert done.stderr.startswith("error: expected data without contradiction in ")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_check_as_json_is_one_document(dirty):
    (dirty / "ann" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    done = nearfar("check", dirty, "--json", PYTHONIOENCODING="ascii")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert {problem["path"] for problem in found["problems"]} == {*FAULTS, "ann/\udcff.png"}
    assert not found["trainable"]
    assert found["classes"] == 6


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_names_that_the_terminal_cannot_show_stop_nothing(clean, encoding):
    for name in ("😀.png", "[bold]x.png", ":smile:.png", "two\nlines.png", os.fsdecode(b"\xff.png")):
        (clean / "ann" / name).write_bytes(b"")
    (clean / "[red]").mkdir()
    done = nearfar("check", clean, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    for shown in ("[bold]x.png", ":smile:.png", "two\\nlines.png", "\\udcff.png", "[red]"):
        assert f"{shown}: an empty" in done.stdout


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("x"), lambda path: path.mkdir()])
def test_check_of_no_data(make, tmp_path):
    make(tmp_path / "data")
    done = nearfar("check", tmp_path / "data")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: expected ")
    assert "sub-folder" in done.stderr


FAKE = """
import types
from dataclasses import dataclass
import nearfar.app
from nearfar import DataError

@dataclass
class Verdict:
    same: bool; score: float; threshold: float; probability: float; fmr: float; certified: bool; words: str

@dataclass
class Answer:
    label: str | None; score: float; threshold: float; nearest: str; words: str

class Model:
    def verify(self, a, b):
        return Verdict(a.name == b.name, 0.25, 0.5, 0.75, 0.01, False, "an estimate only")
    def classify(self, item):
        if item.name == "bad.png":
            raise DataError("expected a readable picture at bad.png, got text; replace it")
        return Answer(None if item.name == "who.png" else "[ann]", 0.25, 0.5, "ann", "near enough")

fake = types.ModuleType("nearfar.app.model")
fake.load = lambda run: Model()
sys.modules["nearfar.app.model"] = nearfar.app.model = fake
"""


@pytest.mark.parametrize(("b", "code", "word"), [("a.png", 0, "same"), ("b.png", 1, "different")])
def test_verify(b, code, word):
    done = nearfar("verify", "run", "a.png", b, code=FAKE)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith(f"{word}: an estimate only\n")
    assert "threshold    0.5" in done.stdout
    done = nearfar("verify", "run", "a.png", b, "--json", code=FAKE)
    assert done.returncode == code
    assert json.loads(done.stdout) == {
        "same": code == 0,
        "score": 0.25,
        "threshold": 0.5,
        "probability": 0.75,
        "fmr": 0.01,
        "certified": False,
        "words": "an estimate only",
    }


@pytest.mark.parametrize(
    ("items", "code"),
    [
        (["x.png", "y.png"], 0),
        (["x.png", "who.png"], 1),
        (["bad.png", "x.png", "who.png"], 3),
        (["who.png", "bad.png"], 3),
    ],
)
def test_classify_answers_for_every_item(items, code):
    done = nearfar("classify", "run", *items, code=FAKE)
    assert done.returncode == code
    assert [line.split()[0] for line in done.stdout.splitlines()] == items
    assert ("error: expected a readable picture at bad.png" in done.stderr) == ("bad.png" in items)
    assert ("[ann]: near enough" in done.stdout) == ("x.png" in items)
    answers = json.loads(nearfar("classify", "run", *items, "--json", code=FAKE).stdout)
    assert [answer["path"] for answer in answers] == items
    assert [answer["path"] for answer in answers if "error" in answer] == [i for i in items if i == "bad.png"]


JOBS = """
import types
from pathlib import Path
import nearfar.app
from nearfar import DataError

asked = {}
def train(data, out, **options):
    asked.update(options, data=str(data))
    sys.stderr.write(f"{sorted(options.items())}\\n")
    return Path(out)
def evaluate_run(run):
    if run.name == "small":
        raise DataError("expected two test classes, got one; add classes")
    number = {"value": 0.25, "low": 0.125, "high": 0.5}
    return {"methods": [{"title": "it", "fnmr_at_fmr": {"0.05": number}}]}

for name, parts in {"training": {"train": train}, "evaluation": {"evaluate_run": evaluate_run}}.items():
    fake = types.ModuleType(f"nearfar.app.{name}")
    fake.__dict__.update(parts)
    sys.modules[fake.__name__] = fake
    setattr(nearfar.app, name, fake)
"""


def test_train_passes_on_what_was_chosen_and_judges():
    done = nearfar("train", "data", "--out", "run", "--steps", "7", "--fmr", "0.05", code=JOBS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[('fmr', 0.05), ('overwrite', False), ('seed', 0), ('steps', 7)]\n"
    assert "FNMR 25.0 % (12.5 to 50.0) at FMR 5 %" in done.stdout
    assert "report  run/report.html\n" in done.stdout
    done = nearfar("train", "data", "--out", "run", "--json", "--overwrite", "--preset", "supcon", code=JOBS)
    assert done.stderr == "[('fmr', 0.01), ('overwrite', True), ('preset', 'supcon'), ('seed', 0)]\n"
    assert json.loads(done.stdout)["run"] == "run"


def test_a_run_that_cannot_be_judged_is_still_named():
    done = nearfar("train", "data", "--out", "small", code=JOBS)
    assert done.returncode == 3
    assert done.stdout == "run     small\nnext    nearfar verify small A B\n"
    assert "error: expected two test classes" in done.stderr
    done = nearfar("train", "data", "--out", "small", "--json", code=JOBS)
    assert json.loads(done.stdout) == {"run": "small", "evaluation": None}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("raise nf.UsageError('expected a, got b; c')", 2, "error: expected a, got b; c\n"),
        ("raise nf.GuaranteeError('expected a')", 4, "error: expected a\n"),
        ("raise nf.ArtefactError('expected a')", 5, "error: expected a\n"),
        ("raise nf.DivergenceError('expected a')", 6, "error: expected a\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("raise SystemExit(143)", 143, ""),
        (
            "raise ZeroDivisionError('by zero')",
            70,
            "error: internal: ZeroDivisionError: by zero; NEARFAR_DEBUG=1 shows where\n",
        ),
        ("import nosuchpackage", 2, "error: expected the package nosuchpackage, got none; run: pip install"),
        ("import nearfar.nosuchmodule", 70, "error: internal: "),
    ],
)
def test_every_ending_has_its_code_and_one_line(error, code, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nearfar", "check", "data"])
    monkeypatch.setattr("nearfar.app.data.scan", lambda *_, **__: exec(error))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert err.startswith(message)
    assert err.count("\n") == bool(message)
    assert out == ""


def test_the_traceback_is_shown_when_asked():
    code = "import nearfar.app.data as d\ndef scan(*a, **k): 1 / 0\nd.scan = scan"
    done = nearfar("check", "data", code=code)
    assert done.returncode == 70
    assert "Traceback" not in done.stderr
    done = nearfar("check", "data", code=code, NEARFAR_DEBUG="1")
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert "in scan" in done.stderr


def test_a_reader_that_goes_away_is_no_error(dirty):
    read, write = os.pipe()
    os.close(read)
    child = subprocess.run(
        [sys.executable, "-c", "from nearfar import cli; cli.main()", "check", str(dirty)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    os.close(write)
    assert child.returncode == 141
    assert child.stderr == ""


def test_doctor():
    done = nearfar("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["step"] == "ok"
    assert found["packages"]["torch"]
