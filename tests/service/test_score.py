"""Laws of the answers: the service says what the class and the command line say, and a bad image costs itself alone."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import onnxruntime
import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from energyad.cli import app as program
from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import SettingsError
from energyad.images import reading
from energyad.model import statistics
from energyad.report.overlays import ColourScale, overlay_of
from energyad.scoring import results
from energyad.scoring.results import ImageResult
from energyad.service import examples
from energyad.service.app import create_app
from energyad.service.routes import summary
from energyad.service.settings import ServiceSettings

from .serving import client_of


def without_name(result: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in result.items() if name != "image"}


@pytest.mark.slow
def test_the_class_the_program_the_service_and_the_graph_alone_say_the_same_of_every_image(
    client: TestClient, fitted_detector: AnomalyDetector, model_folder: Path, demo_category: Category
) -> None:
    paths = [item.path for item in demo_category.test]
    printed = CliRunner().invoke(
        program, ["score", *map(str, paths), "--model", str(model_folder), "--json", "--no-csv"]
    )
    by_program = {line["image"]: line for line in map(json.loads, printed.stdout.splitlines())}
    graph, verdicts = onnxruntime.InferenceSession(model_folder / "scorer.onnx"), set()
    rule = fitted_detector.calibration
    for path in paths:
        served = client.post("/v1/score", content=path.read_bytes(), headers={"content-type": "image/png"})
        own = results.scored_result(fitted_detector.score(path), image=None, model=fitted_detector.reference)
        assert served.text == own.json_line()  # every bit of it
        assert without_name(by_program[str(path)]) == without_name(served.json())
        pixels = reading.resize(reading.read_image(path), fitted_detector.input_shape)
        score = float(graph.run(None, {graph.get_inputs()[0].name: pixels[None]})[0][0])
        assert score == pytest.approx(own.score, rel=1e-6)
        assert (rule.verdict(score), rule.p_value(score)) == (own.verdict, own.p_value)
        verdicts.add(own.verdict)
    assert {"ok", "ng"} <= verdicts


def test_a_body_and_a_form_give_one_result_and_a_form_its_name(client: TestClient, defective: Path) -> None:
    data = defective.read_bytes()
    body = client.post("/v1/score", content=data, headers={"content-type": "application/octet-stream"}).json()
    form = client.post("/v1/score", files={"file": ("part 7.png", data)}).json()
    assert without_name(body) == without_name(form)
    assert (body["image"], form["image"]) == (None, "part 7.png")


@pytest.mark.parametrize("asked", [{"params": {"overlay": "true"}}, {"headers": {"accept": "image/png"}}])
def test_the_overlay_is_a_png_at_the_images_own_pixels_with_the_figures_in_its_head(
    client: TestClient, defective: Path, fitted_detector: AnomalyDetector, asked: dict[str, dict[str, str]]
) -> None:
    answer = client.post("/v1/score", files={"file": defective.read_bytes()}, **asked)
    prediction = fitted_detector.score(defective)
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as picture:
        drawn = overlay_of(reading.read_image(defective), prediction)
        np.testing.assert_array_equal(np.asarray(picture), drawn)
    assert float(answer.headers["x-energyad-score"]) == prediction.score
    assert float(answer.headers["x-energyad-p-value"]) == prediction.p_value
    assert answer.headers["x-energyad-verdict"] == prediction.verdict == "ng"


def test_figures_fit_into_a_head_whatever_a_category_is_called(client: TestClient, defective: Path) -> None:
    body = client.post("/v1/score", files={"file": defective.read_bytes()}).json()
    result = ImageResult.model_validate(body)
    assert "X-Energyad-category" not in summary(result)
    named = summary(result.model_copy(update={"category": "ボトル 1\r\nX: y"}))["X-Energyad-category"]
    assert named.isascii() and named.isprintable() and unquote(named) == "ボトル 1\r\nX: y"
    assert float(summary(result)["X-Energyad-score"]) == result.score


def test_pictures_are_of_one_size_and_hot_where_the_heatmap_peaks(
    client: TestClient, defective: Path, fitted_detector: AnomalyDetector
) -> None:
    pictures = client.post(
        "/v1/score", params={"pictures": "true"}, files={"file": defective.read_bytes()}
    ).json()["pictures"]
    image, heat = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[name].partition(",")[2]))))
        for name in ("image", "heatmap")
    )
    assert image.shape == heat.shape
    prediction = fitted_detector.score(defective)
    peak = np.unravel_index(prediction.heatmap.argmax(), prediction.heatmap.shape)
    expected = ColourScale(fitted_detector.threshold).colours(prediction.heatmap)[peak]
    np.testing.assert_array_equal(heat[peak], expected)


def test_a_bad_image_costs_its_own_row_of_a_batch(client: TestClient, demo_category: Category) -> None:
    good = [item.path.read_bytes() for item in demo_category.test[:3]]
    files = [
        ("files", (f"{index}.png", data)) for index, data in enumerate([good[0], b"no picture", *good[1:]])
    ]
    answer = client.post("/v1/score/batch", params={"q_values": "true"}, files=files)
    found = [ImageResult.model_validate(row) for row in answer.json()["results"]]
    assert answer.status_code == 200
    assert [row.image for row in found] == ["0.png", "1.png", "2.png", "3.png"]
    assert found[1].score is None and "PNG" in (found[1].error or "")
    alone = [client.post("/v1/score", files={"file": data}).json()["score"] for data in good]
    assert [found[i].score for i in (0, 2, 3)] == alone
    p, q = ([getattr(found[i], name) for i in (0, 2, 3)] for name in ("p_value", "q_value"))
    assert all(a <= b for a, b in zip(p, q, strict=True)) and found[1].q_value is None


def test_what_is_answered_and_what_the_document_shows_obeys_the_published_schema(
    client: TestClient, defective: Path
) -> None:
    validator = Draft202012Validator(client.get("/v1/schema").json())
    validator.validate(client.post("/v1/score", files={"file": defective.read_bytes()}).json())
    for example in (examples.RESULT, examples.UNREADABLE):
        validator.validate(example)
    document = client.get("/openapi.json").json()
    for address in ("/v1/score", "/v1/score/batch"):
        entry = document["paths"][address]["post"]
        assert "example" in entry["responses"]["200"]["content"]["application/json"]
        assert "multipart/form-data" in entry["requestBody"]["content"]
        assert {"401", "413", "415", "429"} <= set(entry["responses"])


def test_several_models_are_chosen_by_name(fitted_detector: AnomalyDetector, defective: Path) -> None:
    manifest = fitted_detector.manifest.replace(name="bolt")
    other = AnomalyDetector(manifest, fitted_detector.contents, fitted_detector.runtime)
    data = defective.read_bytes()
    with client_of(create_app([fitted_detector, other])) as client:
        names = [model["name"] for model in client.get("/v1/models").json()["models"]]
        assert names == [fitted_detector.name, "bolt"]
        chosen = client.post("/v1/score", params={"model": "bolt"}, files={"file": data})
        assert chosen.json()["model"]["name"] == "bolt"
        for params, status in (({}, 400), ({"model": "nut"}, 404), ({"model": "../bolt"}, 404)):
            answer = client.post("/v1/score", params=params, files={"file": data})
            assert answer.status_code == status and "bolt" in answer.json()["error"]
    with pytest.raises(SettingsError, match="different names"):
        create_app([other, other])


@pytest.mark.slow
def test_a_recalibrated_model_is_taken_up_and_a_damaged_one_is_not(
    model_folder: Path, demo_category: Category, defective: Path, tmp_path: Path
) -> None:
    folder, run = tmp_path / model_folder.name, CliRunner()
    shutil.copytree(model_folder, folder)
    detector = AnomalyDetector.load(folder, threads=1)
    settings = ServiceSettings(api_key="0123456789abcdef")
    app = create_app([detector], settings, load=lambda name: AnomalyDetector.load(folder, threads=1))
    with client_of(app) as client:
        client.headers["x-api-key"] = "0123456789abcdef"

        def served() -> dict[str, object]:
            return without_name(client.post("/v1/score", files={"file": defective.read_bytes()}).json())

        old, address = served(), f"/v1/models/{detector.name}/reload"
        good = demo_category.root / "test" / "good"
        assert run.invoke(program, ["calibrate", str(good), "--model", str(folder), "--quiet"]).exit_code == 0
        assert served() == old
        assert client.post(address).json()["good_parts"] == len(list(good.iterdir()))
        printed = run.invoke(program, ["score", str(defective), "-m", str(folder), "--json", "--no-csv"])
        assert served() == without_name(json.loads(printed.stdout))
        assert served()["threshold"] != old["threshold"] and served()["p_value"] != old["p_value"]
        (folder / "scorer.onnx").write_bytes(b"")
        refused = client.post(address)
        assert refused.status_code == 409 and "old model stays" in refused.json()["error"]
        assert served()["score"] == old["score"]
        assert client.post("/v1/models/..%2fx/reload").status_code == 404


@pytest.mark.slow
def test_models_and_metrics_tell_of_drift(fitted_detector: AnomalyDetector, demo_category: Category) -> None:
    good = reading.read_image(demo_category.train_good[0])
    usual = [
        statistics.PartStatistics(score, 90 + score, 40 + score, 20 + score)
        for score in np.linspace(0, 1, 12)
    ]
    kept = fitted_detector.manifest.replace(good_parts=tuple(usual))
    detector = AnomalyDetector(kept, fitted_detector.contents, fitted_detector.runtime)
    bright = io.BytesIO()
    Image.fromarray(np.minimum(good.astype(int) * 2, 255).astype(np.uint8)).save(bright, "PNG")
    with client_of(create_app([detector])) as fresh:
        assert fresh.get("/v1/models").json()["models"][0]["drift"] == "too few"
        files = [("files", ("x.png", bright.getvalue()))] * 60
        assert fresh.post("/v1/score/batch", files=files).status_code == 200
        entry = fresh.get("/v1/models").json()["models"][0]
        assert entry["drift"] == "shifted" and "recalibrate" in entry["advice"]
        full = fresh.get(f"/v1/models/{fitted_detector.name}/drift").json()
        assert "brightness" in {shift["quantity"] for shift in full["shifts"] if shift["shifted"]}
        figures = fresh.get("/metrics").text
    name = fitted_detector.name
    assert f'energyad_drift_shifted{{model="{name}"}} 1.0' in figures
    assert f'energyad_images_total{{model="{name}",verdict="ng"}} 60.0' in figures
    assert 'energyad_requests_total{route="/v1/score/batch",status="200"} 1.0' in figures


@pytest.mark.slow
def test_an_image_that_takes_too_long_to_decode_costs_itself_alone(
    fitted_detector: AnomalyDetector, defective: Path
) -> None:
    good = defective.read_bytes()
    with client_of(create_app([fitted_detector], ServiceSettings(decode_seconds=2.0))) as client:
        first = client.post("/v1/score", content=good).json()
        decoder = client.app.state.service.decoder  # type: ignore[attr-defined]
        (process,) = [process for process in decoder._idle.queue if process is not None]
        os.kill(process._process.pid, signal.SIGSTOP)  # as a decoder that does not come back
        refused = client.post("/v1/score", content=good)
        assert refused.status_code == 422 and "longer than 2 s" in refused.json()["error"]
        assert client.post("/v1/score", content=good).json() == first
    assert all(process is None for process in decoder._idle.queue)


def test_decoding_in_a_process_and_here_give_the_same_result(
    client: TestClient, fitted_detector: AnomalyDetector, defective: Path
) -> None:
    here = client_of(create_app([fitted_detector], ServiceSettings(decode_seconds=None)))
    for content in (defective.read_bytes(), defective.read_bytes()[:-40], b"no image"):
        answers = [service.post("/v1/score", content=content) for service in (client, here)]
        assert answers[0].text == answers[1].text
