from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest

from energyad.data.demo import render_demo
from energyad.features.extractor import load_extractor
from energyad.fitting.near_copies import near_copies, warn_of_near_copies
from energyad.graphs.cache import extractor_graph
from energyad.images.reading import read_image, resize
from energyad.runtimes.onnx import OnnxFeatures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    category = render_demo(tmp_path_factory.mktemp("near"), train=12, good=1, per_flaw=1, size=128)
    return [resize(read_image(path), 128) for path in category.train_good]


@pytest.fixture(scope="module")
def session() -> OnnxFeatures:
    extractor = load_extractor("tf_efficientnet_lite0", image_size=(128, 128))
    return OnnxFeatures(extractor_graph(extractor).SerializeToString(), threads=1)


def features(session: OnnxFeatures, images: list[np.ndarray]) -> np.ndarray:
    grids = np.concatenate([session.run(image[None]) for image in images])
    return grids.transpose(0, 2, 3, 1)[:, None].astype("f2")


def another_shot(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same part before the same camera: noise, and another exposure."""
    noisy = image * rng.uniform(0.997, 1.003) + rng.normal(0, 0.1, image.shape)
    moved = cv2.warpAffine(noisy, np.float32([[1, 0, 0.05], [0, 1, 0.05]]), image.shape[:2], borderMode=1)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def test_shots_of_one_part_are_near_copies(images: list[np.ndarray], session: OnnxFeatures) -> None:
    rng = np.random.default_rng(0)
    shots = [*images, *(another_shot(image, rng) for image in images[:3])]
    assert near_copies(features(session, shots)).tolist() == [12, 13, 14]
    with pytest.warns(UserWarning, match="3 of 15 good images of 'part' are hardly different"):
        warn_of_near_copies(features(session, shots), of="part")


def test_different_parts_are_no_near_copies(images: list[np.ndarray], session: OnnxFeatures) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_near_copies(features(session, images), of="part")
        warn_of_near_copies(features(session, images[:3]), of="part")
