"""The vertex bootstrap: units (classes) are drawn with replacement, pairs follow.

A unit drawn w_a times gives its genuine pairs weight w_a and an impostor pair (a, b) weight w_a·w_b (w_a
when both sides are of one unit). Nothing is resampled pair by pair: impostors are walked once from the
highest score down, in blocks, for all draws together, and the walk stops as soon as every draw has spent its
budget of false matches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearfar._errors import InputError, expect_whole
from nearfar.metrics._checks import Array
from nearfar.metrics.verification import PairScores, allowed_count

_CELLS = 1 << 19  # pairs × draws of one block

Weights = NDArray[np.float64]  # units × draws


@dataclass(frozen=True)
class Impostors:
    """Impostor pairs from the highest score down; failed comparisons (NaN) are only in ``pair_table``."""

    scores: Array
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    pair_table: NDArray[np.float64]  # units × units: how many pairs, failed ones included

    @property
    def total(self) -> int:
        """Number of impostor pairs."""
        return int(self.pair_table.sum())

    def above(self, rank: int) -> int:
        """How many scores lie strictly above the score at ``rank``."""
        if rank >= len(self.scores):
            return len(self.scores)
        return int(np.searchsorted(-self.scores, -self.scores[rank], side="left"))


def sort_impostors(pairs: PairScores) -> Impostors:
    """Impostor pairs from near to far."""
    if not isinstance(pairs, PairScores):
        raise InputError(f"expected pairs, got {type(pairs).__name__}; make them with nearfar.metrics.pair_scores")
    if len(pairs.impostor) == 0 or len(pairs.genuine) == 0:
        raise InputError(
            f"expected genuine and impostor pairs, got {len(pairs.genuine)} and {len(pairs.impostor)}; "
            "two classes with two items are needed"
        )
    count = pairs.unit_count
    cell = pairs.impostor_left.astype(np.int64) * count + pairs.impostor_right
    table = np.bincount(cell, minlength=count * count).reshape(count, count).astype(np.float64)
    order = np.argsort(-pairs.impostor, kind="stable")
    order = order[: len(order) - int(np.isnan(pairs.impostor).sum())]
    return Impostors(pairs.impostor[order], pairs.impostor_left[order], pairs.impostor_right[order], table)


def draw_weights(unit_count: int, draws: int, seed: int) -> Weights:
    """How often each unit is drawn, units × draws; columns sum to ``unit_count``."""
    draws = expect_whole("draws", draws)
    if expect_whole("the number of classes", unit_count, 0) < 2:
        raise InputError(f"expected at least 2 classes, got {unit_count}; an interval over classes needs several")
    rng = np.random.default_rng(expect_whole("seed", seed, 0, "any number will do"))
    drawn = rng.multinomial(unit_count, np.full(unit_count, 1.0 / unit_count), size=draws)
    return np.ascontiguousarray(drawn.T, dtype=np.float64)


def impostor_totals(impostors: Impostors, weights: Weights) -> NDArray[np.float64]:
    """Weight of all impostor pairs in each draw."""
    diagonal = np.diag(impostors.pair_table)
    between = impostors.pair_table - np.diag(diagonal)
    return np.asarray(((between @ weights) * weights).sum(axis=0) + diagonal @ weights)


def spent_ranks(impostors: Impostors, weights: Weights, fmr: float) -> NDArray[np.int64]:
    """For each draw: the rank of the first impostor that breaks ``fmr``; it and all below are rejected."""
    budget = allowed_count(fmr, impostor_totals(impostors, weights))
    count = len(impostors.scores)
    ranks = np.full(weights.shape[1], count, dtype=np.int64)
    spent = np.zeros(weights.shape[1])
    running = np.arange(weights.shape[1])
    height = max(1, _CELLS // max(1, weights.shape[1]))
    for start in range(0, count, height):
        mass = _pair_weights(impostors, start, start + height, weights[:, running])
        after = spent[running] + mass.sum(axis=0)
        crossed = after > budget[running]
        if crossed.any():
            path = spent[running[crossed]] + np.cumsum(mass[:, crossed], axis=0)
            ranks[running[crossed]] = start + np.argmax(path > budget[running[crossed]], axis=0)
        spent[running] = after
        running = running[~crossed]
        if len(running) == 0:
            break
    return ranks


def accepted_shares(impostors: Impostors, weights: Weights, rank: int) -> NDArray[np.float64]:
    """FMR of each draw when the ``rank`` highest impostors are accepted."""
    height = max(1, _CELLS // max(1, weights.shape[1]))
    mass = np.zeros(weights.shape[1])
    for start in range(0, rank, height):
        mass += _pair_weights(impostors, start, min(rank, start + height), weights).sum(axis=0)
    totals = impostor_totals(impostors, weights)
    return np.where(totals > 0, mass / np.maximum(totals, 1.0), 0.0)


def rejected_shares(pairs: PairScores, impostors: Impostors, weights: Weights, ranks: Array) -> NDArray[np.float64]:
    """FNMR of each draw when the impostor at its rank and all below are rejected; NaN without pairs."""
    failed = np.isnan(pairs.genuine)
    order = np.argsort(pairs.genuine[~failed], kind="stable")
    ordered, unit = pairs.genuine[~failed][order], pairs.genuine_unit[~failed][order]
    sizes = np.bincount(pairs.genuine_unit, minlength=pairs.unit_count)
    lost = np.bincount(pairs.genuine_unit[failed], minlength=pairs.unit_count) @ weights
    totals = sizes @ weights
    rejected = np.zeros(weights.shape[1])
    ends = np.append(np.searchsorted(ordered, impostors.scores, side="right"), 0)[ranks]
    width = max(1, _CELLS // max(1, len(ordered)))
    for start in range(0, weights.shape[1], width):
        chunk = slice(start, start + width)
        path = np.cumsum(weights[unit, chunk], axis=0)
        path = np.concatenate([np.zeros((1, path.shape[1])), path])
        rejected[chunk] = path[ends[chunk], np.arange(path.shape[1])]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((rejected + lost) / totals)


def _pair_weights(impostors: Impostors, start: int, stop: int, weights: Weights) -> NDArray[np.float64]:
    left, right = impostors.left[start:stop], impostors.right[start:stop]
    mass = weights[left] * weights[right]
    own = left == right
    if own.any():
        mass[own] = weights[left[own]]
    return np.asarray(mass)
