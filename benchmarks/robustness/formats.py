"""A table of formats × depth × photometric × alpha × orientation × byte order: does each file give the pixels that its
bytes state? The expected pixels come from no decoder; where another decoder reads the file, it is asked as well.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tifffile
from PIL import Image

from benchmarks.robustness import writers
from benchmarks.robustness.writers import as_colour, over_white, samples, to_8_bits
from energyad.errors import ImageError
from energyad.images.reading import decode_image

ORIENTATIONS: Final = range(1, 9)

TIFF_KINDS: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "black is zero": (1, {"photometric": "minisblack"}),
    "white is zero": (1, {"photometric": "miniswhite"}),
    "grey and alpha": (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    "grey and another": (2, {"photometric": "minisblack", "extrasamples": ["unspecified"]}),
    "rgb": (3, {"photometric": "rgb"}),
    "rgb and alpha": (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "rgb and premultiplied alpha": (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
    "rgb and another": (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "cmyk": (4, {"photometric": "separated"}),
}
"""Samples of a pixel, and how tifffile is told."""
TIFF_LAYOUTS: Final[list[dict[str, Any]]] = [
    {layout: size, "compression": compression, "planarconfig": planes}
    for (layout, size), compression, planes in itertools.product(
        (("rowsperstrip", 8), ("tile", (16, 32))),
        (None, "lzw", "zlib", "packbits"),
        ("contig", "separate"),
    )
]
PNG_COLOURS: Final = {0: (1, (1, 2, 4, 8, 16)), 2: (3, (8, 16)), 4: (2, (8, 16)), 6: (4, (8, 16))}
"""Of each colour type the channels and depths."""


@dataclass(frozen=True)
class Case:
    """A file and its pixels.

    Attributes:
        name: What kind of file it is.
        data: The file.
        expected: Its pixels, `h w c`, not yet rounded.
        tolerance: How far a pixel may differ, in steps of 8 bits: half a step for each rounding.
        written: The samples that another decoder gives; None where there is none that does.
        read: Decodes the file independently.
    """

    name: str
    data: bytes
    expected: np.ndarray
    tolerance: float = 0.51
    written: np.ndarray | None = None
    read: Callable[[bytes], np.ndarray] | None = None

    def fault(self) -> str | None:
        """What is wrong with the pixels that the file gives; None where nothing is."""
        try:
            pixels = decode_image(self.data)
        except ImageError as error:
            return f"refused: {error.reason}"
        if pixels.dtype != np.uint8 or pixels.shape != (*self.expected.shape[:2], 3):
            return f"{pixels.dtype} {pixels.shape}, not {self.expected.shape}"
        difference = float(np.abs(pixels - as_colour(self.expected).astype(np.float64)).max())
        return f"differs by {difference:.1f}" if difference > self.tolerance else None

    def is_written_right(self) -> bool | None:
        """Whether another decoder gives the samples that were written; None where none was asked."""
        if self.read is None or self.written is None:
            return None
        return bool(np.array_equal(self.read(self.data).reshape(self.written.shape), self.written))


@dataclass(frozen=True, kw_only=True)
class FormatCounts:
    """Of one format. checked: files that another decoder read too. miswritten: of these, with other samples there than
    those that were written. wrong: with other pixels than their bytes state. refused: not read at all.
    """

    format: str
    files: int
    checked: int
    miswritten: int
    wrong: int
    refused: int
    examples: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether every file gave its pixels."""
        return not any((self.miswritten, self.wrong, self.refused))


def count_formats(every: int = 1) -> list[FormatCounts]:
    """Read the whole table, or one file in so many of it."""
    tables = {
        "TIFF": _tiffs,
        "TIFF of packed samples": _packed_tiffs,
        "PNG": _pngs,
        "BMP": _bmps,
        "WebP": _webps,
    }
    return [
        _count(name, itertools.islice(cases(), None, None, every if name in {"TIFF", "PNG"} else 1))
        for name, cases in tables.items()
    ]


def _count(name: str, cases: Iterable[Case]) -> FormatCounts:
    files = checked = miswritten = wrong = refused = 0
    examples = []
    for case in cases:
        files += 1
        is_right, fault = case.is_written_right(), case.fault()
        checked += is_right is not None
        miswritten += is_right is False
        if fault is not None:
            refused += fault.startswith("refused")
            wrong += not fault.startswith("refused")
            examples.append(f"{case.name}: {fault}")
    return FormatCounts(
        format=name,
        files=files,
        checked=checked,
        miswritten=miswritten,
        wrong=wrong,
        refused=refused,
        examples=examples[:20],
    )


# TIFF


def tiff_samples(kind: str, bits: int) -> np.ndarray:
    """Noise; where alpha is premultiplied, no colour is above it."""
    values = samples(TIFF_KINDS[kind][0], bits)
    if kind.endswith("premultiplied alpha"):
        values[:, :, :3] = np.minimum(values[:, :, :3], values[:, :, 3:])
    return values


def tiff_expected(kind: str, values: np.ndarray, bits: int) -> np.ndarray:
    """The pixels that samples of a kind mean."""
    eight = to_8_bits(values, bits)
    if kind == "white is zero":
        return 255 - eight
    if kind == "cmyk":
        light = 1 - values.astype(np.float64) / (2**bits - 1)
        return 255 * light[:, :, :3] * light[:, :, 3:]
    colours = 1 if kind.startswith(("grey", "black")) else 3
    if kind.endswith("premultiplied alpha"):
        share = values[:, :, 3:].astype(np.float64) / (2**bits - 1)
        return np.minimum(eight[:, :, :3] + 255 * (1 - share), 255)
    if kind.endswith("alpha"):
        return over_white(as_colour(eight[:, :, :colours]), eight[:, :, colours])
    return eight[:, :, :colours]


def tiff_cases(kind: str, bits: int, order: str, orientations: Iterable[int] = (1,)) -> Iterator[Case]:
    """Files of a kind in every layout and compression."""
    channels, options = TIFF_KINDS[kind]
    values = tiff_samples(kind, bits)
    expected = tiff_expected(kind, values, bits)
    tolerance = (
        0.51 if "alpha" not in kind else 1.6
    )  # two roundings, of samples to 8 bits and of the composite
    for layout, orientation in itertools.product(TIFF_LAYOUTS, orientations):
        is_separate = layout["planarconfig"] == "separate"
        if channels == 1 and is_separate:
            continue
        tags: dict[str, Any] = {}
        if orientation > 1:
            tags["extratags"] = [(274, "H", 1, orientation, True)]
        data = writers.tiff(values, order=order, **options, **layout, **tags)
        stored = np.moveaxis(values, 2, 0) if is_separate else values
        yield Case(
            f"{kind}, {bits} bits, {order}, {layout}, orientation {orientation}",
            data,
            _turned(expected, orientation),
            tolerance,
            stored,
            _read_tiff,
        )


def _tiffs() -> Iterator[Case]:
    for kind, bits, order in itertools.product(TIFF_KINDS, (8, 16), "<>"):
        yield from tiff_cases(kind, bits, order, ORIENTATIONS)


def _read_tiff(data: bytes) -> np.ndarray:
    return np.asarray(tifffile.imread(io.BytesIO(data)))


def packed_tiff(bits: int, channels: int, order: str, *, white_is_zero: bool) -> Case:
    """A TIFF whose samples are not whole bytes."""
    values = samples(channels, bits)
    rows = b"".join(writers.packed_bits(row.ravel(), bits) for row in values)
    tags = {
        256: (3, [values.shape[1]]),
        257: (3, [values.shape[0]]),
        258: (3, [bits] * channels),
        262: (3, [2 if channels == 3 else 0 if white_is_zero else 1]),
        277: (3, [channels]),
        279: (4, [len(rows)]),
    }
    expected = to_8_bits(values, bits)
    name = f"{bits} bits, {channels} channels, {order}, white is {'zero' if white_is_zero else 'not zero'}"
    return Case(name, writers.plain_tiff(tags, rows, order), 255 - expected if white_is_zero else expected)


def _packed_tiffs() -> Iterator[Case]:
    for bits, channels, order, white_is_zero in itertools.product(
        (1, 2, 4, 10, 12, 14), (1, 3), "<>", (False, True)
    ):
        if channels == 1 or not white_is_zero:
            yield packed_tiff(bits, channels, order, white_is_zero=white_is_zero)


# PNG


def png_case(
    colour: int, bits: int, *, interlaced: bool, orientation: int = 1, place: str = "before"
) -> Case:
    """A PNG of a colour type and depth; its orientation stands before or after the pixels."""
    values = samples(PNG_COLOURS[colour][0], bits)
    eight = to_8_bits(values, bits)
    expected: np.ndarray = eight
    if colour in {4, 6}:
        expected = over_white(as_colour(eight[:, :, :-1]), eight[:, :, -1])
    chunks: dict[str, Any] = {}
    if orientation > 1:
        chunks[place] = writers.png_chunk(b"eXIf", writers.exif(orientation))
    return Case(
        f"colour type {colour}, {bits} bits, interlaced {interlaced}, orientation {orientation} {place}",
        writers.png(values, bits, colour, interlaced=interlaced, **chunks),
        _turned(expected, orientation),
        1.1 if bits == 16 and colour in {4, 6} else 0.51,
        values if bits >= 8 and not interlaced else None,
        _read_png,
    )


def _pngs() -> Iterator[Case]:
    for colour, (_, depths) in PNG_COLOURS.items():
        for bits, interlaced, orientation, place in itertools.product(
            depths, (False, True), ORIENTATIONS, ("before", "after")
        ):
            yield png_case(colour, bits, interlaced=interlaced, orientation=orientation, place=place)
    for (colour, bits), key in itertools.product(((0, 2), (0, 8), (0, 16), (2, 8), (2, 16)), (0, 3)):
        yield transparent_png(colour, bits, key)
    for bits, with_alpha in itertools.product((1, 2, 4, 8), (False, True)):
        yield palette_png(bits, with_alpha=with_alpha)


def transparent_png(colour: int, bits: int, key: int) -> Case:
    """A PNG in which one colour is transparent."""
    values = samples(1 if colour == 0 else 3, bits)
    values[5:9, 4:20] = key
    transparency = writers.png_chunk(b"tRNS", struct.pack(">H", key) * values.shape[2])
    expected = to_8_bits(values, bits)
    expected[(values == key).all(axis=2)] = 255
    data = writers.png(values, bits, colour, before=transparency)
    return Case(f"colour type {colour}, {bits} bits, colour {key} transparent", data, expected)


def palette_png(bits: int, *, with_alpha: bool) -> Case:
    """A PNG with a palette, whose colours may have alpha."""
    indices = samples(1, bits)
    rng = np.random.default_rng(2)
    colours = rng.integers(0, 256, (2**bits, 3)).astype(np.uint8)
    before, expected = writers.png_chunk(b"PLTE", colours.tobytes()), colours[indices[:, :, 0]].astype(float)
    if with_alpha:
        alpha = rng.integers(1, 256, 2**bits - 1).astype(np.uint8)
        before += writers.png_chunk(b"tRNS", alpha.tobytes())
        expected = over_white(expected, np.append(alpha, 255)[indices[:, :, 0]])
    data = writers.png(indices, bits, 3, before=before)
    return Case(f"palette of {bits} bits, alpha {with_alpha}", data, expected)


def _read_png(data: bytes) -> np.ndarray:
    import imagecodecs  # of the extra `dev`

    return np.asarray(imagecodecs.png_decode(data))


# BMP and WebP


def _bmps() -> Iterator[Case]:
    values = samples(4, 8)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    quads = [row.tobytes() for row in values[:, :, [2, 1, 0, 3]]]
    for header_size in (56, 108, 124):
        data = writers.bmp(quads, 37, 32, compression=3, masks=masks, header_size=header_size)
        expected = over_white(values[:, :, :3], values[:, :, 3])
        yield Case(f"32 bits with alpha, header {header_size}", data, expected)
    yield Case("32 bits without declared alpha", writers.bmp(quads, 37, 32), values[:, :, :3])
    triples = [row[:, 2::-1].tobytes() for row in values]
    for header_size, top_down in itertools.product((12, 40, 124), (False, True)):
        if header_size > 12 or not top_down:
            data = writers.bmp(triples, 37, 24, header_size=header_size, top_down=top_down)
            yield Case(f"24 bits, header {header_size}, top down {top_down}", data, values[:, :, :3])
    for bits, top_down in itertools.product((1, 4, 8), (False, True)):
        indices = samples(1, bits)
        colours = np.random.default_rng(3).integers(0, 256, (2**bits, 4)).astype(np.uint8)
        rows = [writers.packed_bits(row.ravel(), bits) for row in indices]
        data = writers.bmp(rows, 37, bits, palette=colours.tobytes(), top_down=top_down)
        yield Case(
            f"palette of {bits} bits, top down {top_down}", data, colours[indices[:, :, 0]][:, :, 2::-1]
        )


def _webps() -> Iterator[Case]:
    for orientation, place in itertools.product(ORIENTATIONS, ("before", "after")):
        yield webp_case(orientation, place)


def webp_case(orientation: int, place: str) -> Case:
    """A lossless WebP; its orientation stands before or after the pixels."""
    values = samples(3, 8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "WEBP", lossless=True)
    image = buffer.getvalue()[12:]
    sides = struct.pack("<I", values.shape[1] - 1)[:3] + struct.pack("<I", values.shape[0] - 1)[:3]
    block = writers.exif(orientation)
    metadata = b"EXIF" + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes([8, 0, 0, 0]) + sides
    chunks += metadata + image if place == "before" else image + metadata
    data = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
    return Case(f"orientation {orientation} {place}", data, writers.turned(values, orientation))


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What a viewer shows, of pixels of any type."""
    rows, columns = np.indices(pixels.shape[:2])
    places = writers.turned((rows * pixels.shape[1] + columns).astype(np.int32), orientation)
    return pixels.reshape(-1, pixels.shape[2])[places]
