"""The README's commands are run as they stand: they fit, on small images and with few iterations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from energyad.data.demo import render_demo
from tests import ROOT
from tests.docs.blocks import blocks_of, session
from tests.quick import TINY

README = ROOT / "README.md"
MAX_NOT_RUN = 1


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README supposes it."""
    folder = tmp_path_factory.mktemp("readme")
    bottle = render_demo(folder / "rendered", train=10, good=3, per_flaw=1, size=128)
    for name, paths in (
        ("good_parts", bottle.train_good),
        ("new_parts", [item.path for item in bottle.test[:4]]),
        ("good_of_today", [item.path for item in bottle.test if not item.is_defective] * 7),
        ("incoming", [item.path for item in bottle.test] * 2),
    ):
        (folder / name).mkdir()
        for index, path in enumerate(paths):
            (folder / name / f"{index:03d}.png").write_bytes(path.read_bytes())
    return folder


def test_the_readme_opens_with_the_two_commands_that_set_everything_up() -> None:
    assert blocks_of(README)[0].commands == ["make demo", "make test"]


@pytest.mark.slow
def test_every_command_and_the_python_example_of_the_readme_work(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energyad.settings.FitSettings", lambda: TINY)
    monkeypatch.chdir(workspace)
    monkeypatch.delenv("ENERGYAD_DATA_ROOT", raising=False)
    blocks = blocks_of(README)
    with session() as running:
        for block in blocks:
            if block.not_run is None:
                running.run(block)
    assert sum(block.not_run is not None for block in blocks) <= MAX_NOT_RUN
    assert (workspace / "models" / "gasket" / "model.json").exists()
    assert (workspace / "scores.csv").exists() and list((workspace / "heatmaps").iterdir())


def test_every_file_that_the_readme_points_to_exists() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target
