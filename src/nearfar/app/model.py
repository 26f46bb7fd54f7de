"""A trained model: written with checksums, loaded with suspicion, asked for a decision."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nearfar._errors import ArtefactError, DataError, InputError
from nearfar.app.augment import embed_pictures
from nearfar.app.calibration import CALIBRATION, Calibration, load_calibration
from nearfar.app.checkpoints import encode_tensors, read_tensors, whole_folder
from nearfar.app.decisions import Answer, Verdict, answer, verdict
from nearfar.app.encoder import ConvEncoder, EncoderConfig
from nearfar.app.files import read_json, shown, write_json, write_whole
from nearfar.app.manifest import check_manifest
from nearfar.app.pictures import read_pictures

MODEL = "model"
_FORMAT = "nearfar model"
_CARD = "model.json"
_WEIGHTS = "weights.safetensors"
_REFERENCES = "references.safetensors"
_CHUNK = 256

Item = str | os.PathLike[str]


@dataclass(frozen=True)
class Model:
    """An encoder with the classes enrolled and, once calibrated, its thresholds.

    Args:
        encoder: The network.
        mode: "L" or "RGB", how pictures are read.
        classes: Names of the enrolled classes.
        references: One unit vector for each of them, shape (classes, dim).
        calibration: Thresholds and probability; None before they are found.
    """

    encoder: ConvEncoder
    mode: str
    classes: tuple[str, ...] = ()
    references: NDArray[np.float32] | None = None
    calibration: Calibration | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over architecture, preprocessing and weights."""
        total = hashlib.sha256(json.dumps(_built(self), sort_keys=True).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()

    def pictures(self, paths: Sequence[Item]) -> torch.Tensor:
        """Read files as the model sees them before it standardises: uint8, shape (n, C, height, width)."""
        return read_pictures(paths, self.encoder.config.size, self.mode)

    def embed(self, paths: Sequence[Item]) -> NDArray[np.float32]:
        """Embed pictures on the unit sphere, each averaged with small shifts of it and their mirror images.

        Args:
            paths: The files.

        Returns:
            Shape (n, dim), rows of length 1.

        Raises:
            DataError: A file cannot be read; names the path and the reason.
        """
        rows = [np.empty((0, self.encoder.config.dim), dtype=np.float32)]
        for start in range(0, len(paths), _CHUNK):
            pictures = self.pictures(paths[start : start + _CHUNK])
            rows.append(embed_pictures(self.encoder, pictures).cpu().numpy())
        return np.concatenate(rows)

    def verify(self, a: Item, b: Item) -> Verdict:
        """Decide whether two pictures are of the same class.

        Args:
            a: A file.
            b: Another file.

        Returns:
            The verdict.

        Raises:
            ArtefactError: The model has no calibration.
            DataError: A file cannot be read, or gives no embedding to decide on.
        """
        calibration = self._calibrated()
        left, right = (self._one(path).astype(np.float64) for path in (a, b))
        return verdict(float(left @ right), calibration)

    def classify(self, path: Item) -> Answer:
        """Name the enrolled class of a picture, or "unknown".

        Args:
            path: A file.

        Returns:
            The answer.

        Raises:
            ArtefactError: The model has no calibration or no enrolled classes.
            DataError: The file cannot be read, or gives no embedding to decide on.
        """
        calibration = self._calibrated()
        if self.references is None or not self.classes:
            raise ArtefactError("expected a model with enrolled classes, got none; train again")
        row = self._one(path).astype(np.float64)
        return answer(self.references.astype(np.float64) @ row, self.classes, calibration)

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise ArtefactError(f"expected a calibrated model, got none in {CALIBRATION}; resume the run")
        return self.calibration

    def _one(self, path: Item) -> NDArray[np.float32]:
        """The embedding of one picture that says something."""
        pictures = self.pictures([path])
        if int(pictures.min()) == int(pictures.max()):
            raise DataError(
                f"expected a picture with contrast at {shown(path)}, got a single tone; use another picture"
            )
        row: NDArray[np.float32] = embed_pictures(self.encoder, pictures).cpu().numpy()[0]
        if not abs(float(np.linalg.norm(row.astype(np.float64))) - 1) < 1e-3:  # NaN fails too
            raise DataError(f"expected an embedding of length 1 for {shown(path)}, got none; nothing is decided on it")
        return row


def save_model(folder: Path, model: Model) -> None:
    """Write a model folder whole: weights, references, card and checksums.

    Args:
        folder: ``model`` of a run; an earlier one is replaced.
        model: What to write; its calibration is a file of its own.

    Raises:
        UsageError: The system refuses to write.
    """
    card = {
        "format": _FORMAT,
        "version": 1,
        **_built(model),
        "measure": "cosine",
        "fingerprint": model.fingerprint,
        "classes": list(model.classes),
    }
    with whole_folder(folder) as hidden:
        write_whole(hidden / _WEIGHTS, encode_tensors(model.encoder.state_dict()))
        if model.references is not None:
            rows = torch.from_numpy(model.references)
            write_whole(hidden / _REFERENCES, encode_tensors({"references": rows}))
        write_json(hidden / _CARD, card)


def load(run: str | os.PathLike[str]) -> Model:
    """Load the model of a run after checking every checksum, shape and number.

    Args:
        run: A run folder.

    Returns:
        The model, with its calibration if the run has one.

    Raises:
        ArtefactError: A file is missing, damaged, or does not fit the rest; names it.
    """
    root = Path(run)
    folder = root / MODEL
    check_manifest(folder)
    card = read_json(folder / _CARD)
    if not isinstance(card, dict) or card.get("format") != _FORMAT or card.get("version") != 1:
        raise ArtefactError(f"expected a model of version 1 in {shown(folder)}, got another; update nearfar")
    weights = read_tensors(folder / _WEIGHTS)
    try:
        shape, seen = card["architecture"], card["preprocessing"]
        config = EncoderConfig(shape["channels"], tuple(shape["size"]), tuple(shape["widths"]), shape["dim"])
        with torch.random.fork_rng(devices=[]):
            encoder = ConvEncoder(config)
        encoder.load_state_dict(weights)
        model = Model(encoder.eval(), seen["mode"], tuple(card["classes"]), _references(folder, card, config))
    except (KeyError, TypeError, AttributeError, RuntimeError, InputError) as error:
        raise ArtefactError(
            f"expected weights that fit the architecture in {shown(folder)}, got {error}; train again"
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise ArtefactError(f"expected finite weights in {shown(folder)}, got NaN or infinity; train again")
    if model.fingerprint != card.get("fingerprint"):
        raise ArtefactError(
            f"expected the model {str(card.get('fingerprint'))[:12]} in {shown(folder)}, "
            f"got {model.fingerprint[:12]}; copy the run folder again"
        )
    if not (root / CALIBRATION).exists():
        return model
    return calibrated(model, load_calibration(root / CALIBRATION, model.fingerprint))


def calibrated(model: Model, calibration: Calibration) -> Model:
    """The same model with a calibration."""
    return Model(model.encoder, model.mode, model.classes, model.references, calibration)


def _built(model: Model) -> dict[str, Any]:
    """What the weights mean: architecture and preprocessing."""
    config = model.encoder.config
    return {
        "architecture": {
            "encoder": "convolutional",
            "channels": config.channels,
            "size": list(config.size),
            "widths": list(config.widths),
            "dim": config.dim,
        },
        "preprocessing": {
            "size": list(config.size),
            "mode": model.mode,
            "standardise": "each picture",
            "averaged": "shifts and mirror images",
        },
    }


def _references(folder: Path, card: dict[str, Any], config: EncoderConfig) -> NDArray[np.float32] | None:
    if not card["classes"]:
        return None
    rows = read_tensors(folder / _REFERENCES)["references"]
    wanted = (len(card["classes"]), config.dim)
    if tuple(rows.shape) != wanted or not bool(torch.isfinite(rows).all()):
        raise ArtefactError(
            f"expected finite references of shape {wanted} in {shown(folder)}, got {tuple(rows.shape)}; train again"
        )
    return np.asarray(rows.numpy(), dtype=np.float32)
