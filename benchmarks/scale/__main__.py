"""`python -m benchmarks.scale kills|efficiency|memory`: run a part, append its rows, print them.

Jobs that have a row of the same seed are not run again. The command's status is 1 where a row of `kills` breaks
what must hold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.provenance import append_row, read_rows, stamp
from benchmarks.robustness.small_model import fit_small, good_parts
from benchmarks.scale import efficiency, kills
from energyad.data.demo import render_demo
from energyad.detector import AnomalyDetector

PARTS: Final = ("kills", "efficiency", "memory")
PACKAGES: Final = ("energyad", "ray", "pyarrow", "onnxruntime", "numpy")
MEMORY_SHARD: Final = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a part; returns the exit status."""
    options = parser().parse_args(arguments)
    is_clean = True
    for values in run(options):
        row = {"seed": options.seed, **values, **asdict(stamp(threads=options.cores, packages=PACKAGES))}
        append_row(options.rows / f"{options.part}.jsonl", row)
        print(json.dumps(row), flush=True)
        is_clean = is_clean and row.get("is_clean", True)
    return 0 if is_clean else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    p.add_argument("part", choices=PARTS)
    p.add_argument("--model", type=Path, help="a fitted model's folder; default: one is fitted first")
    p.add_argument("--jobs", type=int, default=100, help="of kills, with those that the rows hold")
    p.add_argument("--images", type=int, nargs="+", help="of a job, or of each archive")
    p.add_argument("--side", type=int, default=256, help="of efficiency: pixels of a side of the files")
    p.add_argument("--repeat", type=int, default=1, help="of efficiency: runs of each engine")
    p.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--rows", type=Path, default=Path(__file__).parent, help="folder for the rows")
    return p


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of a part."""
    with tempfile.TemporaryDirectory(prefix="energyad-scale-") as name:
        folder, images, seed = Path(name), options.images, options.seed
        model = options.model or _fit(options.part, folder)
        if options.part == "kills":
            present = [row["job"] for row in read_rows(options.rows / "kills.jsonl") if row["seed"] == seed]
            jobs = range(max(present, default=-1) + 1, options.jobs)
            for counts in kills.run_jobs(model, jobs=jobs, images=(images or [120])[0], seed=seed):
                yield {**asdict(counts), "is_clean": counts.is_clean}
        elif options.part == "efficiency":
            yield from map(
                asdict,
                efficiency.compare(
                    model,
                    folder,
                    counts=images or [20_000],
                    cores=options.cores,
                    side=options.side,
                    seed=seed,
                    repeat=options.repeat,
                ),
            )
        else:
            yield from map(
                asdict,
                efficiency.memory(
                    model,
                    folder,
                    counts=images or [1_000, 5_000, 20_000],
                    shard_size=MEMORY_SHARD,
                    cores=options.cores,
                    seed=seed,
                ),
            )


def _fit(part: str, folder: Path) -> Path:
    """A model: that of the defaults where time is measured, else the smallest one."""
    if part == "efficiency":
        good = render_demo(folder / "parts", train=20, good=0, per_flaw=0).train_good
        AnomalyDetector.fit(good, name="rendered").save(folder / "model")
    else:
        fit_small(good_parts(folder / "parts")).save(folder / "model")
    return folder / "model"


if __name__ == "__main__":
    sys.exit(main())
