"""Pictures from files nobody has checked: read whole and upright, or refused with a reason in plain words."""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from nearfar._errors import DataError
from nearfar.app.files import shown

Pixels = npt.NDArray[np.uint8]
Mode = Literal["L", "RGB"]

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif"}
    | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
MAX_PIXELS = 64_000_000
MAX_BYTES = 512 * 2**20

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"GIF8", b"P5", b"P6")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what turns the picture upright."""


def read_image(path: str | os.PathLike[str], size: tuple[int, int] | None = None, mode: Mode = "RGB") -> Pixels:
    """Read one picture upright as 8-bit pixels, in a given size and number of channels.

    The content decides the format (JPEG, PNG, WebP, BMP, PNM, TIFF, GIF: first frame), not the name.
    Transparent parts are laid on white; 16 bits become 8; the aspect ratio follows `size`.

    Args:
        path: the file.
        size: (height, width) to resize to, bilinear and antialiased; None keeps the picture's own.
        mode: "L" for grey, "RGB" for colour.

    Returns:
        uint8 pixels: (height, width) for "L", (height, width, 3) for "RGB".

    Raises:
        DataError: if the file is not a complete, readable picture; names the path and the reason.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nearfar.app.images import read_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "grey.pgm").write_bytes(b"P5 3 2 255 " + bytes([0, 1, 2, 3, 4, 5]))
        ...     read_image(Path(folder) / "grey.pgm", mode="L").tolist()
        [[0, 1, 2], [3, 4, 5]]
    """
    try:
        picture = decode(read_bytes(path), mode)
    except UnreadableError as error:
        raise DataError(
            f"expected a readable picture at {shown(path)}, got {error}; replace the file or leave it out"
        ) from error
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(picture, dtype=np.uint8)


class UnreadableError(Exception):
    """Why a file is not a picture that can be used, in words that follow "got"."""


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a regular file; a folder, pipe or device is refused and never waited for.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        UnreadableError: if it is not a regular file, is empty, is larger than `MAX_BYTES` or cannot be read.

    Example:
        >>> from nearfar.app.images import UnreadableError, read_bytes
        >>> try:
        ...     read_bytes(".")
        ... except UnreadableError as reason:
        ...     print(reason)
        a folder
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        if Path(path).is_dir():  # some systems refuse to open one, in words that do not say so
            raise UnreadableError("a folder")
        with os.fdopen(os.open(path, flags), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableError("a pipe, socket or device instead of a file")
            if status.st_size > MAX_BYTES:
                raise UnreadableError(f"a file of {status.st_size:,} bytes, more than the {MAX_BYTES:,} allowed")
            content = stream.read(MAX_BYTES)
    except (OSError, ValueError) as error:
        raise UnreadableError(_system_reason(path, error)) from error
    if not content:
        raise UnreadableError("an empty file (0 bytes)")
    return content


def _system_reason(path: str | os.PathLike[str], error: OSError | ValueError) -> str:
    """Say in plain words why the system would not open a file."""
    if isinstance(error, FileNotFoundError):
        return "a link to a file that is not there" if Path(path).is_symlink() else "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    if isinstance(error, OSError) and error.errno == errno.ENXIO:
        return "a pipe, socket or device instead of a file"
    return str(getattr(error, "strerror", None) or error)


def decode(content: bytes, mode: Mode = "RGB") -> Image.Image:
    """Decode a picture completely and turn it upright.

    The size in the header is checked before a pixel is decoded, so a small file cannot fill the memory.

    Args:
        content: the bytes of the file.
        mode: "L" for grey, "RGB" for colour.

    Returns:
        A Pillow image of that mode.

    Raises:
        UnreadableError: with the reason.

    Example:
        >>> from nearfar.app.images import decode
        >>> decode(b"P5 3 2 255 " + bytes([0, 1, 2, 3, 4, 5]), "L").size
        (3, 2)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks about metadata, which is not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture: Image.Image = Image.open(io.BytesIO(content), formats=_FORMATS)
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise UnreadableError(f"{width} × {height} pixels, more than the {MAX_PIXELS:,} allowed")
            picture.load()
            return _to_eight_bits(_turn_upright(picture), mode)
    except UnreadableError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"more pixels than the {MAX_PIXELS:,} allowed") from error
    except UnidentifiedImageError as error:
        raise UnreadableError(_what_else(content)) from error
    except Exception as error:  # damaged bytes reach every kind of error inside the decoders
        cut = "truncated" in str(error).lower() or "EOF" in str(error) or isinstance(error, EOFError)
        reason = "a picture that is cut off (truncated)" if cut else f"a damaged picture ({error})"
        raise UnreadableError(reason) from error


def _what_else(content: bytes) -> str:
    """Name what a file holds that no decoder recognises."""
    start = content[:512]
    if start.startswith(_SIGNATURES):
        return f"only the beginning of a picture, or a damaged one ({len(content)} bytes)"
    if start[4:8] == b"ftyp":
        return "a video, HEIC or AVIF file; save it as JPEG or PNG"
    if start.startswith(b"%PDF"):
        return "a PDF file"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML), not a picture"
    if b"<svg" in start.lower():
        return "a drawing (SVG); save it as PNG"
    if b"\0" not in start and all(byte >= 32 or byte in b"\t\n\f\r" for byte in start):
        return "text, not a picture"
    return "no picture format that is known here (JPEG, PNG, WebP, BMP, PNM, TIFF, GIF)"


def _turn_upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; EXIF data that cannot be read say nothing."""
    try:
        orientation: Any = picture.getexif().get(0x0112)
        turn = _UPRIGHT.get(orientation)
    except Exception:  # broken metadata beside good pixels
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _to_eight_bits(picture: Image.Image, mode: Mode) -> Image.Image:
    """Bring any pixel format to grey or colour of 8 bits, on white where transparent."""
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in (None, "PPM", "PNG")):
        wide = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray(np.clip((wide + 128) // 257, 0, 255).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise UnreadableError("pixels of 32 bits, whose range is not known; save it with 8 or 16 bits")
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, clear).convert("RGB")
    try:
        return picture if picture.mode == mode else picture.convert(mode)
    except ValueError as error:
        raise UnreadableError(f"colours of the kind {picture.mode}; save it as RGB") from error
