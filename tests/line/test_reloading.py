"""Laws of following a model: what is done to its folder takes effect, and a broken one changes nothing."""

from __future__ import annotations

import contextlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.detector.recalibration import recalibrate
from energyad.errors import ModelError
from energyad.line.reloading import ReloadingDetector
from energyad.model.folder import HEAD_FILE


@pytest.fixture
def folder(fitted_detector: AnomalyDetector, tmp_path: Path) -> Path:
    fitted_detector.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_that_is_replaced_is_loaded_again_and_otherwise_not(
    folder: Path, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    found: list[AnomalyDetector] = []
    followed = ReloadingDetector(folder, AnomalyDetector.load, on_reload=found.append)
    first = followed()
    assert followed() is first and found == []
    new = recalibrate(fitted_detector, [item.path for item in demo_category.test[:3]])
    new.save(folder)
    second = followed()
    assert followed() is second and found == [second]
    assert second.threshold == new.threshold != first.threshold


def test_of_several_threads_that_see_a_new_model_one_loads_it(
    folder: Path, fitted_detector: AnomalyDetector
) -> None:
    found: list[AnomalyDetector] = []
    both = threading.Barrier(2, timeout=60)

    def load(place: Path) -> AnomalyDetector:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)  # a second one would come, too
        return fitted_detector

    followed = ReloadingDetector(folder, load, on_reload=found.append)
    fitted_detector.save(folder)
    with ThreadPoolExecutor(2) as pool:
        assert len({id(one) for one in pool.map(lambda _: followed(), range(2))}) == 1
    assert len(found) == 1


def test_the_old_model_stays_where_the_new_one_is_damaged_or_gone_and_that_is_said_once(
    folder: Path, fitted_detector: AnomalyDetector
) -> None:
    said: list[ModelError] = []
    followed = ReloadingDetector(folder, AnomalyDetector.load, on_error=said.append)
    first = followed()
    fitted_detector.save(folder)
    (folder / HEAD_FILE).write_bytes(b"damaged")
    assert followed() is first and followed() is first
    assert [HEAD_FILE in str(error) for error in said] == [True]
    shutil.rmtree(folder)
    assert followed() is first and len(said) == 1
    fitted_detector.save(folder)
    assert followed() is not first and len(said) == 1


def test_what_is_replaced_while_it_is_loaded_is_not_missed(
    folder: Path, fitted_detector: AnomalyDetector
) -> None:
    def load(place: Path) -> AnomalyDetector:
        loaded = AnomalyDetector.load(place)
        if not loads:
            fitted_detector.save(place)
        loads.append(loaded)
        return loaded

    loads: list[AnomalyDetector] = []
    followed = ReloadingDetector(folder, load)
    assert followed() is loads[1] and followed() is loads[1]


@pytest.mark.parametrize("side", [64, 96])
def test_a_manifest_that_does_not_fit_its_graph_replaces_no_model(
    folder: Path, fitted_detector: AnomalyDetector, demo_category: Category, side: int
) -> None:
    said: list[ModelError] = []
    followed = ReloadingDetector(folder, AnomalyDetector.load, on_error=said.append)
    first = followed()
    manifest = fitted_detector.manifest
    wrong = manifest.replace(input=manifest.input.model_copy(update={"image_size": (side, side)}))
    AnomalyDetector(wrong, fitted_detector.contents, fitted_detector.runtime).save(folder)
    assert followed() is first and len(said) == 1
    assert followed().score(demo_category.test[0].path).score > 0
    with pytest.raises(ModelError, match="cannot score an image"):
        ReloadingDetector(folder, AnomalyDetector.load)


def test_a_model_whose_scores_are_not_finite_is_refused_by_its_check(
    fitted_detector: AnomalyDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted_detector.check()
    run = fitted_detector.runtime.run
    monkeypatch.setattr(
        fitted_detector.runtime, "run", lambda x: run(x)._replace(score=run(x).score * np.nan)
    )
    with pytest.raises(ModelError, match="not finite"):
        fitted_detector.check()
    monkeypatch.setattr(
        fitted_detector.runtime, "run", lambda x: run(x)._replace(heatmap=run(x).heatmap[:, 1:])
    )
    with pytest.raises(ModelError, match="gives a heatmap of"):
        fitted_detector.check()
