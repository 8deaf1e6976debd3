"""Every pixel format gives the values that were packed by hand, and a GenICam camera's frames arrive."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.images.reading import read_image
from energyad.station.aravis import AravisCapture
from energyad.station.cameras import write_frame
from energyad.station.config import CameraConfig
from energyad.station.pixel_formats import FORMATS, to_pixels

from .conftest import until

ARAVIS_REQUIRED = "ENERGYAD_TEST_ARAVIS"
"""Set where a missing Aravis is a failure, not a reason to leave its test out."""
NUMBERS = {form.name: number for number, form in FORMATS.items()}


def packed(samples: list[int], bits: int) -> list[int]:
    """GigE Vision: high bits, both low bits, high bits."""
    low = bits - 8
    triples = []
    for first, second in zip(samples[::2], [*samples[1::2], 0][: len(samples[::2])], strict=True):
        middle = (first & (1 << low) - 1) | (second & (1 << low) - 1) << 4
        triples += [first >> low, middle, second >> low]
    return triples if len(samples) % 2 == 0 else triples[:-1]


def bit_stream(samples: list[int], bits: int) -> list[int]:
    """PFNC: lowest bits first."""
    whole = sum(sample << place * bits for place, sample in enumerate(samples))
    return list(whole.to_bytes(-(-len(samples) * bits // 8), "little"))


def words(samples: list[int], bits: int) -> list[int]:
    return [byte for sample in samples for byte in (sample & 255, sample >> 8)]


MONO = [
    ("Mono8", 8, lambda samples, bits: samples),
    ("Mono10", 10, words),
    ("Mono12", 12, words),
    ("Mono14", 14, words),
    ("Mono16", 16, words),
    ("Mono10Packed", 10, packed),
    ("Mono12Packed", 12, packed),
    ("Mono10p", 10, bit_stream),
    ("Mono12p", 12, bit_stream),
]


@pytest.mark.parametrize(("name", "bits", "pack"), MONO, ids=[name for name, *_ in MONO])
@pytest.mark.parametrize(("width", "height"), [(4, 2), (7, 3), (1, 1)])
def test_grey_samples_come_out_as_they_were_packed(
    name: str, bits: int, pack, width: int, height: int
) -> None:
    samples = np.random.default_rng(0).integers(0, 2**bits, width * height).tolist()
    samples[0] = 2**bits - 1
    data = np.array(pack(samples, bits), np.uint8)
    pixels = to_pixels(data, NUMBERS[name], width=width, height=height)
    assert pixels.reshape(-1).tolist() == samples
    assert pixels.shape == (height, width, 1)


@pytest.mark.parametrize("pattern", ["RG", "GR", "GB", "BG"])
@pytest.mark.parametrize(
    ("suffix", "bits", "pack"),
    [("8", 8, MONO[0][2]), ("10", 10, words), ("12", 12, words), ("16", 16, words), ("10Packed", 10, packed),
     ("12Packed", 12, packed), ("10p", 10, bit_stream), ("12p", 12, bit_stream)],
)  # fmt: skip
def test_a_mosaic_of_one_colour_is_that_colour(pattern: str, suffix: str, bits: int, pack) -> None:
    colour = {"R": 2**bits - 1, "G": 2 ** (bits - 1), "B": 2 ** (bits - 3)}
    second = {"RG": "GB", "GR": "BG", "GB": "RG", "BG": "GR"}[pattern]
    rows = [[colour[letter] for letter in row * 4] for row in (pattern, second) * 3]
    data = np.array(pack([sample for row in rows for sample in row], bits), np.uint8)
    pixels = to_pixels(data, NUMBERS[f"Bayer{pattern}{suffix}"], width=8, height=6)
    assert pixels.shape == (6, 8, 3)
    assert (pixels == [colour["B"], colour["G"], colour["R"]]).all()


def test_colour_formats_differ_in_their_order() -> None:
    data = np.arange(12, dtype=np.uint8)
    assert to_pixels(data, NUMBERS["BGR8"], width=2, height=2).reshape(-1).tolist() == list(range(12))
    assert to_pixels(data, NUMBERS["RGB8"], width=2, height=2)[0, 0].tolist() == [2, 1, 0]


def test_numbers_are_those_of_pfnc() -> None:
    known = {"Mono8": 0x01080001, "Mono12Packed": 0x010C0006, "BayerRG8": 0x01080009, "BayerBG12": 0x01100013,
             "BayerRG12p": 0x010C0059, "BayerBG10p": 0x010A0052, "BayerBG16": 0x01100031,
             "RGB8": 0x02180014}  # fmt: skip
    assert {name: NUMBERS[name] for name in known} == known


def test_an_unknown_format_and_a_short_frame_are_said() -> None:
    with pytest.raises(DataError, match="0x02180099 is not known"):
        to_pixels(np.zeros(12, np.uint8), 0x02180099, width=2, height=2)
    with pytest.raises(DataError, match="has 6 bytes; 5 came"):
        to_pixels(np.zeros(5, np.uint8), NUMBERS["Mono12p"], width=2, height=2)


def test_a_frame_of_12_bits_has_the_white_of_its_model(
    tmp_path: Path, fitted_detector: AnomalyDetector
) -> None:
    samples = [0, 1024, 2048, 4095]
    pixels = to_pixels(np.array(packed(samples, 12), np.uint8), NUMBERS["Mono12Packed"], width=2, height=2)
    write_frame(tmp_path / "frame.png", pixels)
    read = read_image(tmp_path / "frame.png", white_level=4095)
    assert read[:, :, 0].reshape(-1).tolist() == [0, 64, 128, 255]


@pytest.mark.slow
def test_a_gige_camera_gives_whole_frames(tmp_path: Path) -> None:
    program = shutil.which("arv-fake-gv-camera-0.8")
    if program is None:
        assert ARAVIS_REQUIRED not in os.environ, "no arv-fake-gv-camera-0.8: install aravis-tools"
        pytest.skip("no arv-fake-gv-camera-0.8: install aravis-tools")
    fake = subprocess.Popen(
        [program, "-i", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    captures: list[AravisCapture] = []

    def opens(name: str) -> bool:
        size = {"Width": 128, "Height": 96}  # a whole frame in the system's smallest socket buffer
        config = CameraConfig(source="aravis:", pixel_format=name, features=size, timeout=5.0)
        captures.append(AravisCapture(config))
        return captures[-1].isOpened()

    try:
        for name, shape, dtype in (
            ("Mono8", 1, np.uint8),
            ("Mono16", 1, np.uint16),
            ("BayerRG8", 3, np.uint8),
        ):
            until(lambda: opens(name))  # noqa: B023
            frames: list[np.ndarray] = []

            def came() -> bool:
                is_there, frame = captures[-1].read()
                frames.extend([frame] if is_there and frame is not None else [])  # noqa: B023
                return is_there

            until(came)
            captures[-1].release()
            assert frames[0].shape == (96, 128, shape) and frames[0].dtype == dtype
            assert len(np.unique(frames[0])) > 50
    finally:
        fake.terminate()
        fake.wait(30)
    assert not AravisCapture(CameraConfig(source="aravis:gone", timeout=1.0)).isOpened()
