"""The rule that imports point down is itself able to fail."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> int:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def test_layers_are_kept_and_a_broken_one_is_found(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(ROOT / "src" / "nearfar", tmp_path / "nearfar", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert lint(tmp_path) == 0
    lowest = tmp_path / "nearfar" / "_arrays" / "__init__.py"
    lowest.write_text(lowest.read_text() + "\nimport nearfar.losses\n")
    assert lint(tmp_path) == 1
