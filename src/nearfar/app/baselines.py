"""What a trained model has to beat: pixels, eigenfaces, an untrained network and cross-entropy features.

All see the same pictures, standardised one by one as the model sees them, and are compared by cosine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from nearfar.app.augment import embed_pictures, standardise
from nearfar.app.data import Dataset
from nearfar.app.encoder import ConvEncoder, EncoderConfig
from nearfar.app.loop import TrainingSet, fit
from nearfar.app.model import MODEL, Model, load, save_model
from nearfar.app.pictures import read_pictures
from nearfar.app.progress import Reporter
from nearfar.app.runs import RunConfig
from nearfar.metrics import fnmr_at_fmr, pair_scores

Pictures = NDArray[np.uint8]
Array = NDArray[np.float64]
CROSS_ENTROPY = Path("baselines") / "softmax"
"""Where a run keeps the cross-entropy network it is compared with."""
TRIALS = tuple((share, whiten) for share in (0.8, 0.9, 0.95, 0.99) for whiten in (False, True))


def raw_pixels(pictures: torch.Tensor) -> Array:
    """The pixels themselves, each picture with mean 0 and standard deviation 1.

    Args:
        pictures: uint8 of shape (n, C, h, w).

    Returns:
        Shape (n, C·h·w).

    Example:
        >>> import torch
        >>> from nearfar.app.baselines import raw_pixels
        >>> raw_pixels(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist()
        [[-1.0, 1.0]]
    """
    return standardise(pictures).flatten(1).double().numpy()


class Eigenfaces:
    """Principal components of training pictures, as Turk and Pentland (1991) described faces.

    Args:
        pictures: uint8 of shape (n, C, h, w), training classes only.

    Example:
        >>> import torch
        >>> from nearfar.app.baselines import Eigenfaces
        >>> pictures = torch.randint(0, 255, (6, 1, 4, 3), generator=torch.Generator().manual_seed(2)).byte()
        >>> Eigenfaces(pictures).project(pictures[:2], share=0.99, whiten=True).shape
        (2, 5)
    """

    def __init__(self, pictures: torch.Tensor) -> None:
        with np.errstate(invalid="ignore"):  # pictures without contrast have no variance to share out
            self._pca: Any = PCA(svd_solver="full").fit(raw_pixels(pictures))

    def project(self, pictures: torch.Tensor, share: float, whiten: bool) -> Array:
        """Coordinates on the first components.

        Args:
            pictures: uint8 of shape (m, C, h, w).
            share: share of the variance that is kept.
            whiten: whether every component gets the same variance.

        Returns:
            Shape (m, components).
        """
        kept = int(np.searchsorted(np.cumsum(self._pca.explained_variance_ratio_), share)) + 1
        centred = raw_pixels(pictures) - self._pca.mean_
        scale = np.sqrt(np.maximum(self._pca.explained_variance_[:kept], 1e-12)) if whiten else 1.0
        return np.asarray(centred @ self._pca.components_[:kept].T / scale, dtype=np.float64)

    def choose(self, validation: torch.Tensor, labels: Any) -> tuple[float, bool]:
        """The (share, whiten) with the fewest misses at FMR 5 % on validation classes.

        Args:
            validation: uint8 pictures (m, C, h, w) of validation classes.
            labels: (m,) their classes.

        Returns:
            One of `TRIALS`; the first of equals, and where one class cannot decide.

        Example:
            >>> import torch
            >>> from nearfar.app.baselines import Eigenfaces
            >>> pictures = torch.randint(0, 255, (8, 1, 4, 3), dtype=torch.uint8)
            >>> Eigenfaces(pictures).choose(pictures[:4], [0, 0, 1, 1])[1] in (False, True)
            True
        """
        if len(set(np.asarray(labels).tolist())) < 2:
            return TRIALS[0]
        return min(TRIALS, key=lambda trial: _misses(self.project(validation, *trial), labels))


def untrained(pictures: torch.Tensor, config: EncoderConfig, seed: int) -> Array:
    """Embeddings of the model's own network before any training.

    Args:
        pictures: uint8 of shape (n, C, h, w).
        config: the network.
        seed: of its first weights.

    Returns:
        Unit rows of shape (n, dim).

    Example:
        >>> import torch
        >>> from nearfar.app.baselines import untrained
        >>> from nearfar.app.encoder import EncoderConfig
        >>> config = EncoderConfig(channels=1, size=(8, 8), widths=(8,), dim=4)
        >>> untrained(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), config, seed=0).shape
        (2, 4)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ConvEncoder(config).eval()
    return embed_pictures(encoder, pictures).double().numpy()


def cross_entropy_features(
    run: Path, config: RunConfig, data: Dataset, classes: Iterable[str], report: Reporter
) -> Model:
    """Train the model's own network with cross-entropy alone, all else equal; keep it in the run.

    Args:
        run: the run folder; the network is kept below it and trained once, from where it stopped.
        config: settings of the run.
        data: what the run was trained on.
        classes: its training classes.
        report: told about the progress.

    Returns:
        The network, ready to embed.
    """
    folder = run / CROSS_ENTROPY
    if not (folder / MODEL).is_dir():
        settings = replace(config.preset, name="softmax", softmax_weight=1.0, supcon_weight=0.0, contrastive_weight=0.0)
        fit_classes(folder, replace(config, preset=settings), data, classes, report)
    return load(folder)


def fit_classes(folder: Path, config: RunConfig, data: Dataset, classes: Iterable[str], report: Reporter) -> Model:
    """Train a network on some classes and keep it in a folder, without calibration or evaluation.

    Args:
        folder: for checkpoints, metrics and the model; an interrupted training goes on from there.
        config: settings; the mode of the pictures is resolved.
        data: where the classes are.
        classes: those to learn from.
        report: told about the progress.

    Returns:
        The model, without enrolled classes.
    """
    items = data.of(classes)
    number = {label: i for i, label in enumerate(sorted({item.label for item in items}))}
    pictures = read_pictures([data.root / item.path for item in items], config.preset.size, config.preset.mode)
    labels = torch.tensor([number[item.label] for item in items])
    folder.mkdir(parents=True, exist_ok=True)
    encoder = fit(folder, config, TrainingSet(pictures, labels, [item.path for item in items]), report)
    model = Model(encoder, config.preset.mode)
    save_model(folder / MODEL, model)
    return model


def _misses(embeddings: Array, labels: Any) -> float:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(length, np.finfo(np.float64).tiny)
    pairs = pair_scores(unit @ unit.T, labels)
    return fnmr_at_fmr(pairs.genuine, pairs.impostor, 0.05)[0]
