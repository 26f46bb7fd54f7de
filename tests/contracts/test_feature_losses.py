"""What every loss of features must satisfy: plain loops and automatic differentiation, dtypes, degenerate batches."""

from __future__ import annotations

import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch

import nearfar as nf
from cases import CELLS, EPS, LARGEST, OF_FEATURES, SMALLEST, array, met_in_pairs, plain
from families.features import LOOPS, LOSSES, placed
from nearfar.engine import strips

RNG = np.random.default_rng(90)
Z1 = RNG.normal(size=(9, 4)) * [0.3, 1.0, 0.7, 2.0] + [0.5, -1.0, 0.0, 3.0]
Z2 = Z1 + RNG.normal(size=(9, 4)) * 0.4
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
cells = pytest.mark.parametrize(("framework", "dtype"), CELLS, ids=["-".join(c) for c in CELLS])
frameworks = pytest.mark.parametrize("framework", ["numpy", "torch"])


def views_of(loss, *views):
    return (views or (Z1, Z2))[: loss.batches]


def call(loss, *views):
    value, gradients = loss.value_and_grad(*views)
    return value, gradients if isinstance(gradients, tuple) else (gradients,)


def looped(loss, *views):
    if len(views[0]) < loss.least:
        return 0.0
    return LOOPS[type(loss)](loss, *(np.asarray(v, dtype=np.float64).tolist() for v in views))


# ------------------------------------------------------------ dense, for automatic differentiation


def safe_root(square):
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def safe_unit(z, axis=1):
    scale = z.detach().abs().amax(axis, keepdim=True)
    z = z / torch.where(scale > 0, scale, 1.0)
    length = safe_root((z * z).sum(axis, keepdim=True))
    return torch.where(length > 0, z / torch.where(length > 0, length, 1.0), 0.0)


def deviations(z):
    z = z - z[:1].detach()  # a constant shift; it makes a constant feature exactly 0
    return z - z.mean(0)


def off(table):
    return table - torch.diag(torch.diagonal(table))


def _dense_barlow(loss, z1, z2):
    table = safe_unit(deviations(z1), 0).T @ safe_unit(deviations(z2), 0)
    return ((1 - torch.diagonal(table)) ** 2).sum() + loss.redundancy * (off(table) ** 2).sum()


def _dense_vicreg(loss, *views):
    n, d = views[0].shape
    value = loss.invariance * ((views[0] - views[1]) ** 2).mean()
    for z in views if n > 1 else ():
        table = deviations(z).T @ deviations(z) / (n - 1)
        value = value + loss.variance * torch.relu(loss.target - (torch.diagonal(table) + loss.epsilon).sqrt()).mean()
        value = value + loss.covariance * (off(table) ** 2).sum() / d
    return value


def put(loss, z):
    return safe_unit(z) if loss.unit else z


def lengths(z):
    scale = z.detach().abs().amax(-1, keepdim=True)
    return safe_root(((z / torch.where(scale > 0, scale, 1.0)) ** 2).sum(-1)) * scale[..., 0]


def _dense_uniformity(loss, z):
    z = put(loss, z)
    apart = ~torch.eye(len(z), dtype=bool)
    return torch.logsumexp(-loss.t * ((z[:, None] - z[None]) ** 2).sum(-1)[apart], 0) - math.log(apart.sum())


def _dense_koleo(loss, z):
    z = put(loss, z)
    other = (lengths(z[:, None] - z[None]).detach() + torch.diag(torch.full((len(z),), math.inf))).argmin(1)
    gap = lengths(z - z[other])
    return -torch.where(gap > loss.floor, gap, loss.floor).log().mean()


DENSE = {
    nf.BarlowTwinsLoss: _dense_barlow,
    nf.VICRegLoss: _dense_vicreg,
    nf.AlignmentLoss: lambda loss, a, b: (lengths(put(loss, a) - put(loss, b)) ** loss.power).mean(),
    nf.UniformityLoss: _dense_uniformity,
    nf.KoLeoLoss: _dense_koleo,
    nf.BYOLLoss: lambda loss, p, z: (2 - 2 * (safe_unit(p) * safe_unit(z.detach())).sum(1)).mean(),
}


def differentiated(loss, *views):
    leaves = [torch.tensor(np.asarray(v, dtype=np.float64), requires_grad=True) for v in views]
    if len(views[0]) < loss.least:
        return [np.zeros(np.shape(v)) for v in views]
    gradients = torch.autograd.grad(DENSE[type(loss)](loss, *leaves), leaves, allow_unused=True)
    return [np.zeros(v.shape) if g is None else g.numpy() for v, g in zip(leaves, gradients, strict=True)]


# ------------------------------------------------------------ the contract


def test_every_loss_of_features_is_here():
    declared = {n for n in nf.losses.__all__ if issubclass(getattr(nf, n), nf.FeatureLoss)} - {"FeatureLoss"}
    assert declared == OF_FEATURES == {type(v).__name__ for v in LOSSES.values()}
    assert set(LOOPS) == set(DENSE) == {type(v) for v in LOSSES.values()}


@every_loss
@frameworks
def test_value_is_that_of_the_loops(loss, framework):
    views = views_of(loss)
    value = loss(*(array(v, framework, "float64") for v in views))
    assert float(value) == pytest.approx(looped(loss, *views), rel=1e-13, abs=1e-14)


@every_loss
@frameworks
def test_gradient_is_that_of_automatic_differentiation(loss, framework):
    views = views_of(loss)
    value, gradients = call(loss, *(array(v, framework, "float64") for v in views))
    assert float(value) == pytest.approx(looped(loss, *views), rel=1e-13, abs=1e-14)
    for k, (ours, theirs) in enumerate(zip(gradients, differentiated(loss, *views), strict=True)):
        assert np.abs(theirs).max() > 1e-4 or (isinstance(loss, nf.BYOLLoss) and k == 1)
        np.testing.assert_allclose(plain(ours), theirs, rtol=1e-11, atol=1e-13 * np.abs(theirs).max())


@every_loss
@cells
def test_every_library_and_dtype(loss, framework, dtype):
    given = [array(v, framework, dtype) for v in views_of(loss)]
    rounded = [plain(v) for v in given]
    value, gradients = call(loss, *given)
    assert {g.dtype for g in (value, *gradients)} == {given[0].dtype}
    assert value.shape == ()
    assert [g.shape for g in gradients] == [v.shape for v in given]
    compute = EPS["float64" if dtype == "float64" else "float32"]
    expected = looped(loss, *rounded)
    assert abs(float(value) - expected) <= 2 * EPS[dtype] * abs(expected) + 64 * compute * (1 + abs(expected))
    for ours, true in zip(gradients, differentiated(loss, *rounded), strict=True):
        assert (np.abs(plain(ours) - true) <= 4 * EPS[dtype] * np.abs(true) + 256 * compute * np.abs(true).max()).all()


@every_loss
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_torch_backward_is_value_and_grad(loss, dtype):
    leaves = [array(v, "torch", dtype).requires_grad_() for v in views_of(loss)]
    out = loss(*leaves)
    value, gradients = call(loss, *leaves)
    assert out.requires_grad
    assert out.dtype == leaves[0].dtype
    assert out.detach() == value
    (4 * out).backward()
    for leaf, g in zip(leaves, gradients, strict=True):
        held = isinstance(loss, nf.BYOLLoss) and leaf is leaves[1]
        assert (leaf.grad is None) == held
        np.testing.assert_allclose(0 if held else plain(leaf.grad), 4 * plain(g), rtol=EPS[dtype], atol=1e-6)
    with torch.no_grad():
        assert not loss(*leaves).requires_grad


@every_loss
def test_gradcheck(loss):
    leaves = [torch.tensor(v, requires_grad=True) for v in views_of(loss)]
    if isinstance(loss, nf.BYOLLoss):
        leaves = leaves[:1]
        assert torch.autograd.gradcheck(lambda p: loss(p, torch.tensor(Z2)), leaves)
        return
    assert torch.autograd.gradcheck(loss, leaves)


@every_loss
def test_double_backward_is_refused(loss):
    leaves = [torch.tensor(v, requires_grad=True) for v in views_of(loss)]
    (gradient,) = torch.autograd.grad(loss(*leaves), leaves[:1], create_graph=True)
    with pytest.raises(nf.InputError, match="one backward pass"):
        gradient.square().sum().backward()


@every_loss
def test_autocast_changes_no_bit(loss):
    leaves = [torch.tensor(v, dtype=torch.float32) for v in views_of(loss)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(*leaves)
    assert inside == loss(*leaves)


@every_loss
def test_permuting_the_items_permutes_the_gradient(loss):
    order = np.random.default_rng(2).permutation(len(Z1))
    views = views_of(loss)
    value, gradients = call(loss, *views)
    again, moved = call(loss, *(v[order] for v in views))
    assert float(again) == pytest.approx(float(value), rel=1e-13)
    for g, m in zip(gradients, moved, strict=True):
        np.testing.assert_allclose(m, g[order], rtol=1e-10, atol=1e-14)


@every_loss
def test_pure_and_deterministic(loss):
    views = [v.copy() for v in views_of(loss)]
    for v in views:
        v.flags.writeable = False
    first, again = call(loss, *views), call(loss, *views)
    assert first[0] == again[0]
    assert all(np.array_equal(a, b) for a, b in zip(first[1], again[1], strict=True))
    tensors = [torch.tensor(v) for v in views]
    call(loss, *tensors)
    assert all(np.array_equal(t, v) for t, v in zip(tensors, views_of(loss), strict=True))


@every_loss
def test_any_layout(loss):
    value, _ = call(loss, *views_of(loss))
    turned, _ = call(loss, *(np.asfortranarray(v) for v in views_of(loss)))
    strided, _ = call(loss, *(torch.tensor(np.repeat(v, 2, axis=1))[:, ::2] for v in views_of(loss)))
    assert float(turned) == pytest.approx(float(value), rel=1e-14)
    assert float(strided) == pytest.approx(float(value), rel=1e-14)


@pytest.mark.parametrize("loss", [v for v in LOSSES.values() if v.batches == 1], ids=str)
@frameworks
@pytest.mark.parametrize("height", [1, 4, 9])
def test_any_strip_height(loss, framework, height, monkeypatch):
    expected, (gradient,) = call(loss, Z1)
    monkeypatch.setattr("nearfar.losses.features.tall", lambda count: height)
    value, (other,) = call(loss, array(Z1, framework, "float64"))
    assert strips.tall(9) > 9
    assert float(value) == pytest.approx(float(expected), rel=1e-14)
    np.testing.assert_allclose(plain(other), gradient, rtol=1e-12, atol=1e-15)


def test_uniformity_where_every_strip_underflows_but_one(monkeypatch):
    """Far apart, each exponential alone is 0; each strip has its own shift."""
    far = np.arange(8.0)[:, None] ** 3 * 40.0
    loss = nf.UniformityLoss(unit=False)
    monkeypatch.setattr("nearfar.losses.features.tall", lambda count: 3)
    value, (gradient,) = call(loss, far)
    assert float(value) == pytest.approx(looped(loss, far), rel=1e-13)
    assert float(value) < -3000
    np.testing.assert_allclose(gradient, differentiated(loss, far)[0], rtol=1e-12)


# ------------------------------------------------------------ degenerate batches

SAME = np.repeat(Z1[:1], 6, axis=0)
FLAT = np.where(np.arange(4) == 2, 0.1, Z1)
HOLE = np.where(np.arange(9)[:, None] == 3, 0.0, Z1)
TWINS = Z1[[0, 1, 1, 3, 4, 4, 4, 7, 8]]
BATCHES = {
    "empty": (Z1[:0], Z2[:0]),
    "one item": (Z1[:1], Z2[:1]),
    "two items": (Z1[:2], Z2[:2]),
    "one feature": (Z1[:, :1], Z2[:, :1]),
    "more features than items": (RNG.normal(size=(3, 40)), RNG.normal(size=(3, 40))),
    "all identical": (SAME, SAME),
    "identical and not": (SAME, Z2[:6]),
    "views identical": (Z1, Z1),
    "a constant feature": (FLAT, Z2),
    "the same constant feature": (FLAT, FLAT),
    "a zero row": (HOLE, Z2),
    "zero rows in both": (HOLE, HOLE),
    "all zero": (np.zeros((5, 4)), np.zeros((5, 4))),
    "minus zero": (np.where(np.arange(9)[:, None] == 3, -0.0, Z1), Z2),
    "twins": (TWINS, Z2),
    "antipodal": (np.concatenate([Z1, -Z1]), np.concatenate([Z2, -Z2])),
    "opposite views": (Z1, -Z1),
    "offset": (Z1 + 1e3, Z2 + 1e3),
    "tiny": (1e-12 * Z1, 1e-12 * Z2),
    "large": (1e4 * Z1, 1e4 * Z2),
}


EACH = [pytest.param(v, id=k) for k, v in LOSSES.items()]


@pytest.mark.parametrize(("loss", "cell", "batch"), met_in_pairs(EACH, BATCHES))
def test_degenerate_batches(loss, cell, batch):
    framework, dtype = cell
    given = [array(v, framework, dtype) for v in views_of(loss, *batch)]
    rounded = [plain(v) for v in given]
    expected, theirs = looped(loss, *rounded), differentiated(loss, *rounded)
    outside = abs(expected) > LARGEST[dtype]
    with np.errstate(over="ignore" if outside else "warn"):  # A warning is an error in these tests.
        value, gradients = call(loss, *given)
    if outside:
        assert not np.isfinite(float(value))
        return
    compute = EPS["float64" if dtype == "float64" else "float32"]
    # What rounding may do to deviations from a large mean, and along the levers 1 / norm of rows and of deviations.
    loose, lever = compute * max(map(offset, rounded)), max(map(levers, rounded))
    assert abs(float(value) - expected) <= 2 * EPS[dtype] * abs(expected) + 128 * loose * (1 + abs(expected))
    if isinstance(loss, nf.UniformityLoss):
        loose *= 1 + abs(expected)  # the size of its exponents
    for ours, true in zip(gradients, theirs, strict=True):
        ours = plain(ours)
        assert np.isfinite(ours).all()
        if isinstance(loss, nf.KoLeoLoss) and tied(placed(loss, rounded[0].tolist())):
            continue
        true = np.clip(true, -LARGEST[dtype], LARGEST[dtype])
        bound = 8 * EPS[dtype] * np.abs(true) + 128 * loose * (np.abs(true).max(initial=0.0) + lever)
        assert (np.abs(ours - true) <= np.maximum(bound, SMALLEST[dtype])).all()


def tied(z):
    """Whether rounding decides which item is the nearest."""
    gaps = [sorted(math.dist(x, y) for j, y in enumerate(z) if i != j) for i, x in enumerate(z)]
    return any(len(row) > 1 and row[1] - row[0] < 1e-6 * row[0] for row in gaps)


def offset(z):
    """How much larger the entries are than their spread."""
    spread = z.std() if z.size else 0.0
    return 1 + (np.abs(z).max() / spread if spread else 1)


def levers(z):
    lengths = [*np.linalg.norm(z, axis=1), *np.linalg.norm(z - z[:1], axis=0)]
    return max([1.0, *(1 / n for n in lengths if n)])


@every_loss
@frameworks
def test_a_collapsed_batch_has_no_force_of_its_own(loss, framework):
    """All items at one place: what pushes items of a batch apart has gradient 0 exactly, and no NaN."""
    if isinstance(loss, nf.AlignmentLoss | nf.BYOLLoss):
        pytest.skip("pulls views together")
    views = views_of(loss, SAME, SAME)
    value, gradients = call(loss, *(array(v, framework, "float64") for v in views))
    assert np.isfinite(float(value))
    assert all(not plain(g).any() for g in gradients)


@every_loss
def test_too_few_items_are_zero_on_the_graph(loss):
    for count in range(loss.least):
        leaves = [torch.tensor(v[:count], requires_grad=True) for v in views_of(loss)]
        value = loss(*leaves)
        assert value == 0
        value.backward()
        assert all(leaf.grad is None or not leaf.grad.any() for leaf in leaves)
        assert leaves[0].grad is not None


@every_loss
@cells
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_values_reach_the_value(loss, framework, dtype, bad):
    for side in range(loss.batches):
        views = [v.copy() for v in views_of(loss)]
        views[side][4, 1] = bad
        value, _ = call(loss, *(array(v, framework, dtype) for v in views))
        assert not np.isfinite(float(value))


@pytest.mark.parametrize("loss", [nf.BarlowTwinsLoss(), nf.BYOLLoss(), nf.AlignmentLoss(), nf.KoLeoLoss()], ids=str)
def test_any_scale(loss):
    """Correlations and unit rows know no scale."""
    value, gradients = call(loss, *views_of(loss))
    for k in (-600, -40, 3, 400):
        again, moved = call(loss, *(np.ldexp(v, k) for v in views_of(loss)))
        assert float(again) == pytest.approx(float(value), rel=1e-14)
        for g, m in zip(gradients, moved, strict=True):
            np.testing.assert_allclose(np.ldexp(m, k), g, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("loss", [nf.BYOLLoss(), nf.AlignmentLoss(), nf.KoLeoLoss(), nf.UniformityLoss()], ids=str)
def test_norms_beyond_the_range(loss, framework):
    """Rows of finite numbers whose norm is not: their unit rows are as they were."""
    rng = np.random.default_rng(31)
    views = [rng.normal(size=(6, 64)) for _ in range(loss.batches)]
    views = [np.sign(v) + v / 8 for v in views]
    value, _ = call(loss, *views)
    far, gradients = call(loss, *(array(v * 1e308, framework, "float64") for v in views))
    assert float(far) == pytest.approx(float(value), rel=1e-13)
    assert all(np.isfinite(plain(g)).all() for g in gradients)


def test_small_angles_do_not_cancel():
    """BYOL and alignment of rows at 1e-9: 1 − cos is 5e-19, which 1 minus a cosine would lose."""
    p, z = np.array([[2.0, 0.0]]), np.array([[3.0, 3e-9]])
    for loss in (nf.BYOLLoss(), nf.AlignmentLoss()):
        value, (gradient, _) = call(loss, p, z)
        assert float(value) == pytest.approx(1e-18, rel=1e-9)
        assert gradient[0, 1] == pytest.approx(-1e-9, rel=1e-9)


# ------------------------------------------------------------ forms and errors


@pytest.mark.parametrize("loss", [v for v in LOSSES.values() if v.batches == 1], ids=str)
def test_views_of_a_loss_of_one_batch_are_averaged(loss):
    third = Z1[::-1] * 2
    each = [float(loss(v)) for v in (Z1, Z2, third)]
    assert float(loss.views(Z1, Z2, third)) == pytest.approx(np.mean(each), rel=1e-14)
    assert float(loss.views(Z1)) == each[0]
    with pytest.raises(nf.ShapeError, match=r"expected 1 batches.*\.views"):
        loss(Z1, Z2)
    with pytest.raises(nf.ShapeError, match="one shape"):
        loss.views(Z1, Z2[:4])


@pytest.mark.parametrize("loss", [v for v in LOSSES.values() if v.batches == 2], ids=str)
def test_views_of_a_loss_of_two(loss):
    assert loss.views(Z1, Z2) == loss(Z1, Z2)
    for views in ((Z1,), (Z1, Z2, Z1)):
        with pytest.raises(nf.ShapeError, match="expected 2 batches"):
            loss(*views)
        with pytest.raises(nf.ShapeError, match="expected 2 batches"):
            loss.views(*views)


@every_loss
@frameworks
def test_bad_batches_are_refused_by_name(loss, framework):
    good = array(Z1, framework, "float64")
    bad = [Z1.tolist(), array(Z1, "torch" if framework == "numpy" else "numpy", "float64"), None]
    bad += [v if framework == "numpy" else torch.tensor(v) for v in (np.zeros((9, 4), int), Z1[0], Z1[:, :0], Z1[None])]
    bad += [array(Z1[:4], framework, "float64"), array(Z1, framework, "float32")]
    for other in bad[: None if loss.batches == 2 else -2]:
        if loss.batches == 1 and (type(other) is not list and array_like(other)):
            continue
        with pytest.raises(nf.InputError, match=r"expected .* got .*; "):
            loss(*((good, other) if loss.batches == 2 else (other,)))
    with pytest.raises(nf.InputError, match="expected no group"):
        loss(*views_of(loss), group=object())


def array_like(value):
    """A batch that a loss of one batch may well take."""
    return getattr(value, "ndim", 0) == 2 and value.shape[1] > 0 and "float" in str(value.dtype)


def test_hyper_parameters_that_cannot_be():
    inf, nan = float("inf"), float("nan")
    bad = {
        nf.BarlowTwinsLoss: {"redundancy": (-1.0, nan, inf)},
        nf.VICRegLoss: {
            **dict.fromkeys(("invariance", "variance", "covariance", "target"), (-1.0, nan, inf)),
            "epsilon": (0.0, -1e-4, nan, inf),
        },
        nf.AlignmentLoss: {"power": (0.5, 0.0, nan, inf)},
        nf.UniformityLoss: {"t": (0.0, -2.0, nan, inf)},
        nf.KoLeoLoss: {"floor": (0.0, -1.0, nan, inf)},
    }
    for kind, fields in bad.items():
        for field, values in fields.items():
            for value in values:
                with pytest.raises(nf.InputError, match=rf"expected .*{field}.* got .*; "):
                    kind(**{field: value})


@pytest.mark.parametrize("cls", sorted({type(v) for v in LOSSES.values()}, key=str))
def test_what_a_reader_and_a_set_need(cls):
    loss, text = cls(), inspect.getdoc(cls)
    assert dataclasses.is_dataclass(loss)
    assert loss == cls()
    assert hash(loss) == hash(cls())
    assert loss == eval(repr(loss), vars(nf))
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.anything = 3
    for part in (".. math::", "Example:", ">>> ", "Memory:", "Reference:"):
        assert part in text, part
    for field in dataclasses.fields(cls):
        assert f"{field.name}:" in text, field.name


# ------------------------------------------------------------ sums


def test_losses_on_pairs_and_of_features_add_on_views():
    both = nf.SupConLoss() + 0.1 * nf.VICRegLoss() + nf.UniformityLoss() * 2
    leaves = [torch.tensor(v, requires_grad=True) for v in (Z1, Z2)]
    value = both.views(*leaves)
    parts = [nf.SupConLoss().views(Z1, Z2), nf.VICRegLoss()(Z1, Z2), nf.UniformityLoss().views(Z1, Z2)]
    assert value.item() == pytest.approx(float(parts[0] + 0.1 * parts[1] + 2 * parts[2]), rel=1e-13)
    value.backward()
    others = [torch.tensor(v, requires_grad=True) for v in (Z1, Z2)]
    uniform = nf.UniformityLoss()
    (
        nf.SupConLoss().views(*others)
        + 0.1 * _dense_vicreg(nf.VICRegLoss(), *others)
        + _dense_uniformity(uniform, others[0])
        + _dense_uniformity(uniform, others[1])
    ).backward()
    for leaf, other in zip(leaves, others, strict=True):
        torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-10, atol=1e-12)


def test_sums_of_losses_of_features():
    both = nf.AlignmentLoss() + 2 * nf.BYOLLoss()
    value, (one, two) = both.value_and_grad(Z1, Z2)
    a, (a1, a2) = nf.AlignmentLoss().value_and_grad(Z1, Z2)
    b, (b1, b2) = nf.BYOLLoss().value_and_grad(Z1, Z2)
    assert value == pytest.approx(a + 2 * b)
    assert both(Z1, Z2) == value
    np.testing.assert_allclose(one, a1 + 2 * b1)
    np.testing.assert_allclose(two, a2 + 2 * b2)
    assert sum([nf.KoLeoLoss(), nf.UniformityLoss()]).views(Z1) == nf.KoLeoLoss()(Z1) + nf.UniformityLoss()(Z1)


def test_what_does_not_add_is_refused_by_name():
    mixed = nf.VICRegLoss() + nf.SupConLoss()
    for form in (mixed, mixed.value_and_grad):
        with pytest.raises(nf.InputError, match=r"expected .* got VICRegLoss; call \.views"):
            form(Z1, [0] * 9)
    for name in ("per_anchor", "aligned"):
        with pytest.raises(nf.InputError, match=f"form .{name}, got VICRegLoss"):
            getattr(mixed, name)(Z1, Z2)
    with pytest.raises(TypeError):
        nf.VICRegLoss() + 3
    with pytest.raises(TypeError):
        nf.VICRegLoss() * "2"


# ------------------------------------------------------------ beside peers


def test_vicreg_beside_its_peer():
    """pytorch-metric-learning halves the variance term."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    leaves, others = ([torch.tensor(v, requires_grad=True) for v in (Z1, Z2)] for _ in range(2))
    theirs = losses.VICRegLoss()(others[0], ref_emb=others[1])
    ours = nf.VICRegLoss(variance=12.5)(*leaves)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    ours.backward()
    theirs.backward()
    for a, b in zip(leaves, others, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
    assert nf.VICRegLoss()(Z1, Z2) > ours.item()
