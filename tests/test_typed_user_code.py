"""User code passes ``mypy --strict`` against the installed package, and runs."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import nearfar

USERS = Path(__file__).parent / "typed"
FRAMEWORKS = {"numpy": "numpy", "torch": "torch", "jax": "jax", "keras": "keras"}


def test_the_package_says_that_it_is_typed():
    assert (Path(nearfar.__file__).parent / "py.typed").is_file()


@pytest.mark.slow  # without a cache mypy reads all of torch and jax
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_strict_users_have_no_errors(tmp_path, request):
    # A configuration of its own: users do not have ours. Keras has no types.
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\n[mypy-keras.*]\nignore_missing_imports = true\nfollow_imports = skip\n")
    files = [str(USERS / f"{name}_user.py") for name, module in FRAMEWORKS.items() if find_spec(module)]
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(config),
        "--cache-dir",
        str(request.config.cache.mkdir("mypy")),
        *files,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_it_runs(name):
    pytest.importorskip(FRAMEWORKS[name])
    command = [sys.executable, str(USERS / f"{name}_user.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
