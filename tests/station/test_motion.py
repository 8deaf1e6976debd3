"""Laws of motion: a part that comes into view is seen once, in any depth; slow light is none; what stays is learnt."""

from __future__ import annotations

import time

import numpy as np
import pytest

from energyad.station.config import MotionConfig
from energyad.station.motion import RELEARN_SECONDS, MotionDetector

from .conftest import Rig, until


def frames(
    places: list[int | None], *, white: int = 255, light: float = 1.0, size: int = 90
) -> list[np.ndarray]:
    """A square part at a column, or none, on a noisy grey belt."""
    generator = np.random.default_rng(0)
    dtype = np.uint8 if white == 255 else np.uint16
    made = []
    for place in places:
        image = np.full((size, 2 * size, 1), 0.5)
        if place is not None:
            image[size // 3 : 2 * size // 3, place : place + size // 3] = 0.1
        noisy = (image + generator.normal(0, 0.01, image.shape)) * light
        made.append((noisy.clip(0, 1) * white).astype(dtype))
    return made


def seen(detector: MotionDetector, images: list[np.ndarray], start: float = 0.0) -> list[int]:
    return [n for n, image in enumerate(images) if detector.sees(image, start + n / 30)]


@pytest.mark.parametrize("white", [255, 4095, 65535])
@pytest.mark.parametrize("size", [30, 90, 240])
def test_each_part_that_comes_into_the_area_is_seen_once(white: int, size: int) -> None:
    detector = MotionDetector(MotionConfig(area=(0.4, 0.2, 0.7, 0.8), change=0.1))
    path = [None, None, *(place * size // 90 for place in range(0, 150, 6)), None, None]
    images = frames(path + path, white=white, size=size)
    assert [number // len(path) for number in seen(detector, images)] == [0, 1]


def test_light_that_changes_slowly_is_no_part() -> None:
    detector = MotionDetector(MotionConfig(change=0.05))
    images = [frames([None], light=1 - 0.4 * n / 300)[0] for n in range(300)]
    assert seen(detector, images) == []


def test_what_stands_still_for_a_minute_is_the_empty_place_from_then_on() -> None:
    detector = MotionDetector(MotionConfig(change=0.02))
    still = frames([None, None, 40, 40])
    assert seen(detector, still) == [2]
    assert not detector.sees(still[3], RELEARN_SECONDS + 1)
    assert seen(detector, frames([40, 120]), RELEARN_SECONDS + 2) == [1]


class Belt:
    """A camera over a belt, on which parts come when they are put there."""

    def __init__(self) -> None:
        self.has_part = False
        self._empty, self._full = frames([None, 60])

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def read(self) -> tuple[bool, np.ndarray]:
        time.sleep(0.005)
        return True, self._full if self.has_part else self._empty

    def release(self) -> None:
        pass


@pytest.mark.slow
def test_a_part_that_comes_into_view_is_taken_with_a_debounce(rig: Rig) -> None:
    belt = Belt()
    rig.cameras, rig.captures = {"front": "0"}, {"0": belt}
    rig.settings = {
        "images": {"folder": rig.root / "kept"},
        "trigger": {"kind": "motion", "debounce": 3600.0, "motion": {"change": 0.015}},
        "part": {"deadline": 3600.0},
    }
    with rig.running() as station:
        (camera,) = station.cameras
        for _ in range(3):
            until(lambda: camera.num_frames > 3)
            belt.has_part = not belt.has_part
            count = camera.num_frames
            until(lambda: camera.num_frames > count + 3)  # noqa: B023
        rig.await_parts(1)
    (part,) = rig.parts()
    assert part.verdict == "ok" and part.latency is not None
