"""Program of test_jax.py: four devices of one host against one; prints the largest error of each named case as JSON."""

from __future__ import annotations

import json
import os
import sys
from functools import partial

os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)

import numpy as np
from jax.sharding import AxisType, PartitionSpec

import jax
import nearfar as nf

jax.config.update("jax_enable_x64", True)
MESH = jax.make_mesh((4,), ("i",), axis_types=(AxisType.Auto,))
OWN, ALL = PartitionSpec("i"), PartitionSpec()
RNG = np.random.default_rng(3)
X, Z = RNG.normal(size=(16, 5)), RNG.normal(size=(16, 5))
LABELS = np.array([0, 3, 3, 7, 0, 9, 7, 7, 11, 3, 0, 9, 3, 7, 5, 5])


def error(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return float(max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs))


def shared(function, specs, out):
    return jax.jit(jax.shard_map(function, mesh=MESH, in_specs=specs, out_specs=out))


def batch(loss, **options):
    """Gradient taken inside."""

    def inside(x, labels):
        return jax.value_and_grad(lambda x: loss(x, labels, group="i", **options))(x)

    ours = shared(inside, (OWN, OWN), (ALL, OWN))(X, LABELS)
    return error(ours, loss.value_and_grad(X, LABELS, **options))


def outside():
    """Gradient taken through ``shard_map``."""
    loss = nf.SupConLoss()
    value = shared(lambda x, labels: loss(x, labels, group="i"), (OWN, OWN), ALL)
    return error(jax.jit(jax.value_and_grad(value))(X, LABELS), loss.value_and_grad(X, LABELS))


def class_weights(loss, rows):
    w = RNG.normal(size=(12 * rows, 5))

    def inside(x, w, labels):
        return jax.value_and_grad(lambda x, w: loss(x, labels, class_weights=w, group="i"), argnums=(0, 1))(x, w)

    ours = shared(inside, (OWN, ALL, OWN), (ALL, (OWN, ALL)))(X, w, LABELS)
    return error(ours, loss.value_and_grad(X, LABELS, class_weights=w))


def learned(loss, form, inside, **values):
    """Hyper-parameters equal on all devices (or one an anchor), their gradient taken on the devices or through them."""
    each = {name: OWN if np.ndim(value) else ALL for name, value in values.items()}

    def value(x, z, labels, values, **options):
        own = nf.jax.learned(loss, **values)
        return own.aligned(x, z, **options) if form == "aligned" else own(x, labels, **options)

    def slopes(of):
        return lambda x, z, labels, v: jax.value_and_grad(lambda x, v: of(x, z, labels, v), argnums=(0, 1))(x, v)

    specs = (OWN, OWN, OWN, each)
    group = partial(value, group="i")
    ours = shared(slopes(group), specs, (ALL, (OWN, each))) if inside else jax.jit(slopes(shared(group, specs, ALL)))
    values = jax.tree.map(jax.numpy.asarray, values)
    return error(ours(X, Z, LABELS, values), slopes(value)(jax.numpy.asarray(X), jax.numpy.asarray(Z), LABELS, values))


def two(form):
    """Two batches whose rows belong together."""
    loss = nf.InfoNCELoss()

    def value(x, z, **options):
        return getattr(loss, form)(x, z, **options)

    inside = shared(lambda x, z: jax.value_and_grad(lambda x, z: value(x, z, group="i"), argnums=(0, 1))(x, z),
                    (OWN, OWN), (ALL, (OWN, OWN)))  # fmt: skip
    return error(inside(X, Z), jax.value_and_grad(value, argnums=(0, 1))(jax.numpy.asarray(X), jax.numpy.asarray(Z)))


def untracked():
    """0 where the gradient that JAX would scale is refused."""
    loss = nf.SupConLoss()
    value = jax.shard_map(lambda x, labels: loss(x, labels, group="i"), mesh=MESH, in_specs=(OWN, OWN), out_specs=ALL,
                          check_vma=False)  # fmt: skip
    try:
        jax.grad(value)(X, LABELS)
    except nf.InputError as refused:
        return 0.0 if "check_vma=True" in str(refused) else str(refused)
    return "not refused"


CASES = {
    "supcon": lambda: batch(nf.SupConLoss()),
    "ignored": lambda: batch(nf.ContrastiveLoss(balanced=True), ignore_label=3),
    "lifted": lambda: batch(nf.LiftedStructureLoss()),
    "angular": lambda: batch(nf.AngularLoss()),
    "outside": outside,
    "class weights": lambda: class_weights(nf.CrossEntropyLoss(), 1),
    "centres": lambda: class_weights(nf.SoftTripleLoss(per_class=2), 2),
    "angles": lambda: class_weights(nf.ArcFaceLoss(), 1),
    "learned": lambda: learned(nf.SigLIPLoss(), "aligned", True, temperature=0.3, bias=-2.0),
    "learned outside": lambda: learned(nf.InfoNCELoss(), "aligned", False, temperature=0.3),
    "boundaries": lambda: learned(nf.MarginLoss(), "labels", True, beta=np.linspace(0.9, 1.4, 16)),
    "aligned": lambda: two("aligned"),
    "views": lambda: two("views"),
    "untracked": untracked,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: CASES[name]() for name in sys.argv[1:]}))
