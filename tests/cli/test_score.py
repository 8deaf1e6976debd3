"""Laws of `energyad score`: what is printed, what is written, which status."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from energyad.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.images import read_image

from .outcome import Program, is_one_line_error


def test_score_is_status_0_on_normal_parts_and_1_with_an_anomalous_one(
    program: Program, sorted_images: tuple[list[Path], list[Path]]
) -> None:
    normal, anomalous = sorted_images
    assert program("score", *normal).status == 0
    assert program("score", *normal, anomalous[0]).status == 1


def test_score_prints_the_highest_first_and_writes_the_same_to_scores_csv(
    program: Program, house: Path, demo_category: Category, fitted_detector: AnomalyDetector
) -> None:
    outcome = program("score", demo_category.root / "test")
    printed = [line.split()[-1] for line in outcome.out.splitlines()[1:]]
    rows = list(csv.DictReader((house / "scores.csv").open()))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert [row["path"] for row in rows] == printed
    assert len(rows) == len(demo_category.test)
    assert scores[0] == pytest.approx(fitted_detector.score(printed[0]).score, rel=1e-5)
    assert "above the threshold" in outcome.err


def test_score_json_is_one_object_a_line_and_nothing_else(program: Program, demo_category: Category) -> None:
    outcome = program("score", "--json", demo_category.root / "test" / "chip", "--no-csv")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(rows) == 2
    assert set(rows[0]) == {"path", "score", "threshold", "is_anomalous", "heatmap", "error"}
    assert all(row["is_anomalous"] == (row["score"] > row["threshold"]) for row in rows)
    assert not Path("scores.csv").exists()


def test_a_bad_image_costs_its_own_row_and_status_2(
    program: Program, house: Path, sorted_images: tuple[list[Path], list[Path]]
) -> None:
    (house / "zero.png").touch()
    (house / "text.png").write_text("no picture")
    outcome = program("score", "zero.png", *sorted_images[0], "text.png", "--json")
    rows = {row["path"]: row for row in map(json.loads, outcome.out.splitlines())}
    assert outcome.status == 2
    assert rows["zero.png"]["score"] is None and "empty" in rows["zero.png"]["error"]
    assert rows["text.png"]["is_anomalous"] is None
    assert sum(row["score"] is not None for row in rows.values()) == len(sorted_images[0])
    assert "2 of" in outcome.err and "Traceback" not in outcome.err
    assert len(list(csv.reader((house / "scores.csv").open()))) == len(rows) + 1


def test_score_takes_globs_and_a_list_on_standard_input(program: Program, demo_category: Category) -> None:
    by_glob = program("score", f"{demo_category.root}/test/*/000.png", "--json")
    paths = [json.loads(line)["path"] for line in by_glob.out.splitlines()]
    assert len(paths) == 7
    listed = program("score", "-", "--json", stdin="\n".join([*paths, "", "gone.png"]) + "\n")
    assert listed.out.splitlines()[:-1] == by_glob.out.splitlines()
    assert (json.loads(listed.out.splitlines()[-1])["path"], listed.status) == ("gone.png", 2)
    assert is_one_line_error(program("score", "-", stdin="\n"), "no image")


def test_overlays_are_one_an_image_at_its_own_size_and_no_later_input(
    program: Program, house: Path, demo_category: Category
) -> None:
    shutil.copytree(demo_category.root / "test", house / "parts")
    program("score", ".", "--heatmaps")
    rows = list(csv.DictReader((house / "scores.csv").open()))
    assert len({row["heatmap"] for row in rows}) == len(rows) == len(demo_category.test)
    for row in rows:
        assert read_image(row["heatmap"]).shape == read_image(row["path"]).shape
    again = program("score", ".", "--heatmaps")
    assert len(list(csv.DictReader((house / "scores.csv").open()))) == len(rows)
    assert "left out" in again.err


def test_scores_that_cannot_be_written_are_an_error_and_still_printed(program: Program, house: Path) -> None:
    (house / "file").touch()
    good = house / "part.png"
    from energyad.images import write_png

    write_png(good, np.full((40, 40, 3), 90, np.uint8))
    outcome = program("score", good, "--csv", "file/scores.csv")
    assert outcome.status == 2
    assert "part.png" in outcome.out
    assert "file/scores.csv" in outcome.err.splitlines()[-1]
