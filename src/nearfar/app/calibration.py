"""From a score to a decision: thresholds and the probability of "same", bound to one model.

All of it is found on validation classes, which the training never saw.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearfar._errors import ArtefactError, InputError
from nearfar.app.files import read_json, write_json
from nearfar.metrics import Platt, Threshold, open_set_threshold, pair_scores, platt, threshold_at_fmr

CALIBRATION = "calibration.json"
FPIR = 0.05
"""Share of searches by unknown items that may return a candidate."""

_FORMAT = "nearfar calibration"
_LOWEST = -2.0  # below every cosine; JSON has no −inf


@dataclass(frozen=True)
class OpenSet:
    """When a search returns its nearest class, and when it says "unknown".

    Args:
        threshold: A candidate is returned from this score on.
        fpir: Share of unknown items that may be given a class.
        gallery: Classes that were searched; a larger gallery needs a higher threshold.
        searches: Items of unknown classes that were searched for.
    """

    threshold: float
    fpir: float
    gallery: int
    searches: int


@dataclass(frozen=True)
class Calibration:
    """What turns the scores of one model into decisions.

    Args:
        model: Fingerprint of the model.
        verify: Threshold for two items, with its promise.
        probability: Probability of "same".
        classify: Threshold for one item against all classes.
    """

    model: str
    verify: Threshold
    probability: Platt
    classify: OpenSet

    @property
    def words(self) -> str:
        """What is promised, in words."""
        return self.verify.reason


def enrol(embeddings: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """One reference for each class: the direction of the mean of its embeddings.

    Args:
        embeddings: Unit vectors, shape (n, dim).
        labels: Class of each, 0 … classes − 1, shape (n,).
        classes: How many classes.

    Returns:
        Shape (classes, dim), rows of length 1.

    Raises:
        InputError: A class has no embedding, or those it has cancel each other.

    Example:
        >>> import numpy as np
        >>> from nearfar.app.calibration import enrol
        >>> enrol(np.eye(3, dtype=np.float32)[[0, 2, 2]], np.array([1, 0, 0]), 2).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    sums = np.zeros((classes, embeddings.shape[1]), dtype=np.float64)
    np.add.at(sums, labels, embeddings)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    if not (length > 1e-9).all():
        raise InputError("expected embeddings of every class, got a class without direction; add items to it")
    return np.asarray(sums / length, dtype=np.float32)


def calibrate(
    model: str,
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    references: NDArray[np.float32],
    fmr: float,
    seed: int = 0,
) -> Calibration:
    """Find thresholds and probability on classes that training has not seen.

    For the open set each item is searched for among the references of all classes but its own.

    Args:
        model: Fingerprint of the model that embedded them.
        embeddings: Unit vectors of the validation items, shape (n, dim).
        labels: Class of each, a row number of the references, shape (n,).
        references: One unit vector for each enrolled class, shape (classes, dim).
        fmr: Target false-match rate.
        seed: Of the bootstrap.

    Returns:
        The calibration.

    Raises:
        InputError: Fewer than two classes, or a kind of pair is missing.

    Example:
        >>> import numpy as np
        >>> from nearfar.app.calibration import calibrate
        >>> corners = np.eye(4, dtype=np.float32)
        >>> found = calibrate("f00d", corners[[0, 0, 1, 1]], np.array([0, 0, 1, 1]), corners, fmr=0.01)
        >>> found.verify.certified, 0 < found.verify.value <= 1, found.classify.gallery
        (False, True, 3)
    """
    scores = np.asarray(embeddings @ embeddings.T, dtype=np.float64)
    pairs = pair_scores(scores, labels)
    found = threshold_at_fmr(pairs, fmr, seed=seed)
    values = np.concatenate([pairs.genuine, pairs.impostor])
    same = np.concatenate([np.ones(len(pairs.genuine)), np.zeros(len(pairs.impostor))])
    search = np.asarray(embeddings @ references.T, dtype=np.float64)
    search[np.arange(len(labels)), labels] = -np.inf
    highest = search.max(axis=1)
    return Calibration(
        model=model,
        verify=Threshold(**{**asdict(found), "value": max(found.value, _LOWEST)}),
        probability=platt(values, same),
        classify=OpenSet(
            threshold=max(open_set_threshold(highest, FPIR), _LOWEST),
            fpir=FPIR,
            gallery=len(references) - 1,
            searches=len(labels),
        ),
    )


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration with its own checksum."""
    record = {"format": _FORMAT, "version": 1, **asdict(calibration)}
    write_json(path, {**record, "sha256": _digest(record)})


def load_calibration(path: Path, model: str) -> Calibration:
    """Read a calibration and refuse it where it is damaged or of another model.

    Args:
        path: ``calibration.json`` of a run.
        model: Fingerprint of the model at hand.

    Returns:
        The calibration.

    Raises:
        ArtefactError: The file is missing or damaged, or belongs to another model.
    """
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != _FORMAT or record.get("version") != 1:
        raise ArtefactError(f"expected a calibration of version 1 at {path}, got something else; train again")
    stated = record.pop("sha256", None)
    if stated != _digest(record):
        raise ArtefactError(f"expected the calibration that was written at {path}, got other content; train again")
    if record.get("model") != model:
        raise ArtefactError(
            f"expected a calibration of the model {model[:12]} at {path}, "
            f"got one of {str(record.get('model'))[:12]}; calibrate this model, or restore the file"
        )
    try:
        return Calibration(
            model=model,
            verify=Threshold(**record["verify"]),
            probability=Platt(**record["probability"]),
            classify=OpenSet(**record["classify"]),
        )
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"expected a complete calibration at {path}, got {error}; train again") from error


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode()).hexdigest()
