"""Rows to tables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.generation.train import PROBLEMS, RUNS
from benchmarks.markdown import Place, mean_and_deviation, table

Row = dict[str, Any]
SOLVERS = {
    "ancestral": "DDPM's own steps",
    "ddim": "DDIM",
    "dpm_solver": "DPM-Solver++",
    "euler": "Euler",
    "heun": "Heun",
}
MEASURES = ("frechet", "precision", "recall", "sliced_wasserstein", "nearest")
HEAD = ("Fréchet", "precision", "recall", "sliced Wasserstein", "nearest training digit")


def fill_tables(file: Path, rows: Sequence[Row]) -> None:
    """Write the tables of each data set into its place in a file."""
    for name in PROBLEMS:
        Place.of(name).fill(file, tables([row for row in rows if row.get("of", "digits") == name]))


def tables(rows: Sequence[Row]) -> str:
    """All tables that there are rows for, of one data set."""
    any_steps = [row for row in rows if row["run"] == "any_steps"]
    rows = [row for row in rows if row["run"] in RUNS]
    if not rows:
        return "No rows yet."
    parts = [_floor(rows)]
    for name in RUNS:
        some = [row for row in rows if row["run"] == name]
        if some:
            parts.append(_run(name, some))
    if any_steps:
        parts.append(_any_steps(any_steps, rows))
    parts.append(_seeds(rows))
    return "\n\n".join(parts)


def _floor(rows: Sequence[Row]) -> str:
    return (
        f"The classifier whose features are used is right on {rows[0]['accuracy']:.1%} of the test digits.\n\n"
        "### Floor: real test digits against the training digits\n\n"
        + table(HEAD, [[f"{rows[0]['floor'][measure]:.3g}" for measure in MEASURES]])
    )


def _run(name: str, rows: Sequence[Row]) -> str:
    steps = rows[0]["steps"]

    def line(label: str, of: Callable[[Row], Row]) -> list[str]:
        digits = (1, 3, 3, 3, 2)
        return [
            label,
            str(len(rows)),
            *(
                mean_and_deviation([of(row)[measure] for row in rows], count)
                for measure, count in zip(MEASURES, digits, strict=True)
            ),
        ]

    lines = [
        line(f"{SOLVERS[solver]}, {count} evaluations", functools.partial(_quality, part, solver))
        for part, count in (("many_steps", rows[0].get("many_evaluations", 100)), ("few_steps", steps))
        for solver in rows[0][part]
    ]
    lines.append(line(f"DxMI, {steps} steps", lambda row: row["dxmi"]["averaged"]))
    seconds = mean_and_deviation([row["dxmi"]["seconds"] for row in rows], 0)
    before = mean_and_deviation([row["pretrain_seconds"] for row in rows], 0)
    return (
        f"### {name}\n\n{table(('sampler', 'seeds', *HEAD), lines)}\n\n"
        f"Processor time: {before} s of pretraining, {seconds} s of DxMI ({rows[0]['iterations']} iterations)."
    )


def _any_steps(rows: Sequence[Row], fixed: Sequence[Row]) -> str:
    """One sampler for all numbers of steps beside those trained for one, of the same seeds."""
    seeds = {row["seed"] for row in rows}

    def frechet(qualities: Sequence[Row]) -> str:
        return mean_and_deviation([quality["frechet"] for quality in qualities], 1) if qualities else ""

    lines = []
    for steps in rows[0]["after"]:
        beside = [row for row in fixed if row["run"] == f"ddpm_T{steps}" and row["seed"] in seeds]
        after = [row["after"][steps] for row in rows]
        lines.append(
            [
                steps,
                str(len(rows)),
                frechet([row["before"][steps] for row in rows]),
                frechet(after),
                frechet([row["dxmi"]["averaged"] for row in beside]),
                *(mean_and_deviation([quality[name] for quality in after], 3) for name in MEASURES[1:3]),
            ]
        )
    single = [row["single_step"] for row in rows]
    quality = ", ".join(
        f"{name} {mean_and_deviation([q[name] for q in single], 3)}" for name in MEASURES[1:3]
    )
    head = (
        "steps",
        "seeds",
        "Fréchet before",
        "one sampler",
        "trained for these steps alone",
        "precision",
        "recall",
    )
    return (
        f"### One sampler for 1 to 10 steps\n\n{table(head, lines)}\n\n"
        f"The single-step generator made from it: Fréchet {frechet(single)}, {quality}.\n\n"
        f"Processor time: {mean_and_deviation([row['seconds'] for row in rows], 0)} s "
        f"({rows[0]['iterations']} iterations), then "
        f"{mean_and_deviation([row['single_step_seconds'] for row in rows], 0)} s "
        f"({rows[0]['single_step_iterations']} of single steps)."
    )


def _quality(part: str, solver: str, row: Row) -> Row:
    return row[part][solver]


def _seeds(rows: Sequence[Row]) -> str:
    lines = []
    for row in sorted(rows, key=lambda row: (row["run"], row["seed"])):
        best = min(quality["frechet"] for quality in row["few_steps"].values())
        after = row["dxmi"]["averaged"]["frechet"]
        curve = ", ".join(f"{point['frechet']:.0f}" for point in row["dxmi"]["curve"])
        lines.append(
            [row["run"], str(row["seed"]), f"{best:.1f}", f"{after:.1f}", f"{after / best:.2f}", curve]
        )
    head = ("run", "seed", "best baseline of as many steps", "DxMI", "ratio", "along the training")
    return f"### Seed by seed: Fréchet distance\n\n{table(head, lines)}"
