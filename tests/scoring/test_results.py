"""Laws of the JSON result: what the schema promises is what is given."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.line.journal import read_journal
from energyad.scoring.calibration import calibrate
from energyad.scoring.prediction import predict
from energyad.scoring.results import (
    ImageResult,
    ModelReference,
    by_score,
    json_schema,
    results_csv,
    scored_result,
    unreadable_result,
    with_q_values,
)
from tests import ROOT

SCHEMA = ROOT / "docs" / "schema" / "result.schema.json"
RULE = calibrate(np.linspace(0.5, 1.0, 39), false_reject_rate=0.025, review_rate=0.25)
MODEL = ModelReference(name="gasket", sha256="0" * 64, calibrated=None)


def result(peak: float, image: str = "part.png") -> ImageResult:
    heatmap = np.full((8, 8), 0.1, np.float32)
    heatmap[3:5, 2:6] = peak
    return scored_result(predict(heatmap, RULE, shape=(40, 30)), image=image, model=MODEL)


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json_schema(), (
        "python -m energyad.scoring.results > docs/schema/result.schema.json"
    )


def test_real_results_keep_to_the_published_schema(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    paths = [item.path for item in demo_category.test]
    for path, prediction in zip(paths, fitted_detector.stream(paths), strict=True):
        line = scored_result(prediction, image=str(path), model=fitted_detector.reference).json_line()
        validator.validate(json.loads(line))
        assert "\n" not in line
    bad = unreadable_result("it is empty", image="a", model=MODEL, calibration=RULE)
    validator.validate(json.loads(bad.json_line()))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**json.loads(bad.json_line()), "verdict": "fine"})


def test_results_survive_a_file_bit_for_bit(tmp_path: Path) -> None:
    kept = [
        result(float(np.float32(1.1))),
        result(0.2),
        unreadable_result("it is empty", image="b", model=MODEL, calibration=RULE),
    ]
    file = tmp_path / "results.jsonl"
    file.write_text("".join(f"{each.json_line()}\n" for each in kept), encoding="utf-8")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [ImageResult.model_validate_json(line) for line in lines] == kept


@pytest.mark.parametrize("line", ["{", "[]", "[" * 10_000, '{"schema_version": 2}', "null"])
def test_a_line_that_is_no_result_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(f"{result(2.0).json_line()}\n{line}\n{result(2.0).json_line()}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"results\.jsonl, line 2"):
        read_journal(file)


def test_the_verdict_and_regions_in_json_are_those_of_the_prediction() -> None:
    ng, ok = json.loads(result(2.0).json_line()), json.loads(result(0.2).json_line())
    assert (ng["verdict"], ng["width"], ng["height"]) == ("ng", 30, 40)
    assert ng["regions"][0]["peak"] == ng["score"] and ng["regions"][0]["p_value"] == ng["p_value"] == 1 / 40
    assert (ok["verdict"], ok["regions"], ok["p_value"]) == ("ok", [], 1.0)


def test_the_highest_score_comes_first_and_the_unreadable_last() -> None:
    bad = unreadable_result("it is empty", image="a", model=MODEL, calibration=RULE)
    order = by_score([bad, result(0.2, "low"), result(2.0, "high")])
    assert [each.image for each in order] == ["high", "low", "a"]
    rows = list(csv.DictReader(io.StringIO(results_csv(order))))
    assert [row["verdict"] for row in rows] == ["ng", "ok", ""]
    assert [row["regions"] for row in rows] == ["1", "0", ""]


def test_q_values_belong_to_the_batch_and_leave_the_unreadable_out() -> None:
    bad = unreadable_result("it is empty", image="a", model=MODEL, calibration=RULE)
    batch = with_q_values([result(2.0), bad, result(0.2), result(3.0)])
    assert [each.q_value for each in batch] == [pytest.approx(1.5 / 40), None, 1.0, pytest.approx(1.5 / 40)]
    assert with_q_values([]) == []
