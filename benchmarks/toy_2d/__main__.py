"""`python -m benchmarks.toy_2d [--quick]`: trains what has no row yet, then writes tables and figures."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.toy_2d.config import Job, read_jobs
from benchmarks.toy_2d.figures import draw_figures
from benchmarks.toy_2d.tables import PLACE, tables
from benchmarks.toy_2d.train import Row, train

FOLDER = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toy_2d", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every part once, in a throw-away folder")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="train these alone now; tables hold all rows there are"
    )
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the workers when they start
    started = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="toy_2d_")) if arguments.quick else FOLDER
    jobs = read_jobs(quick=arguments.quick)
    run_jobs(
        [job for job in jobs if arguments.seeds is None or job.seed in arguments.seeds],
        folder,
        arguments.workers,
    )
    rows = rows_of(jobs, folder)
    draw_figures(rows, folder)
    text = tables(rows)
    print(text)
    if not arguments.quick:
        PLACE.fill(folder / "README.md", text)
    print(f"{len(rows)} rows, tables and figures in {folder}, {time.perf_counter() - started:.0f} s")


def run_jobs(jobs: list[Job], folder: Path, workers: int) -> None:
    """Train the jobs that have no row in results.jsonl, adding rows as they land."""
    results = folder / "results.jsonl"
    found = {row["key"] for row in read_rows(results)}
    waiting = [job for job in jobs if job.key not in found]
    print(f"{len(jobs) - len(waiting)} rows found, {len(waiting)} to train", flush=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train, job, folder / "pictures") for job in waiting]
        for done, future in enumerate(as_completed(futures), start=1):
            row = future.result()
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{done}/{len(waiting)} {row['run']} seed {row['seed']}", flush=True)


def rows_of(jobs: list[Job], folder: Path) -> list[Row]:
    """The rows that results.jsonl holds of these jobs, in their order."""
    rows = {row["key"]: row for row in read_rows(folder / "results.jsonl")}
    return [rows[job.key] for job in jobs if job.key in rows]


def read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
