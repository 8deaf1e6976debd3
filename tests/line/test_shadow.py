"""Laws of a candidate in the shadow: stored beside the result, acted on by nobody, and never in the way."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage
from energyad.errors import ModelError
from energyad.feedback import versions
from energyad.feedback.queue import ReviewQueue
from energyad.line.database import Database
from energyad.line.shadow import Comparison, Shadow, compare
from energyad.line.tables import Result, ShadowResult
from energyad.service.app import create_app

from ..service.serving import client_of
from .conftest import Line, look, renamed


@pytest.fixture
def folder(fitted_detector: AnomalyDetector, tmp_path: Path) -> Path:
    """A model with a candidate that rejects everything."""
    place = tmp_path / "models" / "gasket"
    fitted_detector.save(place)
    calibration = replace(
        fitted_detector.calibration,
        threshold=1e-9,
        review_threshold=None,
        created="2026-01-01T00:00:00+00:00",
    )
    strict = fitted_detector.manifest.replace(calibration=calibration)
    versions.put_candidate(place, strict, fitted_detector.contents, action="taught")
    return place


def open_shadow(folder: Path, warnings: list[str]) -> Shadow:
    place = versions.candidate_of(folder)
    return Shadow(place, lambda place: AnomalyDetector.load(place, threads=1), warn=warnings.append)


def test_a_shadow_changes_nothing_but_what_is_stored_beside(
    folder: Path, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    image = fitted_detector.score_image(demo_category.train_good[0]).require()
    shadowed = open_shadow(folder, []).beside(image)
    assert isinstance(shadowed, ScoredImage) and shadowed.shadow is not None
    assert shadowed.result() == image.result() and shadowed.shadow.verdict == "ng"
    assert shadowed.shadow.score == image.prediction.score


def test_a_shadow_that_fails_costs_nothing_but_itself(
    folder: Path, fitted_detector: AnomalyDetector, demo_category: Category, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    shadow = open_shadow(folder, warnings)
    image = fitted_detector.score_image(demo_category.train_good[0])
    with monkeypatch.context() as patch:
        patch.setattr(AnomalyDetector, "score_image", lambda *_: 1 / 0)
        assert shadow.beside(image) is image and shadow.beside(image) is image
    assert len(warnings) == 1 and "division by zero" in warnings[0]
    shutil.rmtree(versions.candidate_of(folder))
    assert shadow.beside(image) is not image  # what was loaded goes on


def test_a_shadow_that_was_promoted_says_nothing_more(folder: Path, demo_category: Category) -> None:
    shadow = open_shadow(folder, [])
    versions.promote(folder, force=True)
    image = AnomalyDetector.load(folder, threads=1).score_image(demo_category.train_good[0])
    assert shadow.beside(image) is image


def test_what_differs_is_stored_counted_and_waits_for_a_look(
    any_line: Line, folder: Path, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    shadow = open_shadow(folder, [])
    ok = fitted_detector.score_image(demo_category.train_good[0]).require()
    ok = replace(ok, prediction=replace(ok.prediction, verdict="ok", regions=()))

    def score(paths, read):  # type: ignore[no-untyped-def]
        for path in paths:
            read(path)
            yield shadow.beside(replace(ok, source=path))

    for number in range(3):
        renamed(any_line.folder / f"{number}.png", str(number))
    assert len(look(any_line.watcher(score=score))) == 3
    with Database(any_line.place) as database:
        with database.read() as session:
            assert session.scalars(select(Result.verdict)).all() == ["ok"] * 3
            assert session.scalars(select(ShadowResult.verdict)).all() == ["ng"] * 3
            assert compare(session, shadow.sha256) == Comparison(3, newly_ng=3, no_longer_ng=0, other=0)
            assert compare(session, "0").images == 0
        waiting = ReviewQueue(database).waiting("anna")
    assert len(waiting) == 3
    assert all(
        item.sampling in ("shadow", "random") and '"verdict":"ng"' in (item.shadow or "") for item in waiting
    )


def test_a_shadow_is_named_by_word_folder_or_version(folder: Path) -> None:
    candidate = versions.candidate_of(folder)
    assert versions.shadow_folder(folder, "candidate") == candidate
    assert versions.shadow_folder(folder, str(candidate)) == candidate
    first = versions.version(folder)
    versions.promote(folder, force=True)
    assert versions.shadow_folder(folder, first[:6]).name == first
    with pytest.raises(ModelError, match="there is no candidate"):
        versions.shadow_folder(folder, "candidate")
    with pytest.raises(ModelError, match="a version that is kept"):
        versions.shadow_folder(folder, "nothing")


@pytest.mark.slow
def test_a_service_counts_what_its_shadow_says(
    folder: Path, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    shadows = {fitted_detector.name: open_shadow(folder, [])}
    with client_of(create_app([fitted_detector], shadows=shadows)) as client:
        answer = client.post("/v1/score", content=demo_category.train_good[0].read_bytes()).json()
        metrics = client.get("/metrics").text
    verdict = answer["verdict"]
    assert (
        f'energyad_shadow_images_total{{model="{fitted_detector.name}",shadow="ng",verdict="{verdict}"}} 1.0'
        in metrics
    )
