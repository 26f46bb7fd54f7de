"""What test_kernels.py runs in a process of its own, where triton interprets: kernels and executors against float64."""

import array_api_compat.torch as xp
import numpy as np
import pytest
import torch

import nearfar as nf

pytest.importorskip("triton")

from nearfar._errors import BackendError
from nearfar.torch import fused, kernels
from nearfar.torch.kernels import LN_2, Blocks, Table

EPS = float(torch.finfo(torch.float32).eps)
SMALL = Blocks(rows=32, columns=64, features=64, out=128)
OTHER = Blocks(rows=64, columns=32, features=32, out=32)


@pytest.fixture(autouse=True)
def quiet():
    """As in the engine: the interpreter is NumPy, which warns of infinities that are meant."""
    with np.errstate(all="ignore"):
        yield


def sides(n, m, d, dtype=torch.float32):
    rng = np.random.default_rng(n * 1000 + m + d)
    x, y = (rng.standard_normal((k, d)) + 0.3 for k in (n, m))
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) * rng.uniform(0.6, 1, (len(v), 1)) for v in (x, y))
    codes = [torch.tensor(rng.integers(0, 6, k)) for k in (n, m)]
    return torch.tensor(x).to(dtype), torch.tensor(y).to(dtype), codes


def dense(x, y, scale, exclude, codes):
    """The table in float64, −inf where a pair takes no part."""
    s = scale * x.double() @ y.double().T
    if exclude == "self":
        s = s.masked_fill(torch.arange(len(x))[:, None] == torch.arange(len(y)), -torch.inf)
    if exclude == "class":
        s = s.masked_fill(codes[0][:, None] == codes[1], -torch.inf)
    return s


def check(table, codes):
    """Log-sum-exp and all terms of the gradient within a few ulp of the largest logit."""
    x, y = table.x, table.y
    s = dense(x, y, table.scale, table.exclude, codes)
    top = float((table.scale * x.double().norm(dim=1).max() * y.double().norm(dim=1).max()).clamp(min=1))
    few = 6 * EPS * (top + np.log(len(y)))
    row, column = table.row_lse(), table.turned().row_lse()
    wanted = torch.logsumexp(s, 1), torch.logsumexp(s, 0)
    for got, want in zip((row, column), wanted, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double() * LN_2, want, rtol=0, atol=few)
    rng = np.random.default_rng(3)
    a, b = (torch.tensor(rng.standard_normal(len(v)), dtype=torch.float32) for v in (x, y))
    levels = [torch.where(level.isneginf(), 0.0, level) for level in wanted]
    weights = [a[:, None] * torch.exp(s - levels[0][:, None]), b[None] * torch.exp(s - levels[1])]
    for rows, columns, weight in (
        ((row, a), None, weights[0]),
        (None, (column, b), weights[1]),
        ((row, a), (column, b), sum(weights)),
    ):
        got = table.row_gradient(rows, columns)
        assert got.dtype == torch.float32
        allowed = few * (weights[0].abs() + weights[1].abs()) @ y.double().abs() + EPS
        assert ((got - weight @ y.double()).abs() <= allowed).all()


@pytest.mark.parametrize(("n", "m", "d"), [(37, 130, 5), (130, 37, 64), (16, 33, 200), (1, 70, 16)])
@pytest.mark.parametrize(("exclude", "scale"), [("nothing", 10.0), ("class", 100.0)])
def test_rectangular(n, m, d, exclude, scale):
    x, y, codes = sides(n, m, d)
    check(Table(x, y, scale, exclude, *codes, blocks=SMALL), codes)


@pytest.mark.parametrize(("n", "exclude"), [(2, "class"), (37, "class"), (130, "self")])
def test_a_batch_against_itself(n, exclude):
    x, _, (codes, _) = sides(n, 1, 40)
    codes[:2] = torch.tensor([7, 8])
    check(Table(x, x, 10.0, exclude, codes, codes, blocks=OTHER), (codes, codes))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_on_the_way_in_and_nowhere_else(dtype):
    x, y, codes = sides(37, 130, 64, dtype)
    check(Table(x, y, 100.0, "class", *codes, blocks=SMALL), codes)


def test_float16_keeps_small_factors():
    x, y, _ = sides(20, 60, 16, torch.float16)
    table = Table(x, y, 10.0, blocks=SMALL)
    lse, factor = table.row_lse(), torch.linspace(0.5, 2, 20)
    big, small = (table.row_gradient((lse, factor * f)) / f for f in (1.0, 1e-20))
    torch.testing.assert_close(big, small, rtol=1e-5, atol=1e-6)
    assert (table.row_gradient((lse, factor * 0)) == 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e4, 1e30])
def test_extremes_of_scale(scale):
    x, y, _ = sides(20, 40, 5)
    s = dense(x, y, scale, "nothing", None)
    lse = Table(x, y, scale, blocks=SMALL).row_lse().double() * LN_2
    torch.testing.assert_close(lse, torch.logsumexp(s, 1), rtol=1e-6, atol=1e-6)
    factor = torch.ones(20)
    grad = Table(x, y, scale, blocks=SMALL).row_gradient((Table(x, y, scale, blocks=SMALL).row_lse(), factor))
    if scale <= 1e4:  # beyond, the rounding of a logit is larger than the gaps between logits
        torch.testing.assert_close(grad.double(), torch.softmax(s, 1) @ y.double(), rtol=5e-3, atol=1e-5)
    assert torch.isfinite(grad).all()


def test_rows_without_a_pair_and_tables_without_rows():
    x, y, _ = sides(5, 33, 6)
    own, other = torch.tensor([1, 1, 2, 1, 2]), torch.ones(33, dtype=torch.int64)
    table = Table(x, y, 10.0, "class", own, other, blocks=SMALL)
    lse = table.row_lse()
    assert lse.isneginf().tolist() == [True, True, False, True, False]
    grad = table.row_gradient((lse, torch.ones(5)))
    assert (grad[own == 1] == 0).all()
    assert (grad[own == 2] != 0).all()
    assert Table(x, y[:0], 10.0, blocks=SMALL).row_lse().isneginf().all()
    assert Table(x[:0], y, 10.0, blocks=SMALL).row_lse().shape == (0,)
    assert (Table(x, y[:0], 10.0, blocks=SMALL).row_gradient((lse, torch.ones(5))) == 0).all()


@pytest.mark.filterwarnings("ignore:All-NaN")  # the interpreter's maximum
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_reaches_the_rows_that_meet_it(bad):
    x, y, _ = sides(20, 40, 5)
    x[3, 1] = bad
    lse = Table(x, y, 10.0, blocks=SMALL).row_lse()
    assert not lse[3].isfinite()
    assert lse[torch.arange(20) != 3].isfinite().all()
    y[2, 2] = torch.nan
    table = Table(x, y, 10.0, blocks=SMALL)
    assert table.row_lse().isnan().all()
    assert table.row_gradient((table.row_lse(), torch.ones(20))).isnan().all()


def test_same_bits_twice_and_nearly_the_same_in_other_blocks():
    x, y, codes = sides(70, 90, 20)

    def run(blocks):
        table = Table(x, y, 30.0, "class", *codes, blocks=blocks)
        lse, column = table.row_lse(), table.turned().row_lse()
        return lse, table.row_gradient((lse, torch.ones(70)), (column, torch.ones(90)))

    first, again, others = run(SMALL), run(SMALL), run(OTHER)
    for a, b, c in zip(first, again, others, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-5, atol=1e-5)


def test_offsets_beyond_31_bits_and_rows_that_are_not_adjacent():
    stride = 2**30 + 16
    room = torch.empty(2 * stride + 8, dtype=torch.float16)  # pages that nobody touches take no memory
    far = room.as_strided((3, 8), (stride, 1))
    near, y, codes = sides(3, 40, 8, torch.float16)
    far.copy_(near)
    check(Table(far, y, 10.0, blocks=SMALL), codes)
    check(Table(near.T.contiguous().T, y, 10.0, blocks=SMALL), codes)


def test_refusals():
    x = torch.ones(3, 4)
    for wrong in (x.double(), x.half()):
        with pytest.raises(BackendError, match="expected both sides in float32, bfloat16 or float16"):
            Table(wrong if wrong.dtype == torch.float64 else x, wrong, 1.0)


def mean_of(loss, s, positive):
    """Each anchor's loss from a float64 table (self pairs −inf); 0 where it does not count."""
    share = positive / positive.sum(1, keepdim=True).clamp(min=1)
    negatives = torch.logsumexp(s.masked_fill(positive, -torch.inf), 1, keepdim=True)
    if isinstance(loss, nf.SupConLoss):
        logs, counts = s - torch.logsumexp(s, 1, keepdim=True), positive.any(1)
    else:
        logs, counts = s - torch.logaddexp(s, negatives), positive.any(1) & negatives.isfinite()[:, 0]
    each = -(share * torch.where(positive, logs, 0.0)).sum(1)
    return torch.where(counts, each, 0.0), counts


def batch(n, d, measure):
    rng = np.random.default_rng(n)
    labels = np.repeat(np.arange(n), rng.integers(1, 6, n))[:n]  # singletons among them
    rng.shuffle(labels)
    x = torch.tensor(rng.standard_normal((n, d)) * rng.uniform(0.2, 1.5, (n, 1)) / np.sqrt(d), dtype=torch.float32)
    x = measure.prepare(xp, x, None).rows
    return x, torch.tensor(labels)


LOSSES = [
    nf.SupConLoss(0.1),
    nf.SupConLoss(0.01),
    nf.SupConLoss(0.3, measure=nf.Dot()),
    nf.InfoNCELoss(0.1),
    nf.InfoNCELoss(0.01),
    nf.NPairLoss(),
]


def executors(loss, labels, x, y=None):
    blocks = Blocks(rows=64, columns=128, features=128, out=128)
    relation = nf.Labels(labels) if y is None else nf.Aligned()
    bound = relation.bind(xp, x, y)
    left, right = (None if v is None else nf.Dot().prepare(xp, v, None) for v in (x, y))
    scale = 1 / getattr(loss, "temperature", 1.0)
    made = [fused.FusedPooled(loss, scale, bound, left, right, blocks)]
    if isinstance(loss, nf.SupConLoss) and y is None:
        made.append(fused.FusedSoftmax(loss.temperature, bound, left, blocks))
    return scale, made


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize(("n", "d", "weighted"), [(2, 5, False), (37, 5, True), (130, 64, False), (45, 200, True)])
def test_losses_of_a_batch_against_itself(loss, n, d, weighted):
    x, labels = batch(n, d, loss.measure)
    upstream = torch.tensor(np.random.default_rng(5).standard_normal(n), dtype=torch.float32) if weighted else None
    leaf = x.double().requires_grad_()
    alone = torch.eye(n, dtype=torch.bool)
    scale, made = executors(loss, labels, x)
    s = (scale * leaf @ leaf.T).masked_fill(alone, -torch.inf)
    each, counts = mean_of(loss, s, (labels[:, None] == labels) & ~alone)
    total = (each if upstream is None else each * upstream)[counts].sum()
    wanted = torch.autograd.grad(total, leaf)[0] if counts.any() else torch.zeros_like(leaf)
    few = 8 * EPS * (scale * float((x.norm(dim=1) ** 2).max()) + np.log(n))
    for executor in made:
        ran = executor.run(True, upstream)
        assert ran.right is None
        assert torch.equal(ran.terms > 0, counts)
        torch.testing.assert_close(ran.losses.double(), each.detach(), rtol=0, atol=few)
        assert (ran.left - wanted).abs().max() <= few * scale * (1 if upstream is None else 3)
        if n == 37:
            assert torch.equal(executor.run(True, upstream).left, ran.left)
            assert torch.equal(executor.run(False, upstream).losses, ran.losses)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_of_aligned_batches_in_both_directions(loss, weighted):
    n, d = 45, 20
    x, _ = batch(n, d, loss.measure)
    y = x.roll(1, 1) * 0.5 + 0.5 * batch(n + 1, d, loss.measure)[0][:n]
    upstream = torch.tensor(np.random.default_rng(5).standard_normal(n), dtype=torch.float32) if weighted else None
    leaves = x.double().requires_grad_(), y.double().requires_grad_()
    scale, (executor,) = executors(loss, None, x, y)
    s, positive = scale * leaves[0] @ leaves[1].T, torch.eye(n, dtype=torch.bool)
    each = (mean_of(loss, s, positive)[0] + mean_of(loss, s.T, positive)[0]) / 2
    wanted = torch.autograd.grad((each if upstream is None else each * upstream).sum(), leaves)
    few = 8 * EPS * (scale * float(x.norm(dim=1).max() * y.norm(dim=1).max()) + np.log(n))
    ran = executor.run(True, upstream)
    assert (ran.terms == 1).all()
    torch.testing.assert_close(ran.losses.double(), each.detach(), rtol=0, atol=few)
    for got, want in zip((ran.left, ran.right), wanted, strict=True):
        assert (got - want).abs().max() <= few * scale * (1 if upstream is None else 3)


def test_no_anchor_counts():
    x, _ = batch(9, 5, nf.Cosine())
    for labels, loss in ((torch.arange(9), nf.SupConLoss()), (torch.zeros(9, dtype=torch.int64), nf.InfoNCELoss())):
        for executor in executors(loss, labels, x)[1]:
            ran = executor.run(True, None)
            assert all((values == 0).all() for values in (ran.losses, ran.terms, ran.left))


def test_who_is_offered_the_kernels():
    x, labels = batch(20, 5, nf.Cosine())
    side, wide = (nf.Dot().prepare(xp, v, None) for v in (x, torch.ones(20, 257)))
    bound = nf.Labels(labels).bind(xp, x, None)
    aligned = nf.Aligned().bind(xp, x, x.clone())
    loss = nf.SupConLoss()
    offered = [
        (fused.FusedSoftmax, fused.executor(loss, 10.0, bound, (side, side), by_class=True)),
        (fused.FusedPooled, fused.executor(nf.InfoNCELoss(), 10.0, bound, (side, side))),
        (fused.FusedPooled, fused.executor(loss, 10.0, aligned, (side, nf.Dot().prepare(xp, x, None)), by_class=True)),
        (type(None), fused.executor(loss, 10.0, bound, (wide, wide))),
        (type(None), fused.executor(loss, 10.0, nf.Mask(labels[:, None] == labels).bind(xp, x, None), (side, side))),
        (type(None), fused.executor(loss, 10.0, nf.Labels(labels, labels).bind(xp, x, x), (side, side))),
    ]
    for kind, made in offered:
        assert type(made) is kind


def test_it_ran_interpreted():
    assert kernels.INTERPRETED
