"""Laws of `energyad watch`, `serve` and `drift`: what they print and write, and that they refuse what is not safe."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from energyad.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.journal import read_journal

from .outcome import Program, is_one_line_error


def test_watch_once_scores_what_is_there_once_and_says_what_is_not_ok(
    program: Program, house: Path, demo_category: Category, fitted_detector: AnomalyDetector
) -> None:
    shutil.copytree(demo_category.root / "test", house / "incoming")
    (house / "incoming" / "zero.png").touch()
    arguments = ("watch", "incoming", "--once", "--interval", "0.01", "--out", "out/results.jsonl")
    outcome = program(*arguments)
    lines = read_journal("out/results.jsonl")
    assert (outcome.status, outcome.out) == (0, "")
    assert sorted(line.image or "" for line in lines) == sorted(map(str, Path("incoming").rglob("*.png")))
    told = [line for line in lines if line.verdict != "ok"]
    assert len(told) > 1 and all(str(line.image) in outcome.err for line in told)
    assert program(*arguments).status == 0
    assert len(read_journal("out/results.jsonl")) == len(lines)


def test_watch_moves_by_verdict_and_names_what_is_wrong(
    program: Program, house: Path, sorted_images: tuple[list[Path], list[Path]]
) -> None:
    (house / "incoming").mkdir()
    for kind, paths in zip(("good", "bad"), sorted_images, strict=True):
        shutil.copy(paths[0], house / "incoming" / f"{kind}.png")
    assert program("watch", "incoming", "--once", "--interval", "0.01", "--move-to", "sorted").status == 0
    assert Path("sorted/ng/bad.png").exists() and not list((house / "incoming").iterdir())
    assert is_one_line_error(program("watch", "nowhere", "--once"), "nowhere", "no such folder")
    assert is_one_line_error(program("watch", "incoming", "--once", "--webhook", "ftp://x"), "http")
    (house / "results.jsonl").write_text("no result\n")
    assert is_one_line_error(program("watch", "incoming", "--once"), "results.jsonl, line 1")


def test_serve_refuses_other_machines_without_a_key(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENERGYAD_API_KEY", raising=False)
    assert is_one_line_error(program("serve", "--host", "0.0.0.0"), "ENERGYAD_API_KEY", "--without-key")
    monkeypatch.setenv("ENERGYAD_API_KEY", "short")
    assert is_one_line_error(program("serve"), "16 or more")
    monkeypatch.delenv("ENERGYAD_API_KEY")
    assert is_one_line_error(program("serve", "--model", "nothing"), "nothing")
