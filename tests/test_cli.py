"""Laws of the program: what goes where, which status, and that every error is one line and loses nothing."""

from __future__ import annotations

import csv
import functools
import io
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import energyad.cli
from energyad.artifact import read_manifest
from energyad.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.images import read_image
from energyad.settings import FitSettings


@dataclass(frozen=True)
class Outcome:
    """What one run of the program left behind."""

    status: int
    out: str
    err: str


Program = Callable[..., Outcome]


@pytest.fixture
def house(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one model under models/."""
    shutil.copytree(model_folder, tmp_path / "models" / model_folder.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYAD_DATA_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def program(house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """Runs the program in `house`."""

    def run(*arguments: object, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["energyad", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            energyad.cli.main()
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err  # no colours where there is no terminal
        return Outcome(int(stopped.value.code or 0), out, err)

    return run


@pytest.fixture
def quick_fit(quick_settings: FitSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits take a second."""
    quick: dict[str, Any] = {"warmup_iterations": 20, "iterations": 2}
    quick |= {
        key: getattr(quick_settings, key)
        for key in ("image_size", "num_latents", "energy_width", "bottleneck")
    }
    monkeypatch.setattr("energyad.settings.FitSettings", lambda **given: FitSettings(**{**quick, **given}))


@pytest.fixture(scope="session")
def sorted_images(fitted_detector: AnomalyDetector, demo_category: Category) -> tuple[list[Path], list[Path]]:
    """Test images that the detector calls normal, and those that it calls anomalous."""
    paths = [item.path for item in demo_category.test]
    predictions = fitted_detector.score_batch(paths)
    both = [
        [p for p, s in zip(paths, predictions, strict=True) if s.is_anomalous == kind]
        for kind in (False, True)
    ]
    assert all(both)
    return both[0], both[1]


def is_one_line_error(outcome: Outcome, *words: str) -> bool:
    """Status 2, nothing on standard output, no stack trace, and the last line names what it should."""
    last = outcome.err.strip().splitlines()[-1]
    assert outcome.status == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert last.startswith("error: ") and outcome.err.count("error: ") == 1
    assert all(word in last for word in words), last
    return True


def test_help_loads_nothing_heavy_and_lists_every_command() -> None:
    code = "import sys, energyad.cli; print([m for m in ('torch','onnxruntime','cv2','numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    done = subprocess.run([sys.executable, "-m", "energyad", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in energyad.cli.COMMANDS)


def test_every_command_has_help_and_the_program_a_version(program: Program) -> None:
    for name in energyad.cli.COMMANDS:
        helped = program(name, "--help")
        assert helped.status == 0 and f"Usage: energyad {name}" in helped.out
    assert program("--version").out.startswith("energyad ")


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["score"], ["fit", "--seed", "x"], ["score", "--nope", "a"]]
)
def test_a_usage_error_is_status_2(program: Program, arguments: list[str]) -> None:
    outcome = program(*arguments)
    assert (outcome.status, outcome.out) == (2, "")


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


def test_no_model_many_models_and_a_damaged_one_are_said(
    program: Program, house: Path, model_folder: Path
) -> None:
    assert is_one_line_error(program("score", ".", "--model", "nut"), "nut", model_folder.name)
    shutil.copytree(model_folder, house / "models" / "other")
    assert is_one_line_error(program("score", "."), "--model", "other")
    with (house / "models" / "other" / "scorer.onnx").open("ab") as file:
        file.write(b"x")
    assert is_one_line_error(program("score", ".", "-m", "other"), "no image")
    shutil.copy(model_folder / "scorer.onnx", house / "part.png")
    assert is_one_line_error(program("score", "part.png", "-m", "other"), "scorer.onnx", "altered")
    shutil.rmtree(house / "models")
    assert is_one_line_error(program("score", "part.png"), "energyad fit")


def test_evaluate_json_is_one_object_with_the_promised_keys(
    program: Program, house: Path, demo_category: Category
) -> None:
    root = demo_category.root.parent
    outcome = program(
        "evaluate", "--category", demo_category.name, "--data-root", root, "--json", "--report", "r"
    )
    values = json.loads(outcome.out)
    assert outcome.status == 0
    for key in ("image_auroc", "pixel_auroc", "aupro", "f1_max"):
        assert 0.5 < values[key] <= 1
    assert {row["defect_type"] for row in values["types"]} == {"good", *demo_category.defect_types}
    assert (house / "r" / "index.html").is_file() and (house / "r" / "sheet.png").is_file()


def test_evaluate_without_masks_has_null_pixel_figures(
    program: Program, house: Path, demo_category: Category
) -> None:
    shutil.copytree(demo_category.root, house / "data" / demo_category.name)
    shutil.rmtree(house / "data" / demo_category.name / "ground_truth")
    arguments = ("evaluate", "--category", demo_category.name, "--data-root", "data")
    values = json.loads(program(*arguments, "--json").out)
    assert (values["pixel_auroc"], values["aupro"]) == (None, None)
    assert values["image_auroc"] > 0.5
    table = program(*arguments).out
    assert all(name in table for name in demo_category.defect_types)
    assert "image AUROC" in table


def test_models_tells_whole_ones_from_damaged_ones(program: Program, house: Path, model_folder: Path) -> None:
    whole = program("models")
    assert whole.status == 0 and whole.out.splitlines()[1].endswith("ok")
    assert model_folder.name in whole.out and "tf_efficientnet_lite0" in whole.out
    shutil.copytree(model_folder, house / "models" / "hurt")
    (house / "models" / "hurt" / "detector.safetensors").unlink()
    damaged = program("models", "--json")
    problems = {model["name"]: model["problem"] for model in map(json.loads, damaged.out.splitlines())}
    assert damaged.status == 2
    assert problems[model_folder.name] is None and "detector.safetensors" in problems["hurt"]
    (house / "models" / "hurt" / "model.json").write_text("{")
    assert "model.json" in program("models").out


@pytest.mark.usefixtures("quick_fit")
def test_fit_puts_a_model_where_it_says_and_says_what_to_type_next(
    program: Program, house: Path, demo_category: Category
) -> None:
    images = demo_category.root / "train" / "good"
    outcome = program("fit", "--images", images, "--name", "gasket", "--seed", 3, "--threads", 1)
    manifest = read_manifest(house / "models" / "gasket")
    assert (outcome.status, outcome.out) == (0, "")
    assert (manifest.name, manifest.provenance.seed, manifest.input.image_size) == ("gasket", 3, 128)
    assert "models/gasket" in outcome.err and "energyad score IMAGES --model gasket" in outcome.err
    root = demo_category.root.parent
    named = program(
        "fit", "--category", demo_category.name, "--data-root", root, "--output", "here", "--quiet"
    )
    assert (named.status, named.out, named.err) == (0, "", "")
    assert program("score", images / "000.png", "--model", "here").status in {0, 1}


@pytest.mark.usefixtures("quick_fit")
def test_fit_warns_below_eight_images_and_stops_at_a_bad_one_unless_told_to_skip(
    program: Program, house: Path, demo_category: Category
) -> None:
    (house / "good").mkdir()
    for path in demo_category.train_good[:3]:
        shutil.copy(path, house / "good")
    (house / "good" / "bad.png").touch()
    stopped = program("fit", "--images", "good", "--quiet")
    assert is_one_line_error(stopped, "bad.png", "--skip-bad")
    assert not (house / "models" / "good").exists()
    skipped = program("fit", "--images", "good", "--skip-bad")
    assert skipped.status == 0
    lines = [line for line in skipped.err.splitlines() if line.startswith("warning: ")]
    assert any("bad.png" in line for line in lines) and any("only 3 good images" in line for line in lines)
    assert "UserWarning" not in skipped.err


def test_fit_refuses_what_cannot_be_fitted(program: Program, house: Path, demo_category: Category) -> None:
    (house / "empty").mkdir()
    (house / "one").mkdir()
    shutil.copy(demo_category.train_good[0], house / "one")
    assert is_one_line_error(program("fit"), "--category", "--images")
    assert is_one_line_error(
        program("fit", "--category", "bottle"),
        "bottle",
        "datasets/MVTecAD",
        "--data-root",
        "--download",
        "demo",
    )
    assert is_one_line_error(program("fit", "--images", "empty", "-q"), "empty", "no image")
    assert is_one_line_error(program("fit", "--images", "one", "-q"), "at least 2")
    assert is_one_line_error(program("fit", "--images", "one", "--name", "../up"), "../up")
    assert is_one_line_error(program("fit", "--images", "one", "--output", "one"), "one", "--output")
    many = demo_category.root / "train" / "good"
    assert is_one_line_error(program("fit", "--images", many, "-q", "--backbone", "resnet81"), "resnet18")
    weights = program("fit", "--images", many, "-q", "--backbone-weights", "w.safetensors")
    assert is_one_line_error(weights, "w.safetensors")


def test_a_fit_that_is_stopped_leaves_the_old_model_whole(
    program: Program, house: Path, demo_category: Category, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AnomalyDetector, "fit", stop)
    before = {path: path.read_bytes() for path in sorted((house / "models").rglob("*")) if path.is_file()}
    root = demo_category.root.parent
    outcome = program("fit", "--category", demo_category.name, "--data-root", root, "-q")
    assert is_one_line_error(outcome, "stopped")
    assert before == {
        path: path.read_bytes() for path in sorted((house / "models").rglob("*")) if path.is_file()
    }


def test_a_fault_shows_its_stack_only_with_debug(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("what nobody thought of")

    monkeypatch.setattr("energyad.artifact.list_models", fault)
    assert is_one_line_error(program("models"), "ZeroDivisionError", "--debug")
    for arguments in (("--debug", "models"), ("models", "--debug")):
        assert "Traceback" in program(*arguments).err


def test_warnings_are_lines_and_quiet_is_quiet(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def uneasy(*_: object) -> list[Path]:
        warnings.warn("the lamp\nflickers", stacklevel=2)
        return []

    monkeypatch.setattr("energyad.artifact.list_models", uneasy)
    assert "warning: the lamp flickers\n" in program("models").err
    assert program("models", "--quiet").err == ""


@pytest.mark.usefixtures("quick_fit")
def test_demo_leaves_a_model_a_sheet_and_a_page_and_says_that_it_is_synthetic(
    program: Program, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from energyad import demo

    small = functools.partial(demo.render_demo, train=8, good=3, per_flaw=2, size=96)
    monkeypatch.setattr("energyad.demo.render_demo", small)
    for name in ("WARMUP_ITERATIONS", "ITERATIONS"):
        monkeypatch.setattr(sys.modules["energyad.cli.demo"], name, 20)
    outcome = program("demo", "--threads", 1)
    assert outcome.status == 0
    assert "ynthetic" in outcome.err and "image AUROC" in outcome.out
    page = (house / "demo" / "index.html").read_text()
    assert "nothing about real parts" in page and page.count("<figure>") == 15
    assert read_image(house / "demo" / "sheet.png").shape[2] == 3
    assert program("models", "demo/models").out.splitlines()[1].endswith("ok")
    assert program("score", "demo/datasets", "--model", "demo/models/synthetic_bottle").status in {0, 1}
