"""The benchmark of archives: what its counts and tables mean."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scale.images import write_archive
from benchmarks.scale.processes import Usage, descendants
from benchmarks.scale.table import tables
from energyad.images.reading import read_image

STAMP = {"processor": "a processor", "load": 0.1, "commit": "0123456789", "modified": False, "seed": 0}


def test_what_a_child_of_a_child_takes_is_seen_while_it_runs_and_kept_when_it_has_ended() -> None:
    inner = "import sys; print(sum(range(3_000_000)), flush=True); sys.stdin.read()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}, 'inner'])"
    usage = Usage()

    def note() -> None:  # other tests of this process have children, too
        usage.add([found for found in descendants(os.getpid()) if found.command.endswith(("inner", "outer"))])

    with subprocess.Popen(
        [sys.executable, "-c", outer, "outer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        note()
        assert child.stdin is not None
        child.stdin.close()
    note()
    (inner_number,) = (number for number, command in usage.commands.items() if command.endswith("inner"))
    assert {child.pid, inner_number} <= usage.cpu_seconds.keys()
    assert usage.cpu_seconds[inner_number] > 0
    assert usage.peak_of(sys.executable) == max(usage.peak_mb.values()) > 1
    assert usage.peak_of("no such program") == 0


def test_an_archive_has_as_many_files_as_asked_and_those_that_differ_differ(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", different=3, count=7, side=64, seed=0)
    images = [read_image(path) for path in sorted(archive.iterdir())]
    assert len(images) == 7
    assert all(np.array_equal(image, images[number % 3]) for number, image in enumerate(images))
    assert len({image.tobytes() for image in images}) == 3


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps({**STAMP, **row}) + "\n" for row in rows), encoding="utf-8")


def test_tables_add_the_kills_and_project_from_the_largest_run(tmp_path: Path) -> None:
    job = {"images": 8, "drivers": 1, "workers": 2, "starts": 2, "by_phase": {"scoring": 3}}
    job |= {"missing": 0, "doubled": 0, "unlike": 0, "failed": 0}
    write_rows(tmp_path / "kills.jsonl", [job | {"job": 0}, job | {"job": 1, "doubled": 1}])
    used = {"cores": 2, "cpu_ms": 1.0, "worker_mb": 300.0, "all_mb": 900.0}
    local = used | {"engine": "local", "shard_size": 0, "images": 1000, "seconds": 9.0, "driver_mb": 200.0}
    ray = used | {"engine": "ray", "shard_size": 256, "images": 1000, "seconds": 10.0, "driver_mb": 200.0}
    write_rows(tmp_path / "efficiency.jsonl", [local, ray])
    small = used | {"engine": "ray", "shard_size": 1, "seconds": 1.0}
    write_rows(
        tmp_path / "memory.jsonl",
        [small | {"images": 100, "driver_mb": 200.0}, small | {"images": 1100, "driver_mb": 210.0}],
    )
    text = tables(tmp_path)
    assert "| 0 | 2 | 8 | 2 | 4 | 0, 6, 0 | 0 | 1 | 0 | 0 |" in text
    assert "| 1,000 | 2 | Ray | 1 | 10 | 100.0 | 90% | 1.0 | 100% | 0 to 0 |" in text
    driver = 210 + (39_063 - 1100) * 10 / 1000
    assert f"| 16 | 800 | {1e7 / 800 / 3600:.1f} | {driver:.0f} |" in text


@pytest.mark.slow
def test_kills_of_a_job_are_those_of_its_seed() -> None:
    pytest.importorskip("ray")
    import random

    from benchmarks.scale.kills import draw_kills

    some, others = (draw_kills(random.Random(f"0 {job}")) for job in (1, 2))
    assert some == draw_kills(random.Random("0 1")) and some != others
    for kills in (some, others):
        assert 1 <= len(kills) <= 3
