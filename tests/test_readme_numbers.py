"""README's and docs' numbers are those of the committed result files."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_numbers_come_from_the_result_files(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import readme

    for page, text in readme.pages().items():
        assert page.read_text() == text, f"run {sys.executable} -m benchmarks.readme"


def test_another_number_is_noticed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import readme

    page, text = next(iter(readme.pages().items()))
    assert readme.filled(text, "bench", "0.001 s") != page.read_text()
