"""Hyper-parameters that JAX follows: arrays in the place of a loss's numbers, with gradients from moments of weights.

Compiled code is kept by the loss, which has to be hashable, so that its arrays leave it (:func:`taken`) and come back
where the table is run (:func:`held`).
"""

from __future__ import annotations

from typing import Any, TypeVar

from nearfar._arrays import Array, Namespace, is_jax
from nearfar._errors import InputError, ShapeError
from nearfar.engine.moments import refusal, slope, with_values

L = TypeVar("L")


def learned(loss: L, **values: Any) -> L:
    r"""A loss with hyper-parameters that JAX differentiates: temperature, bias, boundary.

    .. math::
        z = s / \tau + b: \quad
        \frac{\partial L}{\partial \tau} = -\frac1\tau \sum_{ij} w_{ij} s_{ij}, \quad
        \frac{\partial L}{\partial b} = \tau \sum_{ij} w_{ij}; \qquad
        z = s - \beta: \quad \frac{\partial L}{\partial \beta_i} = -\sum_j w_{ij}

    with :math:`w_{ij} = \partial L / \partial s_{ij}`. Which they are, each loss says in ``learnable``:
    ``temperature`` of the softmax losses, ``bias`` of SigLIP, ``beta`` of margin, ``base`` of multi-similarity. Their
    values are not looked at: keep a temperature positive, for example as ``jnp.exp(-logit_scale)``.
    ``dataclasses.replace(loss, temperature=t)`` makes the same loss.

    Args:
        loss: A loss on pairs.
        **values: Arrays of shape (), or numbers. A boundary may be one an anchor, shape (anchors,): ``beta[labels]``.

    Raises:
        InputError: A hyper-parameter that is no such thing (a hinge's margin).

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import nearfar as nf
        >>> def objective(params, images, texts):
        ...     clip = nf.jax.learned(nf.InfoNCELoss(), temperature=jnp.exp(-params["logit_scale"]))
        ...     return clip.aligned(images, texts)
        >>> images, texts = jnp.eye(2), jnp.array([[0.8, 0.6], [0.6, 0.8]])
        >>> slopes = jax.grad(objective)({"logit_scale": jnp.log(1 / 0.07)}, images, texts)
        >>> round(float(slopes["logit_scale"]), 4)
        -0.1552

    Memory: of the loss.

    References:
        Radford et al., "CLIP", ICML 2021, section 2.5; Zhai et al., "SigLIP", ICCV 2023, algorithm 1.
    """
    for name in values:
        if name not in getattr(loss, "learnable", {}):
            raise _no_loss(loss) if not hasattr(loss, "learnable") else refusal(loss, name)
    return with_values(loss, values)


def _no_loss(loss: Any) -> InputError:
    return InputError(
        f"expected a loss on pairs, got {type(loss).__name__}; of a sum or a Matryoshka take the loss inside"
    )


def taken(loss: L, anchors: Array, both: bool) -> tuple[L, dict[str, Array]]:
    """The loss without its arrays, and they, in the dtype of the table."""
    # A rule made for one call is like no other (eq=False): its arrays are data, and stay.
    alone = type(loss).__hash__ is object.__hash__
    values: dict[str, Array] = {} if alone else {name: v for name, v in vars(loss).items() if is_jax(v)}
    kinds = getattr(loss, "learnable", {})
    for name, value in values.items():
        if name not in kinds:
            raise refusal(loss, name)
        each = kinds[name] == "origin" and not both and value.ndim == 1
        if value.ndim and not (each and value.shape[0] == anchors.shape[0]):
            wanted = f"() or ({anchors.shape[0]},)" if kinds[name] == "origin" and not both else "()"
            raise ShapeError(f"expected {name} of shape {wanted}, got {tuple(value.shape)}; give one number")
    # A number that no check of the loss's own ever sees.
    return with_values(loss, dict.fromkeys(values, 1.0)), {k: v.astype(anchors.dtype) for k, v in values.items()}


def held(loss: L, values: dict[str, Array]) -> tuple[L, Array | None]:
    """The loss with its arrays again; those of each anchor apart, to be taken off the measures of its row."""
    origin = next((value for value in values.values() if value.ndim), None)
    return with_values(loss, {name: 0.0 if value.ndim else value for name, value in values.items()}), origin


def slopes(xp: Namespace, loss: Any, values: dict[str, Array], moments: Array, total: Any) -> dict[str, Array]:
    """Gradients, from the moments of each anchor, (Σ weight · measure, Σ weight); ``total`` adds up devices."""
    scale, shift = total(xp.sum(moments, axis=0))
    temperature = getattr(loss, "temperature", 1.0)
    found = {}
    for name, value in values.items():
        one = -moments[:, 1] if value.ndim else slope(loss.learnable[name], value, scale, shift, temperature)
        found[name] = xp.astype(one, value.dtype)
    return found
