"""Laws of `energyad models` and `evaluate`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from energyad.data.datasets import Category
from energyad.evaluation.evaluate import Evaluation

from .outcome import Program, is_one_line_error


def test_no_model_many_models_and_a_damaged_one_are_said(
    program: Program, workdir: Path, model_folder: Path
) -> None:
    assert is_one_line_error(program("score", ".", "--model", "nut"), "nut", model_folder.name)
    shutil.copytree(model_folder, workdir / "models" / "other")
    assert is_one_line_error(program("score", "."), "--model", "other")
    with (workdir / "models" / "other" / "scorer.onnx").open("ab") as file:
        file.write(b"x")
    assert is_one_line_error(program("score", ".", "-m", "other"), "no image")
    shutil.copy(model_folder / "scorer.onnx", workdir / "part.png")
    assert is_one_line_error(program("score", "part.png", "-m", "other"), "scorer.onnx", "altered")
    shutil.rmtree(workdir / "models")
    assert is_one_line_error(program("score", "part.png"), "energyad fit")


def test_models_tells_whole_ones_from_damaged_ones(
    program: Program, workdir: Path, model_folder: Path
) -> None:
    whole = program("models")
    assert whole.status == 0 and whole.out.splitlines()[1].endswith("ok")
    assert model_folder.name in whole.out and "tf_efficientnet_lite0" in whole.out
    shutil.copytree(model_folder, workdir / "models" / "hurt")
    (workdir / "models" / "hurt" / "detector.safetensors").unlink()
    damaged = program("models", "--json")
    problems = {model["name"]: model["problem"] for model in map(json.loads, damaged.out.splitlines())}
    assert damaged.status == 2
    assert problems[model_folder.name] is None and "detector.safetensors" in problems["hurt"]
    (workdir / "models" / "hurt" / "model.json").write_text("{")
    assert "model.json" in program("models").out


def test_models_verbose_shows_the_health_of_each_training(
    program: Program, workdir: Path, model_folder: Path
) -> None:
    shown = program("models", "--verbose")
    listed = json.loads(program("models", "--json").out)["training_health"]
    assert shown.status == 0 and len(listed) >= 1
    assert all(health["verdict"] in shown.out for health in listed)
    assert "AUROC" not in program("models").out


@pytest.mark.slow
def test_evaluate_json_is_one_object_with_the_promised_keys(
    program: Program, workdir: Path, demo_category: Category
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
    assert (workdir / "r" / "index.html").is_file() and (workdir / "r" / "sheet.png").is_file()


def test_evaluate_without_masks_has_null_pixel_figures(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    shutil.copytree(demo_category.root, workdir / "data" / demo_category.name)
    shutil.rmtree(workdir / "data" / demo_category.name / "ground_truth")
    arguments = ("evaluate", "--category", demo_category.name, "--data-root", "data")
    values = json.loads(program(*arguments, "--json").out)
    assert (values["pixel_auroc"], values["aupro"]) == (None, None)
    assert values["image_auroc"] > 0.5
    table = program(*arguments).out
    assert all(name in table for name in demo_category.defect_types)
    assert "image AUROC" in table


@pytest.mark.slow
def test_a_labelled_data_set_has_the_figures_of_its_category(
    program: Program, workdir: Path, demo_category: Category, evaluation: Evaluation
) -> None:
    rows = [("image", "label", "kind", "mask")]
    for item in demo_category.test:
        rows.append(
            (str(item.path), "defect", item.defect_type, str(item.mask))
            if item.is_defective
            else (str(item.path), "good", "", "")
        )
    (workdir / "labels.csv").write_text("\n".join(map(",".join, rows)))
    values = json.loads(program("evaluate", "--labels", "labels.csv", "--json").out)
    for name in ("image_auroc", "pixel_auroc", "aupro", "f1_max"):
        assert values[name] == pytest.approx(evaluation.to_dict()[name], abs=1e-3)
    assert is_one_line_error(program("evaluate", "--labels", "labels.csv", "--category", "a"), "--labels")


def test_a_model_is_pushed_to_a_registry_and_pulled(
    program: Program, workdir: Path, model_folder: Path
) -> None:
    pushed = program("models", "push", model_folder.name, "registry")
    pulled = program("models", "pull", f"registry/{model_folder.name}", "models/copy")
    assert pushed.status == pulled.status == 0
    assert pushed.out == pulled.out and len(pushed.out.strip()) == 64
    for path in model_folder.iterdir():
        assert (workdir / "models" / "copy" / path.name).read_bytes() == path.read_bytes()


def test_what_is_missing_in_push_and_pull_is_named(program: Program) -> None:
    assert is_one_line_error(program("models", "push", "part"), "registry")
    assert is_one_line_error(program("models", "pull", "registry/part"), "no model here")
    assert is_one_line_error(program("models", "one", "two"), "one folder")
