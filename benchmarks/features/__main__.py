"""`python -m benchmarks.features [--tool NAME=PYTHON ...] [--only FEATURE ...]`: run probes, append a row for each.

A tool without an interpreter of its own is run by this one. Answers: yes (the probe ran to its end), no (nothing in the
package has a name with the words that are searched for), failed (the probe's own words say how) and not tried.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.features.probing import ABSENT
from benchmarks.features.rows import FEATURES, TOOLS, Answer
from benchmarks.provenance import ROOT, append_row, stamp
from energyad.data.demo import render_demo

MOST_CHARACTERS: Final = 300
TOO_LONG: Final = 600


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the probes; returns the exit status."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    p.add_argument("--tool", action="append", default=[], metavar="NAME=PYTHON")
    p.add_argument("--only", nargs="+", choices=FEATURES, default=list(FEATURES))
    p.add_argument("--results", type=Path, default=Path(__file__).parent / "results.jsonl")
    options = p.parse_args(arguments)
    interpreters = dict(word.split("=", 1) for word in options.tool) or dict.fromkeys(
        TOOLS.values(), sys.executable
    )
    for tool, package in TOOLS.items():
        if package not in interpreters:
            continue
        with tempfile.TemporaryDirectory(prefix="energyad-features-") as folder:
            render_demo(folder, name="part", train=16, good=6, per_flaw=1, size=64)
            for feature in options.only:
                row = probe(tool, feature, interpreters[package], Path(folder))
                append_row(options.results, {**row, **asdict(stamp(threads=1, packages=("energyad",)))})
                print(package, feature, row["answer"], row["said"][-100:], sep="\t", flush=True)
    return 0


def probe(tool: str, feature: str, python: str, folder: Path) -> dict[str, Any]:
    """Run one probe; returns its row."""
    module, package = importlib.import_module(f"benchmarks.features.tools.{tool}"), TOOLS[tool]
    row: dict[str, Any] = {"tool": package, "version": version_of(package, python), "feature": feature}
    if feature in module.NOT_TRIED:
        return {
            **row,
            "answer": "not tried",
            "command": None,
            "status": None,
            "said": module.NOT_TRIED[feature],
        }
    command = [python, "-m", "benchmarks.features.probing", tool, feature]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TOO_LONG,
            check=False,
        )
        status, said = ended.returncode, (ended.stdout if ended.returncode in (0, ABSENT) else ended.stderr)
    except subprocess.TimeoutExpired:
        status, said = -1, f"longer than {TOO_LONG} s"
    answer: Answer = (
        "yes" if status == 0 else "no" if feature in module.ABSENT and status == ABSENT else "failed"
    )
    words = module.ABSENT.get(feature)
    return {
        **row,
        "answer": answer,
        "command": " ".join(["python", *command[1:]]),
        "searched": words,
        "status": status,
        "seconds": round(time.monotonic() - started, 1),
        "said": last_line(said, folder),
    }


def last_line(text: str, folder: Path) -> str:
    """The last line of what a probe said, without the paths of this machine."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "").replace(str(folder), ".").replace(str(ROOT), ".")[:MOST_CHARACTERS]


def version_of(package: str, python: str) -> str:
    """The version of a package as its interpreter has it."""
    code = f"from importlib.metadata import version; print(version('{package}'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
