"""The KServe V2 protocol: Triton's own client gets what the class says, and a wrong request one line."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.service.app import create_app
from energyad.service.settings import ServiceSettings

from .serving import client_of, serving

INFER = "/v2/models/{}/infer"


def bytes_input(*images: bytes) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data}


def post(client: TestClient, name: str, content: object) -> Any:
    return client.post(INFER.format(name), json=content)


def outputs_of(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def test_images_in_json_get_what_the_class_says(
    client: TestClient, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    paths = [item.path for item in demo_category.test[:3]]
    answer = post(
        client,
        fitted_detector.name,
        {"id": "7", "inputs": [bytes_input(*(path.read_bytes() for path in paths))]},
    )
    outputs = outputs_of(answer)
    expected = fitted_detector.score_batch(paths)
    assert answer.json()["id"] == "7" and answer.json()["model_name"] == fitted_detector.name
    assert outputs["score"] == pytest.approx([prediction.score for prediction in expected], rel=1e-5)
    assert outputs["verdict"] == [prediction.verdict for prediction in expected]
    assert [json.loads(text)["verdict"] for text in outputs["result"]] == outputs["verdict"]


def test_an_image_that_cannot_be_read_costs_its_own_row(
    client: TestClient, fitted_detector: AnomalyDetector, defective: Path
) -> None:
    content = {"inputs": [bytes_input(b"no image", defective.read_bytes())], "outputs": [{"name": "score"}]}
    outputs = outputs_of(post(client, fitted_detector.name, content))
    assert outputs["score"][0] is None and outputs["score"][1] > 0


def test_pixels_are_scored_as_their_file_is(
    client: TestClient, fitted_detector: AnomalyDetector, defective: Path
) -> None:
    pixels = fitted_detector.read(defective)
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *pixels.shape], "data": pixels.tolist()}
    tensor["data"] = pixels.reshape(-1).tolist()
    outputs = outputs_of(post(client, fitted_detector.name, {"inputs": [tensor]}))
    assert outputs["score"][0] == pytest.approx(fitted_detector.score(defective).score, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"inputs": []}, 400, "one input"),
        ({"inputs": [{"name": "other", "datatype": "BYTES", "shape": [1], "data": [""]}]}, 400, "one input"),
        ({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": [1]}]}, 400, "datatype"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": [""]}]}, 400, "shape"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [65], "data": [""]}]}, 400, "1 to 64"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["?"]}]}, 400, "base64"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}, 400, "binary_data_size"),
        (
            {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 9**9, 9, 3], "data": [0]}]},
            413,
            "pixels",
        ),
        (
            {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [256] * 12}]},
            400,
            "255",
        ),
        ({"outputs": [{"name": "class"}]}, 400, "no output"),
        ({"inputs": 3}, 400, "inputs"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    change: dict[str, Any], status: int, words: str, client: TestClient, fitted_detector: AnomalyDetector
) -> None:
    answer = post(client, fitted_detector.name, {"inputs": [bytes_input(b"x")], **change})
    assert answer.status_code == status and words in answer.json()["error"]


@pytest.mark.parametrize("binary", [struct.pack("<I", 2**31) + b"x", b"\1\0", struct.pack("<I", 5) + b"1234"])
@pytest.mark.parametrize("length", ["0", "-1", "99999", "x", None])
def test_binary_data_that_are_not_whole_are_refused(
    binary: bytes, length: str | None, client: TestClient, fitted_detector: AnomalyDetector
) -> None:
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": len(binary)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)) if length is None else length}
    answer = client.post(INFER.format(fitted_detector.name), content=head + binary, headers=headers)
    assert answer.status_code == 400 and "error" in answer.json()


def test_metadata_and_health(client: TestClient, fitted_detector: AnomalyDetector) -> None:
    name = fitted_detector.name
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    for address in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{name}/ready"):
        assert client.get(address).status_code == 200, address
    assert client.get(f"/v2/models/{name}").json()["inputs"][0]["name"] == "image"
    assert client.get("/v2/models/other").status_code == 404
    assert client.get(f"/v2/models/{name}/versions/2").status_code == 404


def test_models_need_the_key_and_health_does_not(fitted_detector: AnomalyDetector) -> None:
    settings = ServiceSettings(api_key="0123456789abcdef", decode_seconds=None)
    with client_of(create_app([fitted_detector], settings)) as client:
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2").status_code == 401
        assert post(client, fitted_detector.name, {"inputs": [bytes_input(b"x")]}).status_code == 401
        assert client.get("/v2", headers={"X-API-Key": "0123456789abcdef"}).status_code == 200


def test_a_request_above_the_limit_is_refused(fitted_detector: AnomalyDetector) -> None:
    settings = ServiceSettings(max_upload=1000, decode_seconds=None)
    with client_of(create_app([fitted_detector], settings)) as client:
        answer = post(client, fitted_detector.name, {"inputs": [bytes_input(bytes(2000))]})
        assert answer.status_code == 413


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("kind", ["BYTES", "UINT8"])
def test_tritons_client_gets_what_the_class_says(
    kind: str, is_binary: bool, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    triton = pytest.importorskip("tritonclient.http")
    errors = pytest.importorskip("tritonclient.utils")
    paths = [item.path for item in demo_category.test[:3]]
    if kind == "BYTES" and is_binary:  # the client has no bytes that are no text in JSON
        images = np.array([path.read_bytes() for path in paths], dtype=object)
    elif kind == "BYTES":
        images = np.array([base64.b64encode(path.read_bytes()) for path in paths], dtype=object)
    else:
        images = np.stack([fitted_detector.read(path) for path in paths])
    with serving(fitted_detector) as service:
        client = triton.InferenceServerClient(f"localhost:{service.port}")
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready(fitted_detector.name)
        assert client.get_model_metadata(fitted_detector.name)["name"] == fitted_detector.name
        tensor = triton.InferInput("image", list(images.shape), kind)
        tensor.set_data_from_numpy(images, binary_data=is_binary)
        names = ["score", "verdict", "heatmap"]
        asked = [triton.InferRequestedOutput(name, binary_data=is_binary) for name in names]
        answer = client.infer(fitted_detector.name, [tensor], outputs=asked)
        with pytest.raises(errors.InferenceServerException, match="no such model"):
            client.infer("other", [tensor])
        client.close()
    expected = list(fitted_detector.score_images(paths))
    scores = [image.require().prediction.score for image in expected]
    assert answer.as_numpy("score") == pytest.approx(np.array(scores), rel=1e-5)
    verdicts = [value.decode() if isinstance(value, bytes) else value for value in answer.as_numpy("verdict")]
    assert verdicts == [image.require().prediction.verdict for image in expected]
    for heatmap, image in zip(answer.as_numpy("heatmap"), expected, strict=True):
        np.testing.assert_allclose(heatmap, image.require().network_heatmap, rtol=1e-4)
