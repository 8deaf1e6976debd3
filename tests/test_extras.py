"""The base install scores, watches, calibrates, evaluates and reports; what needs an extra names it in one line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from energyad.data.datasets import Category
from energyad.errors import MissingExtraError
from energyad.extras import PACKAGES, require
from tests import ROOT

HEAVY = ("torch", "torchvision", "timm", "anomalib", "lightning", "sklearn", "scipy", "onnx", "onnxscript")
SERVICE = tuple(PACKAGES["serve"])

RUN = """
import contextlib, io, json, sys
for module in json.loads(sys.argv[1]):
    sys.modules[module] = None  # as if it were not installed
from energyad import cli
outcomes = []
for words in json.loads(sys.argv[2]):
    sys.argv = ["energyad", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        cli.console.messages.cache_clear()
        try:
            cli.main()
        except SystemExit as stopped:
            outcomes.append([int(stopped.code or 0), err.getvalue()])
print(json.dumps([outcomes, [name for name, module in sys.modules.items() if module is not None]]))
"""


def run_without(
    modules: tuple[str, ...], commands: list[list[str]], folder: Path
) -> tuple[list[tuple[int, str]], set[str]]:
    """Status and messages of each command in one process without those modules, and what it imported."""
    arguments = [sys.executable, "-c", RUN, json.dumps(modules), json.dumps(commands)]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes, imported = json.loads(done.stdout)
    return [(status, messages) for status, messages in outcomes], set(imported)


@pytest.mark.slow
def test_scoring_imports_no_fitting_or_serving_package(
    model_folder: Path, demo_category: Category, tmp_path: Path
) -> None:
    image = str(demo_category.test[0].path)
    outcomes, imported = run_without(
        (), [["score", image, "--model", str(model_folder), "--no-csv"]], tmp_path
    )
    assert outcomes[0][0] in (0, 1)
    assert not imported & {*HEAVY, *SERVICE, "openvino"}


@pytest.mark.slow
def test_commands_of_the_base_install_work_without_any_extra(
    model_folder: Path, demo_category: Category, tmp_path: Path
) -> None:
    copied = tmp_path / "models" / model_folder.name
    shutil.copytree(model_folder, copied)  # one command calibrates it
    model, good = ["--model", str(copied)], str(demo_category.root / "train" / "good")
    category = ["--category", demo_category.name, "--data-root", str(demo_category.root.parent)]
    commands = [
        ["score", good, *model, "--heatmaps"],
        ["watch", good, *model, "--out", "results.jsonl", "--once"],
        ["drift", "results.jsonl", *model],
        ["report", "results.jsonl", *model],
        ["report", *category, *model],
        ["evaluate", *category, *model],
        ["evaluate", "--synthetic", good, *model, "--per-image", "1"],
        ["models", str(copied.parent)],
        ["calibrate", str(demo_category.root / "test" / "good"), *model],
    ]
    outcomes, _ = run_without((*HEAVY, *SERVICE, "openvino"), commands, tmp_path)
    for command, (status, messages) in zip(commands, outcomes, strict=True):
        assert status in ({0, 1} if command[0] in {"score", "drift"} else {0}), (command, messages)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("fit", ["fit", "--images", "good/"]),
        ("fit", ["demo"]),
        ("fit", ["export"]),
        ("serve", ["serve"]),
        ("fit", ["score", "IMAGE", "--runtime", "torch"]),
        ("openvino", ["score", "IMAGE", "--runtime", "openvino"]),
        ("anomalib", ["evaluate", "--category", "bottle", "--data-root", ".", "--download"]),
        ("anomalib", ["fit", "--category", "bottle", "--data-root", ".", "--download"]),
    ],
)
def test_a_command_without_its_extra_names_it_in_one_line(
    extra: str, command: list[str], model_folder: Path, demo_category: Category, tmp_path: Path
) -> None:
    words = [str(demo_category.test[0].path) if word == "IMAGE" else word for word in command]
    if words[0] in {"score", "export", "serve"}:
        words += ["--model", str(model_folder)]
    outcomes, _ = run_without(tuple(PACKAGES[extra]), [words], tmp_path)  # type: ignore[index]
    status, messages = outcomes[0]
    assert status == 2
    assert re.fullmatch(rf'error: .+ needs .+: pip install "energyad\[{extra}\]"\n', messages), messages
    assert not list(tmp_path.iterdir())


def test_each_package_of_an_extra_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for extra, modules in PACKAGES.items():
        require(extra, "this")
        for module, name in modules.items():
            with monkeypatch.context() as patch, pytest.raises(MissingExtraError, match=f"needs {name}: "):
                patch.setitem(sys.modules, module, None)
                require(extra, "this")


def test_extras_are_those_that_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"]
    assert set(declared) == {*PACKAGES, "all", "dev", "docs"}
    assert declared["all"] == [f"energyad[{','.join(sorted(PACKAGES))}]"]
    for extra, modules in PACKAGES.items():
        distributions = {re.split(r"[<>=\[]", line)[0].lower() for line in declared[extra]}
        names = {name.lower().replace("pytorch", "torch").replace(" ", "") for name in modules.values()}
    assert names <= distributions
    base = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    assert not base & {*HEAVY, "scikit-learn"}
