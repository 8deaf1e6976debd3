"""`energyad station` and `energyad run`: from an empty folder to verdicts, and every error in one line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.station.machines import free_port
from energyad.data.datasets import Category
from tests import ROOT
from tests.station.conftest import until

from .outcome import Program, is_one_line_error


def arrive(workdir: Path, category: Category, *, count: int = 3) -> list[Path]:
    for item in category.test[:count]:
        shutil.copyfile(item.path, workdir / "incoming" / f"{item.path.parent.name}-{item.path.name}")
    return sorted((workdir / "incoming").iterdir())


@pytest.mark.slow
def test_a_new_station_is_checked_and_scores_what_arrives(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    made = program("station", "new", "--name", "press", "--archive", "archive", "--model", demo_category.name)
    assert made.status == 0 and "station.toml" in made.err
    checked = program("station", "check")
    assert checked.status == 0 and "nothing is wrong" in checked.err
    assert "an image; " in checked.err
    images = arrive(workdir, demo_category)
    done = program("run", "--once")
    assert done.status == 0, done.err
    assert "3 parts so far" in done.err
    (table,) = (workdir / "archive").glob("*.csv")
    assert len(table.read_text().splitlines()) == 1 + len(images)
    again = program("run", "--once")
    assert again.status == 0 and "3 parts so far" in again.err


def test_everything_that_is_wrong_is_said_before_anything_starts(program: Program, workdir: Path) -> None:
    port = free_port()
    (workdir / "station.toml").write_text(
        f'name = "press"\nmodel = "no such"\n[[views]]\nfolder = "nowhere"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
    )
    checked = program("station", "check")
    assert checked.status == 2
    faults = [line for line in checked.err.splitlines() if line.startswith("error: ")]
    assert len(faults) == 3
    assert "nowhere: no such folder" in faults[0]
    assert "no model" in faults[1]
    assert f"127.0.0.1:{port}" in faults[2] and "start the broker" in faults[2]
    assert sorted(path.name for path in workdir.iterdir()) == ["models", "station.toml"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["station", "make"], "give new, check or align"),
        (["station", "check"], "energyad station new"),
        (["run", "other.toml"], "other.toml: cannot be read"),
        (["station", "new", "--mqtt", "host:port"], "give HOST or HOST:PORT"),
    ],
)
def test_an_error_is_one_line(program: Program, workdir: Path, words: list[str], expected: str) -> None:
    outcome = program(*words)
    if words[-1] == "check":
        assert outcome.status == 2 and expected in outcome.err
    else:
        assert is_one_line_error(outcome, expected)


@pytest.mark.slow
def test_a_killed_station_goes_on_where_it_was_and_sigterm_ends_it_with_status_0(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    program("station", "new", "--name", "press", "--archive", "archive")
    command = [sys.executable, "-m", "energyad", "run"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(workdir)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=workdir, env=environment, stderr=subprocess.PIPE, text=True)

    def lines(pattern: str) -> list[str]:
        rows = [line for path in workdir.glob(pattern) for line in path.read_text().splitlines()]
        return [row for row in rows if not row.startswith("number")]

    killed = start()
    images = arrive(workdir, demo_category, count=8)
    until(lambda: len(lines("results.jsonl")) >= 1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    again = start()
    until(lambda: len(lines("archive/*.csv")) == len(images))
    again.terminate()
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0 and f"{len(images)} parts so far" in err, err
    numbers = [int(line.split(",")[0]) for line in lines("archive/*.csv")]
    assert numbers == list(range(1, len(images) + 1))
    assert len({json.loads(line)["image"] for line in lines("results.jsonl")}) == len(images)
