"""Image files written by hand, so that the pixels that a test expects come from no decoder."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import tifffile
from PIL import Image


def samples(channels: int, bits: int, height: int = 21, width: int = 37, seed: int = 0) -> np.ndarray:
    """Noise over the full range, the brightest and the darkest value among it."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    values = np.random.default_rng(seed).integers(0, 2**bits, (height, width, channels)).astype(dtype)
    values[0, 0], values[0, 1] = 2**bits - 1, 0
    return values


def to_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Scale by the full range, rounding to the nearest."""
    return np.floor(values.astype(np.float64) * 255 / (2**bits - 1) + 0.5).astype(np.uint8)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composite 8-bit colour by 8-bit alpha."""
    share = alpha.astype(np.float64)[:, :, None] / 255
    return colour * share + 255 * (1 - share)


def as_colour(pixels: np.ndarray) -> np.ndarray:
    """Three channels of one or three."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    pixels: np.ndarray,
    bits: int,
    colour: int,
    *,
    before: bytes = b"",
    after: bytes = b"",
    interlaced: bool = False,
    cut: int = 0,
) -> bytes:
    """Write samples `h w c` as PNG. `before` and `after` are chunks around the pixel data; `cut` drops coded rows."""
    height, width, _ = pixels.shape
    raw = b"".join(
        b"\0" + _packed(row, bits) for image in _passes(pixels, interlaced) for row in image if row.size
    )
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    data = png_chunk(b"IDAT", zlib.compress(raw[: len(raw) - cut]))
    chunks = png_chunk(b"IHDR", header) + before + data + after + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _passes(pixels: np.ndarray, interlaced: bool) -> list[np.ndarray]:
    if not interlaced:
        return [pixels]
    steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    return [pixels[y::rows, x::columns] for y, x, rows, columns in steps]


def _packed(row: np.ndarray, bits: int) -> bytes:
    if bits >= 8:
        return row.astype(">u2" if bits == 16 else "u1").tobytes()
    return packed_bits(row.ravel(), bits)


def packed_bits(values: np.ndarray, bits: int) -> bytes:
    """Values of any depth one behind the other, the highest bit first."""
    expanded = (values.astype(np.uint32)[:, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(expanded.astype(np.uint8).ravel()).tobytes()


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF block of one tag, without its prefix."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What a viewer shows, by Pillow's operations."""
    operations = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    image = Image.fromarray(pixels)
    return np.asarray(image.transpose(operations[orientation]) if orientation > 1 else image)


def tiff(pixels: np.ndarray, *, order: Any = "<", big: bool = False, **options: Any) -> bytes:
    """Write samples `h w c` with tifffile; planes are moved where they are kept apart."""
    if options.get("planarconfig") == "separate":
        pixels = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    elif pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, byteorder=order, bigtiff=big, metadata=None, **options)
    return buffer.getvalue()


def plain_tiff(
    tags: dict[int, tuple[int, list[int]]], data: bytes, order: str = "<", offsets_tag: int = 273
) -> bytes:
    """A TIFF of any tags (type and values) and one block of data, to which `offsets_tag` points."""
    tags = {**tags, offsets_tag: (4, [0])}
    extra_start = 8 + 2 + 12 * len(tags) + 4
    blocks = {tag: _values(order, *tags[tag]) for tag in sorted(tags)}
    data_start = extra_start + sum(len(block) for block in blocks.values() if len(block) > 4)
    blocks[offsets_tag] = struct.pack(order + "I", data_start)
    entries, extra = b"", b""
    for tag, block in blocks.items():
        kind, values = tags[tag]
        place = block.ljust(4, b"\0")
        if len(block) > 4:
            place = struct.pack(order + "I", extra_start + len(extra))
            extra += block
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + place
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIH", 42, 8, len(tags)) + entries + bytes(4) + extra + data


def _values(order: str, kind: int, values: list[int]) -> bytes:
    return struct.pack(f"{order}{len(values)}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }", *values)


def bmp(
    rows: list[bytes],
    width: int,
    bits: int,
    *,
    palette: bytes = b"",
    compression: int = 0,
    masks: tuple[int, ...] = (),
    header_size: int = 40,
    top_down: bool = False,
) -> bytes:
    """Write rows (top to bottom, each padded here) as BMP; `masks` stand in the header from version 3 on."""
    padded = [row.ljust((len(row) + 3) // 4 * 4, b"\0") for row in rows]
    body = b"".join(padded if top_down else padded[::-1])
    height = -len(rows) if top_down else len(rows)
    if header_size == 12:
        header = struct.pack("<IHHHH", 12, width, len(rows), 1, bits)
    else:
        colours = len(palette) // 4
        fields = (header_size, width, height, 1, bits, compression, len(body), 0, 0, colours, 0)
        header = struct.pack("<IiiHHIIiiII", *fields)
        header += struct.pack(f"<{len(masks)}I", *masks)
        header = header.ljust(header_size, b"\0")
    offset = 14 + len(header) + len(palette)
    head = b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset)
    return head + header + palette + body
