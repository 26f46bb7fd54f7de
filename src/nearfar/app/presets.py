"""Named training settings: everything a run depends on besides its data and its seed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from nearfar._errors import UsageError


@dataclass(frozen=True)
class Preset:
    """Settings of a training run; the loss is the weighted sum of three parts, weight 0 leaves a part out.

    Attributes:
        name: Name under which the settings are reported.
        softmax_weight: Weight of the cross-entropy of cosines to learned class weights.
        supcon_weight: Weight of the supervised contrastive loss.
        contrastive_weight: Weight of Hadsell's margin loss, positives and negatives averaged apart.
        softmax_temperature: Temperature of the cross-entropy.
        temperature: Temperature of the supervised contrastive loss.
        margin: Margin of the contrastive loss, a Euclidean distance between unit vectors.
        P: Classes in a step.
        K: Items of each class in a step.
        views: Augmented draws of each item in a step.
        steps: Optimiser steps.
        learning_rate: Highest learning rate of AdamW.
        warmup: Share of the steps over which the learning rate rises linearly; then it falls as a cosine.
        weight_decay: Decay of matrices and kernels; biases and gains have none.
        clip: Largest norm of the gradient.
        average: Decay of the running average of the weights that becomes the model; 0 keeps the last weights.
        augment: Whether pictures are augmented.
        widths: Channels of the encoder's stages.
        dim: Length of the embedding.
        size: Height and width of the pictures in pixels.
        mode: "L" for grey pictures, "RGB" for colour, "auto" to follow the data.
        report_every: Steps between two health lines.
        checkpoint_every: Steps between two checkpoints.

    Example:
        >>> from nearfar.app.presets import preset
        >>> preset("supcon", steps=100).steps
        100
    """

    name: str
    softmax_weight: float = 0.0
    supcon_weight: float = 0.0
    contrastive_weight: float = 0.0
    softmax_temperature: float = 0.1
    temperature: float = 0.1
    margin: float = 1.0
    P: int = 16
    K: int = 4
    views: int = 1
    steps: int = 600
    learning_rate: float = 3e-3
    warmup: float = 0.05
    weight_decay: float = 1e-2
    clip: float = 5.0
    average: float = 0.0
    augment: bool = True
    widths: tuple[int, ...] = (16, 32, 64, 128)
    dim: int = 128
    size: tuple[int, int] = (56, 46)
    mode: str = "auto"
    report_every: int = 50
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        weights = (self.softmax_weight, self.supcon_weight, self.contrastive_weight)
        if min(weights) < 0 or sum(weights) <= 0:
            raise UsageError(f"expected loss weights of at least 0 and one above 0, got {weights}; set one")
        for name in ("P", "K"):
            _check(name, getattr(self, name), 2)
        for name in ("views", "steps", "dim", "report_every", "checkpoint_every"):
            _check(name, getattr(self, name), 1)
        for name in ("softmax_temperature", "temperature", "margin", "learning_rate", "clip"):
            _check_positive(name, getattr(self, name))
        for name in ("average", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"expected {name} in [0, 1), got {getattr(self, name)}; change {name}")
        if self.mode not in ("auto", "L", "RGB"):
            raise UsageError(f"expected mode 'auto', 'L' or 'RGB', got {self.mode!r}; change mode")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values that YAML and JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Preset:
        """The settings from plain values; an unknown name or a wrong type is an error.

        Args:
            values: Settings by name; those left out take their default.

        Returns:
            The preset.

        Raises:
            UsageError: A name is unknown (the nearest known one is named) or a value has the wrong type.

        Example:
            >>> from nearfar.app.presets import Preset, preset
            >>> Preset.from_dict(preset("default").to_dict()) == preset("default")
            True
        """
        kinds = {field.name: str(field.type) for field in fields(Preset)}
        for key in values:
            if key not in kinds:
                raise UsageError(f"expected a setting of a preset, got {key!r}; {_nearest(key, list(kinds))}")
        if "name" not in values:
            raise UsageError("expected a preset with a name, got none; add the setting 'name'")
        return Preset(**{key: _typed(key, value, kinds[key]) for key, value in values.items()})


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(sorted(known))}"


def _typed(key: str, value: Any, kind: str) -> Any:
    """The value as the field's type, where that loses nothing."""
    if kind.startswith("tuple"):
        whole = isinstance(value, list | tuple) and value and all(type(v) is int and v > 0 for v in value)
        if whole and (kind != "tuple[int, int]" or len(value) == 2):
            return tuple(value)
    elif kind == "float" and type(value) in (int, float):
        return float(value)
    elif kind == type(value).__name__:
        return value
    raise UsageError(f"expected {key} of type {kind}, got {value!r}; change {key}")


def _check(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"expected {name} of at least {least}, got {value}; change {name}")


def _check_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise UsageError(f"expected {name} above 0, got {value}; change {name}")


PRESETS: Mapping[str, Preset] = {
    "default": Preset("default", softmax_weight=1.0, supcon_weight=0.5),
    "supcon": Preset("supcon", supcon_weight=1.0),
    "contrastive": Preset("contrastive", contrastive_weight=1.0),
    "softmax": Preset("softmax", softmax_weight=1.0),
}


def preset(name: str, **changes: Any) -> Preset:
    """A preset by name, with some settings changed.

    Args:
        name: One of `PRESETS`.
        **changes: Settings to change; None keeps the preset's value.

    Returns:
        The preset.

    Raises:
        UsageError: The name or a setting is unknown; the nearest known one is named.

    Example:
        >>> from nearfar.app.presets import preset
        >>> preset("contrastive", margin=0.5, steps=None).margin
        0.5
    """
    if name not in PRESETS:
        raise UsageError(f"expected a preset, got {name!r}; {_nearest(name, list(PRESETS))}")
    given = {key: value for key, value in changes.items() if value is not None}
    return Preset.from_dict({**PRESETS[name].to_dict(), **given})


def with_steps(chosen: str | Preset, steps: int | None) -> Preset:
    """The preset itself or the one of that name, with another number of steps if one is given."""
    base = preset(chosen) if isinstance(chosen, str) else chosen
    return base if steps is None else replace(base, steps=steps)


def build_loss(chosen: Preset) -> Any:
    """The preset's loss, called as ``loss(embeddings, labels, class_weights=W)``.

    Args:
        chosen: The settings.

    Returns:
        A loss of nearfar, or a weighted sum of losses.

    Example:
        >>> from nearfar.app.presets import build_loss, preset
        >>> build_loss(preset("supcon")).temperature
        0.1
    """
    import nearfar

    parts = []
    if chosen.softmax_weight:
        softmax = nearfar.CrossEntropyLoss(temperature=chosen.softmax_temperature, measure=nearfar.Cosine())
        parts.append(_scaled(chosen.softmax_weight, softmax))
    if chosen.supcon_weight:
        parts.append(_scaled(chosen.supcon_weight, nearfar.SupConLoss(temperature=chosen.temperature)))
    if chosen.contrastive_weight:
        parts.append(_scaled(chosen.contrastive_weight, nearfar.ContrastiveLoss(chosen.margin, balanced=True)))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _scaled(weight: float, loss: Any) -> Any:
    return loss if weight == 1 else weight * loss
