"""Laws of `energyad export`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnxruntime
import pytest

from energyad.data.datasets import Category
from energyad.detector import export
from energyad.runtimes import RawScores

from .outcome import Program, is_one_line_error


def test_export_writes_the_graph_and_what_to_know_of_it(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    outcome = program("export", "--verify", demo_category.test[0].path)
    name = demo_category.name
    assert outcome.status == 0
    assert f"{name}.onnx" in outcome.err and "1 image against PyTorch" in outcome.out
    assert (workdir / f"{name}.onnx").is_file()
    assert json.loads((workdir / f"{name}.onnx.json").read_text(encoding="utf-8"))["file"] == f"{name}.onnx"


def test_a_graph_that_differs_is_an_error_of_one_line(
    program: Program, demo_category: Category, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.open_exported
    monkeypatch.setattr(
        export,
        "open_exported",
        lambda graph: lambda pixels: RawScores(*(2 * each for each in real(graph)(pixels)[:2])),
    )
    assert is_one_line_error(program("export", "--verify", demo_category.test[0].path), "tolerance")


def test_export_for_triton_writes_a_folder_of_its_model_repository(
    program: Program, workdir: Path, demo_category: Category, model_folder: Path
) -> None:
    outcome = program(
        "export", "--format", "triton", "-o", "repository/part", "--verify", demo_category.test[0].path
    )
    folder = workdir / "repository" / "part"
    config = (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert outcome.status == 0 and "1 image against PyTorch" in outcome.out
    assert (folder / "1" / "model.onnx").read_bytes() == (model_folder / "scorer.onnx").read_bytes()
    assert 'name: "part"' in config and "dynamic_batching" in config
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        dims = tensor.shape[1:] or "[1] reshape: { shape: [] }"
        assert re.search(rf'name: "{tensor.name}" data_type: TYPE_\w+ dims: {re.escape(str(dims))}', config)


def test_an_unknown_format_names_the_known_ones(program: Program) -> None:
    assert is_one_line_error(program("export", "--format", "tflite"), "onnx, openvino, pt2")


def test_runtimes_can_be_chosen_and_an_unknown_one_is_named(
    program: Program, demo_category: Category
) -> None:
    path = demo_category.test[0].path
    found = [program("score", path, "--no-csv", "--runtime", name).out for name in ("auto", "torch")]
    assert found[0] == found[1]
    assert is_one_line_error(program("score", path, "--runtime", "tflite"), "tflite", "onnxruntime")
