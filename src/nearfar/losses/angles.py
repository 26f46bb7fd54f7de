"""What losses with a margin on an angle share: the cosine distance as angle, cosine and sine."""

from __future__ import annotations

import math

from nearfar._arrays import Array, Namespace, where
from nearfar._errors import InputError
from nearfar.losses.base import PairLoss
from nearfar.losses.softmax import logit
from nearfar.measures import CosineDistance


def check_angle(loss: PairLoss, margin: float) -> None:
    """Raise unless the margin is an angle below π, on a measure of angles."""
    if not 0 <= margin < math.pi:
        raise InputError(f"expected margin in [0, π), got {margin}; give it in radians, for example 0.5")
    expect_angles(loss)


def expect_angles(loss: PairLoss) -> None:
    """Raise unless the measure is the cosine distance."""
    if not isinstance(loss.measure, CosineDistance):
        raise InputError(
            f"expected measure of {type(loss).__name__} to be CosineDistance(), got {type(loss.measure).__name__}; "
            "the margin is an angle"
        )


def cosine_logit(d: Array, temperature: float) -> tuple[Array, float]:
    """The logit of the cosine 1 − d, in place, and its slope."""
    d *= -1
    d += 1
    z, slope = logit(d, temperature)
    return z, -slope


def angle_of(xp: Namespace, d: Array) -> tuple[Array, Array]:
    """Cosine and sine of the angle at a cosine distance."""
    square = d * (2 - d)
    return 1 - d, xp.sqrt(where(xp, ~(square <= 0), square, 0.0))


def turned(xp: Namespace, d: Array, margin: float) -> tuple[Array, Array]:
    """ArcFace's ψ and its derivative by the distance."""
    cos_m, sin_m = math.cos(margin), math.sin(margin)
    cosine, sine = angle_of(xp, d)
    apart = sine > 0
    turn = where(xp, apart, cosine / where(xp, apart, sine, 1.0), 0.0)
    inside = ~(cosine <= -cos_m)
    value = xp.where(inside, cosine * cos_m - sine * sin_m, cosine - margin * sin_m)
    return value, where(xp, inside, -cos_m - turn * sin_m, -1.0)


__all__ = ["angle_of", "check_angle", "cosine_logit", "expect_angles", "turned"]
