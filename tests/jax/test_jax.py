"""Every loss under JAX: value and gradient of NumPy's engine, through ``jit``, ``grad``, ``vmap`` and ``shard_map``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import nearfar as nf
from cases import CASES, EPS, FIRST, call, labels_for, table_scale
from families.features import LOSSES
from nearfar.engine import Strips
from nearfar.engine.moments import with_values

# Thousands of small compilations: without LLVM's optimisations they take a third of the time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
jax = pytest.importorskip("jax")
jnp = jax.numpy

HERE = Path(__file__).parent
# One variant a loss is traced; a loss of each kind of rule is run as well. The rest belongs to make test-all.
KINDS = ("SupCon", "Triplet", "LiftedStructure", "Histogram", "Angular", "FastAP")
FEATURES = [loss for name, loss in LOSSES.items() if "-" not in name]
a_few = pytest.mark.parametrize(
    "loss", [nf.SupConLoss(), nf.ContrastiveLoss(), nf.LiftedStructureLoss()], ids=lambda v: type(v).__name__
)


@pytest.fixture
def wide(request):
    """float64, which JAX has only if asked."""
    with jax.enable_x64(True):
        yield
    if request.node.get_closest_marker("slow"):
        jax.clear_caches()  # Hundreds of compiled losses are more than a process can map.


def close(ours, theirs, rel=1e-12):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rel * max(np.abs(theirs).max(initial=0.0), 1e-2))


def some(names):
    """All cases, those that are not the first of a loss named as slow."""
    chosen = [FIRST[name] for name in names]
    cases = [pytest.param(v, id=k, marks=() if k in chosen else pytest.mark.slow) for k, v in CASES.items()]
    return pytest.mark.parametrize("loss", cases)


@some(FIRST)
def test_every_loss_is_traced(loss, batch, gallery):
    """Nothing depends on a value, labels included."""
    x, labels = batch
    x, own = jnp.asarray(x, jnp.float32), jnp.asarray(labels_for(loss, x, labels))
    traced = jax.jit(jax.value_and_grad(lambda x, own: loss(x, own, engine=Strips(5)))).trace(x, own)
    assert [out.shape for out in traced.out_info] == [(), x.shape]


@some([f"{name}Loss" for name in KINDS])
def test_every_loss_is_that_of_numpy(loss, batch, gallery, wide):
    """Alone through ``grad``, and with references."""
    x, labels = batch
    own = labels_for(loss, x, labels)
    value, (gradient,) = call(loss, x, own)
    ours = jax.jit(jax.value_and_grad(lambda x: loss(x, own, engine=Strips(5))))(jnp.asarray(x))
    close(ours[0], value)
    close(ours[1], gradient)
    value, gradients = call(loss, x, labels, *gallery)
    ours = call(loss, jnp.asarray(x), labels, jnp.asarray(gallery[0]), gallery[1])
    close(ours[0], value)
    for one, other in zip(ours[1], gradients, strict=True):
        close(one, other)


@pytest.mark.parametrize("loss", FEATURES, ids=lambda v: type(v).__name__)
def test_every_loss_of_features(loss, batch, wide):
    views = (batch[0], batch[0][::-1] + 0.1)[: loss.batches]
    value, gradients = loss.value_and_grad(*views)
    ours = jax.jit(jax.value_and_grad(lambda views: loss(*views)))(tuple(map(jnp.asarray, views)))
    close(ours[0], value)
    for one, other in zip(ours[1], gradients if loss.batches > 1 else (gradients,), strict=True):
        close(one, other)


@pytest.mark.parametrize("loss", [nf.AlignmentLoss(), nf.BYOLLoss(), nf.KoLeoLoss()], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("features", [4, 64])
def test_near_the_largest_number(loss, features, wide):
    """XLA makes one quotient of two, by a product that is beyond the range here."""
    rng = np.random.default_rng(32)
    views = [np.sign(v) + v / 8 for v in rng.normal(size=(loss.batches, 6, features))]
    ours = jax.jit(lambda views: loss(*views))([jnp.asarray(v * 1e308) for v in views])
    close(ours, loss(*views))


@a_few
def test_compiled_in_float32(loss, batch):
    """Without x64, and without a warning that float64 is missing."""
    x = batch[0].astype(np.float32)
    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(x), jnp.asarray(batch[1]))
    expected, (true,) = call(loss, x.astype(np.float64), batch[1])
    noise = 16 * EPS["float32"] * (1 + table_scale(loss, x))
    assert value.dtype == gradient.dtype == jnp.float32
    assert abs(float(value) - expected) <= 2 * EPS["float32"] * abs(expected) + noise
    close(gradient, true, 4 * noise)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_types_are_computed_in_float32(dtype, batch):
    x, loss = jnp.asarray(batch[0]).astype(dtype), nf.SupConLoss()
    value, gradient = loss.value_and_grad(x, batch[1])
    expected, true = loss.value_and_grad(x.astype(jnp.float32), batch[1])
    assert value.dtype == gradient.dtype == x.dtype
    np.testing.assert_allclose(float(value), float(expected), rtol=float(jnp.finfo(dtype).eps))
    close(gradient, true, float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("known", [True, False], ids=["lists", "whole rows"])
@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(nf.SmoothAPLoss(temperature=0.1), id="SmoothAP"),
        pytest.param(nf.TripletLoss(soft=True), id="soft", marks=pytest.mark.slow),
        pytest.param(nf.TripletLoss(mining="semihard"), id="semihard", marks=pytest.mark.slow),
        pytest.param(nf.HistogramLoss(), id="Histogram", marks=pytest.mark.slow),
    ],
)
def test_any_strip_height(loss, known, batch, wide):
    """With labels that are there to be looked at an anchor's positives are a list; else its whole row."""
    x, labels = np.concatenate([batch[0], batch[0] + 0.3]), np.arange(26) // 3
    value, (gradient,) = call(loss, x, labels)
    for rows in (4, 26):
        run = jax.value_and_grad(lambda x, own, rows=rows: loss(x, labels if known else own, engine=Strips(rows)))
        ours = jax.jit(run)(jnp.asarray(x), jnp.asarray(labels))
        close(ours[0], value)
        close(ours[1], gradient)


X = np.random.default_rng(41).normal(size=(8, 4))
Y = np.array([0, 0, 1, 1, 2, 2, 3, 3])
BATCHES = {
    "empty": (X[:0], Y[:0]),
    "one": (X[:1], Y[:1]),
    "one class": (X, 0 * Y),
    "all singletons": (X, np.arange(8)),
    "a zero row": (X * (np.arange(8) != 2)[:, None], Y),
    "all zero": (0 * X, Y),
    "identical": (X[[3] * 8], Y),
    "near": (X[[0, 0, 2, 2, 4, 4, 6, 6]] * (1 + 1e-9 * (np.arange(8) % 2))[:, None], Y),
    "offset": (1e6 + X, Y),
    "tiny": (1e-30 * X, Y),
    "huge": (1e30 * X, Y),
}


@a_few
def test_degenerate_batches(loss, wide):
    run = jax.jit(jax.value_and_grad(loss))
    for name, (x, labels) in BATCHES.items():
        with np.errstate(all="ignore"):
            value, (gradient,) = call(loss, x, labels)
        ours = run(jnp.asarray(x), jnp.asarray(labels))
        assert abs(float(ours[0]) - float(value)) <= 1e-10 * max(1.0, abs(float(value))), name
        assert not np.isnan(np.asarray(ours[1])).any(), name
        # What cancels leaves the rounding of weights beside the size of the rows.
        size = np.abs(x).max(initial=0.0)
        rounding = 1e-14 * (size if isinstance(loss.measure, nf.Euclidean) else 1 / size if size else 0.0)
        np.testing.assert_allclose(ours[1], gradient, rtol=1e-6, atol=rounding, err_msg=name)


@a_few
def test_nan_reaches_the_value_unless_ignored(loss, wide):
    x, labels = X.copy(), np.where(np.arange(8) == 5, -1, Y)
    x[5] = np.nan
    value, (gradient,) = call(loss, x, labels, ignore_label=-1)
    run = jax.jit(jax.value_and_grad(lambda x, labels: loss(x, labels, ignore_label=-1)))
    assert jnp.isnan(run(jnp.asarray(x), jnp.asarray(Y))[0])
    ours = run(jnp.asarray(x), jnp.asarray(labels))
    close(ours[0], value)
    close(ours[1], gradient)


def test_other_call_forms(wide):
    """Against PyTorch, whose gradients NumPy's call forms do not give."""
    rng = np.random.default_rng(3)
    a, b, c = (rng.normal(size=(6, 3)) for _ in range(3))
    same, distance = np.array([1, 0, 0, 1, 1, 0]), rng.uniform(0.2, 2, 6)
    positive, negative = rng.integers(0, 3, (6, 6)), rng.random((6, 6))
    words, contrastive = ["x", "y", "x", "z", "y", "x"], nf.ContrastiveLoss(balanced=True)
    forms = [
        lambda a, b, c: nf.ContrastiveLoss().pairs(a, b, same),
        lambda a, b, c: nf.TripletLoss(margin=0.4).triplets(a, b, c),
        lambda a, b, c: nf.InfoNCELoss().views(a, b, c),
        lambda a, b, c: nf.InfoNCELoss().aligned(a, b),
        lambda a, b, c: contrastive(a, nf.Mask(positive, negative), engine=Strips(4)),
        lambda a, b, c: (nf.SupConLoss() + 0.5 * nf.InfoNCELoss())(a, words),
        lambda a, b, c: nf.CrossEntropyLoss()(a, [0, 1, 3, -1, 0, 2], class_weights=b[:4], ignore_label=-1),
        lambda a, b, c: nf.SupConLoss().per_anchor(a, same) @ a[:, 0],
    ]
    leaves = [torch.tensor(v, requires_grad=True) for v in (a, b, c)]
    for form in forms:
        wanted = form(*leaves)
        true = torch.autograd.grad(wanted, leaves, allow_unused=True, materialize_grads=True)
        value, gradients = jax.jit(jax.value_and_grad(form, argnums=(0, 1, 2)))(a, b, c)
        close(value, wanted.detach())
        for one, other in zip(gradients, true, strict=True):
            close(one, other)
    measured = jnp.asarray(distance)
    close(nf.ContrastiveLoss().distances(measured, same), nf.ContrastiveLoss().distances(distance, same))
    binary = nf.BinaryCrossEntropyLoss()
    close(binary.similarities(measured, same), binary.similarities(distance, same))
    close(nf.CrossEntropyLoss()(jnp.asarray(a), [0, 2, 1, 1, 0, 0]), nf.CrossEntropyLoss()(a, [0, 2, 1, 1, 0, 0]))


LEARNED = [
    (nf.InfoNCELoss(), {"temperature": 0.3}, lambda own, a, b, y: own.aligned(a, b, engine=Strips(5))),
    (nf.SigLIPLoss(), {"temperature": 0.3, "bias": -2.0}, lambda own, a, b, y: own.aligned(a, b)),
    (nf.CrossEntropyLoss(), {"temperature": 0.3}, lambda own, a, b, y: own.per_anchor(a, y, class_weights=b) @ a[:, 0]),
    (nf.MarginLoss(), {"beta": np.linspace(0.9, 1.4, 13)}, lambda own, a, b, y: own(a, y, engine=Strips(5))),
    (nf.NCALoss(), {"temperature": 0.7}, lambda own, a, b, y: own(a, y)),
    (nf.BinaryCrossEntropyLoss(), {"temperature": 0.7}, lambda own, a, b, y: own.pairs(a, b, y == 2)),
    (
        nf.MultipleNegativesRankingLoss(directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")),
        {"temperature": 0.7},
        lambda own, a, b, y: own.aligned(a, b, a + b, engine=Strips(7)),
    ),
    (nf.LossSum, {"temperature": 0.7}, lambda own, a, b, y: (0.5 * own + nf.NCALoss())(a, y)),
]


@pytest.mark.parametrize(
    ("loss", "start", "form"),
    [pytest.param(*v, id=str(k), marks=pytest.mark.slow if k % 3 else ()) for k, v in enumerate(LEARNED)],
)
def test_learned_hyper_parameters_are_those_of_torch(loss, start, form, batch, wide):
    """Values and gradients of everything, compiled."""
    loss = nf.SupConLoss() if loss is nf.LossSum else loss
    y, names = np.asarray(batch[1]) % 13, list(start)
    given = batch[0], np.random.default_rng(8).normal(size=batch[0].shape), *map(np.asarray, start.values())

    def value(a, b, *values):
        return form(replace(loss, **dict(zip(names, values, strict=True))), a, b, y)

    leaves = [torch.tensor(v, requires_grad=True) for v in given]
    wanted = form(with_values(loss, dict(zip(names, leaves[2:], strict=True))), *leaves[:2], y)
    true = torch.autograd.grad(wanted, leaves, allow_unused=True, materialize_grads=True)
    ours = jax.jit(jax.value_and_grad(value, argnums=tuple(range(len(given)))))(*map(jnp.asarray, given))
    close(ours[0], wanted.detach())
    for one, other in zip(ours[1], true, strict=True):
        close(one, other)


def test_what_cannot_be_learned_is_refused():
    x = jnp.asarray(X, jnp.float32)
    with pytest.raises(nf.InputError, match="that can be learned"):
        nf.jax.learned(nf.ContrastiveLoss(), margin=x[0, 0])
    with pytest.raises(nf.InputError, match="that can be learned"):
        replace(nf.ContrastiveLoss(), margin=x[0, 0])(x, Y)
    with pytest.raises(nf.InputError, match="take the loss inside"):
        nf.jax.learned(0.5 * nf.SupConLoss(), temperature=x[0, 0])
    with pytest.raises(nf.ShapeError, match=r"expected beta of shape \(\) or \(8,\)"):
        nf.jax.learned(nf.MarginLoss(), beta=x[:3, 0])(x, Y)
    with pytest.raises(nf.ShapeError, match=r"expected temperature of shape \(\)"):
        nf.jax.learned(nf.SupConLoss(), temperature=x[:, 0])(x, Y)
    with pytest.raises(nf.InputError, match="temperature > 0"):
        replace(nf.SupConLoss(), temperature=-1.0)


G, H = (np.random.default_rng(k).normal(size=(13, 3)) for k in (21, 22))
TAGS = np.random.default_rng(23).integers(0, 2, (13, 6))
MASK = np.random.default_rng(24).random((13, 13)) * (np.random.default_rng(25).random((13, 13)) > 0.5)


def graded(rows, columns):
    """A caller's function, of NumPy."""
    return MASK[rows][:, columns], 1.5 * (MASK[rows][:, columns] == 0)


RELATIONS = {
    "guided labels": lambda labels: (nf.Guided(nf.Labels(labels, ignore=labels[0]), G, margin=0.05), False),
    "guided rows": lambda labels: (nf.Guided(nf.Aligned(), G, H, margin=0.05, relative=True), True),
    "guided mask": lambda labels: (nf.Guided(nf.Mask(MASK, 1 - MASK), G), False),
    "tags": lambda labels: (nf.MultiLabels(TAGS, graded=True), False),
    "tags of both": lambda labels: (nf.MultiLabels(TAGS, TAGS[::-1].copy()), True),
    "a function": lambda labels: (nf.Pairwise(graded), False),
}
ON_RELATIONS = [nf.ContrastiveLoss(balanced=True), nf.LiftedStructureLoss(), nf.InfoNCELoss()]


@pytest.mark.parametrize("name", RELATIONS)
@pytest.mark.parametrize(
    "loss",
    [pytest.param(v, marks=pytest.mark.slow if k else ()) for k, v in enumerate(ON_RELATIONS)],
    ids=lambda v: type(v).__name__,
)
def test_other_relations(name, loss, batch, wide):
    x, labels = batch
    relation, two = RELATIONS[name](labels)
    sides = [x, H @ np.ones((3, x.shape[1])) + x[::-1]] if two else [x]
    value, gradients = loss.value_and_grad(x, relation, **({"references": sides[1]} if two else {}))

    def of(sides):
        return loss(sides[0], relation, engine=Strips(5), **({"references": sides[1]} if two else {}))

    ours = jax.jit(jax.value_and_grad(of))(list(map(jnp.asarray, sides)))
    close(ours[0], value)
    for one, other in zip(ours[1], gradients if two else (gradients,), strict=True):
        close(one, other)


def test_what_is_left_of_relations_is_refused():
    x = jnp.asarray(X, jnp.float32)
    with pytest.raises(nf.InputError, match="mark the pairs in a Mask"):
        nf.SupConLoss()(x, nf.Guided(nf.Guided(nf.Labels(Y), X), X))


NEAR = {
    "none": lambda x: x,
    "some": lambda x: np.concatenate([x[:9], x[:4] * (1 + 1e-9)]),
    "all": lambda x: x[[0] * 13] * (1 + 1e-9 * np.arange(13))[:, None],
    "huge": lambda x: 1e160 * x,
}


@pytest.mark.parametrize("measure", [nf.Euclidean(), nf.CosineDistance()], ids=lambda v: type(v).__name__)
def test_near_pairs_are_right_and_vmap_runs_no_more_than_it_needs(measure, batch, wide):
    loss, labels = nf.TripletLoss(margin=0.3, measure=measure), batch[1]
    names = [name for name in NEAR if name != "huge" or isinstance(measure, nf.CosineDistance)]
    xs = np.stack([NEAR[name](batch[0]) for name in names])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(lambda x: loss(x, labels, engine=Strips(5)))))(
        jnp.asarray(xs)
    )
    for k, x in enumerate(xs):
        value, gradient = loss.value_and_grad(x, labels)
        close(values[k], value)
        rounding = 1e-12 * np.abs(gradient).max() + 1e-14 / np.abs(x).max()
        np.testing.assert_allclose(gradients[k], gradient, rtol=0, atol=rounding, err_msg=names[k])


def test_vmap_is_a_loop(wide):
    rng, loss = np.random.default_rng(5), nf.ContrastiveLoss()
    x, labels = jnp.asarray(rng.normal(size=(3, 8, 4))), jnp.asarray(rng.integers(0, 3, (3, 8)))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss)))(x, labels)
    for k in range(3):
        value, gradient = loss.value_and_grad(np.asarray(x[k]), np.asarray(labels[k]))
        close(values[k], value)
        close(gradients[k], gradient)


def test_what_cannot_be_differentiated_is_refused():
    x, loss = jnp.asarray(X, jnp.float32), nf.SupConLoss()
    with pytest.raises(nf.InputError, match="one derivative of a loss"):
        jax.grad(lambda x: jnp.sum(jax.grad(loss)(x, Y) ** 2))(x)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jacfwd(lambda x: loss(x, Y))(x)
    with pytest.raises(nf.BackendError, match="within int32"):
        loss(x, 2**40 + Y)
    with pytest.raises(nf.BackendError, match="one library"):
        loss(x, Y, references=X, reference_labels=Y)
    with pytest.raises(nf.InputError, match=r"group of torch\.distributed"):
        loss(X, Y, group="i")


@pytest.mark.parametrize("loss", [nf.SupConLoss(), nf.ContrastiveLoss()], ids=lambda v: type(v).__name__)
def test_memory_grows_with_the_batch(loss):
    """4096² floats are 67 MB."""
    x = jax.ShapeDtypeStruct((4096, 64), jnp.float32), jax.ShapeDtypeStruct((4096,), jnp.int32)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 24e6
    dense = jax.jit(jax.grad(lambda x, y: jnp.sum(jax.nn.softmax(x @ x.T) ** 2))).lower(*x).compile()
    assert dense.memory_analysis().temp_size_in_bytes > 67e6


# Of each function of on_devices.py one; then the others.
SHARED = ["ignored", "outside", "class weights", "boundaries", "aligned", "untracked"]
SHARED_TOO = ["supcon", "lifted", "angular", "centres", "angles", "learned", "learned outside", "views"]


@pytest.mark.parametrize("names", [SHARED, pytest.param(SHARED_TOO, marks=pytest.mark.slow)], ids=["few", "others"])
def test_shard_map_is_one_device(names):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [sys.executable, str(HERE / "on_devices.py"), *names],
        capture_output=True, text=True, timeout=240, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout.strip().splitlines()[-1])
    assert list(errors) == names
    assert all(isinstance(error, float) and error < 1e-12 for error in errors.values()), errors


def test_nothing_imports_jax():
    code = (
        "import sys, numpy as np, nearfar as nf; nf.SupConLoss().value_and_grad(np.eye(4), [0, 0, 1, 1]);"
        "raise SystemExit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_cosine_near_the_largest_number(dtype, batch):
    """XLA makes a quotient a product with the reciprocal, which was subnormal, and flushed to 0, for such a scale."""
    x, labels = batch
    x[0] = x[0] / np.abs(x[0]).max() * float(np.finfo(dtype).max)
    with jax.enable_x64(dtype == "float64"):
        value, gradient = nf.SupConLoss().value_and_grad(jnp.asarray(x.astype(dtype)), labels)
    expected, theirs = nf.SupConLoss().value_and_grad(x.astype(dtype), labels)
    eps = float(np.finfo(dtype).eps)
    assert float(value) == pytest.approx(float(expected), rel=16 * eps)
    np.testing.assert_allclose(np.asarray(gradient), theirs, rtol=0, atol=64 * eps * np.abs(theirs).max())
