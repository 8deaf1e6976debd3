"""`python -m benchmarks.robustness --parts watch`: kill watchers. `--parts start`: start one with many results.
`--parts decoding`: decode damaged files.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.provenance import append_row, read_rows, stamp
from benchmarks.robustness.decoding import compare_fills
from benchmarks.robustness.postgres import private_server
from benchmarks.robustness.start import PRESENT, measure_start
from benchmarks.robustness.watching import LAYOUTS, run_layout

DECODING_RESULTS = Path(__file__).with_name("decoding.jsonl")
START_RESULTS = Path(__file__).with_name("start.jsonl")
WATCHING_RESULTS = Path(__file__).with_name("watching.jsonl")
PARTS = ("watch", "start", "decoding")
SHARE = 2500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--parts", nargs="+", choices=("watch", "start", "decoding"), default=["watch", "start", "decoding"]
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--count", type=int, default=12_000, help="of damaged files, with those that the rows hold"
    )
    parser.add_argument("--decoding-results", type=Path, default=DECODING_RESULTS)
    parser.add_argument("--watching-results", type=Path, default=WATCHING_RESULTS)
    parser.add_argument("--model", type=Path, help="for the layouts that run the program")
    parser.add_argument("--files", type=int, default=160, help="that arrive in each layout")
    parser.add_argument("--num-results", type=int, default=1_000_000, help="in the database that starts")
    parser.add_argument("--kills", type=int, default=18, help="in each layout")
    arguments = parser.parse_args()
    if "decoding" in arguments.parts:
        run_decoding(arguments.seed, arguments.count, arguments.decoding_results)
    if "watch" in arguments.parts:
        run_watch(
            arguments.seed, arguments.files, arguments.kills, arguments.model, arguments.watching_results
        )
    if "start" in arguments.parts:
        run_start(arguments.num_results, arguments.model, START_RESULTS)


def run_start(results: int, model: Path | None, rows: Path) -> None:
    """Append a row for an empty database, and one for so many results."""
    for count in (PRESENT, results):
        times = measure_start(count, model=model)
        row = {**asdict(times), **asdict(stamp(threads=1, packages=("energyad", "sqlalchemy")))}
        append_row(rows, row)
        print(json.dumps(row), flush=True)


def run_decoding(seed: int, count: int, results: Path) -> None:
    """Append a row for each share of the damaged files of this seed, after those that the file holds."""
    rows = [row for row in read_rows(results) if row["seed"] == seed]
    done = max((row["first"] + row["count"] for row in rows), default=0)
    for first in range(done, count, SHARE):
        counts = compare_fills(seed, first, min(SHARE, count - first))
        packages = ("energyad", "numpy", "opencv-python-headless", "pillow")
        row = {**asdict(counts), **asdict(stamp(threads=1, packages=packages))}
        append_row(results, row)
        print(json.dumps(row), flush=True)


def run_watch(seed: int, files: int, kills: int, model: Path | None, results: Path) -> None:
    """Append a row for each layout that has none of this seed yet."""
    done = {row["layout"] for row in read_rows(results) if row["seed"] == seed}
    layouts = [layout for layout in LAYOUTS if model is not None or not layout.program]
    with private_server() as server:
        for layout in layouts:
            if layout.name in done:
                continue
            counts = run_layout(layout, files=files, kills=kills, seed=seed, server=server, model=model)
            packages = ("energyad", "sqlalchemy", *(("psycopg",) if layout.server else ()))
            row = {"seed": seed, **asdict(counts), **asdict(stamp(threads=1, packages=packages))}
            append_row(results, row)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
