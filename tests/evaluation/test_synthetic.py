"""Laws of synthetic evaluation: an ordinary test set, reproducible, with defects inside the region of interest."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8

from energyad.data.datasets import Category, open_category
from energyad.detector import AnomalyDetector
from energyad.errors import DataError, ImageError
from energyad.evaluation import synthetic
from energyad.evaluation.evaluate import Evaluation, ScoredTestItem, evaluate
from energyad.evaluation.synthetic import by_size, evaluate_synthetic
from energyad.images.masks import read_mask
from energyad.images.reading import read_image, write_png
from energyad.runtimes import RawScores
from energyad.runtimes.plan import Plan


@pytest.fixture(scope="module")
def good(demo_category: Category) -> list[Path]:
    return [item.path for item in demo_category.test if not item.is_defective]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.mark.slow
def test_what_is_written_is_a_test_set_like_any_other(
    fitted_detector: AnomalyDetector, good: list[Path], tmp_path: Path
) -> None:
    found = evaluate_synthetic(fitted_detector, good, tmp_path / "a", per_image=3)
    assert sum(row.images for row in found.sizes) == 3 * len(good)
    shutil.copytree(good[0].parent, tmp_path / "a" / "train" / "good")
    opened = open_category("a", data_root=tmp_path)
    assert opened.has_masks and len(opened.test) == 4 * len(good)
    again = dataclasses.replace(evaluate(fitted_detector, opened), category=found.evaluation.category)
    unlike = ("milliseconds_per_image",)
    assert {k: v for k, v in again.to_dict().items() if k not in unlike} == {
        k: v for k, v in found.evaluation.to_dict().items() if k not in unlike
    }
    assert (found.evaluation.image_auroc or 0) > 0.6 and (found.evaluation.pixel_auroc or 0) > 0.7


@pytest.mark.slow
def test_a_seed_gives_the_same_defects_and_another_others(
    fitted_detector: AnomalyDetector, good: list[Path], tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        evaluate_synthetic(fitted_detector, good, tmp_path / name, per_image=1, seed=seed)
    a, b, c = (everything(tmp_path / name) for name in "abc")
    assert a == b != c
    with pytest.raises(DataError, match="exists already"):
        evaluate_synthetic(fitted_detector, good, tmp_path / "a")
    assert everything(tmp_path / "a") == a


class LeftHalf:
    """A runtime of a model whose region of interest is the left half."""

    def __init__(self, detector: AnomalyDetector) -> None:
        self.whole = detector.runtime
        self.plan: Plan = detector.runtime.plan

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        raw = self.whole.run(pixels)
        raw.heatmap[:, :, raw.heatmap.shape[2] // 2 :] = 0
        return raw


@pytest.mark.slow
def test_synthetic_defects_lie_inside_the_region_of_interest(
    fitted_detector: AnomalyDetector, good: list[Path], tmp_path: Path
) -> None:
    half = AnomalyDetector(fitted_detector.manifest, fitted_detector.contents, LeftHalf(fitted_detector))  # type: ignore[arg-type]
    evaluate_synthetic(half, good, tmp_path, per_image=6)
    centres = []
    for path in (tmp_path / "ground_truth").rglob("*.png"):
        mask = read_mask(path)
        centres.append(np.flatnonzero(mask.any(axis=0)).mean() / mask.shape[1])
    assert len(centres) == 6 * len(good)
    assert np.mean(np.array(centres) < 0.55) > 0.9  # the middle of some is cut off at a border


@pytest.mark.slow
def test_sizes_are_in_pixels_of_the_images_as_they_were_taken(
    fitted_detector: AnomalyDetector, good: list[Path], tmp_path: Path
) -> None:
    large = [
        write_png(tmp_path / "large" / path.name, read_image(path).repeat(4, 0).repeat(4, 1)) for path in good
    ]
    found = evaluate_synthetic(fitted_detector, large, tmp_path / "planted", per_image=2)
    drawn = read_image(next((tmp_path / "planted" / "test" / "good").iterdir())).shape[0]
    assert drawn == 2 * fitted_detector.image_size[0] == read_image(large[0]).shape[0] // 2
    diameters = [
        2 * math.sqrt(4 / math.pi * read_mask(path).sum())
        for path in (tmp_path / "planted" / "ground_truth").rglob("*.png")
    ]
    for row in found.sizes:
        assert row.images == sum(row.above <= diameter < row.below for diameter in diameters) > 0


def test_a_band_counts_its_defects_and_those_above_the_threshold(evaluation: Evaluation) -> None:
    scores = {"a": 0.1, "b": 0.9, "c": 0.9, "d": 0.1, "good": 0.9}
    items = tuple(ScoredTestItem(Path(name), name, None, score=score) for name, score in scores.items())
    sizes = {Path("a"): 7.9, Path("b"): 8.0, Path("c"): 15.9, Path("d"): 16.0}
    rows = by_size(dataclasses.replace(evaluation, items=items, threshold=0.5), sizes)
    assert [dataclasses.astuple(row) for row in rows] == [(0, 8, 1, 0), (8, 16, 2, 2), (16, 32, 1, 0)]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "defects"), [(5, 10), (30, 10)])
def test_number_of_synthetic_defects_does_not_depend_on_the_number_of_images(
    count: int,
    defects: int,
    fitted_detector: AnomalyDetector,
    good: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(synthetic, "NUM_DEFECTS", 12)
    found = evaluate_synthetic(fitted_detector, (good * 8)[:count], tmp_path)
    assert sum(row.images for row in found.sizes) == defects
    assert found.evaluation.row("good").images == min(count, 10)


def test_too_few_and_unreadable_images_are_refused(
    fitted_detector: AnomalyDetector, good: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="at least two"):
        evaluate_synthetic(fitted_detector, good[:1], tmp_path)
    with pytest.raises(DataError, match="at least one"):
        evaluate_synthetic(fitted_detector, good, tmp_path, per_image=0)
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(ImageError, match=r"bad\.png"):
        evaluate_synthetic(fitted_detector, [*good, tmp_path / "bad.png"], tmp_path / "x")
