from __future__ import annotations

import importlib.util
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from jaxtyping import UInt8
from onnx import TensorProto, helper, numpy_helper

import energyad.runtimes
from energyad import AnomalyDetector
from energyad.errors import MissingExtraError, ModelError, SettingsError
from energyad.files import CACHE_VARIABLE
from energyad.model.folder import GRAPH_FILE
from energyad.runtimes import RawScores, open_runtime, tuning
from energyad.runtimes.onnx import LONE_CALLS, OnnxRuntime, open_session
from energyad.runtimes.openvino import OpenVinoRuntime
from energyad.runtimes.plan import ConcurrentCalls, Plan, SerialExecutor, default_plan
from energyad.scoring.scorer import Scorer

ENGINES = ("onnxruntime", "openvino", "torch")
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 128, 128, 3), dtype=np.uint8)


def require(engine: str) -> None:
    if engine == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_runtime_gives_the_same_scores_and_verdicts(
    engine: str, model_folder: Path, fitted_detector: AnomalyDetector
) -> None:
    require(engine)
    threads = None if engine == "torch" else 2  # PyTorch's are the whole process's
    other = AnomalyDetector.load(model_folder, threads=threads, runtime=engine)
    assert other.runtime.name == engine
    ours, theirs = fitted_detector.runtime.run(PIXELS), other.runtime.run(PIXELS)
    np.testing.assert_allclose(theirs.score, ours.score, rtol=1e-4)
    np.testing.assert_allclose(theirs.heatmap, ours.heatmap, rtol=1e-4)
    threshold = fitted_detector.threshold
    assert ((theirs.score > threshold) == (ours.score > threshold)).all()


@pytest.mark.parametrize("plan", list(tuning.candidates(3)), ids=str)
def test_no_plan_changes_a_score(plan: Plan, fitted_detector: AnomalyDetector) -> None:
    expected = fitted_detector.runtime.run(PIXELS)
    found = fitted_detector.runtime.with_plan(plan).run(PIXELS)
    np.testing.assert_array_equal(found.score, expected.score)
    np.testing.assert_array_equal(found.heatmap, expected.heatmap)


def test_calls_are_cut_to_the_plans_size_and_keep_their_order() -> None:
    sizes: list[int] = []

    def infer(pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        sizes.append(len(pixels))
        return RawScores(pixels[:, 0, 0, 0].astype(np.float32), pixels[..., 0].astype(np.float32))

    pixels = np.broadcast_to(np.arange(11, dtype=np.uint8)[:, None, None, None], (11, 2, 2, 3))
    scores = ConcurrentCalls(infer, Plan(batch_size=4, concurrency=2, threads=1, allowed=2)).run(pixels)
    assert scores.score.tolist() == list(range(11)) and scores.heatmap.shape == (11, 2, 2)
    assert sorted(sizes) == [3, 4, 4]


def test_a_single_image_is_alone_only_while_no_other_call_runs() -> None:
    ways: list[str] = []
    scores = RawScores(np.zeros(1, np.float32), np.zeros((1, 2, 2), np.float32))
    pixels = np.zeros((1, 2, 2, 3), np.uint8)

    def infer(_: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        ways.append("shared")
        return scores

    def infer_alone(_: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        ways.append("alone")
        other = threading.Thread(target=calls.run, args=(pixels,))
        other.start()
        other.join()
        return scores

    calls = ConcurrentCalls(
        infer, Plan(batch_size=4, concurrency=2, threads=1, allowed=2), infer_alone=infer_alone
    )
    calls.run(pixels)
    calls.run(pixels.repeat(2, axis=0))
    calls.run(pixels.repeat(9, axis=0))
    assert ways == ["alone", "shared", "shared", *["shared"] * 3]


def test_single_images_are_soon_scored_on_all_threads_and_no_score_changes(
    fitted_detector: AnomalyDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = fitted_detector.contents[GRAPH_FILE]
    expected = [OnnxRuntime(graph, threads=1).run(image[None]) for image in PIXELS]
    opened: list[tuple[int, bool]] = []

    def recorded(*arguments: Any, threads: int, is_alone: bool = False) -> Any:
        opened.append((threads, is_alone))
        return open_session(*arguments, threads=threads, is_alone=is_alone)

    monkeypatch.setattr("energyad.runtimes.onnx.open_session", recorded)
    runtime = OnnxRuntime(graph, threads=3)
    before = threading.enumerate()
    for _ in range(2):
        for image, wanted in zip(PIXELS, expected, strict=True):
            found = runtime.run(image[None])
            np.testing.assert_array_equal(found.score, wanted.score)
            np.testing.assert_array_equal(found.heatmap, wanted.heatmap)
        for thread in set(threading.enumerate()) - set(before):
            thread.join()
    assert opened == [(1, False), (3, True)]
    assert runtime._session_alone is not runtime._session
    alone = OnnxRuntime(graph, threads=1)
    for _ in range(2 * LONE_CALLS):
        alone.run(PIXELS[:1])
    assert opened[2:] == [(1, False)]


def test_one_thread_is_always_a_candidate() -> None:
    for allowed in (1, 2, 16):
        plans = list(tuning.candidates(allowed))
        assert any(plan.concurrency == plan.threads == 1 for plan in plans)
        assert all(plan.concurrency * plan.threads <= allowed == plan.allowed for plan in plans)


def test_two_threads_are_not_taken_where_one_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rival:
        name = "rival"

        def __init__(self, plan: Plan) -> None:
            self.plan = plan

        def with_plan(self, plan: Plan) -> Rival:
            return Rival(plan)

    slowed = {1: 10.0, 2: 6.0}
    monkeypatch.setattr(tuning, "_rate", lambda rival, _: slowed[rival.plan.concurrency * rival.plan.threads])
    best = tuning.measure(Rival(default_plan(2)), shape=(64, 64))  # type: ignore[arg-type]
    assert best.concurrency * best.threads == 1 and best.allowed == 2


def test_a_plan_is_measured_once_and_found_again(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    measured: list[int] = []
    chosen = Plan(batch_size=2, concurrency=1, threads=1, allowed=2)
    monkeypatch.setattr(tuning, "measure", lambda *_, **__: measured.append(1) or chosen)
    detector = AnomalyDetector.load(model_folder, threads=2)
    detector.prepare(10)
    assert not measured, "too few images to pay"
    detector.prepare(tuning.MIN_IMAGES_TO_TUNE)
    assert detector.runtime.plan == chosen
    again = AnomalyDetector.load(model_folder, threads=2)
    again.prepare()
    assert again.runtime.plan == chosen and len(measured) == 1
    assert AnomalyDetector.load(model_folder, threads=1).runtime.plan == default_plan(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", ["", "[]", '{"batch_size": 0, "concurrency": 1, "threads": 1, "allowed": 1}', "{}"]
)
def test_a_broken_record_of_a_plan_is_as_none(
    content: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    graph = (model_folder / GRAPH_FILE).read_bytes()
    place = tuning._place("onnxruntime", graph, 1)
    place.parent.mkdir(parents=True)
    place.write_text(content, encoding="utf-8")
    assert tuning.plan_for("onnxruntime", graph, threads=1) == default_plan(1)


@pytest.mark.slow
def test_measuring_takes_about_a_second(fitted_detector: AnomalyDetector) -> None:
    plan = tuning.measure(OnnxRuntime(fitted_detector.contents[GRAPH_FILE], threads=1), shape=(128, 128))
    assert plan in list(tuning.candidates(1))


def test_an_unknown_or_missing_engine_is_one_clear_line(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"'tflite'.*onnxruntime, openvino, torch"):
        AnomalyDetector.load(model_folder, runtime="tflite")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    real = metadata.version

    def version(package: str) -> str:
        if package == "openvino":
            raise metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(MissingExtraError, match=r'pip install "energyad\[openvino\]"'):
        AnomalyDetector.load(model_folder, runtime="openvino")


def test_auto_takes_the_accelerator_where_there_is_one(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert AnomalyDetector.load(model_folder).runtime.name == "onnxruntime"
    monkeypatch.setattr(energyad.runtimes, "has_cuda", lambda: True)
    assert AnomalyDetector.load(model_folder).runtime.name == "torch"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_card_is_not_asked_for(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(Path, "exists", lambda _: True)  # of the driver
    monkeypatch.setenv(energyad.runtimes.VISIBLE_CARDS, "0")
    assert energyad.runtimes.has_cuda()
    monkeypatch.setenv(energyad.runtimes.VISIBLE_CARDS, hidden)
    assert not energyad.runtimes.has_cuda()


def test_what_one_thread_is_for_runs_in_it_whoever_calls_and_errors_reach_the_caller() -> None:
    ran: list[tuple[int, int]] = []

    def infer(pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        if len(pixels) == 0:
            raise ValueError("nothing to score")
        ran.append((threading.get_ident(), len(pixels)))
        return RawScores(pixels[:, 0, 0, 0].astype(np.float32), pixels[..., 0].astype(np.float32))

    call = SerialExecutor(infer)
    batches = [np.full((count, 2, 2, 3), count, dtype=np.uint8) for count in range(1, 9)]
    found: dict[int, RawScores] = {}
    callers = [
        threading.Thread(target=lambda batch=batch: found.update({len(batch): call(batch)}))
        for batch in batches
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert {len(scores.score): float(scores.score[0]) for scores in found.values()} == {
        n: n for n in range(1, 9)
    }
    assert len({thread for thread, _ in ran}) == 1 and threading.get_ident() not in dict(ran)
    with pytest.raises(ValueError, match="nothing to score"):
        call(np.empty((0, 2, 2, 3), dtype=np.uint8))


def highest_grey(*, outputs: tuple[str, ...] = ("score", "heatmap"), extra_input: bool = False) -> bytes:
    """A graph whose energies are the images' grey values."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["b", 8, 8, 3])
    second = helper.make_tensor_value_info("second", TensorProto.FLOAT, [1])
    axes = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in AXES.items()]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "channels"], ["heatmap"], keepdims=0),
        helper.make_node("ReduceMax", ["heatmap", "places"], ["other"], keepdims=0),
        helper.make_node("Max", ["other", "second"] if extra_input else ["other"], ["score"]),
    ]
    shapes = {"score": ["b"], "heatmap": ["b", 8, 8], "other": ["b"]}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs]
    graph = helper.make_graph(nodes, "g", [pixels, second] if extra_input else [pixels], infos, axes)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


AXES = {"channels": [3], "places": [1, 2]}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_graph_with_other_inputs_or_outputs_is_refused_when_it_is_opened(engine: str) -> None:
    require(engine)

    def assemble() -> Scorer:
        raise AssertionError

    runtime = open_runtime(engine, highest_grey(), assemble, threads=1)
    assert runtime.run(np.full((2, 8, 8, 3), 7, np.uint8)).score.tolist() == [7.0, 7.0]
    for graph in (
        highest_grey(outputs=("score",)),
        highest_grey(outputs=("score", "heatmap", "other")),
        highest_grey(extra_input=True),
    ):
        with pytest.raises(ModelError, match=r"^the exported graph: refused: .*restore it$"):
            open_runtime(engine, graph, assemble, threads=1)


def test_a_name_that_is_no_text_is_one_clear_line() -> None:
    require("openvino")
    graph = highest_grey().replace(b"ReduceMax", b"Reduce\xff\xfeX")
    with pytest.raises(ModelError, match=r"^the exported graph: OpenVINO cannot load it .*onnxruntime$"):
        OpenVinoRuntime(graph, threads=1)


def test_what_onnx_runtime_says_in_several_lines_is_one_line_here() -> None:
    model = onnx.load_from_string(highest_grey())
    model.opset_import[0].version = 9_999
    with pytest.raises(ModelError) as caught:
        OnnxRuntime(model.SerializeToString(), threads=1)
    assert "\n" not in str(caught.value)
