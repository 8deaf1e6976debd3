"""Rows to tables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.generation.train import RUNS
from benchmarks.markdown import Place, mean_and_deviation, table

Row = dict[str, Any]
PLACE = Place.of("results")
SOLVERS = {
    "ancestral": "DDPM's own steps",
    "ddim": "DDIM",
    "dpm_solver": "DPM-Solver++",
    "euler": "Euler",
    "heun": "Heun",
}
MEASURES = ("frechet", "precision", "recall", "sliced_wasserstein", "nearest")
HEAD = ("Fréchet", "precision", "recall", "sliced Wasserstein", "nearest training digit")


def tables(rows: Sequence[Row]) -> str:
    """All tables that there are rows for."""
    parts = [_floor(rows)]
    for name in RUNS:
        some = [row for row in rows if row["run"] == name]
        if some:
            parts.append(_run(name, some))
    parts.append(_seeds(rows))
    return "\n\n".join(parts)


def _floor(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
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
        for part, count in (("many_steps", 100), ("few_steps", steps))
        for solver in rows[0][part]
    ]
    lines.append(line(f"DxMI, {steps} steps", lambda row: row["dxmi"]["averaged"]))
    seconds = mean_and_deviation([row["dxmi"]["seconds"] for row in rows], 0)
    before = mean_and_deviation([row["pretrain_seconds"] for row in rows], 0)
    return (
        f"### {name}\n\n{table(('sampler', 'seeds', *HEAD), lines)}\n\n"
        f"Processor time: {before} s of pretraining, {seconds} s of DxMI ({rows[0]['iterations']} iterations)."
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
