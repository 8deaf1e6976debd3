"""`python -m benchmarks.generation`: trains the runs that results.jsonl lacks, then writes tables and figures."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.generation.any_steps import any_steps_row
from benchmarks.generation.digits import make_ruler
from benchmarks.generation.figures import draw_figures
from benchmarks.generation.tables import PLACE, tables
from benchmarks.generation.train import RUNS, rows_of
from benchmarks.provenance import append_row, read_rows, stamp

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.jsonl"
PARTS = [*RUNS, "any_steps"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--runs", nargs="*", choices=PARTS, default=PARTS, help="none for tables alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--pretrain-iterations", type=int, default=4000)
    parser.add_argument("--pictures", type=Path, default=FOLDER / "pictures", help="where samples are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ruler = make_ruler()
    print(f"classifier: {ruler.accuracy:.1%} of the test digits", flush=True)
    for seed in arguments.seeds:
        done = {row["run"] for row in read_rows(RESULTS) if row["seed"] == seed}
        waiting = {name: run for name, run in RUNS.items() if name in arguments.runs and name not in done}
        for pretraining in dict.fromkeys(run.pretraining for run in waiting.values()):
            runs = {name: run for name, run in waiting.items() if run.pretraining == pretraining}
            results = rows_of(
                pretraining, runs, ruler, seed=seed, pretrain_iterations=arguments.pretrain_iterations
            )
            for row, samples in results:
                append_row(RESULTS, row | asdict(stamp(threads=1)))
                if seed == 0:
                    arguments.pictures.mkdir(parents=True, exist_ok=True)
                    save_file(samples, arguments.pictures / f"{row['run']}.safetensors")
                few = {name: round(quality["frechet"], 1) for name, quality in row["few_steps"].items()}
                print(row["run"], seed, few, round(row["dxmi"]["averaged"]["frechet"], 1), flush=True)
        if "any_steps" in arguments.runs and "any_steps" not in done:
            row = any_steps_row(ruler, seed=seed, pretrain_iterations=arguments.pretrain_iterations)
            append_row(RESULTS, row | asdict(stamp(threads=1)))
    draw_figures(read_rows(RESULTS), arguments.pictures, FOLDER)
    PLACE.fill(FOLDER / "README.md", tables(read_rows(RESULTS)))


if __name__ == "__main__":
    main()
