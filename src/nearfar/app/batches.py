"""Which items make a step: P classes × K items, a pure function of (seed, step).

Nothing is remembered between steps, so step k is the same batch whether the run was interrupted or not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar._errors import InputError, ShapeError


def batch_indices(labels: ArrayLike, P: int, K: int, seed: int, step: int) -> NDArray[np.int64]:
    """Indices of the items of one step, grouped by class.

    Classes are drawn without repetition. Items repeat only in a class with fewer than K of them, and then as
    evenly as possible. A class with one item is never drawn: it has no positive. With fewer usable classes
    than P, all of them are in every batch.

    Args:
        labels: Class of each item, shape (n,), integers; a negative label is left out.
        P: Classes per step, at least 2.
        K: Items per class, at least 2.
        seed: Seed of the run, not negative.
        step: Number of the step, not negative.

    Returns:
        Shape (min(P, usable classes) · K,), int64.

    Raises:
        ShapeError: The labels are not one-dimensional.
        InputError: P, K, seed or step is out of range, or fewer than two classes have two items.

    Example:
        >>> from nearfar.app.batches import batch_indices
        >>> labels = [0, 0, 0, 1, 1, 2]
        >>> batch = batch_indices(labels, P=2, K=2, seed=0, step=7)
        >>> [labels[i] for i in sorted(batch)]
        [0, 0, 1, 1]
    """
    classes = np.asarray(labels)
    if classes.ndim != 1:
        raise ShapeError(f"expected labels of shape (n,), got {classes.shape}; pass one label for each item")
    _check_range("P", P, 2)
    _check_range("K", K, 2)
    _check_range("seed", seed, 0)
    _check_range("step", step, 0)
    members = [np.flatnonzero(classes == c) for c in np.unique(classes) if c >= 0]
    usable = [m for m in members if len(m) >= 2]
    if len(usable) < 2:
        raise InputError(
            f"expected at least two classes with two or more items, got {len(usable)}; "
            "add classes, or items to the classes with one"
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, step]))
    chosen = rng.permutation(len(usable))[:P]
    return np.concatenate([_draw(usable[c], K, rng) for c in chosen]).astype(np.int64)


def _draw(members: NDArray[np.intp], K: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """K of the members: whole permutations one after another, so that counts differ by one at most."""
    rounds = -(-K // len(members))
    return np.concatenate([rng.permutation(members) for _ in range(rounds)])[:K]


def _check_range(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"expected {name} of at least {least}, got {value}; change {name}")
