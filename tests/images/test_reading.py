"""Laws of reading: every common file gives the same pixels, every damaged one gives one clear error."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from energyad.errors import DataError, ImageError, SettingsError
from energyad.images.finding import find_images
from energyad.images.masks import read_mask
from energyad.images.reading import as_rgb, decode_image, read_image, resize, resize_map, write_png

SUFFIXES = (".png", ".jpg", ".bmp", ".tiff", ".webp")


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth RGB picture without symmetry, so that a turned or mirrored copy is told apart."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    channels = [x / width * 200 + 20, y / height * 180 + 40, (x * y) / (height * width) * 220]
    return np.dstack(channels).astype(np.uint8)


def encoded(pixels: np.ndarray, suffix: str) -> bytes:
    bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(suffix, bgr)[1].tobytes()


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_picture_in_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(picture(), suffix))
    difference = np.abs(read_image(path).astype(int) - picture())
    assert difference.mean() < (3.0 if suffix in {".jpg", ".webp"} else 1e-9)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_grey_files_give_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    grey = picture()[:, :, 0]
    Image.fromarray(grey).save(path, quality=95, lossless=True)
    image = read_image(path)
    assert np.abs(image - grey[:, :, None].astype(int)).max() <= 8
    assert np.ptp(image, axis=2).max() == 0


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture()).save(path, exif=exif, quality=95)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    image = read_image(path)
    assert image.shape == ((40, 60, 3) if orientation < 5 else (60, 40, 3))
    assert np.abs(image - upright).mean() < 2.0


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_16_bit_files_are_turned_upright_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    grey = picture()[:, :, 0].astype(np.uint16) * 257
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(grey).save(tmp_path / f"deep.{suffix}", exif=exif)
    Image.fromarray(picture()[:, :, 0]).save(tmp_path / "flat.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / f"deep.{suffix}"), read_image(tmp_path / "flat.png"))


@pytest.mark.parametrize("size", [24, 100, (30, 50)])
def test_grey_kept_as_one_channel_is_resized_to_the_same_bytes(tmp_path: Path, size: Any) -> None:
    path = write_png(tmp_path / "a.png", picture()[:, :, 0])
    grey, whole = as_rgb(path), read_image(path)
    assert grey.shape == whole.shape and grey.strides[2] == 0 and whole.flags.writeable
    np.testing.assert_array_equal(grey, whole)
    np.testing.assert_array_equal(resize(grey, size), resize(whole, size))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", ["grey", "colour"])
def test_16_bit_files_are_scaled_by_their_full_range(tmp_path: Path, suffix: str, channels: str) -> None:
    pixels = picture() if channels == "colour" else picture()[:, :, 0]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(pixels.astype(np.uint16) * 257, suffix))
    expected = pixels if channels == "colour" else np.dstack([pixels] * 3)
    np.testing.assert_array_equal(read_image(path), expected)


def test_brightness_of_a_16_bit_file_does_not_depend_on_its_brightest_pixel(tmp_path: Path) -> None:
    dim = np.full((8, 8), 20_000, np.uint16)
    lit = dim.copy()
    lit[0, 0] = 65_535
    for name, pixels in (("dim", dim), ("lit", lit)):
        write_png(tmp_path / f"{name}.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "dim.png")[1:], read_image(tmp_path / "lit.png")[1:])


def test_12_bits_in_a_16_bit_file_are_warned_about_and_white_level_restores_them(tmp_path: Path) -> None:
    grey = picture()[:, :, 0]
    path = write_png(tmp_path / "a.png", (grey.astype(np.uint32) * 4095 // 255).astype(np.uint16))
    with pytest.warns(UserWarning, match="white_level"):
        read_image(path)
    assert np.abs(read_image(path, white_level=4095)[:, :, 0].astype(int) - grey).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_data_of_fewer_bits_in_16_are_warned_about_with_their_white_level(
    tmp_path: Path, bits: int, channels: int, suffix: str
) -> None:
    pixels = picture()[:, :, :channels].astype(np.uint32) * (2**bits - 1) // 255
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, pixels.astype(np.uint16))[1].tobytes())
    for read in (read_image, as_rgb, lambda path: decode_image(path.read_bytes())):
        with pytest.warns(UserWarning, match=rf"give white_level \({2**bits - 1} for {bits} bits\)"):
            read(path)


def test_a_16_bit_image_of_the_full_range_gives_no_warning(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", picture().astype(np.uint16) * 257)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(path)


def test_an_image_brighter_than_its_white_level_is_warned_about(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", picture().astype(np.uint16) * 257)
    with pytest.warns(UserWarning, match="brighter than white_level 4095 and saturates"):
        read_image(path, white_level=4095)


def test_white_level_leaves_8_bit_files_alone(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", picture())
    np.testing.assert_array_equal(read_image(path, white_level=4095), picture())


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, :20], alpha[:, 20:40] = 0, 128
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([picture(), alpha])).save(path)
    image = read_image(path)
    assert (image[:, :20] == 255).all()
    np.testing.assert_array_equal(image[:, 40:], picture()[:, 40:])
    half = (picture()[:, 20:40].astype(float) * 128 + 255 * 127) / 255
    assert np.abs(image[:, 20:40] - half).max() <= 0.51


def test_grey_with_transparency_and_16_bit_transparency_are_read(tmp_path: Path) -> None:
    grey, alpha = picture()[:, :, 0], np.full((40, 60), 255, np.uint8)
    Image.fromarray(np.dstack([grey, alpha]), "LA").save(tmp_path / "la.png")
    deep = np.dstack([grey, grey, grey, alpha]).astype(np.uint16) * 257
    (tmp_path / "deep.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    for name in ("la.png", "deep.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name), np.dstack([grey] * 3))


@pytest.mark.parametrize("mode", ["P", "1", "CMYK"])
def test_palette_bilevel_and_cmyk_files_read_as_pillow_shows_them(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    image.save(path)
    np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))


def damaged(rng: np.random.Generator, suffix: str, keep: float) -> bytes:
    whole = encoded(noise(rng, 64, 64, 3), suffix)
    return whole[: int(len(whole) * keep)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_an_error_that_names_it(
    tmp_path: Path, rng: np.random.Generator, suffix: str, keep: float
) -> None:
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(damaged(rng, suffix, keep))
    with pytest.raises(ImageError, match=rf"cut\{suffix}: .*(truncated|not a PNG)"):
        read_image(path)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "jpeg"])
def test_a_truncated_tiff_of_any_compression_is_an_error(
    tmp_path: Path, rng: np.random.Generator, compression: str | None
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(rng, 64, 64, 3)).save(buffer, "TIFF", compression=compression)
    for keep in (0.3, 0.7, 0.99):
        path = tmp_path / "cut.tiff"
        path.write_bytes(buffer.getvalue()[: int(buffer.tell() * keep)])
        with pytest.raises(ImageError, match="truncated"):
            read_image(path)


def test_a_truncated_jpeg_is_found_even_behind_a_whole_thumbnail(tmp_path: Path) -> None:
    thumbnail, whole = encoded(picture(8, 8), ".jpg"), encoded(picture(), ".jpg")
    block = b"Exif\0\0" + thumbnail
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:2] + segment + whole[2:])
    assert read_image(path).shape == (40, 60, 3)
    path.write_bytes((whole[:2] + segment + whole[2:])[:-200])
    with pytest.raises(ImageError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_truncation_is_found_even_by_a_decoder_that_fills_in_grey(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(damaged(rng, suffix, 0.9))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.full((64, 64, 3), 128, np.uint8))  # as OpenCV 4 does
    with pytest.raises(ImageError, match="truncated"):
        read_image(path)


def test_bytes_after_the_end_of_an_image_do_no_harm(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encoded(picture(), suffix) + b"\0" * 100)
        assert read_image(path).shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"this is no image\n" * 9, "not a PNG"), (b"BM", "not a PNG")]
)
def test_empty_and_text_files_named_png_are_errors(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="folder"):
        read_image(tmp_path)


def test_a_file_without_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ImageError, match="permission denied"):
        read_image(tmp_path / "a.png")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that claims `width` x `height` pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(60_000, 60_000))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"60000 x 60000 .*bomb"):
        read_image(path)


def test_the_pixel_limit_counts_pixels_exactly(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", picture(40, 60))
    assert read_image(path, max_pixels=2400).shape == (40, 60, 3)
    with pytest.raises(ImageError, match="max_pixels"):
        read_image(path, max_pixels=2399)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SUFFIXES), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8))
def test_damaged_bytes_give_an_image_or_an_image_error_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, damage: list[tuple[int, int]]
) -> None:
    data = bytearray(encoded(picture(16, 24), suffix))
    for position, value in damage:
        data[position % len(data)] = value
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(data)
    try:
        image = read_image(path, max_pixels=10**6)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert image.dtype == np.uint8
        assert image.ndim == 3


def test_damage_is_reported_without_noise_on_standard_error(tmp_path: Path, rng: np.random.Generator) -> None:
    for suffix in SUFFIXES:
        (tmp_path / f"cut{suffix}").write_bytes(damaged(rng, suffix, 0.6))
    code = (
        "import sys; from energyad.images.reading import *; from energyad.images.finding import find_images\n"
        "from energyad.errors import ImageError\n"
        "for path in find_images([sys.argv[1]]):\n"
        "    try: read_image(path)\n"
        "    except ImageError: print('error')"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.count("error") == len(SUFFIXES)
    assert done.stderr == ""


def test_a_path_a_pillow_image_and_an_array_give_the_same_pixels(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", picture())
    for source in (path, str(path), Image.open(path), picture(), picture().astype(np.float64) / 255):
        np.testing.assert_array_equal(as_rgb(source), picture())


def test_pillow_images_are_turned_upright_like_files(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(as_rgb(Image.open(tmp_path / "a.png")), read_image(tmp_path / "a.png"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_white_arrays_of_every_kind_are_white(dtype: type, shape: tuple[int, ...]) -> None:
    white = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1.0)
    image = as_rgb(np.full(shape, white, dtype))
    assert image.shape == (5, 7, 3)
    assert image.dtype == np.uint8
    assert (image == 255).all()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(5, np.uint8), "shape 5 "),
        (np.zeros((5, 7, 2), np.uint8), "shape 5x7x2"),
        (np.zeros((1, 5, 7, 3), np.uint8), "shape 1x5x7x3"),
        (np.zeros((0, 7, 3), np.uint8), "shape 0x7x3"),
        (np.zeros((5, 7), np.int64), "int64"),
        (np.zeros((5, 7), bool), "bool"),
        (np.full((5, 7), 255.0), r"\[255, 255\]"),
        (np.full((5, 7), -0.1), r"\[-0.1, -0.1\]"),
        (np.full((5, 7), 1.001), r"\[1.001, 1.001\]"),
        (np.full((5, 7), np.nan), "nan"),
    ],
)
def test_arrays_that_are_no_images_are_errors(array: np.ndarray, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        as_rgb(array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_that_rounding_took_beyond_the_range_are_clipped(dtype: type) -> None:
    values = np.array([[-1e-6, 0.0, 0.5, 1.0, 1.0000001, 1.00005]], dtype)
    assert as_rgb(values)[0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]


def test_what_is_no_array_path_or_pillow_image_is_an_error() -> None:
    with pytest.raises(
        (ImageError, TypeError), match=r"list|Type-check"
    ):  # under jaxtyping's hook the latter
        as_rgb([[0, 1], [1, 0]])  # type: ignore[arg-type]


def test_pillow_modes_without_a_white_are_errors() -> None:
    for mode in ("I", "F"):
        with pytest.raises(ImageError, match="8 or 16 bits"):
            as_rgb(Image.new(mode, (4, 4)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 50))
def test_resizing_keeps_flat_images_flat_and_ranges_within_bounds(height: int, width: int, size: int) -> None:
    flat = np.full((height, width, 3), 77, np.uint8)
    assert (resize(flat, size) == 77).all()
    heat = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    back = resize_map(heat, height, width)
    assert back.shape == (height, width)
    assert back.dtype == np.float32
    assert heat.min() - 1e-5 <= back.min()
    assert back.max() <= heat.max() + 1e-5


@settings(max_examples=40, deadline=None)
@given(st.integers(32, 300), st.integers(32, 300), st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_a_spot_lands_where_it_was_when_its_map_is_taken_back(h: int, w: int, fy: float, fx: float) -> None:
    y, x = np.mgrid[0:h, 0:w]
    spot = np.exp(-(((x - fx * w) / (0.06 * w)) ** 2) - ((y - fy * h) / (0.06 * h)) ** 2)
    small = resize((255 * np.dstack([spot] * 3)).astype(np.uint8), 64)[:, :, 0]
    back = resize_map(small, h, w) if small.dtype.kind == "f" else resize_map(small.astype(np.float32), h, w)
    centre = [(grid * back).sum() / back.sum() for grid in (y, x)]
    before = [(grid * spot).sum() / spot.sum() for grid in (y, x)]
    assert abs(centre[0] - before[0]) < 0.02 * h
    assert abs(centre[1] - before[1]) < 0.02 * w


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(resize(np.dstack([board] * 3), 64).astype(int) - 128).max() <= 1


def test_an_image_size_below_one_is_an_error() -> None:
    with pytest.raises(SettingsError, match="size 0"):
        resize(picture(), 0)


@pytest.mark.parametrize(
    "pixels",
    [picture(), picture()[:, :, 1], picture()[:, :, 0] > 90, picture()[:, :, 0].astype(np.uint16) * 257],
)
def test_png_files_read_back_as_they_were_written(tmp_path: Path, pixels: np.ndarray) -> None:
    path = write_png(tmp_path / "new" / "a.png", pixels)
    expected = (
        pixels * 255 if pixels.dtype == bool else pixels // 257 if pixels.dtype == np.uint16 else pixels
    )
    np.testing.assert_array_equal(read_image(path), as_rgb(expected.astype(np.uint8)))


def test_a_write_that_fails_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_png(tmp_path / "a.png", picture())
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="no space left"):
        write_png(path, picture()[::-1])
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.png"]


def test_masks_are_true_where_anything_is_drawn(tmp_path: Path) -> None:
    mask = picture()[:, :, 0] > 120
    assert (read_mask(write_png(tmp_path / "a.png", mask)) == mask).all()
    assert (read_mask(write_png(tmp_path / "labels.png", mask.astype(np.uint8))) == mask).all()
    (tmp_path / "lossy.jpg").write_bytes(encoded(mask.astype(np.uint8) * 255, ".jpg"))
    assert (read_mask(tmp_path / "lossy.jpg") == mask).mean() > 0.99


def test_a_mask_of_another_size_than_its_image_is_an_error(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", np.zeros((4, 6), bool))
    assert read_mask(path, shape=(4, 6)).shape == (4, 6)
    with pytest.raises(ImageError, match="6 x 4 pixels, its image 4 x 6"):
        read_mask(path, shape=(6, 4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "sub/c.tif", ".hidden.png", ".git/d.png", "notes.txt", "x[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_folders_are_searched_through_sorted_and_without_hidden_files(folder: Path) -> None:
    assert names(find_images([folder])) == ["a.JPG", "b.png", "c.tif", "x[1].png"]


def test_sources_keep_their_order_and_each_image_comes_once(folder: Path) -> None:
    found = find_images([folder / "b.png", str(folder / "*.png"), folder])
    assert names(found) == ["b.png", "x[1].png", "a.JPG", "c.tif"]


def test_globs_may_cross_folders_and_a_real_name_with_brackets_is_no_glob(folder: Path) -> None:
    assert names(find_images([str(folder / "**" / "*.tif")])) == ["c.tif"]
    assert names(find_images([folder / "x[1].png"])) == ["x[1].png"]


def test_links_that_lead_back_up_end(folder: Path) -> None:
    (folder / "sub" / "up").symlink_to(folder)
    assert len(find_images([folder])) == 4


def test_images_of_endings_that_are_not_read_are_counted_in_a_warning(folder: Path) -> None:
    for name in ("1.gif", "2.gif", "sub/3.pgm", "4.jp2", "5.jfif"):
        (folder / name).write_bytes(b"?")
    with pytest.warns(UserWarning, match=r"passed over 2 \.gif, 1 \.jp2 and 1 \.pgm files"):
        found = find_images([folder])
    assert "5.jfif" in names(found) and len(found) == 5


def test_pipes_among_images_are_passed_over_and_counted(folder: Path) -> None:
    os.mkfifo(folder / "camera.png")
    with pytest.warns(UserWarning, match="passed over 1 irregular"):
        assert "camera.png" not in names(find_images([folder]))
    with pytest.raises(DataError, match="no regular file"):
        find_images([folder / "camera.png"])


def test_a_pipe_or_device_given_as_an_image_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "camera.png")
    (tmp_path / "link.png").symlink_to("/dev/zero")
    for path in (tmp_path / "camera.png", tmp_path / "link.png", Path("/dev/zero")):
        with pytest.raises(ImageError, match="no regular file"):
            read_image(path)
        with pytest.raises(ImageError, match="no regular file"):
            read_mask(path)


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.write(encoded(picture(), ".png"))
        file.truncate(10 << 30)  # sparse: it takes no space
    with pytest.raises(ImageError, match=r"huge\.png: 10,737,418,240 bytes are more than any image"):
        read_image(path)


def test_a_folder_of_other_images_names_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"?")
    with pytest.raises(DataError, match=r"no image in this folder; it holds 1 \.gif files"):
        find_images([tmp_path])


@pytest.mark.parametrize(
    ("source", "reason"), [("none", "no such file"), ("*.gif", "no image matches"), ("empty", "no image in")]
)
def test_sources_without_images_are_errors_that_name_them(
    tmp_path: Path, source: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=reason) as caught:
        find_images([source])
    assert str(caught.value).startswith(source)


def test_no_source_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="no image was named"):
        find_images([])


def test_reading_images_loads_no_torch() -> None:
    modules = "images, energyad.data.datasets, energyad.data.demo, energyad.data.defects"
    code = f"import sys, energyad.{modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
