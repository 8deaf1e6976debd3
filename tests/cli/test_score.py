"""Laws of `energyad score`: what is printed, what is written, which status."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.detector.export import export_model
from energyad.images.reading import read_image, resize
from energyad.model.folder import with_digest
from energyad.scoring.calibration import benjamini_hochberg
from energyad.scoring.results import ImageResult, results_csv, scored_result

from .outcome import Program, is_one_line_error


@pytest.mark.slow
def test_score_is_status_0_on_normal_parts_and_1_with_an_anomalous_one(
    program: Program, sorted_images: tuple[list[Path], list[Path]]
) -> None:
    normal, anomalous = sorted_images
    assert program("score", *normal).status == 0
    assert program("score", *normal, anomalous[0]).status == 1


def test_score_prints_the_highest_first_and_writes_the_same_to_scores_csv(
    program: Program, workdir: Path, demo_category: Category, fitted_detector: AnomalyDetector
) -> None:
    outcome = program("score", demo_category.root / "test")
    printed = [line.split()[-1] for line in outcome.out.splitlines()[1:]]
    rows = list(csv.DictReader((workdir / "scores.csv").open()))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert [row["image"] for row in rows] == printed
    assert len(rows) == len(demo_category.test)
    assert scores[0] == pytest.approx(fitted_detector.score(printed[0]).score, rel=1e-5)
    assert "above the threshold" in outcome.err


def test_score_json_is_one_object_a_line_and_nothing_else(program: Program, demo_category: Category) -> None:
    outcome = program("score", "--json", demo_category.root / "test" / "chip", "--no-csv")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(rows) == 2
    assert {"image", "score", "p_value", "threshold", "verdict", "regions", "error"} <= set(rows[0])
    assert all((row["verdict"] == "ng") == (row["score"] > row["threshold"]) for row in rows)
    assert not Path("scores.csv").exists()


def test_a_bad_image_costs_its_own_row_and_status_2(
    program: Program, workdir: Path, sorted_images: tuple[list[Path], list[Path]]
) -> None:
    (workdir / "zero.png").touch()
    (workdir / "text.png").write_text("no picture")
    outcome = program("score", "zero.png", *sorted_images[0], "text.png", "--json")
    rows = {row["image"]: row for row in map(json.loads, outcome.out.splitlines())}
    assert outcome.status == 2
    assert rows["zero.png"]["score"] is None and "empty" in rows["zero.png"]["error"]
    assert rows["text.png"]["verdict"] is None
    assert sum(row["score"] is not None for row in rows.values()) == len(sorted_images[0])
    assert "2 of" in outcome.err and "Traceback" not in outcome.err
    assert len(list(csv.reader((workdir / "scores.csv").open()))) == len(rows) + 1


def test_score_takes_globs_and_a_list_on_standard_input(program: Program, demo_category: Category) -> None:
    by_glob = program("score", f"{demo_category.root}/test/*/000.png", "--json")
    paths = [json.loads(line)["image"] for line in by_glob.out.splitlines()]
    assert len(paths) == 7
    listed = program("score", "-", "--json", stdin="\n".join([*paths, "", "gone.png"]) + "\n")
    assert listed.out.splitlines()[:-1] == by_glob.out.splitlines()
    assert (json.loads(listed.out.splitlines()[-1])["image"], listed.status) == ("gone.png", 2)
    assert is_one_line_error(program("score", "-", stdin="\n"), "no image")


def test_overlays_are_one_an_image_at_its_own_size_and_no_later_input(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    shutil.copytree(demo_category.root / "test", workdir / "parts")
    program("score", ".", "--heatmaps")
    rows = list(csv.DictReader((workdir / "scores.csv").open()))
    assert len({row["heatmap"] for row in rows}) == len(rows) == len(demo_category.test)
    for row in rows:
        assert read_image(row["heatmap"]).shape == read_image(row["image"]).shape
    again = program("score", ".", "--heatmaps")
    assert len(list(csv.DictReader((workdir / "scores.csv").open()))) == len(rows)
    assert "left out" in again.err


def test_scores_that_cannot_be_written_are_an_error_and_still_printed(
    program: Program, workdir: Path
) -> None:
    (workdir / "file").touch()
    good = workdir / "part.png"
    from energyad.images.reading import write_png

    write_png(good, np.full((40, 40, 3), 90, np.uint8))
    outcome = program("score", good, "--csv", "file/scores.csv")
    assert outcome.status == 2
    assert "part.png" in outcome.out
    assert "file/scores.csv" in outcome.err.splitlines()[-1]


def test_an_image_above_max_megapixels_costs_its_own_row(program: Program, workdir: Path) -> None:
    from energyad.images.reading import write_png

    for name, side in (("small", 40), ("large", 120)):
        write_png(workdir / f"{name}.png", np.full((side, side, 3), 90, np.uint8))
    outcome = program("score", "small.png", "large.png", "--json", "--no-csv", "--max-megapixels", 0.01)
    small, large = (ImageResult.model_validate_json(line) for line in outcome.out.splitlines())
    assert outcome.status == 2
    assert small.error is None
    assert "above the limit of 10,000" in str(large.error) and "--max-megapixels" in str(large.error)


def test_the_program_and_the_python_class_give_the_same_result(
    program: Program, demo_category: Category, fitted_detector: AnomalyDetector
) -> None:
    paths = [item.path for item in demo_category.test]
    outcome = program("score", *paths, "--json", "--no-csv")
    predictions = fitted_detector.score_batch([np.asarray(read_image(path)) for path in paths])
    expected = [
        scored_result(prediction, image=str(path), model=fitted_detector.reference)
        for path, prediction in zip(paths, predictions, strict=True)
    ]
    assert [ImageResult.model_validate_json(line) for line in outcome.out.splitlines()] == expected
    assert {each.verdict for each in expected} >= {"ok", "ng"}


def test_the_exported_graph_and_its_json_give_the_same_score_p_value_and_verdict(
    demo_category: Category, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    written = export_model(fitted_detector, "onnx", tmp_path / "part.onnx")
    facts = json.loads(written.metadata.read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(written.graph, providers=["CPUExecutionProvider"])
    paths = [item.path for item in demo_category.test]
    for path, prediction in zip(paths, fitted_detector.score_batch(paths), strict=True):
        pixels = resize(read_image(path), tuple(facts["input"]["shape"][1:3]))
        score = float(session.run(["score"], {"pixels": pixels[None]})[0][0])
        higher = sum(good >= score for good in facts["good_scores"])
        ok = "ok" if facts["review_threshold"] is None or score <= facts["review_threshold"] else "review"
        assert score == prediction.score
        assert (1 + higher) / (len(facts["good_scores"]) + 1) == prediction.p_value
        assert ("ng" if score > facts["threshold"] else ok) == prediction.verdict


def test_parts_for_review_alone_are_status_0_and_said(
    program: Program,
    workdir: Path,
    fitted_detector: AnomalyDetector,
    sorted_images: tuple[list[Path], list[Path]],
) -> None:
    highest = max(sorted_images[0], key=lambda path: fitted_detector.score(path).score)
    score = fitted_detector.score(highest).score
    manifest = json.loads((workdir / "models" / fitted_detector.name / "model.json").read_text())
    manifest["calibration"] |= {"threshold": score, "review_threshold": score * 0.99, "review_rate": 0.5}
    (workdir / "models" / fitted_detector.name / "model.json").write_text(json.dumps(with_digest(manifest)))
    outcome = program("score", highest)
    assert outcome.status == 0 and outcome.out.splitlines()[1].split()[2] == "review"
    assert "0 of 1 images above the threshold" in outcome.err and "1 for review" in outcome.err


@pytest.mark.slow
def test_outlines_of_regions_are_printed_whole_and_kept_where_they_are_printed_last(
    program: Program, demo_category: Category, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[ImageResult] = []

    def write(results: list[ImageResult]) -> str:
        kept.extend(results)
        return results_csv(results)

    monkeypatch.setattr("energyad.scoring.results.results_csv", write)
    corners = []
    for options in ([], ["--fdr", "0.3"]):
        kept.clear()
        printed = program("score", demo_category.root / "test", "--json", *options).out.splitlines()
        corners.append([len(region["polygon"]) for line in printed for region in json.loads(line)["regions"]])
        held = [len(region.polygon) for result in kept for region in result.regions]
        assert sorted(held) == (sorted(corners[-1]) if options else [1] * len(held))
    assert corners[0] == corners[1] and max(corners[0]) > 2


def test_a_false_discovery_rate_gives_q_values_and_says_what_few_good_parts_allow(
    program: Program, demo_category: Category
) -> None:
    outcome = program("score", demo_category.root / "test", "--fdr", "0.3", "--json")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["q_value"] for row in rows] == list(benjamini_hochberg([row["p_value"] for row in rows]))
    called = sum(row["q_value"] <= 0.3 for row in rows)
    assert f"{called} of them stand out" in outcome.err
    assert "so of 1 images none can" in program("score", rows[0]["image"], "--fdr", "0.1").err
    assert is_one_line_error(program("score", rows[0]["image"], "--fdr", "1.5"), "--fdr 1.5")


def test_names_that_are_not_utf8_or_would_steer_a_terminal_are_written_out(
    program: Program, workdir: Path, sorted_images: tuple[list[Path], list[Path]]
) -> None:
    names = [b"caf\xe9.png", b"red\x1b[31m.png", b"two\nlines.png", "right\u202eleft.png".encode()]
    for name in names:
        shutil.copy(sorted_images[0][0], workdir / os.fsdecode(name))
    outcome = program("score", *(os.fsdecode(name) for name in names), "--heatmaps")
    assert outcome.status == 0
    assert len(outcome.out.splitlines()) == 1 + len(names)
    for shown in ("caf\\xe9.png", "red\\x1b[31m.png", "two\\nlines.png", "right\\u202eleft.png"):
        assert shown in outcome.out
    rows = list(csv.DictReader((workdir / "scores.csv").open(encoding="utf-8", newline="")))
    assert len(rows) == len(names) and all(row["verdict"] == "ok" for row in rows)


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_file_name_never_reaches_a_spreadsheet_as_a_formula(
    program: Program, workdir: Path, sorted_images: tuple[list[Path], list[Path]], start: str
) -> None:
    shutil.copy(sorted_images[0][0], workdir / f"{start}1+2.png")
    program("score", "--", f"{start}1+2.png")
    (row,) = csv.DictReader((workdir / "scores.csv").open())
    assert row["image"] == f"'{start}1+2.png" and float(row["score"]) > 0


def test_scores_are_not_written_over_an_image(
    program: Program, workdir: Path, sorted_images: tuple[list[Path], list[Path]]
) -> None:
    image = Path(shutil.copy(sorted_images[0][0], workdir / "part.jpg"))
    before = image.read_bytes()
    outcome = program("score", "part.jpg", "--csv", "part.jpg")
    assert is_one_line_error(outcome, "--csv part.jpg")
    assert image.read_bytes() == before


@pytest.mark.slow
def test_json_stays_json_on_a_terminal_of_another_encoding(
    program: Program, workdir: Path, sorted_images: tuple[list[Path], list[Path]]
) -> None:
    shutil.copy(sorted_images[0][0], workdir / "café.png")
    command = [sys.executable, "-m", "energyad", "score", "café.png", "--json", "--no-csv"]
    for encoding in ("cp1251", "latin-1", "utf-8"):  # the first has no é
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, cwd=workdir, env=environment, capture_output=True, check=True)
        assert json.loads(done.stdout.decode(encoding))["image"] == "café.png"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--engine", "spark"), "choose local or ray"),
        (("--engine", "ray"), "--output"),
        (("--engine", "ray", "--output", "out", "--heatmaps"), "--heatmaps"),
    ],
)
def test_what_an_engine_does_not_know_is_named(words: tuple[str, ...], named: str, program: Program) -> None:
    assert is_one_line_error(program("score", "images", *words), named)
