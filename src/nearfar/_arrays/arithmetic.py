"""Functions of numbers that the array API standard has no word for, or that one library has a shorter way to."""

from __future__ import annotations

import math

import numpy as np

from nearfar._arrays.convert import zeros
from nearfar._arrays.kinds import Array, Namespace, device_of, is_jax, is_torch, limits


def where(xp: Namespace, condition: Array, a: Array, otherwise: float) -> Array:
    """``a`` where the condition holds, else a number."""
    if is_torch(a) and a.is_floating_point():
        return a.where(condition, otherwise)
    if type(a) is np.ndarray and a.dtype.kind == "f":
        return np.where(condition, a, otherwise)
    return xp.where(condition, a, xp.asarray(otherwise, dtype=a.dtype, device=device_of(a)))


def above(xp: Namespace, a: Array, limit: float) -> Array:
    """1 where ``a`` is greater than a number, else 0, NaN among it; ``a`` may be overwritten."""
    return xp.greater(a, limit, out=a) if is_torch(a) else xp.astype(a > limit, a.dtype)


def beyond(xp: Namespace, a: Array, least: Array) -> Array:
    """``a`` where it is greater than ``least``, ∞ elsewhere; NaN stays."""
    if is_jax(a):
        return where(xp, ~(a <= least), a, float("inf"))
    # By arithmetic, some five times as fast as a choice: 1 / 1 − 1 or 1 / 0 − 1 is added.
    added = xp.greater(a, least, out=xp.empty_like(a)) if is_torch(a) else (a > least).astype(a.dtype)
    added = xp.reciprocal(added, out=added)
    added -= 1
    added += a
    return added


def without(xp: Namespace, a: Array, kept: Array) -> Array:
    """``a`` where ``kept`` is 1, −∞ where it is 0; NaN stays; both are overwritten where the library allows."""
    if is_jax(a):
        return where(xp, (kept != 0) | (a != a), a, -float("inf"))
    kept = xp.reciprocal(kept, out=kept)
    kept -= 1
    a -= kept
    return a


def row_max(xp: Namespace, z: Array) -> Array:
    """Largest entry of each row as a column; 0 for a row without a finite or larger entry than −inf."""
    if z.shape[-1] == 0:
        return zeros(xp, (*z.shape[:-1], 1), z)
    if is_torch(z):
        top = z.amax(-1, keepdim=True)
        return top.masked_fill_(top == -float("inf"), 0.0)
    if type(z) is np.ndarray:
        top = np.maximum.reduce(z, -1, keepdims=True)
        top[top == -float("inf")] = 0.0
        return top
    top = xp.max(z, axis=-1, keepdims=True)
    return where(xp, top != -float("inf"), top, 0.0)


def exp_sum(xp: Namespace, z: Array) -> tuple[Array, Array, Array]:
    """Log-sum-exp of each row (a column; −inf for an empty row), ``exp(z − largest)`` and its sum; overwrites ``z``.

    The sum is at least 1, or 0 for an empty row. Entries of −inf are outside the sum; NaN and +inf propagate.
    """
    top = row_max(xp, z)
    z -= top
    z = exponential(xp, z)
    total = xp.sum(z, axis=1, keepdims=True)
    return xp.log(total) + top, z, total


def exp_pair(xp: Namespace, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """``log(exp(a) + exp(b))``, and the share of each in the sum (0 where both are −inf)."""
    top = xp.maximum(a, b)
    safe = where(xp, top != -float("inf"), top, 0.0)
    one, other = xp.exp(a - safe), xp.exp(b - safe)
    total = one + other
    held = where(xp, total != 0, total, 1.0)
    return where(xp, total != 0, xp.log(held) + safe, -float("inf")), one / held, other / held


def exponential(xp: Namespace, z: Array) -> Array:
    """``exp(z)``; ``z`` is overwritten where the library allows."""
    return xp.exp(z) if is_jax(z) else xp.exp(z, out=z)


def exponential_base(a: Array) -> float:
    """Base of the library's cheapest exponential: powers of two take torch half the time, NumPy twice."""
    return 2.0 if is_torch(a) else math.e


def to_power(xp: Namespace, z: Array) -> Array:
    """:func:`exponential_base` to the power ``z``, which is overwritten."""
    return xp.exp2(z, out=z) if is_torch(z) else xp.exp(z, out=z)


def at_least(xp: Namespace, a: Array, least: float) -> Array:
    """``max(a, least)``; NaN stays."""
    if is_torch(a):
        return a.clamp(min=least)
    return np.maximum(a, least) if type(a) is np.ndarray else xp.clip(a, min=least)


def relu(xp: Namespace, z: Array) -> Array:
    """``max(z, 0)``; NaN stays; ``z`` is overwritten."""
    if is_torch(z):
        return z.clamp_(min=0)
    if type(z) is np.ndarray:
        return np.maximum(z, 0, out=z)
    return xp.clip(z, min=0)


def root(xp: Namespace, z: Array) -> Array:
    """``sqrt(z)``; ``z`` is overwritten where the library allows."""
    return xp.sqrt(z) if is_jax(z) else xp.sqrt(z, out=z)


def subtract(xp: Namespace, a: Array, b: Array, into: Array | None) -> Array:
    """``a − b``, in the place of ``into`` where that fits and the library allows."""
    if into is None or is_jax(into) or into.shape != b.shape:
        return a - b
    return xp.subtract(a, b, out=into)


def times(xp: Namespace, weight: Array, value: Array) -> Array:
    """``weight · value``, 0 where the weight is 0 whatever the value."""
    return weight * where(xp, weight != 0, value, 0.0)


def step(xp: Namespace, z: Array) -> Array:
    """1 where ``z`` ≥ 0 is not 0, NaN among them, else 0; ``z`` is overwritten where the library allows."""
    return z.ne_(0) if is_torch(z) else xp.astype(z != 0, z.dtype)


def softplus(xp: Namespace, z: Array) -> Array:
    """``log(1 + exp(z))`` without overflow; 0 at −inf."""
    if is_torch(z):
        return z.clamp(min=0).add_(z.abs().neg_().exp_().log1p_())
    if type(z) is np.ndarray:
        return _softplus(z)
    return where(xp, ~(z < 0), z, 0.0) + xp.log1p(xp.exp(-xp.abs(z)))


def _softplus(z: Array) -> Array:
    """NumPy's ``log1p`` is slow: log(1 + e) and what the sum lost of e."""
    small = np.abs(z)
    np.negative(small, out=small)
    np.exp(small, out=small)
    whole = small + 1
    lost = whole - 1
    lost -= small
    lost /= whole
    np.log(whole, out=whole)
    whole -= lost
    whole += np.maximum(z, 0)
    return whole


def sigmoid(xp: Namespace, z: Array) -> Array:
    """``1 / (1 + exp(−z))`` without overflow."""
    if is_torch(z):
        return z.sigmoid()
    if type(z) is np.ndarray:
        z = np.exp(-z)  # ∞ where it overflows, whose share is 0
        z += 1
        return np.reciprocal(z, out=z)
    small = xp.exp(-xp.abs(z))
    return xp.where(z < 0, small, xp.ones_like(small)) / (1 + small)


def power_of_two(xp: Namespace, a: Array) -> Array:
    """A power of two close to each positive entry, which is normal and whose reciprocal is; 1 for 0 and not finite."""
    mantissa = (xp.frexp if hasattr(xp, "frexp") else np.frexp)(a)[0]
    smallest = limits(xp, a.dtype)[0]
    power = xp.clip(a / (2 * where(xp, mantissa != 0, mantissa, 1.0)), min=smallest, max=1 / smallest)
    return xp.where((a > 0) & (a < float("inf")), power, xp.ones_like(a))


def extremes(xp: Namespace, a: Array) -> tuple[float, float]:
    """The smallest and the largest entry."""
    if is_torch(a):
        least, most = a.aminmax()
        return float(least), float(most)
    return float(xp.min(a)), float(xp.max(a))
