"""Laws of frame checks: good parts pass, and each disturbance of real pixels is called by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.errors import DataError
from energyad.images.reading import read_image
from energyad.station.config import ChecksConfig
from energyad.station.frames import FAULTS, fault_of, learn_limits, measure_frame
from energyad.station.writing import Answers, write_station

from .conftest import Rig


@pytest.fixture(scope="module")
def good(demo_category: Category) -> list[np.ndarray]:
    return [read_image(path) for path in demo_category.train_good]


@pytest.fixture(scope="module")
def limits(good: list[np.ndarray]) -> ChecksConfig:
    return learn_limits([measure_frame(image) for image in good[::2]])


def empty(image: np.ndarray) -> np.ndarray:
    """The background alone, with the noise of a camera."""
    rng = np.random.default_rng(0)
    colour = np.median(image[:4].reshape(-1, 3), axis=0)
    return np.clip(colour + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


DISTURBANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "dark": lambda image: (image * 0.1).astype(np.uint8),
    "saturated": lambda image: np.clip(image.astype(np.float32) * 20 + 200, 0, 255).astype(np.uint8),
    "no_part": empty,
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), image.shape[0] / 40),
}


def test_good_parts_that_taught_nothing_pass(good: list[np.ndarray], limits: ChecksConfig) -> None:
    assert [fault_of(measure_frame(image), limits) for image in good[1::2]] == [None] * len(good[1::2])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scale", [1, 5])
def test_each_disturbance_is_called_by_its_name_at_any_resolution(
    fault: str, scale: int, good: list[np.ndarray]
) -> None:
    images = [
        cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for image in good[:8]
    ]
    limits = learn_limits([measure_frame(image) for image in images[::2]])
    found = [fault_of(measure_frame(DISTURBANCES[fault](image)), limits) for image in images[1::2]]
    assert found == [fault] * len(found)


def test_without_limits_no_frame_is_faulty() -> None:
    assert fault_of(measure_frame(np.zeros((8, 8, 3), np.uint8)), ChecksConfig()) is None


def test_limits_need_some_samples(good: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="2 sample images"):
        learn_limits([measure_frame(image) for image in good[:2]])


def test_limits_are_written_into_the_file_as_they_were_learned(tmp_path: Path, limits: ChecksConfig) -> None:
    from energyad.station.config import read_station

    write_station(
        tmp_path / "station.toml", Answers(name="a", model="m", views=[("front", "in")], checks=limits)
    )
    assert read_station(tmp_path / "station.toml").views[0].checks == limits


@pytest.mark.parametrize("moves", [False, True])
def test_a_faulty_frame_is_its_own_verdict_instead_of_the_models(rig: Rig, moves: bool) -> None:
    rig.checks = {"min_brightness": 10.0}  # of black pixels, which the images here have
    if moves:
        rig.settings = {"images": {"folder": rig.root / "kept"}}
    rig.put("a", "3")
    rig.put("b", "broken")
    rig.run_once()
    verdicts = {part.part: (part.verdict, [view.fault for view in part.views]) for part in rig.parts()}
    assert verdicts == {"a": ("dark", ["dark"]), "b": ("review", [None])}
