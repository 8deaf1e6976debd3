"""Laws of `energyad watch`, `serve` and `drift`: what they print and write, and that they refuse what is not safe."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.detector.recalibration import recalibrate
from energyad.line import watch
from energyad.line.journal import read_journal, read_results
from energyad.model.folder import with_digest

from .outcome import Program, is_one_line_error


@pytest.mark.slow
def test_watch_once_scores_what_is_there_once_and_says_what_is_not_ok(
    program: Program, workdir: Path, demo_category: Category, fitted_detector: AnomalyDetector
) -> None:
    shutil.copytree(demo_category.root / "test", workdir / "incoming")
    (workdir / "incoming" / "zero.png").touch()
    arguments = (
        "watch",
        "incoming",
        "--once",
        "--interval",
        "0.01",
        "--settle",
        "0",
        "--out",
        "out/results.jsonl",
    )
    outcome = program(*arguments)
    lines = read_journal("out/results.jsonl")
    assert (outcome.status, outcome.out) == (0, "")
    assert sorted(line.image or "" for line in lines) == sorted(map(str, Path("incoming").rglob("*.png")))
    told = [line for line in lines if line.verdict != "ok"]
    assert len(told) > 1 and all(str(line.image) in outcome.err for line in told)
    assert program(*arguments).status == 0
    assert len(read_journal("out/results.jsonl")) == len(lines)
    assert len(read_results("out/energyad.db")) == len(lines)
    assert program("report", "out/energyad.db").status == 0
    assert program("drift", "out/energyad.db").status in (0, 1)
    assert is_one_line_error(program("drift", "missing.jsonl"), "missing.jsonl")


@pytest.mark.slow
def test_watch_moves_by_verdict_and_names_what_is_wrong(
    program: Program, workdir: Path, sorted_images: tuple[list[Path], list[Path]]
) -> None:
    (workdir / "incoming").mkdir()
    for kind, paths in zip(("good", "bad"), sorted_images, strict=True):
        shutil.copy(paths[0], workdir / "incoming" / f"{kind}.png")
    assert program("watch", "incoming", "--once", "--interval", "0.01", "--move-to", "sorted").status == 0
    assert Path("sorted/ng/bad.png").exists() and not list((workdir / "incoming").iterdir())
    assert program("report", "results.jsonl", "--images-in", "sorted").status == 0
    assert Path("report.html").read_text().count('alt="regions"') == 2
    assert is_one_line_error(program("watch", "nowhere", "--once"), "nowhere", "no such folder")
    assert is_one_line_error(program("watch", "incoming", "--once", "--webhook", "ftp://x"), "http")
    (workdir / "old.jsonl").write_text("{}\n")
    old = program("watch", "incoming", "--once", "--out", "old.jsonl")
    assert is_one_line_error(old, "old.jsonl: exists, but", "energyad.db", "move it away")


@pytest.mark.slow
def test_deliveries_that_wait_are_listed_and_none_is_where_there_is_no_webhook(
    program: Program, workdir: Path, sorted_images: tuple[list[Path], list[Path]]
) -> None:
    (workdir / "incoming").mkdir()
    shutil.copy(sorted_images[1][0], workdir / "incoming" / "bad.png")
    assert is_one_line_error(program("deliveries"), "energyad.db", "no such database")
    watch = ("watch", "incoming", "--once", "--interval", "0.01")
    assert program(*watch, "--out", "other.jsonl").status == 0
    assert "no outputs" in program("deliveries").err
    assert program(*watch, "--webhook", "http://127.0.0.1:1/").status == 0
    table = program("deliveries", "--waiting").out.splitlines()
    assert table[1].split() == ["http://127.0.0.1:1/", "0", "1", "0"]
    assert "bad.png" in table[-1] and "ng" in table[-1]
    found = json.loads(program("deliveries", "--waiting", "--json").out)
    (delivery,) = found["deliveries"]
    assert (delivery["state"], delivery["image"]) == ("pending", "bad.png") and delivery["attempts"] >= 1
    assert json.loads(program("deliveries", "--json").out)["deliveries"] == []
    assert "0 wait again" in program("deliveries", "--retry-all").err
    assert is_one_line_error(program("deliveries", "--retry", "77"), "77", "not set aside")


@contextlib.contextmanager
def beside(work: Callable[[Callable[[int], bool]], None]) -> Iterator[None]:
    """Let a thread work beside a watcher of this process, and end that with SIGTERM when the work is done.

    A watcher that ended by itself meanwhile fails its test alone: the signal finds a handler, and the thread is joined.

    Args:
        work: Gets what waits until the results file has so many lines; False where the watcher has ended before, or a
            minute has passed.
    """
    ended = threading.Event()

    def wait_for(count: int) -> bool:
        deadline = time.monotonic() + 60
        while not ended.wait(0.01) and time.monotonic() < deadline:
            if Path("results.jsonl").exists() and len(read_journal("results.jsonl")) == count:
                return True
        return False

    def run() -> None:
        work(wait_for)
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_watch_ends_with_status_0_when_told_and_says_where_the_line_drifts(
    program: Program, workdir: Path, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    place = workdir / "models" / fitted_detector.name / "model.json"
    darker = [{"score": i / 1e6, "brightness": 10.0 + i} for i in range(20)]
    place.write_text(json.dumps(with_digest({**json.loads(place.read_text()), "good_parts": darker})))
    for copy in range(2):
        shutil.copytree(demo_category.root / "train" / "good", workdir / "incoming" / str(copy))

    with beside(lambda wait_for: wait_for(32)):
        outcome = program("watch", "incoming", "--interval", "0.01")
    assert (outcome.status, outcome.err.splitlines()[-1]) == (0, "stopped")
    (said,) = [line for line in outcome.err.splitlines() if "drift" in line]
    assert said.startswith("warning: drift: scores have shifted") and "brightness" in said


@pytest.mark.slow
def test_a_calibration_counts_for_the_next_file_that_is_watched(
    program: Program, workdir: Path, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    good, bad = demo_category.train_good[0], demo_category.test[-1].path
    new = recalibrate(fitted_detector, [item.path for item in demo_category.test[:5]])
    (workdir / "incoming").mkdir()

    def add(image: Path, name: str) -> None:
        shutil.copy(image, workdir / name)
        (workdir / name).rename(
            workdir / "incoming" / name
        )  # whole at once: a half file would be scored twice

    def calibrate(wait_for: Callable[[int], bool]) -> None:
        add(good, "before.png")
        if wait_for(1):
            new.save(workdir / "models" / fitted_detector.name)
            add(bad, "after.png")
            wait_for(2)

    with beside(calibrate):
        outcome = program("watch", "incoming", "--interval", "0.01")
    lines = {Path(line.image or "").name: line for line in read_journal("results.jsonl")}
    assert lines["before.png"].threshold == fitted_detector.threshold != new.threshold
    assert lines["after.png"].threshold == new.threshold
    assert f"{fitted_detector.name} was replaced; its threshold is {new.threshold:.4g}" in outcome.err


@pytest.mark.slow
def test_a_model_that_is_replaced_while_watching_begins_scores_the_first_file(
    program: Program,
    workdir: Path,
    fitted_detector: AnomalyDetector,
    demo_category: Category,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = recalibrate(fitted_detector, [item.path for item in demo_category.test[:5]])
    open_decoder = watch.open_decoder

    def open_after_replacing(*arguments: Any, **options: Any) -> Any:
        new.save(workdir / "models" / fitted_detector.name)
        return open_decoder(*arguments, **options)

    monkeypatch.setattr(watch, "open_decoder", open_after_replacing)
    (workdir / "incoming").mkdir()
    shutil.copy(demo_category.train_good[0], workdir / "incoming" / "first.png")
    outcome = program("watch", "incoming", "--once", "--settle", "0")
    assert outcome.status == 0, outcome.err
    (line,) = read_journal("results.jsonl")
    assert line.threshold == new.threshold


def test_serve_refuses_other_machines_without_a_key(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENERGYAD_API_KEY", raising=False)
    assert is_one_line_error(program("serve", "--host", "0.0.0.0"), "ENERGYAD_API_KEY", "--without-key")
    monkeypatch.setenv("ENERGYAD_API_KEY", "short")
    assert is_one_line_error(program("serve"), "16 or more")
    monkeypatch.delenv("ENERGYAD_API_KEY")
    assert is_one_line_error(program("serve", "--model", "nothing"), "nothing")


def test_drift_is_status_1_and_says_what_to_do_where_the_line_has_shifted(
    program: Program, workdir: Path, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    manifest = json.loads((workdir / "models" / fitted_detector.name / "model.json").read_text())
    manifest["good_parts"] = [{"score": 0.1 + i / 1000, "brightness": 90.0 + i} for i in range(30)]
    (workdir / "models" / fitted_detector.name / "model.json").write_text(json.dumps(with_digest(manifest)))
    line = json.loads(program("score", demo_category.test[0].path, "--json", "--no-csv").out)

    def results(name: str, shift: float) -> str:
        lines = [{**line, "score": 0.1 + shift + i / 1000} for i in range(30)]
        (workdir / name).write_text("".join(json.dumps(each) + "\n" for each in lines))
        return name

    steady = program("drift", results("steady.jsonl", 0.0))
    assert steady.status == 0 and steady.out.splitlines()[-1].startswith(
        "stable: the latest 30 parts against 30"
    )
    shifted = program("drift", results("shifted.jsonl", 0.5), "--json")
    found = json.loads(shifted.out)
    assert (shifted.status, found["state"]) == (1, "shifted")
    assert f"energyad calibrate --model {fitted_detector.name}" in found["advice"]
    table = program("drift", "shifted.jsonl")
    assert table.status == 1 and "recalibrate with" in table.err and "PSI" in table.out
    assert program("drift", "shifted.jsonl", "--window", "5").out.startswith("too few")
    foreign = {**line, "model": {**line["model"], "sha256": "0", "name": "bolt"}}
    (workdir / "foreign.jsonl").write_text(json.dumps(foreign) + "\n")
    assert is_one_line_error(program("drift", "foreign.jsonl"), "bolt")
