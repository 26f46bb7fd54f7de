"""The Triton kernels without a GPU: interpreted in a process of its own, and compiled for GPUs that are not here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_in_the_interpreter():
    # triton decides when it is imported, and another test may have imported it.
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    inner = "tests/torch/interpreted_kernels.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", inner],
        cwd=ROOT,
        env={**kept, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.timeout(900)
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="compiles, does not interpret")
class TestCompiled:
    """Triton brings NVIDIA's assembler along, so code for a GPU is made without one; that it runs is not shown."""

    @pytest.mark.parametrize(
        ("arch", "exclude", "dtype"),
        [
            (80, "class", torch.float32),
            (90, "self", torch.bfloat16),
            pytest.param(80, "class", torch.bfloat16, marks=pytest.mark.slow),
            pytest.param(90, "self", torch.float32, marks=pytest.mark.slow),
        ],
    )
    def test_machine_code_fits_the_gpu(self, arch, exclude, dtype, tmp_path, monkeypatch):
        from nearfar.torch import kernels

        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        half, blocks = dtype != torch.float32, kernels.Blocks()
        shape = {"DOT": kernels.DTYPES[dtype], "PRECISION": "ieee", "BR": blocks.rows, "BC": blocks.columns}
        shape["BD"] = blocks.features
        gradient = {"ROWS": True, "COLUMNS": True, "SPLIT": half, "BO": blocks.out}
        for kernel, more in ((kernels._lse_kernel, {}), (kernels._gradient_kernel, gradient)):
            code = compiled(kernel, arch, dtype, {**shape, **more, "EXCLUDE": exclude}, blocks)
            assert code.asm["cubin"]
            assert code.metadata.shared <= 99 * 1024  # what a program may have on the smallest of them
            assert ("mma" in code.asm["ptx"]) == half  # tensor cores for halves; float32 is not rounded to tf32
            assert not re.search(r"\b(atom|red)\.", code.asm["ptx"])  # the same bits every time

    def test_tensors_on_the_cpu_are_refused(self):
        from nearfar._errors import BackendError
        from nearfar.torch.kernels import Table

        with pytest.raises(BackendError, match="expected tensors on a GPU, got cpu; run it in strips"):
            Table(torch.ones(3, 4), torch.ones(3, 4), 1.0)


def compiled(kernel, arch, dtype, constants, blocks):
    """The kernel for a GPU of compute capability ``arch`` / 10."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = dict.fromkeys(("N", "M", "D", "stride_x", "stride_y"), "i32") | {"scale": "fp32"}
    kinds |= dict.fromkeys(("own", "other"), "*i64")
    kinds |= dict.fromkeys(("x", "y"), "*fp32" if dtype == torch.float32 else "*bf16") | dict.fromkeys(
        constants, "constexpr"
    )
    source = ASTSource(
        fn=kernel,
        signature={name: kinds.get(name, "*fp32") for name in kernel.arg_names},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
    )
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
