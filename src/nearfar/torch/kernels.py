r"""Triton kernels of the log-sum-exp family, and their launchers.

The table :math:`s_{ij} = scale · \langle x_i, y_j \rangle` is made tile by tile in registers and never written. Each
program owns rows of its output and walks over all columns in one order: no atomics, the same bits every time.
One unit is one product of the table's size, 2·N·M·D operations.

Only this module imports triton; import it where a kernel is launched, not before. Set ``TRITON_INTERPRET=1`` before
triton is imported to run on the CPU. Correct in that interpreter; block sizes are guesses, not tuned on any GPU.
"""
# mypy: disable-error-code="untyped-decorator, no-untyped-def, import-untyped, import-not-found"

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import triton
import triton.language as tl
from triton.runtime import JITFunction

from nearfar._errors import BackendError

LOG2_E, LN_2 = 1.4426950408889634, 0.6931471805599453
DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}

Exclude = Literal["nothing", "self", "class"]


@triton.jit
def _logits(
    x, y, rows, cols, N, M, D, stride_x, stride_y, scale,
    DOT: tl.constexpr, PRECISION: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """A tile of scale · x yᵀ, over the features in chunks; rows and cols are int64, so offsets are."""
    s = tl.zeros((rows.shape[0], cols.shape[0]), tl.float32)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        a = tl.load(x + rows[:, None] * stride_x + d[None, :], mask=(rows[:, None] < N) & (d[None, :] < D), other=0.0)
        b = tl.load(y + cols[None, :] * stride_y + d[:, None], mask=(cols[None, :] < M) & (d[:, None] < D), other=0.0)
        s = tl.dot(a.to(DOT), b.to(DOT), s, input_precision=PRECISION)
    return s * scale


@triton.jit
def _valid(rows, cols, N, M, own, other, EXCLUDE: tl.constexpr):
    """Which pairs of a tile take part; own and other are the codes of classes."""
    valid = (rows[:, None] < N) & (cols[None, :] < M)
    if EXCLUDE == "self":
        valid = valid & (rows[:, None] != cols[None, :])
    if EXCLUDE == "class":
        codes = tl.load(own + rows, mask=rows < N, other=0)
        valid = valid & (codes[:, None] != tl.load(other + cols, mask=cols < M, other=0)[None, :])
    return valid


@triton.jit
def _lse_kernel(
    x, y, own, other, out, N, M, D, stride_x, stride_y, scale,
    EXCLUDE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Base-2 log-sum-exp of BR rows: a running maximum, a running sum in float64; −inf where no pair takes part.

    1 unit, one exp a pair. Reads y once for each block of rows, N/BR · M·D numbers, which programs that run side by
    side find in L2; x again for each block of columns, from L1 or L2. Writes N numbers.
    """
    rows = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    top = tl.full((BR,), -float("inf"), tl.float32)
    total = tl.zeros((BR,), tl.float64)
    for start in range(0, M, BC):
        cols = start + tl.arange(0, BC).to(tl.int64)
        s = _logits(x, y, rows, cols, N, M, D, stride_x, stride_y, scale, DOT, PRECISION, BD)
        s = tl.where(_valid(rows, cols, N, M, own, other, EXCLUDE), s, -float("inf"))
        higher = tl.maximum(top, tl.max(s, 1))
        shift = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * tl.exp2(top - shift).to(tl.float64) + tl.sum(tl.exp2(s - shift[:, None]), 1).to(tl.float64)
        top = higher
    shift = tl.where(top == -float("inf"), 0.0, top)
    tl.store(out + rows, shift + tl.log2(total.to(tl.float32)), mask=rows < N)


@triton.jit
def _gradient_kernel(
    x, y, own, other, lse_x, lse_y, factor_x, factor_y, out, N, M, D, stride_x, stride_y, scale,
    EXCLUDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPLIT: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """Σ_j (a_i 2^(s_ij − L_i) + b_j 2^(s_ij − L'_j)) y_j for BR rows and BO features; either term may be left out.

    1 unit for the products with y, and 1 for each BO features to make the table again: 2 for D ≤ BO; an exp a pair
    and term. Reads y twice for each program, ⌈N/BR⌉·⌈D/BO⌉ of them; writes N·D float32. Weights of half precision
    (SPLIT) enter as the sum of two such numbers, for one unit more.
    """
    rows = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    features = tl.program_id(1) * BO + tl.arange(0, BO)
    grad = tl.zeros((BR, BO), tl.float32)
    for start in range(0, M, BC):
        cols = start + tl.arange(0, BC).to(tl.int64)
        s = _logits(x, y, rows, cols, N, M, D, stride_x, stride_y, scale, DOT, PRECISION, BD)
        weight = tl.zeros((BR, BC), tl.float32)
        if ROWS:
            level, factor = tl.load(lse_x + rows, rows < N, 0.0), tl.load(factor_x + rows, rows < N, 0.0)
            weight += factor[:, None] * tl.exp2(s - level[:, None])
        if COLUMNS:
            level, factor = tl.load(lse_y + cols, cols < M, 0.0), tl.load(factor_y + cols, cols < M, 0.0)
            weight += factor[None, :] * tl.exp2(s - level[None, :])
        weight = tl.where(_valid(rows, cols, N, M, own, other, EXCLUDE), weight, 0.0)
        inside = (cols[:, None] < M) & (features[None, :] < D)
        v = tl.load(y + cols[:, None] * stride_y + features[None, :], mask=inside, other=0.0).to(DOT)
        high = weight.to(DOT)
        grad = tl.dot(high, v, grad, input_precision=PRECISION)
        if SPLIT:
            grad = tl.dot((weight - high.to(tl.float32)).to(DOT), v, grad, input_precision=PRECISION)
    places = out + rows[:, None] * D + features[None, :]
    tl.store(places, grad, mask=(rows[:, None] < N) & (features[None, :] < D))


INTERPRETED = not isinstance(_lse_kernel, JITFunction)


@dataclass(frozen=True)
class Blocks:
    """How the kernels cut the table; powers of two from 16.

    Attributes:
        rows: Rows that a program owns.
        columns: Columns it takes at a time.
        features: Features it multiplies at a time.
        out: Features of the gradient it owns at most; more fill the registers, fewer remake the table.
        warps: Warps of a program.
        stages: How many loads are under way.
    """

    rows: int = 64
    columns: int = 32
    features: int = 32
    out: int = 256
    warps: int = 8
    stages: int = 2


@dataclass(frozen=True)
class Table:
    """Two sides, their scale, and which pairs take part in the sums.

    Attributes:
        x: Rows of the table; shape (rows, features), float32, bfloat16 or float16, accumulated in float32.
        y: Columns of the table; shape (columns, features), of the same dtype; ``x`` itself for a batch against itself.
        scale: What multiplies the inner products, 1/τ.
        exclude: ``"self"`` leaves out pairs of equal index, ``"class"`` pairs of equal code.
        own: Code of each row, int64, for ``"class"``; shape (rows,).
        other: Code of each column; shape (columns,).
        tf32: Let the tensor cores round float32 factors to ten bits.
        blocks: How it is cut.

    Raises:
        BackendError: Another dtype, or not on a GPU.
    """

    x: torch.Tensor
    y: torch.Tensor
    scale: float
    exclude: Exclude = "nothing"
    own: torch.Tensor | None = None
    other: torch.Tensor | None = None
    tf32: bool = False
    blocks: Blocks = Blocks()

    def __post_init__(self) -> None:
        if self.x.dtype not in DTYPES or self.y.dtype != self.x.dtype:
            got = f"{self.x.dtype} and {self.y.dtype}"
            raise BackendError(f"expected both sides in float32, bfloat16 or float16, got {got}; run it in strips")
        if not (self.x.is_cuda or INTERPRETED):
            raise BackendError(f"expected tensors on a GPU, got {self.x.device}; run it in strips")

    def turned(self) -> Table:
        """The table with rows and columns exchanged."""
        return Table(self.y, self.x, self.scale, self.exclude, self.other, self.own, self.tf32, self.blocks)

    def row_lse(self) -> torch.Tensor:
        """Base-2 log-sum-exp of each row, float32 (times ln 2: the natural one); −inf for an empty row. 1 unit."""
        out = torch.empty(self.x.shape[0], dtype=torch.float32, device=self.x.device)
        self._launch(_lse_kernel, (), out)
        return out

    def row_gradient(
        self,
        rows: tuple[torch.Tensor, torch.Tensor] | None = None,
        columns: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Σ_j (a_i e^(s_ij − L_i) + b_j e^(s_ij − L'_j)) y_j, float32, shape (rows, features). 2 units for D ≤ 256.

        Args:
            rows: Base-2 log-sum-exp and factor a of each row; left out: without the first term.
            columns: The same, L' and b, for each column and the second term.
        """
        out = torch.empty(self.x.shape, dtype=torch.float32, device=self.x.device)
        level_x, factor_x = rows or (out, out)
        level_y, factor_y = columns or (out, out)
        split, peak = self.x.dtype != torch.float32, None
        if self.x.dtype == torch.float16:
            # The largest factor at 2^10 keeps probabilities from 2^-24 / 2^10 on within the range of float16.
            peak = torch.stack([q.abs().max() for _, q in filter(None, (rows, columns)) if q.shape[0]]).max()
            peak = torch.where(peak > 0, peak, 1.0) / 1024
            factor_x, factor_y = factor_x / peak, factor_y / peak
        block = min(self.blocks.out, max(16, triton.next_power_of_2(self.x.shape[1])))
        flags = {"ROWS": rows is not None, "COLUMNS": columns is not None, "SPLIT": split, "BO": block}
        self._launch(_gradient_kernel, (level_x, level_y, factor_x, factor_y), out, **flags)
        return out if peak is None else out * peak

    def _launch(self, kernel: JITFunction, vectors: tuple[torch.Tensor, ...], out: torch.Tensor, **flags: int) -> None:
        x, y = (a if a.stride(1) == 1 else a.contiguous() for a in (self.x, self.y))
        (n, d), m, b = x.shape, y.shape[0], self.blocks
        if n == 0:
            return
        # The interpreter's products know no bfloat16.
        dot = tl.float32 if INTERPRETED and x.dtype == torch.bfloat16 else DTYPES[x.dtype]
        codes = (out if self.own is None else self.own, out if self.other is None else self.other)
        grid = (triton.cdiv(n, b.rows), triton.cdiv(d, flags.get("BO", d)))
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            kernel[grid](
                x, y, *codes, *vectors, out, n, m, d, x.stride(0), y.stride(0), self.scale * LOG2_E,
                EXCLUDE=self.exclude, DOT=dot, PRECISION="tf32" if self.tf32 else "ieee",
                BR=b.rows, BC=b.columns, BD=b.features, **flags,
                num_warps=b.warps, num_stages=b.stages, enable_fp_fusion=True,
            )  # fmt: skip
