"""Pictures of what a loss does: its pull on a positive and its push on a negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearfar._errors import BackendError, InputError
from nearfar.losses import PairLoss
from nearfar.measures import CosineDistance

Numbers = NDArray[np.float64]
PULL, PUSH = "#1f83c6", "#d55e00"
STEPS = 241


@dataclass(frozen=True)
class Forces:
    """How strongly an anchor's loss moves a positive and a negative, as each moves and the other stays.

    A force is −∂loss/∂distance: below 0 it pulls the pair together, above 0 it pushes it apart.

    Attributes:
        distance: Distance from the anchor; shape (steps,). On the unit sphere (measures of angles, inner products)
            the length of the chord, 0 to 2.
        positive: Force on the positive at each distance; shape (steps,).
        negative: Force on the negative at each distance; shape (steps,).
        fixed: Where the other one stays.
    """

    distance: Numbers
    positive: Numbers
    negative: Numbers
    fixed: float


def probe(loss: Any, *, fixed: float = 1.0) -> Forces:
    """The forces of one anchor's loss on one positive and one negative.

    Args:
        loss: A loss on labels.
        fixed: Distance at which the negative stays while the positive moves, and the other way round; in (0, 2).

    Returns:
        The forces, from the loss's own gradient.

    Raises:
        InputError: A loss that does not compare pairs, or a distance outside (0, 2).

    Example:
        >>> import nearfar as nf
        >>> forces = nf.plot.probe(nf.ContrastiveLoss(margin=1.0))
        >>> bool((forces.positive <= 0).all() and (forces.negative >= 0).all())
        True
    """
    if not isinstance(loss, PairLoss):
        raise InputError(f"expected a loss that compares pairs, got {type(loss).__name__}; its forces have no distance")
    if not 0 < fixed < 2:
        raise InputError(f"expected fixed between 0 and 2, got {fixed}; leave it at 1")
    straight = loss.kind == "distance" and not isinstance(loss.measure, CosineDistance)
    distance = np.linspace(0.0, 2.0, STEPS)
    # The ends of the half circle have no direction in which the distance grows.
    distance = distance[1:-1]
    positive = np.asarray([_force(loss, straight, 0, d, fixed) for d in distance])
    negative = np.asarray([_force(loss, straight, 1, fixed, d) for d in distance])
    return Forces(distance, positive, negative, fixed)


def _force(loss: Any, straight: bool, moved: int, positive: float, negative: float) -> float:
    """−∂loss/∂distance of the reference that moves."""
    (p, along_p), (n, along_n) = _place(positive, straight), _place(negative, straight)
    # The two go opposite ways, so that neither stands on the other.
    n, along_n = n * [1, -1, 1], along_n * [1, -1, 1]
    anchor = _place(0.0, straight)[0]
    _, (_, gradient) = loss.value_and_grad(anchor[None], [0], references=np.stack([p, n]), reference_labels=[0, 1])
    return -float(gradient[moved] @ (along_p, along_n)[moved])


def _place(distance: float, straight: bool) -> tuple[Numbers, Numbers]:
    """A point so far from the anchor, and the change of the point with the distance."""
    if straight:
        return np.array([0.0, distance, 0.0]), np.array([0.0, 1.0, 0.0])
    angle = 2 * np.arcsin(distance / 2)
    turn = 1 / np.sqrt(1 - (distance / 2) ** 2)
    return (
        np.array([np.cos(angle), np.sin(angle), 0.0]),
        turn * np.array([-np.sin(angle), np.cos(angle), 0.0]),
    )


def forces(loss: Any, *, fixed: float = 1.0, ax: Any = None) -> Any:
    """Draw the pull on a positive and the push on a negative against distance.

    Args:
        loss: A loss on labels.
        fixed: Where the other one of the two stays, in (0, 2).
        ax: Axes of Matplotlib to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        BackendError: Matplotlib is missing.
        InputError: As of :func:`probe`.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("svg")
        >>> import nearfar as nf
        >>> ax = nf.plot.forces(nf.ContrastiveLoss(margin=1.0))
        >>> ax.get_title()
        'ContrastiveLoss'
    """
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise BackendError("expected Matplotlib for pictures, got none; pip install matplotlib") from error
        ax = pyplot.subplots(figsize=(4.2, 3.0), layout="constrained")[1]
    found = probe(loss, fixed=fixed)
    ax.axhline(0, color="#8c8c8c", linewidth=0.8)
    ax.axvline(fixed, color="#8c8c8c", linewidth=0.8, linestyle=":")
    ax.plot(found.distance, found.positive, color=PULL, label="on a positive")
    ax.plot(found.distance, found.negative, color=PUSH, linestyle="--", label="on a negative")
    ax.set(title=type(loss).__name__, xlabel="distance from the anchor", ylabel="force (pull < 0 < push)")
    ax.legend(frameon=False, fontsize="small")
    return ax


__all__ = ["Forces", "forces", "probe"]
