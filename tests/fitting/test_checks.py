"""Copies are known by their pixels and stay out of every split; images that show nothing are counted."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from energyad.data.datasets import Category
from energyad.data.demo import render_good
from energyad.detector import AnomalyDetector
from energyad.detector.recalibration import recalibrate
from energyad.errors import DataError, ImageError
from energyad.evaluation.evaluate import evaluate
from energyad.fitting.checks import ImageFacts, check_image, distinct_images, facts_of
from energyad.fitting.fit import fit_model
from energyad.images.identity import pixel_digest
from energyad.images.reading import write_png


def noise(seed: int, shape: tuple[int, ...] = (12, 16, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 250, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(12, 16, 3), (16, 12, 3), (7, 5, 3)])
def test_the_digest_of_pixels_changes_with_any_pixel_and_the_shape_and_with_nothing_else(
    shape: tuple[int, int, int],
) -> None:
    pixels = noise(0, shape)
    other = pixels.copy()
    other[-1, -1, -1] ^= 1
    digests = {pixel_digest(pixels), pixel_digest(other), pixel_digest(pixels.reshape(shape[1], shape[0], 3))}
    assert len(digests) == 3
    assert pixel_digest(np.asfortranarray(pixels)) == pixel_digest(pixels)


def test_copies_are_left_out_whatever_their_file_is_called(tmp_path: Path) -> None:
    files = [write_png(tmp_path / f"{seed}.png", noise(seed)) for seed in range(3)]
    cv2.imwrite(str(tmp_path / "again.bmp"), cv2.imread(str(files[1])))
    images = [*files, tmp_path / "again.bmp", noise(2)]
    with pytest.warns(UserWarning, match="2 of 5 good images of 'nut' are copies of others"):
        found = distinct_images(images, of="nut", white_level=None, workers=2)
    assert found.images == files
    assert found.digests == tuple(pixel_digest(noise(seed)) for seed in range(3))


def test_images_that_show_nothing_are_counted_by_kind() -> None:
    grey = np.full((8, 8, 3), 90, np.uint8)
    black, white = np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 255, np.uint8)
    black[0, 0] = 30
    white[:3] = 30
    facts = [facts_of(pixels) for pixels in (grey, black, white, noise(0))]
    assert [fact.is_constant for fact in facts] == [True, False, False, False]
    assert [fact.is_empty for fact in facts] == [False, True, False, False]
    assert [fact.is_saturated for fact in facts] == [False, False, True, False]
    with pytest.warns(UserWarning) as caught:
        distinct_images([grey, black, white, noise(0)], of="nut", white_level=None, workers=1)
    texts = "\n".join(str(warning.message) for warning in caught)
    for text in (
        "1 of 4 good images of 'nut' show one colour",
        "1 of 4 good images of 'nut' are nearly black",
    ):
        assert text in texts
    assert "1 of 4 good images of 'nut' are white in most places" in texts


def test_images_of_the_fit_and_copies_never_recalibrate(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    fresh = [render_good(7, "train", index, size=128) for index in range(4)]
    images = [*demo_category.train_good[:5], *fresh, fresh[0], fresh[0]]
    with pytest.warns(UserWarning) as caught:
        calibrated = recalibrate(fitted_detector, images)
    texts = "\n".join(str(warning.message) for warning in caught)
    assert "5 of 11 images were in the fit" in texts and "2 of 11 images are copies of others" in texts
    alone = recalibrate(fitted_detector, fresh)
    assert calibrated.threshold == alone.threshold
    assert calibrated.calibration.good_scores == alone.calibration.good_scores
    with pytest.raises(DataError, match="not in the fit"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recalibrate(fitted_detector, demo_category.train_good)


def test_test_images_that_were_fitted_on_are_counted(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    items = [item for item in demo_category.test if item.defect_type in ("good", "chip")]
    seen = [type(items[0])(path, "good", None) for path in demo_category.train_good[:3]]
    category = Category(demo_category.name, demo_category.root, (), (*items, *seen))
    with pytest.warns(UserWarning, match=f"3 of {len(items) + 3} test images .* were in the fit"):
        evaluate(fitted_detector, category)


def test_images_beyond_the_limit_are_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (50, 40)).save(path)
    assert isinstance(check_image(path, white_level=None, max_pixels=2000), ImageFacts)
    assert isinstance(check_image(path, white_level=None, max_pixels=1999), ImageError)
    with pytest.raises(ImageError, match="above the limit of 1,999"):
        fit_model([path, path, path], name="part", max_pixels=1999)


def test_a_bad_image_is_said_before_any_network_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energyad.fitting.fit.open_backbone", None)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    images = [noise(0), tmp_path / "cut.png", noise(1)]
    with pytest.raises(ImageError, match=r"cut\.png.*--skip-bad"):
        fit_model(images, name="part")
    with pytest.warns(UserWarning, match=r"left out: .*cut\.png"):
        found = distinct_images(images, of="part", white_level=None, workers=1, skip_bad=True)
    assert len(found.images) == len(found.digests) == len(found.shapes) == 2
