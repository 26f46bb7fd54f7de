"""``import nearfar`` brings NumPy and no framework; metrics and the losses on NumPy do not either."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "jax", "keras", "tensorflow", "pandas", "sklearn", "scipy", "matplotlib", "plotly", "PIL", "kornia",
         "accelerate", "typer", "rich", "yaml", "safetensors")  # fmt: skip


def heavy_after(code):
    """Top-level heavy modules loaded after running ``code`` in a fresh interpreter."""
    tail = f"\nimport sys\nprint(sorted({{m.split('.')[0] for m in sys.modules}} & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip().splitlines()[-1]


ON_NUMPY = """
import numpy as np
import nearfar as nf
x = np.random.default_rng(0).normal(size=(6, 3))
for loss in (nf.SupConLoss(), nf.TripletLoss(), nf.ContrastiveLoss(), nf.BinaryCrossEntropyLoss()):
    loss.value_and_grad(x, [0, 0, 1, 1, 2, 2])
nf.InfoNCELoss().views(x, x)
nf.metrics
"""


@pytest.mark.parametrize(
    "code", ["import nearfar", "import nearfar.metrics", ON_NUMPY], ids=["import", "metrics", "use"]
)
def test_no_framework_is_loaded(code):
    assert heavy_after(code) == "[]"


def test_the_check_can_fail():
    assert "torch" in heavy_after("import nearfar, torch")
    assert "torch" in heavy_after("import nearfar as nf, importlib; importlib.import_module('nearfar.torch._autograd')")
