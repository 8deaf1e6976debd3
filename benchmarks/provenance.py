"""Results as rows: appended as JSON lines, each with the commit, versions and machine it was measured on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from energyad.errors import DataError
from energyad.model.provenance import source_commit

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("energyad", "torch", "numpy")


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Where and when a row was measured.

    modified: whether tracked Python files differed from `commit`. load: processes that wanted a core in the last
    minute, this one among them; above the number of cores, wall-clock times are longer than they need be.
    """

    commit: str | None
    modified: bool
    date: str
    versions: dict[str, str]
    processor: str
    threads: int
    load: float


def stamp(*, threads: int, packages: Iterable[str] = PACKAGES) -> Stamp:
    """Describe this moment on this machine."""
    return Stamp(
        commit=source_commit(),
        modified=_is_modified(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
        processor=f"{_processor()}, {os.cpu_count()} cores",
        threads=threads,
        load=round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else float("nan"),
    )


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line; it is on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows, oldest first; none where there is no file yet. Raises DataError naming a line that is no row."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not a JSON row ({error}); remove that line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a row is a JSON object; remove that line")
        rows.append(row)
    return rows


def _is_modified() -> bool:
    command = ["git", "-C", str(ROOT), "diff", "--quiet", "HEAD", "--", "*.py"]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 1
    except (OSError, subprocess.SubprocessError):
        return False


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
