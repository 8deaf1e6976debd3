"""What a file announces is held by it, and bytes buy no unbounded work: laws of the checks before decoding."""

from __future__ import annotations

import io
import re
import struct
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.robustness import writers
from benchmarks.robustness.writers import png_chunk, samples
from energyad.errors import ImageError
from energyad.images.formats import jpeg, png, tiff, webp
from energyad.images.reading import decode_image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused_at_once(data: bytes, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data)
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_that_holds_fewer_rows_than_it_announces_is_refused(
    colour: int, bits: int, interlaced: bool
) -> None:
    values = samples({0: 1, 2: 3, 4: 2, 6: 4}[colour], bits)
    for cut in (1, 100):
        refused_at_once(writers.png(values, bits, colour, interlaced=interlaced, cut=cut), "truncated")


def test_a_palette_png_of_fewer_rows_or_colours_is_refused() -> None:
    indices = samples(1, 8)
    palette = png_chunk(b"PLTE", bytes(768))
    assert decode_image(writers.png(indices, 8, 3, before=palette)).shape == (21, 37, 3)
    refused_at_once(writers.png(indices, 8, 3, before=palette, cut=1), "truncated")
    refused_at_once(writers.png(indices, 8, 3, before=png_chunk(b"PLTE", bytes(30))), "truncated")
    refused_at_once(writers.png(indices, 8, 3), "truncated")


def frame_control(sequence: int) -> bytes:
    return png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, 37, 21, 0, 0, 1, 10, 0, 0))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (frame_control(0) + frame_control(1), b""),
        (b"", frame_control(0)),
        (png_chunk(b"acTL", struct.pack(">II", 3, 0)) + frame_control(0), b""),
    ],
)
def test_an_animated_png_that_lacks_a_frame_is_refused(before: bytes, after: bytes) -> None:
    refused_at_once(writers.png(samples(3, 8), 8, 2, before=before, after=after), "truncated")


def test_animations_give_their_first_frame() -> None:
    first, second = samples(3, 8, seed=1), samples(3, 8, seed=2)
    images = [Image.fromarray(first), Image.fromarray(second)]
    for kind in ("PNG", "WEBP"):
        data = saved(images[0], kind, save_all=True, append_images=images[1:], lossless=True)
        np.testing.assert_array_equal(decode_image(data), first)


def test_too_many_frames_are_refused() -> None:
    announced = png_chunk(b"acTL", struct.pack(">II", 10**6, 0))
    refused_at_once(writers.png(samples(3, 8), 8, 2, before=announced), "1,000,000 frames")


@pytest.mark.parametrize("name", [b"tEXt", b"IDAT"])
def test_empty_png_chunks_are_counted(name: bytes) -> None:
    for place in ("before", "after"):
        many = png_chunk(name, b"") * (png.MAX_CHUNKS + 1)
        refused_at_once(writers.png(samples(3, 8), 8, 2, **{place: many}), "over 65,536 chunks")
    few = writers.png(samples(3, 8), 8, 2, before=png_chunk(name, b"") * 10)
    np.testing.assert_array_equal(decode_image(few), samples(3, 8))


def progressive() -> tuple[bytes, bytes]:
    """A progressive JPEG without its end, and its last scan."""
    data = saved(Image.fromarray(samples(3, 8, 400, 600)), "JPEG", progressive=True)[:-2]
    return data, data[data.rindex(b"\xff\xda") :]


def test_jpeg_scans_are_counted() -> None:
    data, scan = progressive()
    assert decode_image(data + b"\xff\xd9").shape == (400, 600, 3)
    refused_at_once(data + scan * jpeg.MAX_SCANS + b"\xff\xd9", "over 32 scans")


def test_jpeg_segments_are_counted_and_filling_is_dropped() -> None:
    whole = saved(Image.fromarray(samples(3, 8)), "JPEG")
    expected = decode_image(whole)
    comments = b"\xff\xfe\x00\x02" * (jpeg.MAX_SEGMENTS + 1)
    refused_at_once(whole[:2] + comments + whole[2:], "over 4,096 segments")
    started = time.process_time()
    np.testing.assert_array_equal(decode_image(whole[:2] + b"\xff" * 20_000_000 + whole[2:]), expected)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ends_before_its_last_scan_does_is_refused(progressive: bool) -> None:
    whole = saved(Image.fromarray(samples(3, 8)), "JPEG", progressive=progressive)
    for keep in (0.3, 0.6, 0.9):
        refused_at_once(whole[: int(len(whole) * keep)], "truncated")


def test_webp_chunks_and_frames_are_counted() -> None:
    image = saved(Image.fromarray(samples(3, 8)), "WEBP", lossless=True)[12:]
    for filling in (b"JUNK\0\0\0\0", b"ANMF\0\0\0\0"):
        chunks = image + filling * (webp.MAX_CHUNKS + 1)
        refused_at_once(
            b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks, "over 4,096|truncated"
        )


LAYOUTS = [
    {"rowsperstrip": 8},
    {"tile": (16, 16)},
    {"planarconfig": "separate", "rowsperstrip": 8},
    {"planarconfig": "separate", "tile": (16, 16)},
]


def with_value(data: bytes, tag: int, index: int, value: int) -> bytes:
    """A little-endian TIFF with one value of a tag's array replaced."""
    start = struct.unpack_from("<I", data, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        number, kind, count, place = struct.unpack_from("<HHII", data, entry)
        if number == tag:
            form, size = {3: ("<H", 2), 4: ("<I", 4)}[kind]
            base = entry + 8 if count * size <= 4 else place
            changed = bytearray(data)
            struct.pack_into(form, changed, base + index * size, value)
            return bytes(changed)
    raise KeyError(tag)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_strips_and_tiles_that_are_not_held_are_refused(
    bits: int, compression: str | None, layout: dict[str, object]
) -> None:
    data = writers.tiff(samples(3, bits), photometric="rgb", compression=compression, **layout)
    offsets, counts = (324, 325) if "tile" in layout else (273, 279)
    assert decode_image(data).shape == (21, 37, 3)
    for tag, value in ((offsets, 0), (offsets, len(data)), (offsets, 2**31), (counts, 0), (counts, 3)):
        refused_at_once(with_value(data, tag, 1, value), "truncated")
    refused_at_once(data[:-5], "truncated")
    refused_at_once(with_value(data, 257, 0, 2000), "truncated")


def test_tiff_strips_that_share_more_bytes_than_the_file_holds_are_refused() -> None:
    data = writers.tiff(samples(3, 8), photometric="rgb", compression="zlib", rowsperstrip=1)
    for strip in range(21):
        data = with_value(data, 273, strip, 8)
        data = with_value(data, 279, strip, len(data) - 8)
    refused_at_once(data, "truncated")


def test_tiff_tags_strips_and_tiles_are_bounded() -> None:
    head = b"II*\0" + struct.pack("<IH", 8, 60_000)
    refused_at_once(head + bytes(12 * 60_000 + 4), "60,000 tags")
    tags = {256: (4, [1]), 257: (4, [tiff.MAX_SEGMENTS + 1]), 258: (3, [8]), 262: (3, [1])}
    strips = tags | {278: (4, [1]), 279: (4, [1])}
    refused_at_once(writers.plain_tiff(strips, bytes(100)), "65,537 strips")
    tiles = tags | {257: (4, [8]), 322: (4, [60_000]), 323: (4, [60_000]), 325: (4, [1])}
    refused_at_once(writers.plain_tiff(tiles, bytes(100), offsets_tag=324), "tiles of 60000 x 60000")


def test_a_tiff_directory_that_points_to_itself_ends() -> None:
    data = bytearray(writers.tiff(samples(3, 8), photometric="rgb"))
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    np.testing.assert_array_equal(decode_image(bytes(data)), samples(3, 8))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tiff_beyond_pillows_own_limit_is_read(
    compression: str | None, layout: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = samples(3, 16, 70, 50)
    data = writers.tiff(values, photometric="rgb", compression=compression, **layout)
    monkeypatch.setattr(tiff, "_GROUP_BYTES", 6000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    np.testing.assert_array_equal(decode_image(data), writers.to_8_bits(values, 16))


def test_a_compressed_strip_beyond_pillows_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "_GROUP_BYTES", 6000)
    data = writers.tiff(samples(3, 16, 70, 50), photometric="rgb", compression="lzw", rowsperstrip=70)
    refused_at_once(data, "strips over .* not supported; save it with more strips")


@pytest.mark.parametrize("bits", [1, 4, 8, 16, 24, 32])
def test_a_bmp_that_holds_fewer_rows_than_it_announces_is_refused(bits: int) -> None:
    rows = [bytes((37 * bits + 7) // 8)] * 21
    palette = bytes(4 * 2**bits) if bits <= 8 else b""
    data = writers.bmp(rows, 37, bits, palette=palette)
    assert decode_image(data).shape == (21, 37, 3)
    refused_at_once(data[:-1], "truncated")


JPEG_KINDS = [
    ("RGB", {}),
    ("RGB", {"subsampling": 2}),
    ("L", {}),
    ("CMYK", {}),
    ("RGB", {"progressive": True}),
    ("RGB", {"restart_marker_blocks": 3}),
    ("L", {"restart_marker_rows": 1}),
]


@pytest.mark.parametrize(("mode", "options"), JPEG_KINDS)
def test_coded_data_that_end_before_the_end_marker_are_refused(mode: str, options: dict[str, Any]) -> None:
    whole = saved(Image.fromarray(samples(3, 8, 61, 90)).convert(mode), "JPEG", quality=80, **options)
    decode_image(whole)
    for share in (0.35, 0.5, 0.9, 0.99):
        cut = whole[: int(len(whole) * share)].rstrip(b"\xff") + b"\xff\xd9"
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode_image(cut)


def test_a_jpeg_without_some_of_its_restart_intervals_is_refused() -> None:
    whole = saved(Image.fromarray(samples(3, 8, 61, 90)), "JPEG", restart_marker_rows=1)
    places = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", whole)]
    for first, second in ((places[0], places[1]), (places[-1], len(whole) - 2)):
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode_image(whole[:first] + whole[second:])


def test_a_progressive_jpeg_without_its_last_scan_is_refused() -> None:
    whole = saved(Image.fromarray(samples(3, 8, 61, 90)), "JPEG", progressive=True)
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode_image(whole[: whole.rindex(b"\xff\xda")] + b"\xff\xd9")


@pytest.mark.parametrize(("mode", "options"), JPEG_KINDS)
def test_bytes_behind_whole_coded_data_do_no_harm(mode: str, options: dict[str, Any]) -> None:
    whole = saved(Image.fromarray(samples(3, 8, 61, 90)).convert(mode), "JPEG", **options)
    padded = whole[:-2] + bytes(7) + b"\xff\xff\xff\xd9" + b"rest"
    np.testing.assert_array_equal(decode_image(padded), decode_image(whole))


def test_decoding_says_nothing_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    whole = saved(Image.fromarray(samples(3, 8, 61, 90)), "JPEG")
    decode_image(whole)
    with pytest.raises(ImageError):
        decode_image(whole[: len(whole) // 2] + b"\xff\xd9")
    assert capfd.readouterr().err == ""
