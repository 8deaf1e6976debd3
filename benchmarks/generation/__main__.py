"""`python -m benchmarks.generation`: trains the runs that results.jsonl lacks, then writes tables and figures."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.generation.any_steps import any_steps_row
from benchmarks.generation.digits import DIGITS
from benchmarks.generation.figures import draw_figures
from benchmarks.generation.measures import make_ruler
from benchmarks.generation.tables import fill_tables
from benchmarks.generation.train import PROBLEMS, RUNS, ProblemName, Run, pretrain, rows_of
from benchmarks.provenance import append_row, read_rows, stamp

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.jsonl"
ANY_STEPS = "any_steps"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parts = [*RUNS, ANY_STEPS]
    parser.add_argument("--runs", nargs="*", choices=parts, default=parts, help="none for tables alone")
    parser.add_argument("--seeds", type=int, nargs="+", help="5 of digits and 3 of MNIST by default")
    parser.add_argument(
        "--pictures",
        type=Path,
        default=FOLDER / "pictures",
        help="where samples and pretrained networks are kept",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in PROBLEMS:
        runs = {key: run for key, run in RUNS.items() if run.of == name and key in arguments.runs}
        if runs:
            train_missing(name, runs, arguments.seeds, arguments.pictures)
    if ANY_STEPS in arguments.runs:
        train_any_steps(arguments.seeds)
    draw_figures(read_rows(RESULTS), arguments.pictures, FOLDER)
    fill_tables(FOLDER / "README.md", read_rows(RESULTS))


def train_missing(name: ProblemName, runs: dict[str, Run], seeds: list[int] | None, pictures: Path) -> None:
    """Add the rows of these runs that are not there yet."""
    problem = PROBLEMS[name]
    ruler = make_ruler(problem.load(), problem.classifier())
    print(f"{name}: the classifier is right on {ruler.accuracy:.1%} of the test digits", flush=True)
    for seed in seeds or problem.seeds:
        waiting = {key: run for key, run in runs.items() if key not in done(seed)}
        for pretraining in dict.fromkeys(run.pretraining for run in waiting.values()):
            file = pictures / "pretrained" / f"{name}_{pretraining}_{seed}.safetensors"
            pretrained = pretrain(problem, pretraining, ruler.data.train, seed=seed, file=file)
            some = {key: run for key, run in waiting.items() if run.pretraining == pretraining}
            for row, samples in rows_of(some, pretrained, ruler):
                append_row(RESULTS, row | asdict(stamp(threads=1)))
                if seed == 0:
                    save_file(samples, pictures / f"{row['run']}.safetensors")
                print(row["run"], seed, round(row["dxmi"]["averaged"]["frechet"], 1), flush=True)


def train_any_steps(seeds: list[int] | None) -> None:
    """Add the rows of one sampler for any number of steps that are not there yet."""
    ruler = make_ruler(DIGITS.load(), DIGITS.classifier())
    for seed in seeds or DIGITS.seeds:
        if ANY_STEPS not in done(seed):
            append_row(RESULTS, any_steps_row(ruler, seed=seed) | asdict(stamp(threads=1)))


def done(seed: int) -> set[str]:
    """Runs that there are rows of."""
    return {row["run"] for row in read_rows(RESULTS) if row["seed"] == seed}


if __name__ == "__main__":
    main()
