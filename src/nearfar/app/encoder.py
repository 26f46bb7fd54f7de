"""A small convolutional encoder: pictures in, embeddings out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import nn

from nearfar._errors import InputError, ShapeError

_GROUPS = 8


@dataclass(frozen=True)
class EncoderConfig:
    """What an encoder is made of; enough to build it again.

    Args:
        channels: 1 for grey pictures, 3 for colour.
        size: height and width of the pictures it takes.
        widths: channels of each stage; every stage halves height and width, rounding up.
        dim: length of the embedding.

    Raises:
        InputError: where no encoder can be built from the values.

    Example:
        >>> from nearfar.app.encoder import EncoderConfig
        >>> EncoderConfig(channels=1, size=(56, 46), widths=(16, 32, 64), dim=64).grid
        (7, 6)
    """

    channels: int
    size: tuple[int, int]
    widths: tuple[int, ...]
    dim: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))  # JSON and YAML know lists only
        object.__setattr__(self, "widths", tuple(self.widths))
        if self.channels not in (1, 3):
            raise InputError(f"expected channels 1 or 3, got {self.channels}; convert the pictures")
        if len(self.size) != 2 or min(self.size) < 1:
            raise InputError(f"expected a size (height, width) of 1 or more, got {self.size}; give two numbers")
        if not self.widths or min(self.widths) < 1:
            raise InputError(f"expected one width of 1 or more per stage, got {self.widths}; give some")
        if self.dim < 1:
            raise InputError(f"expected a dim of 1 or more, got {self.dim}; try 64")

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the last stage's map."""
        shrink = 2 ** len(self.widths)
        return math.ceil(self.size[0] / shrink), math.ceil(self.size[1] / shrink)


def _stage(width_in: int, width_out: int, kernel: int) -> Iterator[nn.Module]:
    yield nn.Conv2d(width_in, width_out, kernel, stride=2, padding=kernel // 2, bias=False)
    yield nn.GroupNorm(math.gcd(_GROUPS, width_out), width_out)
    yield nn.ReLU()


class ConvEncoder(nn.Module):
    """Stages of strided convolution, GroupNorm and ReLU, then one linear map of the flattened grid.

    The head sees where a feature lies, so pictures should be framed alike. GroupNorm instead of
    BatchNorm: the embedding of a picture never depends on the pictures beside it. Weights are drawn
    from torch's global generator: call ``torch.manual_seed`` first.

    Args:
        config: what to build.

    Example:
        >>> import torch
        >>> from nearfar.app.encoder import ConvEncoder, EncoderConfig
        >>> encoder = ConvEncoder(EncoderConfig(channels=1, size=(56, 46), widths=(8, 16), dim=32))
        >>> encoder(torch.zeros(5, 1, 56, 46)).shape
        torch.Size([5, 32])
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for stage, pair in enumerate(pairwise((config.channels, *config.widths))):
            layers += _stage(*pair, kernel=3 if stage else 5)
        self.features = nn.Sequential(*layers)
        height, width = config.grid
        self.head = nn.Linear(config.widths[-1] * height * width, config.dim)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Embed a batch of standardised pictures.

        Args:
            pictures: floats of shape (B, C, h, w), mean 0 and standard deviation 1 each.

        Returns:
            Embeddings of shape (B, dim), not normalised.

        Raises:
            ShapeError: where the pictures are not of the configured shape.
        """
        wanted = (self.config.channels, *self.config.size)
        if pictures.ndim != 4 or tuple(pictures.shape[1:]) != wanted:
            raise ShapeError(
                f"expected pictures of shape (B, {wanted[0]}, {wanted[1]}, {wanted[2]}), "
                f"got {tuple(pictures.shape)}; resize them to the encoder's size"
            )
        return cast(torch.Tensor, self.head(self.features(pictures).flatten(1)))
