"""`python -m benchmarks.footprint --data-root DIR --category screw`: run the program, append a row, print it.

Each command runs in a process of its own. seconds: wall clock. cpu_seconds: of the process, which other programs' load
leaves alone. peak_mb: the largest resident set of that process. score: all test images of the category, from files to
CSV, start of the program included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.provenance import append_row, stamp
from energyad.data.datasets import open_category
from energyad.images.reading import read_image, resize, write_png
from energyad.settings import FitSettings

RESULTS = Path(__file__).with_name("results.jsonl")


@dataclass(frozen=True)
class Footprint:
    """What one command took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


WITNESS = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
seconds = time.perf_counter() - started
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""
"""Runs a command and tells what it took. A process counts its parent's memory as its own peak until it has started,
and this one's, with PyTorch loaded, is larger than some of what is measured."""


def measure(command: list[str], *, legal: tuple[int, ...] = (0,)) -> Footprint:
    """Run a command to its end. Raises RuntimeError with its last words for an exit status that is not legal."""
    done = subprocess.run(
        [sys.executable, "-c", WITNESS, *command], capture_output=True, text=True, check=True
    )
    status, seconds, cpu_seconds, peak_mb = json.loads(done.stdout)
    if status not in legal:
        raise RuntimeError(f"{command}: status {status}: {done.stderr[-500:]}")
    return Footprint(
        seconds=round(seconds, 2),
        cpu_seconds=round(cpu_seconds, 2),
        peak_mb=round(peak_mb, 1),
    )


def many(paths: Sequence[Path], folder: Path, *, count: int) -> Path:
    """A folder of `count` images: these, decoded and resized once, and hard links to them."""
    folder.mkdir()
    for index in range(count):
        place, first = folder / f"{index:06}.png", folder / f"{index % len(paths):06}.png"
        if place == first:
            write_png(place, resize(read_image(paths[index]), FitSettings().input.network_shape))
        else:
            os.link(first, place)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--category", required=True)
    parser.add_argument(
        "--good",
        type=int,
        metavar="N",
        help="fit on N good images: links to the category's, at the network's size",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    category = open_category(arguments.category, data_root=arguments.data_root)
    program, threads = [sys.executable, "-m", "energyad"], ["--threads", str(arguments.threads)]
    with tempfile.TemporaryDirectory() as folder:
        model, test = f"{folder}/model", str(category.root / "test")
        good = str(category.root / "train" / "good")
        if arguments.good is not None:
            good = str(many(category.train_good, Path(folder) / "good", count=arguments.good))
        footprints = {
            "help": measure([*program, "--help"]),
            "fit": measure([*program, "fit", "--images", good, "--name", "m", "--output", model, *threads]),
            "score": measure([*program, "score", test, "--model", model, "--no-csv", *threads], legal=(0, 1)),
        }
    row = {
        "category": category.name,
        "num_train": arguments.good or len(category.train_good),
        "num_test": len(category.test),
        "ms_an_image": round(1000 * footprints["score"].seconds / max(1, len(category.test)), 1),
        **{name: asdict(footprint) for name, footprint in footprints.items()},
        **asdict(stamp(threads=arguments.threads)),
    }
    append_row(arguments.results, row)
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
