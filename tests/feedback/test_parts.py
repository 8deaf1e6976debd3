"""Why a part got its verdict: what was stored, by which version, and which good patches are nearest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from energyad.cli import app
from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.feedback import versions
from energyad.feedback.nearest import nearest_good
from energyad.feedback.parts import find_part
from energyad.feedback.queue import ReviewQueue
from energyad.images import reading
from energyad.line.database import Database
from energyad.line.tables import Result
from energyad.report.neighbours import draw_neighbours

from .lines import fill_line


@pytest.fixture
def database(tmp_path: Path, fitted_detector: AnomalyDetector, demo_category: Category) -> Iterator[Database]:
    with Database(tmp_path / "energyad.db") as database:
        fill_line(database, fitted_detector, [item.path for item in demo_category.test])
        yield database


@pytest.fixture
def rejected(fitted_detector: AnomalyDetector, demo_category: Category) -> Path:
    return max((item.path for item in demo_category.test), key=lambda path: fitted_detector.score(path).score)


def test_a_part_is_found_by_its_image_wherever_it_lies_by_its_path_and_by_its_number(
    database: Database, rejected: Path, tmp_path: Path
) -> None:
    moved = shutil.copyfile(rejected, tmp_path / "elsewhere.png")
    part = find_part(database, str(moved))
    assert part.image == rejected and part.fault is None and part.entry is not None
    assert find_part(database, str(part.id)) == part
    relative = rejected.relative_to(rejected.parents[2]).as_posix()
    assert find_part(database, relative) == part
    item = ReviewQueue(database).item(part.id)
    ReviewQueue(database).label(item, reviewer="anna", value="defect", kind="dent", marks=())
    ((reviewer, label),) = find_part(database, str(part.id)).labels
    assert label is not None and (reviewer, label.kind) == ("anna", "dent")
    with pytest.raises(DataError, match="no verdict of 999"):
        find_part(database, "999")


def test_a_verdict_that_was_changed_is_said_with_the_part(database: Database) -> None:
    with database.write() as session:
        session.execute(update(Result).where(Result.id == 1).values(score=0.0))
    fault = find_part(database, "1").fault
    assert fault is not None and "verdict 1 was changed" in fault


def test_the_nearest_good_patch_of_a_fitted_image_is_its_own(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    good = demo_category.train_good[:4]
    corner = ((40, 40), (60, 40), (60, 60), (40, 60))
    (found,) = nearest_good(fitted_detector, good[0], [corner], good, count=2, threads=1)
    assert found.good[0].patch.image == good[0]
    assert found.good[0].distance == pytest.approx(0, abs=1e-3)
    assert found.good[0].distance < found.good[1].distance
    assert found.good[0].patch == found.patch and all(near.is_fitted for near in found.good)
    centre = found.patch.left + found.patch.width / 2, found.patch.top + found.patch.height / 2
    assert all(30 <= at <= 70 for at in centre)
    picture = draw_neighbours([found], title="part")
    assert picture.shape[2] == 3 and picture.std() > 20


def test_patches_lie_where_they_are_in_an_image_of_any_size(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    pixels = reading.as_rgb(demo_category.train_good[0])
    wide = np.ascontiguousarray(np.repeat(pixels, 3, axis=1))
    region = ((240, 64), (260, 64), (260, 84), (240, 84))
    (found,) = nearest_good(fitted_detector, wide, [region], [wide], threads=1)
    assert found.good[0].patch == found.patch and found.patch.width == 3 * found.patch.height
    assert 200 <= found.patch.left + found.patch.width / 2 <= 300 and 50 <= found.patch.top <= 94


@pytest.mark.slow
def test_the_command_tells_why(
    database: Database, rejected: Path, model_folder: Path, demo_category: Category, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "gasket"
    shutil.copytree(model_folder, folder)
    good, picture = demo_category.train_good[0].parent, tmp_path / "why" / "why.png"
    options = ["--database", str(database.file), "--model", str(folder)]
    wanted = ["audit", "part", str(rejected), *options, "--good", str(good), "--picture", str(picture)]
    done = CliRunner().invoke(app, wanted)
    assert done.exit_code == 0, done.output
    for text in ("ng: score", "above the threshold", "p-value", "region 1", "in charge", "near 1", "fits"):
        assert text in done.output, done.output
    assert picture.stat().st_size > 1000
    done = CliRunner().invoke(app, ["audit", "part", str(rejected), *options, "--json", "--quiet"])
    fields = json.loads(done.output)
    assert fields["version"] == versions.version(folder) and fields["result"]["verdict"] == "ng"
    assert CliRunner().invoke(app, ["audit", "part"]).exit_code == 2


@pytest.mark.slow
def test_the_command_checks_database_and_histories(
    database: Database, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models" / "gasket"
    shutil.copytree(model_folder, folder)
    versions.note(folder, "fitted")
    run = CliRunner()
    done = run.invoke(app, ["audit", "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    chains = {chain["chain"]: chain for chain in map(json.loads, done.output.splitlines())}
    assert set(chains) == {"energyad.db", "models/gasket"} and chains["models/gasket"]["entries"] == 1
    heads = [word for chain in chains.values() for word in ("--head", chain["head"])]
    assert run.invoke(app, ["audit", *heads]).exit_code == 0
    lost = run.invoke(app, ["audit", "--head", "f" * 64])
    assert lost.exit_code == 1 and "no chain has this head" in lost.output
    with database.write() as session:
        session.execute(update(Result).where(Result.id == 2).values(score=0.0))
    changed = run.invoke(app, ["audit"])
    assert changed.exit_code == 1 and "verdict 2 was changed" in changed.output
    assert run.invoke(app, ["audit", "--picture", "x.png"]).exit_code == 2


def test_a_model_whose_history_does_not_name_it_is_found(
    model_folder: Path, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "gasket"
    shutil.copytree(model_folder, folder)
    assert versions.check(folder).fault is None  # nothing was noted of it
    versions.save(folder, fitted_detector.manifest, fitted_detector.contents, action="calibrated")
    assert versions.check(folder).fault is None
    AnomalyDetector.from_contents(
        fitted_detector.manifest.replace(name="other"), fitted_detector.contents, threads=1
    ).save(folder)
    fault = versions.check(folder).fault
    assert fault is not None and "does not say how" in fault
    reference = fitted_detector.reference
    assert versions.find_version(folder, reference) == (versions.version(folder), folder)
