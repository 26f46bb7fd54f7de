"""Pictures are read whole and upright, or refused with a reason."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from nearfar import DataError
from nearfar.app.images import MAX_PIXELS, UnreadableError, decode, read_bytes, read_image


def colours(height: int = 24, width: int = 31) -> np.ndarray:
    """A picture that differs from each of its mirror images and turns."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x * y) % 256], axis=-1).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "PPM": {}, "TIFF": {}}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_come_back_exactly(kind, tmp_path):
    path = tmp_path / "any.name"
    path.write_bytes(encoded(colours(), kind, **LOSSLESS[kind]))
    np.testing.assert_array_equal(read_image(path), colours())


def test_jpeg_and_gif_are_near(tmp_path):
    for kind in ("JPEG", "GIF"):
        path = tmp_path / f"a.{kind}"
        smooth = np.repeat(colours()[..., :1], 3, axis=2)
        path.write_bytes(encoded(smooth, kind, **({"quality": 95} if kind == "JPEG" else {})))
        assert np.abs(read_image(path).astype(int) - smooth).mean() < 3


def test_progressive_jpeg_equals_baseline_size():
    assert decode(encoded(colours(), "JPEG", progressive=True)).size == (31, 24)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF"])
def test_a_truncated_picture_is_never_quietly_different(kind):
    rng = np.random.default_rng(7)
    content = encoded(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8), kind)
    whole = np.array(decode(content))
    refused = 0
    lengths = {1, 2, 10, *range(0, len(content), max(1, len(content) // 60)), len(content) - 1} - {0}
    for length in sorted(lengths):
        try:
            left = np.array(decode(content[:length]))
        except UnreadableError:
            refused += 1
        else:
            np.testing.assert_array_equal(left, whole, err_msg=f"{kind} cut to {length} of {len(content)}")
    assert refused >= len(lengths) - 2


def test_truncation_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    content = encoded(colours(200, 300), "JPEG")
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.jpg, got a picture that is cut off \(truncated\); replace"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied_once(orientation, kind):
    upright = colours()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(np.ascontiguousarray(stored), kind, exif=exif)
    np.testing.assert_array_equal(np.array(decode(content)), upright)


def test_broken_exif_beside_good_pixels_says_nothing():
    content = encoded(colours(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(np.array(decode(content)), colours())


@pytest.mark.parametrize("kind", ["PNG", "PPM", "TIFF"])
def test_sixteen_bits_become_eight(kind):
    grey = colours()[..., 0]
    content = encoded(grey.astype(np.uint16) * 257, kind)
    np.testing.assert_array_equal(np.array(decode(content, "L")), grey)
    np.testing.assert_array_equal(np.array(decode(content, "RGB"))[..., 2], grey)


def test_float_pixels_are_refused():
    with pytest.raises(UnreadableError, match="32 bits, whose range is not known"):
        decode(encoded(colours()[..., 0].astype(np.float32) / 255, "TIFF"))


def test_transparency_is_laid_on_white():
    pixels = np.dstack([colours(), np.full((24, 31), 255, np.uint8)])
    pixels[3:9, 4:20, 3] = 0
    pixels[10, 10, 3] = 128
    got = np.array(decode(encoded(pixels, "PNG")))
    expected = colours()
    expected[3:9, 4:20] = 255
    blend = np.round((128 * colours()[10, 10].astype(float) + 127 * 255) / 255)
    assert np.abs(got[10, 10] - blend).max() <= 1
    expected[10, 10] = got[10, 10]
    np.testing.assert_array_equal(got, expected)


def test_palette_with_transparency_and_grey_with_alpha():
    palette = Image.new("P", (3, 1))
    palette.putpalette([200, 10, 20, 30, 40, 50, 60, 70, 80])
    palette.putdata([0, 1, 2])
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=1)
    assert np.array(decode(stream.getvalue())).tolist() == [[[200, 10, 20], [255, 255, 255], [60, 70, 80]]]
    grey = np.array([[[7, 255], [7, 0]]], np.uint8)
    assert np.array(decode(encoded(grey, "PNG"), "L")).tolist() == [[7, 255]]


def test_cmyk_becomes_colour():
    stream = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(stream, "JPEG", quality=95)
    red = np.array(decode(stream.getvalue()))[4, 4].astype(int)
    assert red[0] > 240
    assert red[1:].max() < 20


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (5, 4), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    for kind in ("GIF", "WEBP"):
        stream = io.BytesIO()
        options = {"lossless": True} if kind == "WEBP" else {}
        frames[0].save(stream, kind, save_all=True, append_images=frames[1:], **options)
        assert np.array(decode(stream.getvalue()))[0, 0].tolist() == [250, 0, 0]


def png_header(width: int, height: int) -> bytes:
    """A PNG of any size in a few bytes: one bit a pixel, all zero."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    body = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9459, 13377, 20000])
def test_a_bomb_is_refused_before_it_is_decoded(side, monkeypatch):
    content = png_header(side, side)
    assert len(content) < 100_000

    def never(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with pytest.raises(UnreadableError, match=r"pixels, more than|more pixels"):
        decode(content)


def test_the_largest_allowed_picture_is_the_cap():
    assert MAX_PIXELS == 8000 * 8000
    assert decode(png_header(4000, 3), "L").size == (4000, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"an empty file \(0 bytes\)"),
        (b"hello, this is a note\n", "text, not a picture"),
        ("schöne Grüße, ein Text".encode(), "text, not a picture"),
        (b"<!DOCTYPE html><html><body>404", "a web page"),
        (b"\xff\xd8\xff\xe0\0\x10JF", "cut off"),
        (b"P5 3", "cut off"),
        (b"\x89PNG\r\n\x1a\n", "only the beginning of a picture"),
        (b"%PDF-1.7 ...", "a PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "SVG"),
        (bytes(range(256)), "no picture format"),
    ],
)
def test_what_is_no_picture_is_named(content, reason, tmp_path):
    path = tmp_path / "face.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"expected a readable picture at .*face.jpg, got .*{reason}.*; replace"):
        read_image(path)


def test_formats_outside_the_list_are_refused():
    for kind in ("ICO", "TGA", "PCX"):
        with pytest.raises(UnreadableError):
            decode(encoded(colours(32, 32), kind))


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    reasons = {
        "pipe.jpg": "a pipe, socket or device",
        "folder.jpg": "a folder",
        "loop.jpg": "back to itself",
        "dangling.jpg": "a link to a file that is not there",
        "missing.jpg": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(UnreadableError, match=reason):
            read_bytes(tmp_path / name)


def test_no_permission_is_named(tmp_path, monkeypatch):
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("nearfar.app.images.os.open", refuse)
    with pytest.raises(UnreadableError, match="no permission"):
        read_bytes(tmp_path / "a.jpg")


@pytest.mark.parametrize(("mode", "shape"), [("L", (12, 9)), ("RGB", (12, 9, 3))])
def test_size_is_height_by_width(mode, shape, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(colours(48, 36), "PNG"))
    got = read_image(path, (12, 9), mode)
    assert got.shape == shape
    assert got.dtype == np.uint8
    if mode == "RGB":  # antialiased: near the mean of the 4 × 4 blocks
        blocks = colours(48, 36)[..., :2].reshape(12, 4, 9, 4, 2).mean(axis=(1, 3))
        assert np.abs(got[1:-1, 1:-1, :2] - blocks[1:-1, 1:-1]).max() <= 2


def test_extreme_shapes(tmp_path):
    for height, width in ((1, 1), (1, 30000), (30000, 1)):
        path = tmp_path / f"{height}.png"
        path.write_bytes(encoded(np.full((height, width), 9, np.uint8), "PNG"))
        assert read_image(path, (8, 8), "L").tolist() == [[9] * 8] * 8


def test_random_damage_never_escapes_as_another_error():
    rng = np.random.default_rng(3)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"):
        content = bytearray(encoded(colours(), kind))
        for _ in range(80):
            broken = bytearray(content)
            for place in rng.integers(0, len(content), 3):
                broken[place] = rng.integers(0, 256)
            try:
                assert decode(bytes(broken)).mode == "RGB"
            except UnreadableError:
                continue
