"""The README's commands are run as they stand, on small images and with few iterations."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from energyad.cli import app
from energyad.data.demo import render_demo
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
        ("good_of_today", [item.path for item in bottle.test if not item.is_defective] * 7),
        ("incoming", [item.path for item in bottle.test] * 2),
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


def run_line(command: str, runner: CliRunner, port: int, background: list[subprocess.Popen[str]]) -> None:
    """One line of the README; the service on a port that is free."""
    words = shlex.split(command.removesuffix("&").replace(":8000/", f":{port}/"))
    if words[:2] == ["energyad", "serve"]:
        program = [sys.executable, "-m", *words, "--port", str(port)]
        background.append(subprocess.Popen(program, stderr=subprocess.PIPE, text=True))
        messages = background[-1].stderr
        assert messages is not None and "serving" in messages.readline()
    elif words[0] == "curl":
        done = subprocess.run([*words, "--fail"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)
    else:
        assert words[0] == "energyad"
        result = runner.invoke(app, words[1:])
        legal = {0, 1} if words[1] in {"score", "drift"} else {0}
        assert result.exit_code in legal, f"{command}\n{result.output}\n{result.exception!r}"


def test_every_other_command_and_the_python_example_work(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = FitSettings().with_values(
        {
            "input.image_size": 64,
            "features.coarse_strides": (),
            "energy.width": 32,
            "energy.pretrain_steps": 60,
            "memory_bank.size": 64,
            "memory_bank.rerank_bank_size": 128,
            "synthetic_defects.per_image": 1,
            "synthetic_defects.discriminator_iterations": 50,
            "dxmi.iterations": 5,
        }
    )
    monkeypatch.setattr("energyad.settings.FitSettings", lambda: quick)
    monkeypatch.chdir(house)
    monkeypatch.delenv("ENERGYAD_DATA_ROOT", raising=False)
    runner, background = CliRunner(), list[subprocess.Popen[str]]()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    try:
        for command in commands()[2:]:
            run_line(command, runner, port, background)
    finally:
        for process in background:
            process.terminate()
    assert [process.wait(30) for process in background] == [0]
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
