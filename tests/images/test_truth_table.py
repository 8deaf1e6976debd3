"""Every kind of file that is read gives the pixels that its bytes state: a table of formats, depths, colours, alpha,
orientations and byte orders, with expected pixels from no decoder.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from benchmarks.robustness import formats, writers
from benchmarks.robustness.writers import as_colour, over_white, samples, to_8_bits
from energyad.errors import ImageError
from energyad.images.reading import decode_image


def assert_reads(data: bytes, expected: np.ndarray, tolerance: float = 0.51) -> None:
    pixels = decode_image(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*expected.shape[:2], 3)
    assert np.abs(pixels - as_colour(expected).astype(np.float64)).max() <= tolerance


def assert_right(cases: Iterable[formats.Case]) -> None:
    for case in cases:
        assert case.fault() is None, case.name


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", formats.TIFF_KINDS)
def test_tiff_of_every_layout_gives_the_samples_meaning(kind: str, bits: int, order: str) -> None:
    assert_right(formats.tiff_cases(kind, bits, order))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_predictors_are_undone_in_strips_and_tiles(bits: int, big: bool) -> None:
    values = samples(3, bits)
    for layout, compression in itertools.product(({"rowsperstrip": 8}, {"tile": (16, 16)}), ("lzw", "zlib")):
        data = writers.tiff(
            values, order=">", big=big, photometric="rgb", predictor=True, compression=compression, **layout
        )
        np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), values)
        assert_reads(data, to_8_bits(values, bits))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_tiff_of_packed_samples_is_scaled_by_its_own_white(
    bits: int, white_is_zero: bool, order: str
) -> None:
    for channels in (1,) if white_is_zero else (1, 3):
        assert_right([formats.packed_tiff(bits, channels, order, white_is_zero=white_is_zero)])


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_tiff_palettes_are_resolved(bits: int) -> None:
    indices = samples(1, bits)
    colours = np.random.default_rng(1).integers(0, 256, (2**bits, 3))
    rows = b"".join(writers.packed_bits(row.ravel(), bits) for row in indices)
    tags = {
        256: (4, [indices.shape[1]]),
        257: (4, [indices.shape[0]]),
        258: (3, [bits]),
        262: (3, [3]),
        279: (4, [len(rows)]),
        320: (3, (colours.T * 257).ravel().tolist()),
    }
    assert_reads(writers.plain_tiff(tags, rows), colours[indices[:, :, 0]])


@pytest.mark.parametrize("orientation", formats.ORIENTATIONS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "options", [{}, {"planarconfig": "separate"}, {"tile": (16, 16), "compression": "lzw"}]
)
def test_tiff_orientation_is_applied_once(orientation: int, bits: int, options: dict[str, Any]) -> None:
    values = samples(3, bits)
    data = writers.tiff(values, photometric="rgb", extratags=[(274, "H", 1, orientation, True)], **options)
    assert_reads(data, writers.turned(to_8_bits(values, bits), orientation))


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr", "minisblack"])
def test_tiff_with_jpeg_compression_keeps_its_colours(photometric: str) -> None:
    y, x = np.mgrid[0:64, 0:96]
    values = np.dstack([x * 2, y * 3, 255 - x * 2]).astype(np.uint8)
    values = values if photometric != "minisblack" else values[:, :, :1]
    stored = values
    if photometric == "ycbcr":  # tifffile takes samples as they are stored
        stored = np.asarray(Image.fromarray(values).convert("YCbCr"))
    for layout in ({"rowsperstrip": 16}, {"tile": (32, 32)}):
        data = writers.tiff(stored, photometric=photometric, compression="jpeg", **layout)
        assert_reads(data, values, tolerance=12)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("colour", formats.PNG_COLOURS)
def test_png_of_every_colour_type_and_depth_gives_its_samples(colour: int, interlaced: bool) -> None:
    for bits in formats.PNG_COLOURS[colour][1]:
        assert_right([formats.png_case(colour, bits, interlaced=interlaced)])


@pytest.mark.parametrize(("colour", "bits"), [(0, 2), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_png_pixels_of_the_transparent_colour_are_white(colour: int, bits: int) -> None:
    assert_right([formats.transparent_png(colour, bits, 3)])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_png_palettes_and_their_alpha_are_resolved(bits: int, with_alpha: bool) -> None:
    assert_right([formats.palette_png(bits, with_alpha=with_alpha)])


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", formats.ORIENTATIONS)
def test_png_orientation_is_applied_wherever_it_stands(orientation: int, order: str, place: str) -> None:
    chunk = writers.png_chunk(b"eXIf", writers.exif(orientation, order))
    for bits in (8, 16):
        values = samples(3, bits)
        data = writers.png(values, bits, 2, **{place: chunk})
        assert_reads(data, writers.turned(to_8_bits(values, bits), orientation))


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("orientation", formats.ORIENTATIONS)
def test_webp_orientation_is_applied_wherever_it_stands(orientation: int, place: str) -> None:
    assert_right([formats.webp_case(orientation, place)])


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_alpha_is_composited_on_white(lossless: bool) -> None:
    colour, alpha = np.full((40, 60, 3), 90, np.uint8), np.full((40, 60), 255, np.uint8)
    alpha[:20], alpha[20:30] = 0, 128
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([colour, alpha])).save(
        buffer, "WEBP", lossless=lossless, exact=True, quality=95
    )
    assert_reads(buffer.getvalue(), over_white(colour, alpha), tolerance=1 if lossless else 8)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_gives_what_pillow_shows(mode: str, progressive: bool) -> None:
    y, x = np.mgrid[0:45, 0:77]
    image = Image.fromarray(np.dstack([x * 2, y * 3, 255 - x * 2]).astype(np.uint8)).convert(mode)
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", progressive=progressive, quality=95, exif=exif)
        shown = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
        assert_reads(buffer.getvalue(), writers.turned(shown, orientation), tolerance=2)


def rows_of(values: np.ndarray, bits: int) -> list[bytes]:
    return [writers.packed_bits(row.ravel(), bits) for row in values]


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp_palettes_are_resolved(bits: int, top_down: bool) -> None:
    indices = samples(1, bits)
    colours = np.random.default_rng(3).integers(0, 256, (2**bits, 4)).astype(np.uint8)
    data = writers.bmp(rows_of(indices, bits), 37, bits, palette=colours.tobytes(), top_down=top_down)
    assert_reads(data, colours[indices[:, :, 0]][:, :, 2::-1])


@pytest.mark.parametrize("header_size", [12, 40, 124])
def test_bmp_of_24_bits_is_blue_green_red(header_size: int) -> None:
    values = samples(3, 8)
    data = writers.bmp([row[:, ::-1].tobytes() for row in values], 37, 24, header_size=header_size)
    assert_reads(data, values)


@pytest.mark.parametrize("fourth", [0, 77, 255])
def test_bmp_of_32_bits_without_declared_alpha_has_none(fourth: int) -> None:
    values = samples(3, 8)
    quads = np.dstack([values[:, :, ::-1], np.full(values.shape[:2], fourth, np.uint8)])
    assert_reads(writers.bmp([row.tobytes() for row in quads], 37, 32), values)


def test_bmp_with_declared_alpha_is_composited_on_white() -> None:
    values = samples(4, 8)
    quads = values[:, :, [2, 1, 0, 3]]
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    for header_size in (56, 108, 124):
        data = writers.bmp(
            [row.tobytes() for row in quads], 37, 32, compression=3, masks=masks, header_size=header_size
        )
        assert_reads(data, over_white(values[:, :, :3], values[:, :, 3]))


@pytest.mark.parametrize("masks", [(0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)])
def test_bmp_of_16_bits_spans_the_full_range(masks: tuple[int, int, int]) -> None:
    bits = [bin(mask).count("1") for mask in masks]
    shifts = [(mask & -mask).bit_length() - 1 for mask in masks]
    channels = [samples(1, count, seed=index)[:, :, 0].astype(np.uint16) for index, count in enumerate(bits)]
    words = sum(channel << shift for channel, shift in zip(channels, shifts, strict=True))
    expected = np.dstack([to_8_bits(channel, count) for channel, count in zip(channels, bits, strict=True)])
    data = writers.bmp(
        [row.astype("<u2").tobytes() for row in words], 37, 16, compression=3, masks=masks, header_size=56
    )
    assert_reads(data, expected, tolerance=1)


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_that_is_zero_everywhere_is_unused(bits: int) -> None:
    values = samples(4, bits)
    values[:, :, 3] = 0
    expected = to_8_bits(values[:, :, :3], bits)
    assert_reads(writers.png(values, bits, 6), expected)
    assert_reads(writers.tiff(values, photometric="rgb", extrasamples=["unassalpha"]), expected)
    if bits == 8:
        quads = values[:, :, [2, 1, 0, 3]]
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        rows = [row.tobytes() for row in quads]
        assert_reads(writers.bmp(rows, 37, 32, compression=3, masks=masks, header_size=124), expected)


def grey_tiff(photometric: int, bits: int, channels: int, **more: tuple[int, list[int]]) -> bytes:
    tags = {
        256: (4, [8]),
        257: (4, [8]),
        258: (3, [bits] * channels),
        262: (3, [photometric]),
        277: (3, [channels]),
        279: (4, [8 * bits * channels]),
    }
    tags |= {int(tag.removeprefix("tag")): value for tag, value in more.items()}
    return writers.plain_tiff(tags, bytes(8 * bits * channels))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (grey_tiff(2, 16, 5), "TIFF with 5 channels .* not supported; save it as grey or RGB"),
        (grey_tiff(1, 8, 3), "TIFF with 3 channels .* not supported"),
        (grey_tiff(8, 8, 3), "TIFF with CIE L"),
        (grey_tiff(6, 8, 3), "YCbCr samples outside JPEG"),
        (grey_tiff(32803, 16, 1), "colour filter array"),
        (grey_tiff(1, 32, 1), "save it with 8 or 16 bits"),
        (grey_tiff(1, 16, 1, tag339=(3, [2])), "signed .* save it with 8 or 16 bits"),
        (grey_tiff(1, 8, 1, tag259=(3, [50000])), "compression Zstandard is not supported; save it"),
        (grey_tiff(1, 8, 1, tag317=(3, [3])), "predictor 3"),
        (
            writers.bmp([bytes(40)], 37, 8, compression=1),
            "run-length coded BMP is not supported; save it as PNG",
        ),
    ],
)
def test_kinds_that_are_not_read_are_named_and_not_called_damaged(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data)
    assert "truncated" not in str(caught.value)


def test_jpeg_of_other_processes_is_named() -> None:
    buffer = io.BytesIO()
    Image.new("L", (16, 16)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    start = whole.index(b"\xff\xc0")
    for marker, precision, name in ((0xC3, 8, "lossless"), (0xC9, 8, "arithmetic"), (0xC1, 12, "12 bits")):
        other = whole[:start] + bytes([0xFF, marker]) + whole[start + 2 : start + 4]
        other += bytes([precision]) + whole[start + 5 :]
        with pytest.raises(ImageError, match=f"{name}.* not supported; save it"):
            decode_image(other)
