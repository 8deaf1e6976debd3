"""The README's commands are run as they stand, on small images and with few iterations."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from energyad.cli import app
from energyad.demo import render_demo
from energyad.settings import FitSettings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README supposes it."""
    house = tmp_path_factory.mktemp("readme")
    bottle = render_demo(
        house / "datasets" / "MVTecAD", name="bottle", train=10, good=3, per_flaw=1, size=128
    )
    for folder, paths in (
        ("good_parts", bottle.train_good),
        ("new_parts", [item.path for item in bottle.test[:4]]),
    ):
        (house / folder).mkdir()
        for index, path in enumerate(paths):
            (house / folder / f"{index:03d}.png").write_bytes(path.read_bytes())
    return house


def test_the_first_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert commands()[:2] == ["make demo", "make test"]
    for command in commands()[:2]:
        assert re.search(rf"^{command.split()[1]}:", makefile, flags=re.MULTILINE)


def test_every_other_command_and_the_python_example_work(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"image_size": 64, "warmup_iterations": 60, "iterations": 5, "energy_width": 32}
    for name, value in quick.items():
        monkeypatch.setitem(FitSettings.__init__.__kwdefaults__, name, value)
    monkeypatch.chdir(house)
    monkeypatch.delenv("ENERGYAD_DATA_ROOT", raising=False)
    runner = CliRunner()
    for command in commands()[2:]:
        words = shlex.split(command)
        assert words[0] == "energyad"
        result = runner.invoke(app, words[1:])
        legal = {0, 1} if words[1] == "score" else {0}
        assert result.exit_code in legal, f"{command}\n{result.output}\n{result.exception!r}"
    assert (house / "models" / "gasket" / "model.json").exists()
    assert (house / "scores.csv").exists() and list((house / "heatmaps").iterdir())

    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    output = subprocess.run(
        [sys.executable, "-c", program], cwd=house, capture_output=True, text=True, check=True
    )
    assert len(output.stdout.splitlines()) == 2 and "(128, 128)" in output.stdout


def test_every_file_that_the_readme_points_to_exists() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
