"""Image files of every kind that is read, and damage done to them: the same file for the same seed and index."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image

INTERESTING = (0, 1, 2, 3, 4, 7, 8, 9, 16, 255, 256, 4095, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1)


def picture(height: int = 29, width: int = 43, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Half smooth, half noise, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([(x * (3 + c) + y * 2) % 256 for c in range(channels)], axis=2)
    noise = rng.integers(0, 256, smooth.shape)
    return np.where((x < width // 2)[:, :, None], smooth, noise).astype(np.uint8)


def seeds() -> list[bytes]:
    """Whole files: five formats, and of each format all that differs in how it is decoded."""
    return [*_pillow_files(), *_opencv_files(), *_tiff_files(), _animated_png(), _animated_png(frames=0)]


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _pillow_files() -> list[bytes]:
    rgb = Image.fromarray(picture())
    alpha = Image.fromarray(picture(channels=4))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        *(_saved(rgb.convert(mode), "PNG") for mode in ("1", "L", "P", "RGB")),
        _saved(rgb.quantize(5), "PNG", transparency=2),
        _saved(rgb, "PNG", transparency=(3, 4, 5), exif=exif),
        *(_saved(alpha.convert(mode), "PNG") for mode in ("LA", "RGBA")),
        _saved(rgb, "PNG", save_all=True, append_images=[rgb.transpose(Image.Transpose.FLIP_TOP_BOTTOM)] * 2),
        *(_saved(rgb.convert(mode), "JPEG", exif=exif) for mode in ("L", "RGB", "CMYK")),
        *(_saved(rgb, "JPEG", progressive=True, subsampling=kind, quality=90) for kind in (0, 1, 2)),
        _saved(rgb, "JPEG", restart_marker_blocks=2),
        *(_saved(rgb.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB")),
        _saved(alpha, "BMP"),
        *(_saved(rgb, "WEBP", lossless=lossless, exif=exif) for lossless in (True, False)),
        *(_saved(alpha, "WEBP", lossless=lossless) for lossless in (True, False)),
        _saved(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)], lossless=True),
        *(
            _saved(rgb, "TIFF", compression=name)
            for name in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")
        ),
        *(_saved(rgb.convert(mode), "TIFF") for mode in ("1", "L", "P", "CMYK")),
        _saved(alpha, "TIFF", compression="tiff_lzw"),
    ]


def _opencv_files() -> list[bytes]:
    files = []
    for channels in (1, 3, 4):
        deep = picture(channels=channels).astype(np.uint16) * 257
        files += [cv2.imencode(suffix, deep)[1].tobytes() for suffix in (".png", ".tiff")]
    return files


def _tiff_files() -> list[bytes]:
    shared: list[dict[str, Any]] = [
        {"planarconfig": "separate", "rowsperstrip": 8},
        {"planarconfig": "separate", "tile": (16, 16)},
        {"tile": (16, 32)},
        {"rowsperstrip": 5, "predictor": True},
        {"byteorder": ">", "bigtiff": True},
    ]
    files = []
    for dtype in (np.uint8, np.uint16):
        pixels = picture().astype(dtype) * (1 if dtype == np.uint8 else 257)
        for options in shared:
            for compression in (None, "lzw", "zlib", "packbits"):
                if compression is None and "predictor" in options:
                    continue
                layout = dict(options)
                planes = np.moveaxis(pixels, 2, 0) if layout.get("planarconfig") == "separate" else pixels
                files.append(_tiff(planes, photometric="rgb", compression=compression, **layout))
    grey = picture(channels=1)[:, :, 0]
    files += [
        _tiff(grey.astype(np.uint16) * 257, photometric="miniswhite"),
        _tiff(picture(64, 64), photometric="ycbcr", compression="jpeg", tile=(32, 32)),
        _tiff(picture(64, 64)[:, :, 0], photometric="minisblack", compression="jpeg", rowsperstrip=16),
    ]
    return files


def _tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    byteorder = options.pop("byteorder", "<")
    bigtiff = options.pop("bigtiff", False)
    tifffile.imwrite(buffer, pixels, byteorder=byteorder, bigtiff=bigtiff, metadata=None, **options)
    return buffer.getvalue()


def _animated_png(frames: int = 1) -> bytes:
    """An animated PNG by hand; with `frames=0` its frame control is followed by no data."""
    still = _saved(Image.fromarray(picture()), "PNG")
    head, body = still[:33], still[33:]
    control = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 43, 29, 0, 0, 1, 10, 0, 0))
    later = b"" if frames else png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, 43, 29, 0, 0, 1, 10, 0, 0))
    return head + png_chunk(b"acTL", struct.pack(">II", 1, 0)) + control + body[:-12] + later + body[-12:]


def png_chunk(name: bytes, body: bytes) -> bytes:
    """Length, name, body and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def damaged_file(files: list[bytes], seed: int, index: int) -> bytes:
    """Damage one of the files, in one to four ways.

    Checksums and lengths are mended afterwards, most times, so that the damage reaches the decoders.
    """
    rng = random.Random(f"{seed}:{index}")
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _DAMAGES[rng.randrange(len(_DAMAGES))](data, rng, files)
        if len(data) < 16:
            data.extend(bytes(16))
    if rng.random() < 0.8:
        _mend(data)
    return bytes(data)


def _flip(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    for _time in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def _flip_in_head(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    for _time in range(rng.randint(1, 4)):
        data[rng.randrange(min(len(data), 200))] = rng.randrange(256)


def _cut(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    del data[rng.randrange(1, len(data)) :]


def _remove(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randint(1, 200)]


def _repeat(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randint(1, 200)] * rng.choice((1, 2, 50))


def _blank(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    start, size = rng.randrange(len(data)), rng.randint(1, 100)
    data[start : start + size] = bytes([rng.choice((0, 255))]) * len(data[start : start + size])


def _splice(data: bytearray, rng: random.Random, files: list[bytes]) -> None:
    other = rng.choice(files)
    start, take = rng.randrange(len(data)), rng.randrange(len(other))
    data[start:] = other[take:]


def _number(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    order, (form, size) = rng.choice("<>"), rng.choice((("B", 1), ("H", 2), ("I", 4)))
    value = rng.choice(INTERESTING) % 2 ** (8 * size)
    near_head = rng.random() < 0.7
    start = rng.randrange(min(len(data), 256) if near_head else len(data) - 4)
    data[start : start + size] = struct.pack(order + form, value)


def _tiff_tag(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Change a tag's number, type, count or value where its directory lies."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None or data[2:4] not in (b"*\0", b"\0*"):
        _number(data, rng, [])
        return
    start = struct.unpack_from(order + "I", data, 4)[0]
    if start + 14 > len(data):
        return
    count = struct.unpack_from(order + "H", data, start)[0]
    entry = start + 2 + 12 * rng.randrange(max(1, min(count, 40)))
    if entry + 12 > len(data):
        return
    place, form = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H"), (8, "H")))
    value = rng.choice((*INTERESTING, rng.randrange(64), rng.randrange(len(data))))
    struct.pack_into(order + form, data, entry + place, value % (65536 if form == "H" else 2**32))


_DAMAGES: list[Callable[[bytearray, random.Random, list[bytes]], None]] = [
    *(_flip, _flip_in_head, _cut, _remove, _repeat, _blank, _splice, _number, _number, _tiff_tag, _tiff_tag)
]


def _mend(data: bytearray) -> None:
    if data.startswith(b"\x89PNG"):
        _mend_checksums(data)
    elif data.startswith(b"RIFF"):
        struct.pack_into("<I", data, 4, len(data) - 8)
    elif data.startswith(b"\xff\xd8") and not data.endswith(b"\xff\xd9"):
        data += b"\xff\xd9"


def _mend_checksums(data: bytearray) -> None:
    position = 8
    while position + 12 <= len(data):
        length = struct.unpack_from(">I", data, position)[0]
        end = position + 12 + length
        if end > len(data):  # cut off: end the chunk, and the file
            body = bytes(data[position + 8 :])
            data[position:] = png_chunk(bytes(data[position + 4 : position + 8]), body) + png_chunk(
                b"IEND", b""
            )
            return
        struct.pack_into(">I", data, end - 4, zlib.crc32(data[position + 4 : end - 4]))
        position = end
    if data[-8:-4] != b"IEND":
        del data[position:]
        data += png_chunk(b"IEND", b"")
