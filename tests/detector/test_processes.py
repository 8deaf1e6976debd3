"""Laws of detectors in other processes: pickled or forked, they score as they did, by the same choice of engine."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import ImageError
from energyad.runtimes.plan import Plan

TIMEOUT = 120


@pytest.fixture
def paths(demo_category: Category) -> list[Path]:
    return [item.path for item in demo_category.test[:6]]


@pytest.fixture
def scores(fitted_detector: AnomalyDetector, paths: list[Path]) -> list[float]:
    return [prediction.score for prediction in fitted_detector.score_batch(paths)]


def score_of(detector: AnomalyDetector, path: Path) -> float:
    return detector.score(path).score


def scores_of(detector: AnomalyDetector, paths: list[Path]) -> list[float]:
    return [prediction.score for prediction in detector.score_batch(paths)]


def same_engine(detector: AnomalyDetector) -> tuple[str, Plan]:
    return detector.runtime.name, detector.runtime.plan


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_a_pickled_detector_scores_as_before_on_the_same_engine(
    model_folder: Path, paths: list[Path], runtime: str
) -> None:
    detector = AnomalyDetector.load(model_folder, threads=1, runtime=runtime)
    copy = pickle.loads(pickle.dumps(detector))
    assert scores_of(copy, paths) == scores_of(detector, paths)
    assert same_engine(copy) == same_engine(detector)
    assert copy.manifest == detector.manifest and copy.contents == detector.contents
    assert copy.reference == detector.reference and copy.calibration == detector.calibration


def test_a_pickled_detector_keeps_a_tuned_plan(fitted_detector: AnomalyDetector, paths: list[Path]) -> None:
    plan = Plan(batch_size=3, concurrency=1, threads=2, allowed=2)
    runtime = fitted_detector.runtime.with_plan(plan)
    detector = AnomalyDetector(fitted_detector.manifest, fitted_detector.contents, runtime)
    copy = pickle.loads(pickle.dumps(detector))
    assert copy.runtime.plan == plan and scores_of(copy, paths) == scores_of(detector, paths)


def test_a_pickle_holds_no_session_and_little_beside_the_model(fitted_detector: AnomalyDetector) -> None:
    size = sum(map(len, fitted_detector.contents.values()))
    assert len(pickle.dumps(fitted_detector)) < 1.02 * size + 100_000


def test_a_detector_on_an_engine_of_its_own_says_that_it_cannot_be_pickled(
    fitted_detector: AnomalyDetector,
) -> None:
    class Foreign:
        name, plan = "foreign", fitted_detector.runtime.plan

    detector = AnomalyDetector(fitted_detector.manifest, fitted_detector.contents, Foreign())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="runtime 'foreign' cannot be pickled"):
        pickle.dumps(detector)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_pool_of_processes_scores_as_one_does_and_names_a_bad_file(
    fitted_detector: AnomalyDetector, paths: list[Path], scores: list[float], method: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        results = pool.starmap_async(score_of, [(fitted_detector, path) for path in paths])
        assert results.get(TIMEOUT) == scores
        with pytest.raises(ImageError, match=r"bad\.png"):
            pool.apply_async(score_of, (fitted_detector, tmp_path / "bad.png")).get(TIMEOUT)
        assert pool.apply_async(scores_of, (fitted_detector, paths)).get(TIMEOUT) == scores


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_pool_executor_maps_a_bound_method(
    fitted_detector: AnomalyDetector, paths: list[Path], scores: list[float], method: str
) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        predictions = list(pool.map(fitted_detector.score, paths, timeout=TIMEOUT))
    assert [prediction.score for prediction in predictions] == scores
    assert all(np.isfinite(prediction.heatmap).all() for prediction in predictions)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_forked_child_scores_with_a_detector_that_its_parent_has_used(
    model_folder: Path, paths: list[Path], runtime: str, threads: int
) -> None:
    """The threads of an engine stay in the parent; a child that waits for them waits for ever."""
    detector = AnomalyDetector.load(model_folder, runtime=runtime)
    plan = Plan(batch_size=2, concurrency=1, threads=threads, allowed=threads)
    detector.runtime = detector.runtime.with_plan(plan)
    expected = scores_of(detector, paths)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def child() -> None:
        theirs.send((scores_of(detector, paths), same_engine(detector)))

    process = context.Process(target=child)
    process.start()
    try:
        assert ours.poll(TIMEOUT), "the child hangs"
        assert ours.recv() == (expected, (runtime, plan))
    finally:
        process.kill()
        process.join()


class Scored:
    """A data set of scores, as a training loop that filters its images has it."""

    def __init__(self, detector: AnomalyDetector, paths: list[Path]) -> None:
        self.detector, self.paths = detector, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> float:
        return self.detector.score(self.paths[index]).score
