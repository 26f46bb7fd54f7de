"""The timed functions of each library: ours, the peers', and the floor; dense autograd has a file of its own.

Every function takes a batch, a second batch and labels, and returns a scalar; all compute the same function of the
same rows, but for what the catalogue says. Where a peer normalises, ours is given normalised rows inside the time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.bench.catalogue import DENSE, FLOOR, LOSSES, OPEN_CLIP, OURS, PACKAGES, PML
from nearfar.bench.dense import DENSE as FORMULAS
from nearfar.bench.dense import Loss


def installed(library: str) -> str | None:
    """The library's version, None if it is not there.

    Example:
        >>> from nearfar.bench.libraries import installed
        >>> installed("torch") is None
        False
    """
    try:
        return version(PACKAGES.get(library, library))
    except PackageNotFoundError:
        return None


def function(library: str, name: str) -> Loss:
    """The function to time.

    Args:
        library: ``nearfar``, ``dense autograd``, ``floor`` or a peer.
        name: A loss of the catalogue.

    Raises:
        KeyError: The library does not have it.
    """
    if library == FLOOR:
        return floor
    return {OURS: ours, DENSE: FORMULAS.__getitem__, PML: _pml, OPEN_CLIP: _open_clip}[library](name)


def ours(name: str) -> Loss:
    """Our loss, set up to compute the peer's function."""
    import nearfar as nf

    build: dict[str, Callable[[], Any]] = {
        "supcon": lambda: nf.SupConLoss(temperature=0.1),
        "contrastive": lambda: nf.ContrastiveLoss(1.0, balanced=True, factors=(1, 1), powers=(1, 1)),
        "contrastive-active": lambda: nf.ContrastiveLoss(2**0.5, balanced=True, factors=(1, 1), powers=(1, 1)),
        "multi-similarity": lambda: nf.MultiSimilarityLoss(alpha=2.0, beta=50.0, base=0.5, epsilon=None),
        "multi-similarity-hard": lambda: nf.MultiSimilarityLoss(alpha=2.0, beta=50.0, base=0.5, epsilon=0.1),
        "circle": lambda: nf.CircleLoss(margin=0.4, scale=80.0),
        "nca": lambda: nf.NCALoss(),
        "triplet": lambda: nf.TripletLoss(margin=0.2, active_only=True),
        "triplet-hard": lambda: nf.TripletLoss(margin=0.2, mining="hard"),
        "triplet-semihard": lambda: nf.TripletLoss(margin=0.2, mining="semihard"),
        "nt-xent": lambda: nf.InfoNCELoss(temperature=0.07),
        "n-pair": lambda: nf.NPairLoss(),
        "lifted": lambda: nf.LiftedStructureLoss(margin=1.0),
        "margin": lambda: nf.MarginLoss(margin=0.2, beta=1.2, active_only=True),
        "fastap": lambda: nf.FastAPLoss(bins=10),
        "smoothap": lambda: nf.SmoothAPLoss(temperature=0.01),
        "binary": lambda: nf.BinaryCrossEntropyLoss(),
        "clip": lambda: nf.InfoNCELoss(temperature=0.07),
        "siglip": lambda: nf.SigLIPLoss(temperature=0.1, bias=-10.0),
        "cross-entropy": lambda: nf.CrossEntropyLoss(),
        "arcface": lambda: nf.ArcFaceLoss(margin=0.5, temperature=1 / 64),
    }
    loss, inputs = build[name](), LOSSES[name].inputs
    if inputs == "aligned":
        return lambda x, y, labels: loss.aligned(x, y)
    if inputs == "classes":
        return lambda x, y, labels: loss(x, labels, class_weights=y)
    if isinstance(loss.measure, nf.Euclidean | nf.SquaredEuclidean):
        return lambda x, y, labels: loss(normalize(x), labels)
    return lambda x, y, labels: loss(x, labels)


def _pml(name: str) -> Loss:
    """pytorch-metric-learning, in its defaults but for the triplets' margin."""
    losses, miners, reducers = (
        import_module(f"pytorch_metric_learning.{part}") for part in ("losses", "miners", "reducers")
    )
    mine = {"multi-similarity-hard": miners.MultiSimilarityMiner, "triplet-hard": miners.BatchHardMiner}.get(name)
    loss = {
        "supcon": losses.SupConLoss,
        "contrastive": losses.ContrastiveLoss,
        "contrastive-active": lambda: losses.ContrastiveLoss(neg_margin=2**0.5),
        "multi-similarity": losses.MultiSimilarityLoss,
        "multi-similarity-hard": losses.MultiSimilarityLoss,
        "circle": losses.CircleLoss,
        "nca": losses.NCALoss,
        "triplet": lambda: losses.TripletMarginLoss(margin=0.2),
        "triplet-hard": lambda: losses.TripletMarginLoss(margin=0.2, reducer=reducers.MeanReducer()),
        "nt-xent": losses.NTXentLoss,
        "lifted": losses.LiftedStructureLoss,
        "margin": losses.MarginLoss,
        "fastap": losses.FastAPLoss,
        "smoothap": losses.SmoothAPLoss,
    }[name]()
    if mine is not None:
        miner = mine()
        return lambda x, y, labels: loss(x, labels, miner(x, labels))
    return lambda x, y, labels: loss(x, labels)


def _open_clip(name: str) -> Loss:
    """open_clip's losses from their file: the package itself would import torchvision and timm."""
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'open_clip'", name="open_clip")
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(package.origin).parent / "loss.py")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("No module named 'open_clip.loss'", name="open_clip")
    file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file)
    if name == "clip":
        clip, scale = file.ClipLoss(), torch.tensor(1 / 0.07)
        return lambda x, y, labels: clip(normalize(x), normalize(y), scale)
    siglip, scale, bias = file.SigLipLoss(), torch.tensor(10.0), torch.tensor(-10.0)
    return lambda x, y, labels: siglip(normalize(x), normalize(y), scale, bias)


def floor(x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
    """The three matrix products that no dense gradient can avoid, in the strips that suit them best, and no more."""
    with torch.no_grad():
        height = max(16, min(512, (1 << 22) // len(y)))
        table, left, right = x.new_empty(height, len(y)), torch.zeros_like(x), torch.zeros_like(y)
        for start in range(0, len(x), height):
            strip = x[start : start + height]
            s = torch.mm(strip, y.T, out=table[: len(strip)])
            left[start : start + height].addmm_(s, y)
            right.addmm_(s.T, strip)
    return (x * left).sum() + (y * right).sum()
