"""Laws of the examples: each gives the scores of the detector, to the digits that it prints."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.images.reading import read_image
from energyad.service.app import create_app
from energyad.service.settings import ServiceSettings
from tests import ROOT
from tests.service.serving import on_a_port

EXAMPLES = ROOT / "examples"
KEY = "0123456789abcdef"


def run(example: str, *words: str | Path, **environment: str) -> list[list[str]]:
    """Words of the lines that an example prints."""
    command = [sys.executable, EXAMPLES / example, *words]
    outcome = subprocess.run(command, capture_output=True, text=True, env={"PATH": "", **environment})
    assert outcome.returncode == 0, outcome.stderr
    return [line.split() for line in outcome.stdout.splitlines()]


def test_the_client_prints_what_the_service_says(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    paths = [item.path for item in demo_category.test[:6]]
    app = create_app([fitted_detector], ServiceSettings(api_key=KEY, decode_seconds=None))
    with on_a_port(app) as address:
        lines = run("service_client.py", address, *paths, ENERGYAD_API_KEY=KEY)
    for path, (score, verdict, name) in zip(paths, lines, strict=True):
        prediction = fitted_detector.score(path)
        assert float(score) == pytest.approx(prediction.score, rel=1e-4)
        assert (verdict, name) == (prediction.verdict, str(path))


def test_the_camera_loop_scores_each_frame(
    fitted_detector: AnomalyDetector,
    demo_category: Category,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frames = [read_image(item.path) for item in demo_category.test[:5]]
    video = str(tmp_path / "line.avi")
    size = frames[0].shape[1::-1]
    writer = cv2.VideoWriter(video, cv2.VideoWriter.fourcc(*"FFV1"), 5, size)  # without loss
    if not writer.isOpened():
        pytest.skip("this OpenCV has no codec without loss")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    monkeypatch.setattr("energyad.load", lambda folder: fitted_detector)
    monkeypatch.setattr(sys, "argv", ["opencv_loop.py", "models/part", video])
    load_example("opencv_loop", {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    scores = [prediction.score for prediction in fitted_detector.score_batch(frames)]
    assert [int(number) for number, *_ in lines] == list(range(5))
    assert [float(score) for _, score, _ in lines] == pytest.approx(scores, rel=1e-2)  # the codec's colours


def load_example(name: str, modules: dict[str, ModuleType]) -> ModuleType:
    """An example as a module, beside these stand-ins."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for known, stand_in in modules.items():
            patch.setitem(sys.modules, known, stand_in)
        spec.loader.exec_module(module)
    return module


class StandInNode:
    """What the example uses of a ROS 2 node."""

    def __init__(self, name: str) -> None:
        self.published: list[Any] = []
        self.logged: list[str] = []
        self.on_message: dict[str, Callable[[Any], None]] = {}

    def declare_parameter(self, name: str, default: str) -> SimpleNamespace:
        return SimpleNamespace(value=default)

    def create_publisher(self, kind: type, topic: str, depth: int) -> SimpleNamespace:
        return SimpleNamespace(publish=self.published.append)

    def create_subscription(
        self, kind: type, topic: str, callback: Callable[[Any], None], depth: int
    ) -> None:
        self.on_message[topic] = callback

    def get_logger(self) -> SimpleNamespace:
        return SimpleNamespace(error=self.logged.append)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "16UC1"])
@pytest.mark.parametrize("padding", [0, 5])
def test_the_ros_node_publishes_the_result_of_each_image(
    fitted_detector: AnomalyDetector,
    demo_category: Category,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    padding: int,
) -> None:
    monkeypatch.setattr("energyad.load", lambda folder: fitted_detector)
    stand_ins = {
        "rclpy": SimpleNamespace(),
        "rclpy.node": SimpleNamespace(Node=StandInNode),
        "sensor_msgs.msg": SimpleNamespace(Image=object),
        "std_msgs.msg": SimpleNamespace(String=SimpleNamespace),
    }
    node = load_example("ros2_node", stand_ins).Inspection()  # type: ignore[arg-type]
    image = read_image(demo_category.test[-1].path)
    if encoding == "mono8":
        image = np.repeat(image[:, :, 1:2], 3, axis=2)
    stored = {"rgb8": image, "bgr8": image[:, :, ::-1], "mono8": image[:, :, :1]}.get(encoding, image)
    rows = np.pad(stored.reshape(len(stored), -1), ((0, 0), (0, padding)))
    node.on_message["image"](
        SimpleNamespace(
            encoding=encoding,
            height=len(image),
            width=image.shape[1],
            step=rows.shape[1],
            data=rows.tobytes(),
            header=SimpleNamespace(stamp=SimpleNamespace(sec=7, nanosec=5)),
        )
    )
    if encoding == "16UC1":
        assert node.published == [] and "encoding 16UC1" in node.logged[0]
        return
    result = json.loads(node.published[0].data)
    assert result["image"] == "7.000000005"
    assert result["score"] == pytest.approx(fitted_detector.score(image).score, rel=1e-4)


FLOW = json.loads((EXAMPLES / "node_red_flow.json").read_text())


def test_the_flow_has_no_loose_wire() -> None:
    nodes = {node["id"]: node for node in FLOW}
    assert len(nodes) == len(FLOW)
    for node in FLOW[1:]:
        assert node["z"] == "tab"
        assert len(node["wires"]) == node.get("outputs", len(node["wires"]))
        assert all(target in nodes for wires in node["wires"] for target in wires)


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_functions_of_the_flow_sort_by_verdict(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    results = [fitted_detector.score_image(item.path).result() for item in demo_category.test]
    payloads = [json.loads(result.json_line()) for result in results]
    (code,) = [node["func"] for node in FLOW if node["id"] == "verdict"]
    messages = [{"filename": "x.png", "statusCode": 200, "payload": payload} for payload in payloads]
    messages.append({"filename": "x.png", "statusCode": 429, "payload": {}})
    script = f"const f = (msg) => {{ {code} }}; console.log(JSON.stringify({json.dumps(messages)}.map(f)))"
    outcome = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    *sorted_out, busy = json.loads(outcome.stdout)
    for payload, outputs in zip(payloads, sorted_out, strict=True):
        place = 0 if payload["verdict"] == "ok" else 1
        assert outputs[place]["payload"]["score"] == payload["score"] and outputs[1 - place] is None
    assert {payload["verdict"] for payload in payloads} >= {"ok", "ng"}
    assert busy[0] is None and busy[1]["payload"]["verdict"] == "review"
