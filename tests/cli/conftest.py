"""The program, run in a folder of its own."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import energyad.cli
from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from tests.quick import TINY
from tests.untraced import untraced_heads

from .outcome import Outcome, Program


@pytest.fixture
def workdir(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one model under models/."""
    shutil.copytree(model_folder, tmp_path / "models" / model_folder.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENERGYAD_DATA_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def program(workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """Runs the program in `workdir`."""

    def run(*arguments: object, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["energyad", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            energyad.cli.main()
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err  # no colours where there is no terminal
        return Outcome(int(stopped.value.code or 0), out, err)

    return run


@pytest.fixture
def quick_fit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fits take a second, and models have a stand-in for a head."""
    monkeypatch.setattr("energyad.settings.FitSettings", lambda: TINY)
    with untraced_heads():
        yield


@pytest.fixture(scope="session")
def sorted_images(fitted_detector: AnomalyDetector, demo_category: Category) -> tuple[list[Path], list[Path]]:
    """Test images that the detector calls normal, and those that it calls anomalous."""
    paths = [item.path for item in demo_category.test]
    predictions = fitted_detector.score_batch(paths)
    both = [
        [p for p, s in zip(paths, predictions, strict=True) if s.is_anomalous == kind]
        for kind in (False, True)
    ]
    assert all(both)
    return both[0], both[1]
