"""TIFF: tags, strips and tiles are read here; zlib and libtiff (Pillow) decompress, numpy arranges the samples.

No TIFF of a stranger reaches a TIFF library. Strips are decompressed as rows of bytes from a plain file that is written
here; what the bytes mean is applied by numpy: byte order, depth, predictor, planes, tiles, white-is-zero, alpha.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import UInt, UInt8
from PIL import Image, TiffImagePlugin

from energyad.errors import ImageError
from energyad.images.formats import jpeg
from energyad.images.formats.ifd import ORIENTATION, Directory, read_directory
from energyad.images.formats.raw import RawImage, damaged, excessive, require, unsupported

MAX_SEGMENTS: Final = 65_536
MAX_JPEG_SEGMENTS: Final = 8192
MAX_TABLES: Final = 8192
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_COLOUR_MAP, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 320, 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _JPEG_TABLES = 338, 339, 347
_WANTED: Final = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, ORIENTATION),
    *(_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PLANAR, _PREDICTOR),
    *(_COLOUR_MAP, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS),
    *(_EXTRA_SAMPLES, _SAMPLE_FORMAT, _JPEG_TABLES),
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS: Final = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_UNREAD_COLOURS: Final = {4: "transparency mask", 8: "CIE L*a*b*", 32803: "colour filter array (raw)"}
_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32946, 32773
_COMPRESSIONS: Final = {_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS}
_UNREAD_COMPRESSIONS: Final = {
    **{2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "old JPEG", 34712: "JPEG 2000", 33003: "JPEG 2000"},
    **{33005: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL"},
}
_ASSOCIATED_ALPHA: Final = 1
_REVERSED_BITS: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_BLOCK_BYTES: Final = 1 << 20
_GROUP_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class _Layout:
    """Where the samples of one plane lie: segments (strips or tiles) of `rows` x `columns` pixels.

    `across` x `down` segments cover a plane; `channels` samples lie side by side in each pixel. The last strip of a
    plane may be shorter, the last tile is filled up.
    """

    columns: int
    rows: int
    across: int
    down: int
    channels: int
    planes: int
    is_tiled: bool

    def total_rows(self, height: int) -> int:
        """Rows of all segments of a plane, one below the other."""
        return self.rows * self.across * self.down if self.is_tiled else height


@dataclass(frozen=True)
class TiffImage:
    """A TIFF whose strips or tiles all lie within the file.

    Attributes:
        bits: of one sample. samples: of one pixel. alpha: 0 for none, 1 for premultiplied, 2 for plain alpha.
        segments: start and length of each strip or tile, plane after plane.
    """

    data: bytes
    order: str
    width: int
    height: int
    orientation: int
    bits: int
    samples: int
    alpha: int
    photometric: int
    compression: int
    predictor: int
    bits_reversed: bool
    layout: _Layout
    segments: list[tuple[int, int]]
    colour_map: list[int] | None
    tables: bytes

    def decode(self) -> RawImage:
        """Decode all samples and give them their meaning."""
        planes, white = self.layout.planes, 2**self.bits - 1
        per_plane = len(self.segments) // planes
        samples = self._plane(self.segments[:per_plane])
        if planes > 1:
            first, samples = samples, np.empty((self.height, self.width, planes), samples.dtype)
            samples[:, :, :1] = first
            for plane in range(1, planes):
                held = self.segments[plane * per_plane : (plane + 1) * per_plane]
                samples[:, :, plane : plane + 1] = self._plane(held)
        pixels = self._coloured(samples, white)
        if pixels.dtype == np.uint8:
            white = 255
        return RawImage(pixels, white, lossy=self.compression == _JPEG)

    def _plane(self, segments: list[tuple[int, int]]) -> UInt[np.ndarray, "h w c"]:
        layout = self.layout
        if self.compression == _JPEG:
            rows = self._from_jpeg(segments)
        else:
            rows = self._samples(self._decompressed(segments))
            if self.predictor == 2:
                np.cumsum(rows, axis=1, dtype=rows.dtype, out=rows)
        if not layout.is_tiled:
            return rows
        tiles = rows.reshape(layout.down, layout.across, layout.rows, layout.columns, layout.channels)
        plane = tiles.swapaxes(1, 2).reshape(
            layout.down * layout.rows, layout.across * layout.columns, layout.channels
        )
        return plane[: self.height, : self.width]

    def _decompressed(self, segments: list[tuple[int, int]]) -> UInt8[np.ndarray, "rows bytes"]:
        layout = self.layout
        width = (layout.columns * layout.channels * self.bits + 7) // 8
        height = layout.total_rows(self.height)
        view = memoryview(self.data)
        if self.compression == _NONE:
            sizes = [width * rows for rows in self._rows_of_segments()]
            require(all(size <= length for size, (_, length) in zip(sizes, segments, strict=True)))
            held = [view[start : start + size] for size, (start, _) in zip(sizes, segments, strict=True)]
        else:
            held = [view[start : start + length] for start, length in segments]
        if self.bits_reversed:
            held = [memoryview(bytes(part).translate(_REVERSED_BITS)) for part in held]
        if self.compression in {_LZW, _PACKBITS}:
            return _decompressed_in_groups(held, self.compression, width, height, layout.rows)
        if self.compression != _NONE:
            sizes = [width * rows for rows in self._rows_of_segments()]
            held = [_inflated(part, size) for part, size in zip(held, sizes, strict=True)]
        whole = held[0] if len(held) == 1 else b"".join(held)
        return np.frombuffer(whole, np.uint8).reshape(height, width)

    def _rows_of_segments(self) -> list[int]:
        layout = self.layout
        rows = [layout.rows] * (layout.across * layout.down)
        if not layout.is_tiled:
            rows[-1] = self.height - layout.rows * (layout.down - 1)
        return rows

    def _samples(self, rows: UInt8[np.ndarray, "rows bytes"]) -> UInt[np.ndarray, "rows columns channels"]:
        """Unpack rows of bytes into samples, in memory of their own."""
        shape = (len(rows), self.layout.columns, self.layout.channels)
        if self.bits == 8:
            return rows.reshape(shape).copy()
        if self.bits == 16:
            return rows.view(self.order + "u2").reshape(shape).astype(np.uint16)
        samples = np.zeros(shape, np.uint8 if self.bits < 8 else np.uint16)
        count = shape[1] * shape[2]
        step = max(1, _BLOCK_BYTES // (count * self.bits))
        for first in range(0, len(rows), step):
            bits = np.unpackbits(rows[first : first + step], axis=1, count=count * self.bits)
            block = samples[first : first + step].reshape(-1, count)
            for bit in range(self.bits):
                block <<= 1
                block |= bits[:, bit :: self.bits]
        return samples

    def _from_jpeg(self, segments: list[tuple[int, int]]) -> UInt8[np.ndarray, "rows columns channels"]:
        layout = self.layout
        pixels = np.zeros((layout.total_rows(self.height), layout.columns, layout.channels), np.uint8)
        first = 0
        for (start, length), rows in zip(segments, self._rows_of_segments(), strict=True):
            data = self.data[start : start + length]
            require(data.startswith(b"\xff\xd8"))
            is_ycbcr = self.photometric == _YCBCR if layout.channels == 3 else None
            image = jpeg.parse(data, tables=self.tables, is_ycbcr=is_ycbcr)
            require(image.width == layout.columns and rows <= image.height <= layout.rows)
            require(image.channels == layout.channels)
            pixels[first : first + rows] = image.decode().pixels[:rows]
            first += rows
        return pixels

    def _coloured(self, samples: UInt[np.ndarray, "h w s"], white: int) -> UInt[np.ndarray, "h w c"]:
        if self.photometric == _PALETTE:
            colours = (np.array(self.colour_map, np.uint16).reshape(3, -1).T >> 8).astype(np.uint8)
            return colours[samples[:, :, 0]]
        if self.bits < 8:
            samples *= np.uint8(255 // white)
            white = 255
        count = _COLOURS[self.photometric]
        colour = samples[:, :, :count]
        if self.photometric == _WHITE_IS_ZERO:
            colour = white - colour
        if self.photometric == _CMYK:
            return _rgb_of_cmyk(colour)
        if not self.alpha:
            return np.ascontiguousarray(colour)
        alpha = samples[:, :, count : count + 1]
        if self.alpha == _ASSOCIATED_ALPHA:
            colour = _not_premultiplied(colour, alpha, white)
        elif count == 3:
            return samples
        return np.concatenate([np.broadcast_to(colour, (*colour.shape[:2], 3)), alpha], axis=2)


def parse(data: bytes) -> TiffImage:
    """Read the tags of the first image and check that its strips or tiles are all there.

    Raises:
        ImageError: a strip or tile lies beyond the file, is absent or overlaps another, or the kind is not supported.
    """
    directory = read_directory(data, _WANTED)
    width, height = directory.value(_WIDTH, 0), directory.value(_HEIGHT, 0)
    require(width > 0 and height > 0)
    compression = directory.value(_COMPRESSION, _NONE)
    if compression not in _COMPRESSIONS:
        name = _UNREAD_COMPRESSIONS.get(compression, str(compression))
        raise unsupported(f"TIFF compression {name}", "save it without compression, or with LZW or Deflate")
    bits, samples, photometric, alpha = _kind_of_samples(directory, compression)
    predictor = directory.value(_PREDICTOR, 1)
    if predictor != 1 and (predictor != 2 or bits not in {8, 16} or compression == _JPEG):
        raise unsupported(f"TIFF predictor {predictor} with {bits} bits")
    layout = _layout(directory, width, height, samples)
    segments = _segments(directory, layout, width, height, bits, compression, len(data))
    tables = bytes(directory.tags.get(_JPEG_TABLES, []))
    if len(tables) > MAX_TABLES:
        raise excessive(f"{len(tables):,} bytes of JPEG tables")
    orientation = directory.value(ORIENTATION, 1)
    return TiffImage(
        data=data,
        order=directory.order,
        width=width,
        height=height,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        bits=bits,
        samples=samples,
        alpha=alpha,
        photometric=photometric,
        compression=compression,
        predictor=predictor,
        bits_reversed=directory.value(_FILL_ORDER, 1) == 2 and compression != _JPEG,
        layout=layout,
        segments=segments,
        colour_map=_colour_map(directory, bits) if photometric == _PALETTE else None,
        tables=tables[2:-2] if tables.startswith(b"\xff\xd8") and tables.endswith(b"\xff\xd9") else b"",
    )


def _kind_of_samples(directory: Directory, compression: int) -> tuple[int, int, int, int]:
    """Bits of a sample, samples of a pixel, photometric interpretation, and the kind of alpha."""
    samples = directory.value(_SAMPLES, 1)
    all_bits = set(directory.tags.get(_BITS, [1])[:16])
    bits = max(all_bits)
    formats = set(directory.tags.get(_SAMPLE_FORMAT, [1])[:16])
    if bits > 16 or formats != {1}:
        reason = f"TIFF with {bits}-bit signed or floating-point samples has no defined white"
        raise ImageError("image", f"{reason}; save it with 8 or 16 bits")
    photometric = directory.value(_PHOTOMETRIC, -1)
    if photometric not in _COLOURS:
        name = _UNREAD_COLOURS.get(photometric, f"photometric interpretation {photometric}")
        raise unsupported(f"TIFF with {name}", "save it as grey or RGB")
    if len(all_bits) > 1 or bits not in {1, 2, 4, 8, 10, 12, 14, 16}:
        raise unsupported(f"TIFF with samples of {sorted(all_bits)} bits", "save it with 8 or 16 bits")
    colours = _COLOURS[photometric]
    if samples < colours or samples > colours + (0 if photometric in {_PALETTE, _YCBCR} else 1):
        raise unsupported(f"TIFF with {samples} channels of this colour model", "save it as grey or RGB")
    extra = directory.value(_EXTRA_SAMPLES, 0) if samples > colours else 0
    if photometric == _YCBCR and compression != _JPEG:
        raise unsupported("TIFF with YCbCr samples outside JPEG", "save it as RGB")
    if compression == _JPEG and (bits != 8 or samples not in {1, 3} or photometric == _PALETTE):
        raise unsupported(f"TIFF with JPEG compression of {samples} channels, {bits} bits")
    if (photometric == _PALETTE and bits > 8) or (photometric == _CMYK and bits not in {8, 16}):
        raise unsupported(f"TIFF of this colour model with {bits} bits", "save it as RGB")
    return bits, samples, photometric, extra if extra in {1, 2} and photometric != _CMYK else 0


def _layout(directory: Directory, width: int, height: int, samples: int) -> _Layout:
    planar = directory.value(_PLANAR, 1)
    require(planar in {1, 2})
    planes, channels = (samples, 1) if planar == 2 else (1, samples)
    if _TILE_OFFSETS in directory.tags or _TILE_WIDTH in directory.tags:
        columns, rows = directory.value(_TILE_WIDTH, 0), directory.value(_TILE_HEIGHT, 0)
        require(columns > 0 and rows > 0)
        across, down = -(-width // columns), -(-height // rows)
        if across * columns * down * rows > 4 * width * height + (1 << 20):
            raise excessive(f"tiles of {columns} x {rows} pixels for {width} x {height}")
        return _Layout(columns, rows, across, down, channels, planes, is_tiled=True)
    rows = min(directory.value(_ROWS_PER_STRIP, height), height)
    require(rows > 0)
    return _Layout(width, rows, 1, -(-height // rows), channels, planes, is_tiled=False)


def _segments(
    directory: Directory, layout: _Layout, width: int, height: int, bits: int, compression: int, held: int
) -> list[tuple[int, int]]:
    """Start and length of each strip or tile, all of them within the file."""
    count = layout.across * layout.down * layout.planes
    if count > (MAX_JPEG_SEGMENTS if compression == _JPEG else MAX_SEGMENTS):
        raise excessive(f"{count:,} strips or tiles")
    names = (_TILE_OFFSETS, _TILE_COUNTS) if layout.is_tiled else (_STRIP_OFFSETS, _STRIP_COUNTS)
    offsets, lengths = (directory.tags.get(name, []) for name in names)
    if not lengths and compression == _NONE and count == 1:  # some old programs left it out
        lengths = [(width * layout.channels * bits + 7) // 8 * layout.total_rows(height)]
    require(len(offsets) >= count and len(lengths) >= count)
    segments = list(zip(offsets[:count], lengths[:count], strict=True))
    require(all(start >= 8 and length > 0 and start + length <= held for start, length in segments))
    require(sum(length for _, length in segments) <= held)
    return segments


def _colour_map(directory: Directory, bits: int) -> list[int]:
    colours = directory.tags.get(_COLOUR_MAP, [])
    require(len(colours) == 3 * 2**bits and max(colours) <= 65535)
    return colours


def _inflated(segment: memoryview, size: int) -> memoryview:
    stream = zlib.decompressobj()
    inflated = stream.decompress(segment, size)
    require(len(inflated) == size)
    stream.decompress(stream.unconsumed_tail, 1)  # the checksum, where it comes next
    return memoryview(inflated)


def _decompressed_in_groups(
    segments: list[memoryview], compression: int, width: int, height: int, rows: int
) -> UInt8[np.ndarray, "height width"]:
    """Decompress so many segments at a time that Pillow does not take the rows of bytes for too large an image."""
    if width * rows > _GROUP_BYTES:
        raise unsupported(
            f"TIFF of compressed strips over {_GROUP_BYTES >> 20} MiB", "save it with more strips"
        )
    decompressed = np.empty((height, width), np.uint8)
    step = max(1, _GROUP_BYTES // (width * rows))
    for first in range(0, len(segments), step):
        block = decompressed[first * rows : (first + step) * rows]
        block[:] = _decompress(segments[first : first + step], compression, width, len(block), rows)
    return decompressed


def _decompress(
    segments: list[memoryview], compression: int, width: int, height: int, rows: int
) -> UInt8[np.ndarray, "height width"]:
    """Decompress by libtiff, as rows of bytes: an 8-bit grey file of the same strips is written and read."""
    count = len(segments)
    lengths = [len(segment) for segment in segments]
    tables = 8 + 2 + 8 * 12 + 4
    pixels_start = tables + 8 * count
    offsets = np.cumsum([pixels_start, *lengths[:-1]]).tolist()
    if pixels_start + sum(lengths) >= 2**32:
        raise damaged()  # 64 MiB of rows do not take 4 GiB
    entries = [
        (_WIDTH, width),
        (_HEIGHT, height),
        (_BITS, 8),
        (_COMPRESSION, compression),
        (_PHOTOMETRIC, _BLACK_IS_ZERO),
        (_STRIP_OFFSETS, offsets[0] if count == 1 else tables),
        (_ROWS_PER_STRIP, rows),
        (_STRIP_COUNTS, lengths[0] if count == 1 else tables + 4 * count),
    ]
    directory = b"".join(
        struct.pack("<HHII", tag, 4, count if tag in {_STRIP_OFFSETS, _STRIP_COUNTS} else 1, value)
        for tag, value in entries
    )
    arrays = struct.pack(f"<{2 * count}I", *offsets, *lengths)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + arrays
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(b"".join((head, *segments))))
    decompressed = np.asarray(image)
    if decompressed.shape != (height, width) or image.mode != "L":
        raise damaged()
    return decompressed


def _rgb_of_cmyk(cmyk: UInt[np.ndarray, "h w 4"]) -> UInt[np.ndarray, "h w 3"]:
    """Convert as Pillow does: red = (1 - cyan) (1 - black)."""
    if cmyk.dtype == np.uint8:
        size = (cmyk.shape[1], cmyk.shape[0])
        image = Image.frombuffer("CMYK", size, np.ascontiguousarray(cmyk).tobytes(), "raw", "CMYK", 0, 1)
        return np.asarray(image.convert("RGB"))
    rgb = np.empty((*cmyk.shape[:2], 3), np.uint16)
    for row, inks in zip(rgb, cmyk, strict=True):
        light = 65535 - inks.astype(np.uint32)
        row[:] = (light[:, :3] * light[:, 3:] + 32767) // 65535
    return rgb


def _not_premultiplied(
    colour: UInt[np.ndarray, "h w c"], alpha: UInt[np.ndarray, "h w 1"], white: int
) -> UInt[np.ndarray, "h w c"]:
    plain = np.empty_like(colour)
    for row, values, opacity in zip(plain, colour, alpha, strict=True):
        divisor = np.maximum(opacity[:, 0].astype(np.uint32), 1)
        for channel in range(
            row.shape[1]
        ):  # 65,535 squared fits into 32 bits, and half of the divisor beside it
            scaled = values[:, channel] * np.uint32(white) + divisor // 2
            row[:, channel] = np.minimum(scaled // divisor, white)
    return plain
