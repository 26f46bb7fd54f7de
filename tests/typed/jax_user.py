"""What a careful JAX user writes; ``mypy --strict`` reads it and a test runs it."""
# ruff: noqa: T201, I001

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

import nearfar as nf

LOSS, CLIP = nf.SupConLoss(temperature=0.2), nf.InfoNCELoss(temperature=0.1)


def embed(weight: jax.Array, x: jax.Array) -> jax.Array:
    """A linear model."""
    return x @ weight


def objective(weight: jax.Array, x: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss of the embeddings."""
    value: jax.Array = LOSS(embed(weight, x), labels)
    return value


def clip(logit_scale: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """A temperature that is learned."""
    value: jax.Array = nf.jax.learned(CLIP, temperature=jnp.exp(-logit_scale)).aligned(left, right)
    return value


@partial(jax.jit, static_argnames="rate")
def step(weight: jax.Array, x: jax.Array, labels: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    """One step of gradient descent."""
    value, gradient = jax.value_and_grad(objective)(weight, x, labels)
    return weight - rate * gradient, value


def main() -> None:
    """A few steps, then other call forms."""
    x = jax.random.normal(jax.random.key(0), (12, 6))
    labels, weight = jnp.arange(12) // 3, jax.random.normal(jax.random.key(1), (6, 4))
    for _ in range(3):
        weight, value = step(weight, x, labels, rate=0.1)
        print(float(value))
    z = embed(weight, x)
    views: jax.Array = LOSS.views(z, z[::-1])
    aligned: jax.Array = CLIP.aligned(z, z[::-1])
    pairs: jax.Array = nf.ContrastiveLoss().pairs(z, z[::-1], labels == 1)
    print(float(jax.grad(clip)(jnp.log(10.0), z, z[::-1])))
    found, gradient = LOSS.value_and_grad(z, labels)
    print(float(views), float(aligned), float(pairs), float(found), gradient.shape)


if __name__ == "__main__":
    main()
