"""Files to tensors: many pictures of one size, and whether they are grey or colour."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from nearfar.app.images import Mode, read_image

_LOOKED_AT = 64


def read_pictures(paths: Sequence[str | os.PathLike[str]], size: tuple[int, int], mode: str) -> torch.Tensor:
    """Decode pictures into one tensor.

    Args:
        paths: The files.
        size: Height and width.
        mode: "L" for grey, "RGB" for colour.

    Returns:
        uint8 of shape (n, 1 or 3, height, width).

    Raises:
        DataError: A file cannot be read; names the path and the reason.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar.app.pictures import read_pictures
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a.pgm").write_bytes(b"P5 2 1 255 " + bytes([7, 9]))
        ...     read_pictures([Path(folder) / "a.pgm"], (1, 2), "L").tolist()
        [[[[7, 9]]]]
    """
    kind: Literal["L", "RGB"] = "L" if mode == "L" else "RGB"
    channels = 1 if kind == "L" else 3
    pictures = np.empty((len(paths), channels, *size), dtype=np.uint8)
    for place, path in zip(pictures, paths, strict=True):
        place[...] = read_image(path, size, kind).reshape(*size, channels).transpose(2, 0, 1)
    return torch.from_numpy(pictures)


def mode_of(paths: Sequence[str | os.PathLike[str]]) -> Mode:
    """Whether pictures are grey or colour, judged by some that are spread evenly.

    Args:
        paths: The files.

    Returns:
        "L" where red, green and blue are equal in all that were looked at, else "RGB".

    Raises:
        DataError: A file cannot be read; names the path and the reason.
    """
    step = max(1, -(-len(paths) // _LOOKED_AT))
    for path in paths[::step]:
        pixels = read_image(path, mode="RGB")
        if (pixels != pixels[..., :1]).any():
            return "RGB"
    return "L"
