"""Which items make a step: P classes × K items, a pure function of (seed, step).

Nothing is remembered between steps, so step k is the same batch whether the run was interrupted or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearfar._errors import InputError, ShapeError, expect_whole


@dataclass(frozen=True, eq=False)
class BalancedBatches:
    """Batches of P classes × K items for a ``DataLoader``: a pure function of seed, epoch, rank and world size.

    ``DataLoader(data, batch_sampler=BalancedBatches(labels, classes=16, items=4))``. Nothing is remembered between
    batches: a run that goes on after an interruption draws what it would have drawn. With ``world_size`` ranks, each
    step draws ``classes`` · ``world_size`` classes and deals them out, so that no two ranks hold the same class (share
    the references with ``group=`` to use that).

    Args:
        labels: Class of each item of the data, shape (n,), integers; a negative label is left out.
        classes: P, classes a batch of one rank, at least 2.
        items: K, items a class, at least 2.
        seed: Seed of the run, not negative.
        rank: This process's number, 0 … ``world_size`` − 1.
        world_size: How many processes share a step.
        steps: Batches an epoch; None: as many as visit each item about once.
        epoch: Which epoch; a loop sets it through :meth:`at`.

    Raises:
        ShapeError: The labels are not one-dimensional.
        InputError: A number out of range, or fewer than two classes with two items, or than ``world_size``.

    Example:
        >>> from nearfar.torch import BalancedBatches
        >>> labels = [0, 0, 0, 1, 1, 2, 2]
        >>> for epoch in range(2):
        ...     for batch in BalancedBatches(labels, classes=2, items=2, seed=7).at(epoch):
        ...         print(epoch, sorted({labels[i] for i in batch}))
        0 [0, 2]
        1 [0, 2]
    """

    labels: ArrayLike
    classes: int = 16
    items: int = 4
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    steps: int | None = None
    epoch: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn, before a worker does."""
        expect_whole("classes", self.classes, 2)
        expect_whole("items", self.items, 2)
        expect_whole("world_size", self.world_size)
        if not expect_whole("rank", self.rank, 0) < self.world_size:
            raise InputError(f"expected rank of 0 to {self.world_size - 1}, got {self.rank}; take the process's number")
        expect_whole("epoch", self.epoch, 0)
        if self.steps is not None:
            expect_whole("steps", self.steps)
        drawn = batch_indices(self.labels, self.classes * self.world_size, self.items, self.seed, 0)
        if len(drawn) // self.items < self.world_size:
            raise InputError(
                f"expected a class for each of {self.world_size} ranks, got {len(drawn) // self.items} with two or "
                "more items; use fewer ranks"
            )

    def at(self, epoch: int) -> BalancedBatches:
        """The batches of another epoch."""
        return replace(self, epoch=epoch)

    def __len__(self) -> int:
        """Batches an epoch."""
        if self.steps is not None:
            return self.steps
        used = int((np.asarray(self.labels) >= 0).sum())
        return max(1, used // (self.classes * self.items * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        """This rank's batches of the epoch."""
        for step in range(len(self)):
            yield self.batch(self.epoch * len(self) + step)

    def batch(self, step: int) -> list[int]:
        """This rank's indices of a step, counted through all epochs.

        Args:
            step: Number of the step, not negative.
        """
        drawn = batch_indices(self.labels, self.classes * self.world_size, self.items, self.seed, step)
        own: list[int] = drawn.reshape(-1, self.items)[self.rank :: self.world_size].ravel().tolist()
        return own


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
        >>> from nearfar.torch.batches import batch_indices
        >>> labels = [0, 0, 0, 1, 1, 2]
        >>> batch = batch_indices(labels, P=2, K=2, seed=0, step=7)
        >>> [labels[i] for i in sorted(batch)]
        [0, 0, 1, 1]
    """
    classes = np.asarray(labels)
    if classes.ndim != 1:
        raise ShapeError(f"expected labels of shape (n,), got {classes.shape}; pass one label for each item")
    if classes.size and classes.dtype.kind not in "iub":
        raise InputError(f"expected labels to be integers, got {classes.dtype}; number the classes")
    expect_whole("P", P, 2)
    expect_whole("K", K, 2)
    expect_whole("seed", seed, 0)
    expect_whole("step", step, 0)
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
