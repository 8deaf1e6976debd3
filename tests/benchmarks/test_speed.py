from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.provenance import append_row
from benchmarks.speed import card, figure, memory, parts, table
from benchmarks.speed.images import prepare
from benchmarks.speed.throughput import RIVAL, rows
from benchmarks.speed.timing import Latency, Rate, interleave, latencies
from energyad import AnomalyDetector
from energyad.data.datasets import Category
from energyad.errors import DataError
from energyad.features.extractor import FeatureExtractor
from energyad.scoring.prediction import Prediction

STAMP = {"commit": "0" * 40, "modified": False, "processor": "none", "threads": 1, "load": 0.0}


def test_rates_are_those_of_known_work() -> None:
    def wait(milliseconds: float) -> int:
        time.sleep(milliseconds / 1000)
        return 4

    rates = interleave({"slow": lambda: wait(40), "fast": lambda: wait(10)}, rounds=3)
    ratio = rates["fast"].images_per_second / rates["slow"].images_per_second
    assert ratio == pytest.approx(4, rel=0.5)
    assert rates["slow"].cpu_ms < 5  # sleeping takes no processor time


def test_each_second_counts_for_the_innermost_part() -> None:
    now = [0.0]
    stopwatch = parts.Stopwatch(lambda: None, clock=lambda: now[0])
    with stopwatch.running("outer"):
        now[0] += 1
        with stopwatch.running("inner"):
            now[0] += 10
        now[0] += 100
    now[0] += 1000
    with stopwatch.running("inner"):
        now[0] += 10000
    assert stopwatch.seconds == {"outer": 101, "inner": 10010}


def test_parts_of_a_prediction_are_all_of_it(
    model_folder: Path, demo_category: Category, tmp_path: Path
) -> None:
    images = prepare(demo_category, tmp_path, count=3, size=128, file_size=128)
    began = time.perf_counter()
    rows = parts.measure(model_folder, images, rounds=2)
    elapsed_ms = 1e3 * (time.perf_counter() - began)
    by_part = {row["subject"]: row for row in rows}
    assert by_part.keys() == set(parts.METHODS) and {row["source"] for row in rows} == {"torch, cpu"}
    assert sum(row["of_whole"] for row in rows) == pytest.approx(1, abs=0.01)
    assert by_part[parts.BACKBONE]["of_backbone"] == 1 and all(row["ms_an_image"] > 0 for row in rows)
    assert 3 * sum(row["ms_an_image"] for row in rows) < elapsed_ms
    assert not hasattr(FeatureExtractor.maps_of, "__wrapped__")  # nothing is timed afterwards


def test_latencies_are_ordered_and_count_every_call() -> None:
    calls: list[int] = []
    found = latencies({"one": calls.append}, calls=20)
    assert calls[3:] == list(range(20))
    assert found["one"].p50_ms <= found["one"].p95_ms <= found["one"].p99_ms


def test_ratios_are_to_the_backbone_of_the_same_engine_and_batch() -> None:
    rates = {
        ("backbone (onnxruntime, one call)", "arrays", 16): Rate(100.0, 10.0),
        ("backbone (onnxruntime, energyad's plan)", "arrays", 16): Rate(125.0, 8.0),
        ("backbone (torch, one call)", "arrays", 16): Rate(20.0, 50.0),
        ("energyad (onnxruntime)", "arrays", 16): Rate(80.0, 12.5),
        ("energyad (torch)", "arrays", 16): Rate(16.0, 62.5),
        (RIVAL, "arrays", 16): Rate(8.0, 125.0),
    }
    found = {row["subject"]: row for row in rows(rates, {RIVAL: Latency(1, 2, 3)})}
    ours = found["energyad (onnxruntime)"]
    assert (ours["of_backbone"], ours["of_backbone_cpu"], ours["of_best_backbone_cpu"]) == (0.8, 0.8, 0.64)
    assert (ours["times_patchcore"], ours["times_patchcore_cpu"]) == (10.0, 10.0)
    assert found["energyad (torch)"]["of_backbone"] == 0.8


def test_a_card_is_as_far_off_as_its_worst_image_and_pixel() -> None:
    def prediction(heatmap: np.ndarray) -> Prediction:
        return Prediction(float(heatmap.max()), heatmap, 1.0, None, 1.0, "ok", ())

    plain = np.array([[0.5, 1.0], [1.5, 2.0]], dtype=np.float32)
    off_score, off_pixel = plain.copy(), plain.copy()
    off_score[1, 1], off_pixel[0, 0] = 2.2, 0.1
    of_card = [prediction(off_score), prediction(off_pixel)]
    found = card.differences(of_card, [prediction(plain), prediction(plain)])
    assert found == pytest.approx({"score_difference": 0.1, "heatmap_difference": 0.2})


def test_a_machine_without_a_card_is_told_so(
    demo_category: Category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    images = prepare(demo_category, tmp_path, count=2, size=64, file_size=64)
    with pytest.raises(DataError, match="leave the part out"):
        card.measure(tmp_path, images, threads=1, rounds=1, calls=1)


def test_a_category_with_few_images_gives_some_twice(demo_category: Category, tmp_path: Path) -> None:
    few = len(demo_category.test)
    images = prepare(demo_category, tmp_path, count=few + 1, size=64, file_size=96)
    assert images.pixels.shape == (few + 1, 64, 64, 3) and len(images.files) == few + 1
    np.testing.assert_array_equal(images.pixels[0], images.pixels[few])


def test_flat_memory_is_taken_down_at_its_marks(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    row = memory.flat(fitted_detector, [demo_category.test[0].path], count=120)
    assert [mark[0] for mark in row["images_seconds_mb"]] == [100, 120]
    assert row["peak_mb"] > 0.95 * row["images_seconds_mb"][0][2] > 0  # the system counts both in steps


def test_the_tables_hold_the_newest_row_of_each_kind(tmp_path: Path) -> None:
    old, new = (STAMP | {"part": "memory", "subject": "energyad", "peak_mb": mb} for mb in (1.0, 2.0))
    text = table.tables([old, new])
    assert "2.0" in text and "1.0" not in text


def test_quick_rows_stand_in_only_where_no_full_run_has_measured() -> None:
    row = STAMP | {"part": "training set", "peak_mb": 1.0, "cpu_seconds": 1.0}
    quick, full = (
        row | {"num_train": 8, "seconds": 8.5, "quick": True},
        row | {"num_train": 20, "seconds": 20.5},
    )
    assert "8.5" in table.tables([quick])
    assert "8.5" not in table.tables([quick, full]) and "20.5" in table.tables([quick, full])


def test_the_figure_is_drawn_from_rows(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    marks = [[100, 1.0, 200.0], [1000, 9.0, 201.0]]
    append_row(results, STAMP | {"part": "flat", "images_seconds_mb": marks})
    append_row(results, STAMP | {"part": "image size", "side": 256, "ms_an_image": 9.0, "peak_mb": 200.0})
    assert figure.draw(results, tmp_path / "scaling.png").stat().st_size > 10_000
