"""From stored pictures to what an encoder sees: standardising, augmenting, embedding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from kornia.geometry.transform import warp_affine
from torch import nn
from torch.nn.functional import normalize, pad

_SHIFT = 28  # a shift when embedding is this part of the side: 2 of 56 pixels
_SMALLEST_SD = 1e-6  # of pictures in [0, 1]; one grey level in one of 15 million pixels is more


@dataclass(frozen=True)
class AugmentConfig:
    """How far `augment` may go; 0 switches a change off.

    Args:
        rotation: largest angle, in degrees, either way.
        shift: largest move, as a share of the picture's side.
        scale: largest change of size, as the logarithm of the factor; each axis also varies by a third of it.
        flip: probability of a mirrored picture.
        gamma: largest logarithm of the exponent of the grey levels.
        brightness: largest logarithm of the factor on the grey levels.
        lighting: largest slope of a linear light across the picture.
        erase: probability of an erased rectangle.
        erase_area: largest share of the picture that is erased.
    """

    rotation: float = 10.0
    shift: float = 0.06
    scale: float = 0.15
    flip: float = 0.5
    gamma: float = 0.3
    brightness: float = 0.2
    lighting: float = 0.4
    erase: float = 0.4
    erase_area: float = 0.15


_DEFAULT = AugmentConfig()


class _Draw:
    """Uniform numbers for one batch, drawn on the CPU so that every device sees the same."""

    def __init__(self, batch: torch.Tensor, generator: torch.Generator) -> None:
        self._count, self._device, self._generator = len(batch), batch.device, generator

    def __call__(self, low: float, high: float) -> torch.Tensor:
        unit = torch.rand(self._count, generator=self._generator)
        return (low + (high - low) * unit).to(self._device)

    def about(self, reach: float) -> torch.Tensor:
        return self(-reach, reach)


def standardise(pictures: torch.Tensor) -> torch.Tensor:
    """Give every picture mean 0 and standard deviation 1; a constant picture becomes zeros.

    ``(x - mean(x)) / sd(x)`` with mean and sd over the channels and pixels of one picture.

    Args:
        pictures: uint8, or floats in [0, 1], of shape (B, C, h, w).

    Returns:
        float32 of the same shape.

    Example:
        >>> import torch
        >>> from nearfar.app.augment import standardise
        >>> standardise(torch.tensor([[[[0, 255]]], [[[7, 7]]]], dtype=torch.uint8)).flatten(1).tolist()
        [[-1.0, 1.0], [0.0, 0.0]]
    """
    x = pictures.to(torch.float32)
    if not pictures.is_floating_point():
        x = x / 255
    x = x - x.mean(dim=(1, 2, 3), keepdim=True)
    sd = x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return torch.where(sd > _SMALLEST_SD, x / sd.clamp_min(_SMALLEST_SD), torch.zeros_like(x))


def augment(pictures: torch.Tensor, generator: torch.Generator, config: AugmentConfig = _DEFAULT) -> torch.Tensor:
    """Change each picture at random: place, size, light, and a hidden patch.

    A pure function of its arguments and the generator's state, so an interrupted training run that
    restores the state goes on exactly.

    Args:
        pictures: floats in [0, 1] of shape (B, C, h, w).
        generator: a CPU generator, the only source of randomness; it advances.
        config: how far to go.

    Returns:
        Floats in [0, 1] of the same shape.

    Example:
        >>> import torch
        >>> from nearfar.app.augment import augment
        >>> grey = torch.rand(2, 1, 28, 23, generator=torch.Generator().manual_seed(1))
        >>> once, again = (augment(grey, torch.Generator().manual_seed(7)) for _ in range(2))
        >>> torch.equal(once, again), torch.equal(once, grey)
        (True, False)
    """
    if len(pictures) == 0:
        return pictures.clone()
    draw = _Draw(pictures, generator)
    moved = _move(pictures, draw, config)
    return _erase(_relight(moved, draw, config), draw, config)


def _move(x: torch.Tensor, draw: _Draw, config: AugmentConfig) -> torch.Tensor:
    """Rotate, scale, mirror and shift about the middle; edges are continued outwards."""
    height, width = x.shape[-2:]
    angle, size = draw.about(math.radians(config.rotation)), draw.about(config.scale)
    across, down = draw.about(config.scale / 3), draw.about(config.scale / 3)
    mirror = torch.where(draw(0, 1) < config.flip, -1.0, 1.0)
    right, below = width * draw.about(config.shift), height * draw.about(config.shift)
    a, b = torch.cos(angle), torch.sin(angle)
    wide, high = mirror * torch.exp(size + across), torch.exp(size + down)
    turn = torch.stack([a * wide, -b * high, b * wide, a * high], dim=1).view(-1, 2, 2)
    middle = torch.tensor([[(width - 1) / 2], [(height - 1) / 2]], device=x.device)
    offset = middle + torch.stack([right, below], dim=1)[..., None] - turn @ middle
    matrix = torch.cat([turn, offset], dim=2).to(x.dtype)
    moved: torch.Tensor = warp_affine(x, matrix, (height, width), padding_mode="border", align_corners=True)
    return moved


def _relight(x: torch.Tensor, draw: _Draw, config: AugmentConfig) -> torch.Tensor:
    """Gamma, brightness and a light that grows linearly in some direction."""
    height, width = x.shape[-2:]
    exponent = torch.exp(draw.about(config.gamma))[:, None, None, None]
    factor = torch.exp(draw.about(config.brightness))[:, None, None, None]
    direction, slope = draw.about(math.pi)[:, None, None, None], draw(0, config.lighting)[:, None, None, None]
    across = torch.linspace(-1, 1, width, device=x.device)
    down = torch.linspace(-1, 1, height, device=x.device)[:, None]
    light = 1 + slope * (torch.cos(direction) * across + torch.sin(direction) * down)
    return (x.clamp(0, 1) ** exponent * factor * light).clamp(0, 1).to(x.dtype)


def _erase(x: torch.Tensor, draw: _Draw, config: AugmentConfig) -> torch.Tensor:
    """Hide one rectangle of some pictures under the picture's mean."""
    height, width = x.shape[-2:]
    chosen = draw(0, 1) < config.erase
    share, shape = draw(config.erase_area / 5, config.erase_area), torch.exp(draw.about(0.7))
    tall, wide = height * (share * shape).sqrt(), width * (share / shape).sqrt()
    top, left = draw(0, 1) * (height - tall), draw(0, 1) * (width - wide)
    rows = _between(torch.arange(height, device=x.device), top, tall)
    columns = _between(torch.arange(width, device=x.device), left, wide)
    hidden = chosen[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return torch.where(hidden[:, None], x.mean(dim=(2, 3), keepdim=True), x)


def _between(place: torch.Tensor, start: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Which places lie in [start, start + length), one row per picture."""
    return (place >= start[:, None]) & (place < (start + length)[:, None])


@torch.no_grad()
def embed_pictures(
    encoder: nn.Module, pictures: torch.Tensor, averaged: bool = True, batch_size: int = 256
) -> torch.Tensor:
    """Embed stored pictures on the unit sphere, each averaged with small shifts of it and their mirror images.

    ``unit(Σ_v unit(f(v)))`` over the picture, its shifts by a 28th of its side in four directions, and the mirror
    images of these five, where ``unit(x) = x / |x|``.

    Args:
        encoder: maps standardised pictures (B, C, h, w) to embeddings (B, dim).
        pictures: uint8 of shape (N, C, h, w).
        averaged: whether to average; otherwise the picture alone is embedded.
        batch_size: pictures per call of the encoder.

    Returns:
        float32 of shape (N, dim), each row of length 1; without gradient.

    Example:
        >>> import torch
        >>> from nearfar.app.augment import embed_pictures
        >>> pictures = torch.arange(12, dtype=torch.uint8).view(2, 1, 2, 3)
        >>> embed_pictures(torch.nn.Flatten(), pictures, averaged=False).norm(dim=1).round(decimals=5)
        tensor([1., 1.])
    """
    device = next((p.device for p in encoder.parameters()), pictures.device)
    rows = [_embed(encoder, chunk.to(device), averaged) for chunk in torch.split(pictures, batch_size)]
    return torch.cat(rows)


def _embed(encoder: nn.Module, pictures: torch.Tensor, averaged: bool) -> torch.Tensor:
    if not averaged:
        return normalize(encoder(standardise(pictures)), dim=1)
    units = []
    for shifted in _shifts(pictures):
        x = standardise(shifted)
        units += [normalize(encoder(x), dim=1), normalize(encoder(x.flip(-1)), dim=1)]
    return normalize(torch.stack(units).sum(dim=0), dim=1)


def _shifts(pictures: torch.Tensor) -> Iterator[torch.Tensor]:
    """The pictures, and the pictures moved by a 28th of their side, edges continued."""
    height, width = pictures.shape[-2:]
    down, right = max(1, round(height / _SHIFT)), max(1, round(width / _SHIFT))
    wide = pad(pictures.to(torch.float32), (right, right, down, down), mode="replicate").to(pictures.dtype)
    for top, left in ((0, 0), (down, 0), (-down, 0), (0, right), (0, -right)):
        yield wide[..., down + top : down + top + height, right + left : right + left + width]
