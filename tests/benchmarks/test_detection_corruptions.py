"""Laws of what changes of the images cost: what each change does, and how it is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.detection import corruptions, corruptions_table
from benchmarks.detection.corruptions import CORRUPTIONS, NONE
from benchmarks.detection.method import Fitted
from energyad.data.datasets import Category
from energyad.images import reading
from energyad.runtimes import RawScores


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def corrupted(name: str, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(CORRUPTIONS[name](pixels, rng()), np.float64)


@pytest.mark.parametrize("shape", [(64, 64), (96, 40), (300, 500)])
@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {NONE}))
def test_a_corruption_keeps_shape_and_type_and_changes_the_image_alike_each_time(
    name: str, shape: tuple[int, int]
) -> None:
    pixels = rng().integers(60, 180, (*shape, 3), dtype=np.uint8)
    changed = CORRUPTIONS[name](pixels, rng())
    assert (changed.shape, changed.dtype) == (pixels.shape, np.uint8)
    assert (changed != pixels).any()
    assert (changed == CORRUPTIONS[name](pixels, rng())).all()


def test_corruptions_do_what_their_names_say() -> None:
    pixels = np.full((64, 64, 3), 100, np.uint8)
    pixels[:, 32:] = 150
    assert corrupted("exposure -30 %", pixels).mean() == pytest.approx(0.7 * pixels.mean(), abs=0.5)
    assert corrupted("exposure +30 %", pixels).mean() == pytest.approx(1.3 * pixels.mean(), abs=0.5)
    assert corrupted("noise", pixels)[:, :32].std() == pytest.approx(8, rel=0.05)
    assert 100 < corrupted("blur", pixels)[32, 31].mean() < 150
    moved = np.abs(np.diff(corrupted("shift 3 %", pixels)[32, :, 0])).argmax()
    assert abs(int(moved) - 31) <= 2


def test_alarms_are_counted_over_the_threshold_of_the_images_held_out(demo_category: Category) -> None:
    def brightness(pixels: np.ndarray) -> RawScores:
        scores = pixels.mean(axis=(1, 2, 3), dtype=np.float32)
        return RawScores(scores, np.zeros(pixels.shape[:3], np.float32))

    fitted = Fitted(brightness, (64, 64), 0)
    held_out = demo_category.train_good[:20]
    figures = corruptions.measure(demo_category, fitted, held_out, list(CORRUPTIONS))
    good = [item.path for item in demo_category.test if not item.is_defective]
    means = [reading.resize(reading.read_image(path), (64, 64)).mean() for path in held_out]
    bright = [reading.resize(reading.read_image(path), (64, 64)).mean() * 1.3 for path in good]
    assert figures["exposure +30 %"]["false_alarms"] == pytest.approx(np.mean(np.array(bright) > max(means)))
    assert figures["exposure -30 %"]["false_alarms"] == 0.0


def test_the_table_shows_values_without_a_change_and_differences_with_one(tmp_path: Path) -> None:
    row = {"method": "knn", "category": "a", "seed": 0, "commit": "0" * 40, "false_alarms": 0.0, "found": 0.5}
    rows = [
        {**row, "corruption": NONE, "image_auroc": 0.8},
        {**row, "corruption": NONE, "image_auroc": 0.9},
        {**row, "corruption": "blur", "image_auroc": 0.88},
    ]
    text = corruptions_table.render(rows)
    assert "| none | `knn` | 0.900 | 0.900 |" in text
    assert "| blur | `knn` | -2.0 | -2.0 |" in text
    assert "| noise | `knn` | — | — |" in text
