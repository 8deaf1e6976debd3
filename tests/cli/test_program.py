"""Laws of the program as a whole: help, statuses, messages, faults."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import energyad.cli
from energyad.cli.options import user_name

from .outcome import Program, is_one_line_error


def test_help_loads_nothing_heavy_and_lists_every_command() -> None:
    code = "import sys, energyad.cli; print([m for m in ('torch','onnxruntime','cv2','numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    done = subprocess.run([sys.executable, "-m", "energyad", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in energyad.cli.COMMANDS)


@pytest.mark.slow
def test_every_command_has_help_and_the_program_a_version(program: Program) -> None:
    for name in energyad.cli.COMMANDS:
        helped = program(name, "--help")
        assert helped.status == 0 and f"Usage: energyad {name}" in helped.out
    assert program("--version").out.startswith("energyad ")


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["score"], ["fit", "--seed", "x"], ["score", "--nope", "a"]]
)
def test_a_usage_error_is_status_2(program: Program, arguments: list[str]) -> None:
    outcome = program(*arguments)
    assert (outcome.status, outcome.out) == (2, "")


def test_a_fault_shows_its_stack_only_with_debug(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("what nobody thought of")

    monkeypatch.setattr("energyad.model.folder.list_models", fault)
    assert is_one_line_error(program("models"), "ZeroDivisionError", "--debug")
    for arguments in (("--debug", "models"), ("models", "--debug")):
        assert "Traceback" in program(*arguments).err


def test_warnings_are_lines_and_quiet_is_quiet(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def uneasy(*_: object) -> list[Path]:
        warnings.warn("the lamp\nflickers", stacklevel=2)
        return []

    monkeypatch.setattr("energyad.model.folder.list_models", uneasy)
    assert "warning: the lamp flickers\n" in program("models").err
    assert program("models", "--quiet").err == ""


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 1234"), OSError("No username set")])
def test_a_user_that_the_system_has_no_name_for_is_known_by_a_number(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def no_name() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", no_name)
    assert user_name() == f"user {os.getuid()}"


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "--category", "screw"),
        ("label",),
        ("fit", "--images", "."),
        ("fit", "--category", "screw", "--engine", "ray"),
    ],
)
def test_a_field_without_a_labelled_data_set_is_refused_and_not_passed_over(
    program: Program, command: tuple[str, ...]
) -> None:
    assert is_one_line_error(program(*command, "--field", "ground_truth"), "--field", "--labels")
