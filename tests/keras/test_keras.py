"""nearfar.keras on each backend of Keras, which is chosen once a process: the checks of checks.py, in one each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed")
CHECKS = Path(__file__).with_name("checks.py")


def child(backend, *arguments):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        # XLA's effort at compiling: each program is run a few times only.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


NAMES = re.findall(r"^def check_(\w+)", CHECKS.read_text(), re.M)
# Where nearfar's code differs by backend: on JAX and PyTorch a loss gets the backend's own tensors. TensorFlow has all.
SOME = ["values_and_gradients_are_numpys", "what_is_learned_has_numpys_gradient", "labels_stay_whole"]


def passes(backend, *names):
    done = child(backend, str(CHECKS), *names)
    outcomes = dict(line.split(": ") for line in done.stdout.splitlines() if ": " in line)
    failed = [name for name, outcome in outcomes.items() if not outcome.startswith("passed")]
    assert done.returncode == 0, f"{failed}\n{done.stderr[-6000:]}"
    assert list(outcomes) == list(names)


@pytest.mark.parametrize(("backend", "names"), [("tensorflow", NAMES), ("jax", SOME), ("torch", SOME)])
def test_backend(backend, names):
    passes(backend, *names)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_other_checks(backend):
    passes(backend, *(name for name in NAMES if name not in SOME))


LOSSES = ("ContrastiveLoss()", "VICRegLoss()")
MORE = [pytest.param(backend, marks=pytest.mark.slow) for backend in ("jax", "torch")]


@pytest.mark.parametrize("backend", ["tensorflow", *MORE])
def test_the_contract_of_losses_holds(backend):
    """A sample; python -m benchmarks.cells runs all losses."""
    losses = ", ".join(f"nf.{loss}" for loss in LOSSES)
    check = f"nf.check_loss(loss, libraries=['keras-{backend}'], dtypes=['float32', 'bfloat16'])"
    code = f"import nearfar as nf\nfor loss in ({losses}): {check}"
    done = child(backend, "-c", code)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
def test_the_check_can_fail_and_keras_is_loaded_when_asked_for():
    code = (
        "import sys, runpy, nearfar as nf; from nearfar import _tape; "
        "assert 'keras' not in sys.modules; nf.keras.Loss; assert 'torch' in sys.modules; "
        "pull = _tape._hand_back; "
        "_tape._hand_back = lambda a, gradient: pull(a, gradient=1.01 * gradient); "
        f"sys.argv = ['checks', 'values_and_gradients_are_numpys']; "
        f"runpy.run_path({str(CHECKS)!r}, run_name='__main__')"
    )
    done = child("torch", "-c", code)
    assert done.returncode == 1
    assert "failed" in done.stdout
