"""From embeddings and classes to the parts of an evaluation: plain numbers, ready for JSON.

Scores are cosine similarities of all unordered pairs. Every headline number is {value, low, high, n, unit},
with a 95 % interval by bootstrap over classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from nearfar.app.resampling import DrawnPairs, rates_at
from nearfar.metrics import (
    Interval,
    PairScores,
    auc,
    det_curve,
    equal_error_rate,
    fnmr_at_fmr,
    pair_scores,
    rank_metrics,
    retrieval_interval,
    verification_interval,
)

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
RATES = (0.05, 0.01, 0.001)
ENOUGH = 30  # false matches that a false-match rate should rest on
_ASIDE_DRAWS = 400
_DET_POINTS = 240
_SHOWN = 8  # worst pairs of each kind
_MAP_POINTS = 400


class Judged:
    """One method's embeddings on the classes judged, with all scores.

    Args:
        key: short name for JSON.
        title: name for people.
        embeddings: (n, d); rows need not have length 1.
        labels: (n,) classes.

    Example:
        >>> from nearfar.app.scoring import Judged
        >>> judged = Judged("m", "model", [[1, 0], [2, 0], [0, 1], [0, 3]], [0, 0, 1, 1])
        >>> judged.pairs.genuine.tolist(), judged.pairs.impostor.tolist()
        ([1.0, 1.0], [0.0, 0.0, 0.0, 0.0])
    """

    def __init__(self, key: str, title: str, embeddings: Any, labels: Any) -> None:
        rows = np.asarray(embeddings, dtype=np.float64)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        self.key, self.title = key, title
        self.unit = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
        self.labels: Labels = np.asarray(labels, dtype=np.int64)
        self.scores: Array = self.unit @ self.unit.T
        self.pairs: PairScores = pair_scores(self.scores, self.labels)
        self.drawn = DrawnPairs(self.pairs)
        self.ranks = rank_metrics(self.scores, self.labels, k=())

    def numbers(self) -> dict[str, Any]:
        """All verification and retrieval numbers of the method, with its DET curve."""
        pairs = self.pairs
        rates = [r for r in RATES if r >= 0.01 or len(pairs.impostor) * r >= ENOUGH]
        middle = {
            "eer": (equal_error_rate(pairs.genuine, pairs.impostor), self.drawn.eer),
            "auc": (auc(pairs.genuine, pairs.impostor), self.drawn.auc),
        }
        asides = {k: _at(v, self.drawn.interval(f, _ASIDE_DRAWS)) for k, (v, f) in middle.items()}
        return {
            "key": self.key,
            "title": self.title,
            "fnmr_at_fmr": {f"{r:g}": verification_interval(pairs, r).as_dict() for r in rates},
            **{k: v.as_dict() for k, v in asides.items()},
            **{k: retrieval_interval(v, self.labels).as_dict() for k, v in self.ranks.items()},
            "det": _det(pairs),
        }

    def difference(self, other: Judged, fmr: float) -> Interval:
        """FNMR of this method minus the other's at one FMR, both under the same drawn classes."""

        def statistic(mine: DrawnPairs, theirs: DrawnPairs, weights: Array) -> float:
            return mine.fnmr_at_fmr(weights, fmr) - theirs.fnmr_at_fmr(weights, fmr)

        return self.drawn.interval(partial(statistic, self.drawn, other.drawn))


def realised(judged: Judged, threshold: float) -> dict[str, Any]:
    """FMR and FNMR that a threshold fixed beforehand has on these pairs."""
    fmr, fnmr = rates_at(judged.pairs, threshold)
    return {"value": threshold, "fmr": fmr.as_dict(), "fnmr": fnmr.as_dict()}


def per_class(judged: Judged, names: Sequence[str], threshold: float) -> list[dict[str, Any]]:
    """Errors at the threshold and retrieval of each class, the hardest first.

    Args:
        judged: the method.
        names: the name of each label 0 … C−1.
        threshold: a pair is accepted from this score upwards.

    Returns:
        One row per class that occurs; a share is None where nothing was compared.
    """
    rows = []
    apart = ~np.eye(len(judged.labels), dtype=bool)
    accepted = judged.scores >= threshold
    for label in np.unique(judged.labels):
        own = judged.labels == label
        same = accepted[np.ix_(own, own)][apart[np.ix_(own, own)]]
        different = accepted[np.ix_(own, ~own)]
        row = {
            "name": names[label],
            "items": int(own.sum()),
            "fnmr": _mean(~same),
            "fmr": _mean(different),
            "precision_at_1": _mean(judged.ranks["precision_at_1"][own]),
            "map_at_r": _mean(judged.ranks["map_at_r"][own]),
        }
        rows.append(row)
    return sorted(rows, key=lambda r: (-(r["fnmr"] or 0), -(r["fmr"] or 0), r["name"]))


def worst(judged: Judged, paths: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """The most similar different pairs and the least similar same pairs; a picture appears at most twice.

    Args:
        judged: the method.
        paths: the path of each item.
        names: the name of each label.

    Returns:
        `different` and `same`, each a list of pairs from the worst on.
    """
    left, right = np.triu_indices(len(judged.labels), k=1)
    same = judged.labels[left] == judged.labels[right]
    score = judged.scores[left, right]
    found: dict[str, Any] = {}
    for key, kind, badness in (("different", ~same, score), ("same", same, -score)):
        rows = np.flatnonzero(kind)
        order = rows[np.argsort(-badness[rows], kind="stable")]
        seen: dict[int, int] = {}
        found[key] = []
        for i, j in zip(left[order].tolist(), right[order].tolist(), strict=True):
            if len(found[key]) == _SHOWN:
                break
            if max(seen.get(i, 0), seen.get(j, 0)) < 2:
                seen[i], seen[j] = seen.get(i, 0) + 1, seen.get(j, 0) + 1
                found[key].append(_pair(judged, paths, names, i, j))
    return found


def histogram(pairs: PairScores, bins: int = 48) -> dict[str, Any]:
    """Shares of same and of different pairs in equal bins of the score."""
    everything = np.concatenate([pairs.genuine, pairs.impostor])
    edges = np.linspace(everything.min(), max(everything.max(), everything.min() + 1e-6), bins + 1)
    same, different = np.histogram(pairs.genuine, edges)[0], np.histogram(pairs.impostor, edges)[0]
    return {
        "edges": edges.tolist(),
        "same": (same / len(pairs.genuine)).tolist(),
        "different": (different / len(pairs.impostor)).tolist(),
    }


def flat_map(judged: Judged, paths: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Two principal components of the embeddings; every so many-th item where there are many."""
    step = -(-len(paths) // _MAP_POINTS)
    rows = list(range(0, len(paths), step))
    unit = np.pad(judged.unit, ((0, 0), (0, max(0, 2 - judged.unit.shape[1]))))
    with np.errstate(invalid="ignore"):  # equal embeddings have no variance to share out
        flat = PCA(n_components=2, svd_solver="full").fit(unit)
    place = flat.transform(unit[rows])
    return {
        "x": place[:, 0].tolist(),
        "y": place[:, 1].tolist(),
        "class": [names[judged.labels[r]] for r in rows],
        "path": [paths[r] for r in rows],
        "explained": np.nan_to_num(flat.explained_variance_ratio_).tolist(),
    }


def cut_at(pairs: PairScores, fmr: float) -> float:
    """The threshold that reaches this FMR on these very pairs."""
    return fnmr_at_fmr(pairs.genuine, pairs.impostor, fmr)[1]


def _det(pairs: PairScores) -> dict[str, Any]:
    """The DET curve, thinned to points that are even on the axis of normal deviates."""
    curve = det_curve(pairs.genuine, pairs.impostor)
    fmr, fnmr = curve.fmr[::-1], curve.fnmr[::-1]
    limits = NormalDist().inv_cdf(0.5 / len(pairs.impostor)), NormalDist().inv_cdf(0.7)
    wanted = [NormalDist().cdf(z) for z in np.linspace(*limits, _DET_POINTS)]
    rows = np.unique(np.clip(np.searchsorted(fmr, wanted, side="right") - 1, 0, len(fmr) - 1))
    return {"fmr": fmr[rows].tolist(), "fnmr": fnmr[rows].tolist()}


def _pair(judged: Judged, paths: Sequence[str], names: Sequence[str], i: int, j: int) -> dict[str, Any]:
    return {
        "a": paths[i],
        "b": paths[j],
        "class_a": names[judged.labels[i]],
        "class_b": names[judged.labels[j]],
        "similarity": float(judged.scores[i, j]),
    }


def _at(value: float, found: Interval) -> Interval:
    return Interval(value, found.low, found.high, found.n, found.unit)


def _mean(values: NDArray[Any]) -> float | None:
    usable = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return float(usable.mean()) if len(usable.ravel()) else None
