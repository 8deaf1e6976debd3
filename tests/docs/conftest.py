"""The folder that the documentation supposes: images, a data root, one fitted model."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from PIL import Image

from energyad.data.datasets import Category
from energyad.data.demo import render_demo
from energyad.detector import AnomalyDetector
from energyad.fitting.roi import RoiSource, load_roi
from energyad.images import reading
from energyad.images.reading import ImageLike
from energyad.model.folder import save_model
from energyad.model.manifest import Manifest
from energyad.settings import FitSettings

Model: TypeAlias = tuple[Manifest, dict[str, bytes]]


@pytest.fixture
def fitted(fitted_detector: AnomalyDetector) -> Model:
    """The one model that all pages share."""
    return fitted_detector.manifest.model_copy(update={"name": "gasket"}), fitted_detector.contents


@pytest.fixture(autouse=True)
def fits_share_a_model(fitted: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit checks what it is given, and gives the shared model: pages show a dozen fits, which other tests do."""

    def shared_fit(
        good_images: Sequence[ImageLike],
        *,
        name: str,
        settings: FitSettings | None = None,
        roi: RoiSource | None = None,
        ignore: RoiSource | None = None,
        **_: object,
    ) -> Model:
        settings = settings or FitSettings()
        load_roi(settings.input.shape, roi=roi, ignore=ignore)
        for image in good_images:
            reading.as_rgb(image, white_level=settings.input.white_level)
        manifest, contents = fitted
        return manifest.model_copy(update={"name": name}), contents

    monkeypatch.setattr("energyad.fitting.fit.fit_model", shared_fit)


@pytest.fixture(autouse=True)
def renderings_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page renders is as small as what the workspace holds."""
    small = functools.partial(render_demo, seed=3, train=8, good=3, per_flaw=1, size=128)
    monkeypatch.setattr("energyad.data.demo.render_demo", small)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once; each page gets a copy."""
    folder = tmp_path_factory.mktemp("workspace")
    root = folder / "datasets" / "MVTecAD"
    bottle = render_demo(root, name="bottle", train=10, good=3, per_flaw=1, size=128)
    render_demo(root, name="cap", seed=1, train=8, good=2, per_flaw=1, size=128)
    lot = render_demo(
        tmp_path_factory.mktemp("lot"), name="lot", seed=2, train=12, good=1, per_flaw=1, size=128
    )
    good_of_today = [item.path for item in bottle.test if not item.is_defective] * 7
    for name, paths in (
        ("good_parts", bottle.train_good),
        ("new_lot", lot.train_good),
        ("new_parts", [item.path for item in bottle.test[:4]]),
        ("good_of_today", good_of_today),
        ("incoming", [item.path for item in bottle.test] * 2),
    ):
        (folder / name).mkdir()
        for index, path in enumerate(paths):
            shutil.copyfile(path, folder / name / f"{index:03d}.png")
    write_labelled(folder / "checked", bottle)
    write_12_bit(folder / "camera_12bit", bottle.train_good)
    (folder / "part.json").write_text(
        '{"units": "relative", "polygons": [[[0, 0], [0.75, 0], [0.75, 1], [0, 1]]]}'
    )
    mask = np.zeros((128, 128), np.uint8)
    mask[100:, 100:] = 255
    Image.fromarray(mask).save(folder / "label.png")
    return folder


def write_labelled(folder: Path, category: Category) -> None:
    """Good parts, and defects with their kinds and masks, as people sort them."""
    for item in category.test:
        place = folder / "good" if not item.is_defective else folder / "defect" / item.defect_type
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.path, place / item.path.name)
        if item.mask is not None:
            masks = folder / "ground_truth" / item.defect_type
            masks.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(item.mask, masks / item.mask.name)


def write_12_bit(folder: Path, paths: list[Path]) -> None:
    """Grey copies as a camera of 12 bits writes them, in files of 16."""
    folder.mkdir()
    for path in paths:
        grey = np.asarray(Image.open(path).convert("L"), np.float64)
        Image.fromarray((grey / 255 * 4095).astype(np.uint16)).save(folder / path.name)


@pytest.fixture
def workspace(
    template: Path,
    fitted: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The current folder, as the documentation supposes it."""
    folder = tmp_path / "workspace"
    shutil.copytree(template, folder)
    save_model(folder / "models" / "gasket", *fitted)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ENERGYAD_DATA_ROOT", raising=False)
    return folder
