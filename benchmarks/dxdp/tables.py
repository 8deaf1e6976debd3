"""Rows to tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.dxdp.gaussians import METHODS
from benchmarks.markdown import Place, mean_and_deviation, table

Row = dict[str, Any]
PLACE = Place.of("results")
NAMES = {
    "dxdp": "DxDP",
    "through_time": "back-propagation",
    "values_alone": "DxDP, gradient not taught",
}


def tables(rows: Sequence[Row]) -> str:
    """All tables that there are rows for."""
    parts = {name: [row for row in rows if row["part"] == name] for name in RENDER}
    return "\n\n".join(RENDER[name](some) for name, some in parts.items() if some)


def gaussians(rows: Sequence[Row]) -> str:
    """One line a target and method, over seeds."""
    lines = []
    for equal in (True, False):
        for dims in sorted({row["dims"] for row in rows}):
            for method in METHODS:
                some = [r for r in rows if (r["equal"], r["dims"], r["method"]) == (equal, dims, method)]
                if some:
                    lines.append(_gaussian_line(some))
    head = (
        "axes",
        "d",
        "method",
        "seeds",
        "objective before",
        "after",
        "optimum",
        "over it",
        "highest / before",
    )
    spread = ("deviation / optimal: mean", "smallest", "largest", "cosine", "CPU s")
    return "### Gaussian targets\n\n" + table([*head, *spread], lines)


def _gaussian_line(rows: Sequence[Row]) -> list[str]:
    def mean(of: Callable[[Row], float], digits: int) -> str:
        return mean_and_deviation([of(row) for row in rows], digits)

    def extreme(choose: Callable[[Iterable[float]], float], name: str) -> str:
        return f"{choose(row['deviation_ratios'][name] for row in rows):.3f}"

    cosines = [min(row["gradient_cosines"], default=1.0) for row in rows if row["gradient_cosines"]]
    return [
        "equal" if rows[0]["equal"] else "unequal",
        str(rows[0]["dims"]),
        NAMES[rows[0]["method"]],
        str(len(rows)),
        mean(lambda row: row["objective_before"], 4),
        mean(lambda row: row["objective"], 4),
        f"{rows[0]['objective_optimal']:.4f}",
        f"{max(100 * (row['objective'] / row['objective_optimal'] - 1) for row in rows):.2f} %",
        f"{max(row['objective_highest'] / row['objective_before'] for row in rows):.3f}",
        mean(lambda row: row["deviation_ratios"]["mean"], 3),
        extreme(min, "smallest"),
        extreme(max, "largest"),
        f"{min(cosines):.2f}" if cosines else "",
        mean(lambda row: row["cpu_seconds"], 1),
    ]


def latents(rows: Sequence[Row]) -> str:
    """One line a method, over seeds."""
    lines = []
    for method in METHODS:
        some = [row for row in rows if row["method"] == method]
        if some:
            figures = [
                mean_and_deviation([row[name] for row in some], 4)
                for name in ("objective_before", "highest_ratio", "objective")
            ]
            others = [
                mean_and_deviation([row[name] for row in some], 2)
                for name in ("energy_of_samples", "mean_square", "cpu_seconds")
            ]
            lines.append([NAMES[method], str(len(some)), *figures, *others, str(some[0]["iterations"])])
    head = [
        "method",
        "seeds",
        "objective before",
        "highest / before",
        "after",
        "energy of samples",
        "mean square",
    ]
    title = f"### Latents of {rows[0]['images']}, energy held\n\n"
    return title + table([*head, "CPU s", "iterations"], lines)


def resources(rows: Sequence[Row]) -> str:
    """One line a number of steps."""
    lines = []
    for steps in sorted({row["steps"] for row in rows}):
        line = [str(steps)]
        for name, digits in (("peak_megabytes", 0), ("update_cpu_seconds", 3), ("rollout_cpu_seconds", 3)):
            for method in ("dxdp", "through_time"):
                found = [row[name] for row in rows if (row["steps"], row["method"]) == (steps, method)]
                line.append(mean_and_deviation(found, digits) if found else "")
        lines.append(line)
    names = ("peak MB", "CPU s an update", "CPU s to draw the chains")
    head = [f"{name}, {NAMES[method]}" for name in names for method in ("dxdp", "through_time")]
    return "### Memory and time against T\n\n" + table(["T", *head], lines)


def health(rows: Sequence[Row]) -> str:
    """One line an energy."""
    lines = [
        [
            row["data"],
            str(row["energy"]),
            f"{row['energy_ratio']:.2f}",
            f"{row['bound_share']:.0%}",
            f"{row['mean_square_ratio']:.2f}",
            f"{row['classifier_auroc']:.3f}",
            f"{row['objective_before']:.3f} → {row['objective_after']:.3f}",
            row["verdict"],
        ]
        for row in rows
    ]
    head = (
        "data",
        "energy",
        "energy of samples / data",
        "at the bound",
        "mean square of samples / data",
        "classifier AUROC",
        "objective before → after",
        "verdict",
    )
    return "### Health of DxMI in a default fit\n\n" + table(head, lines)


RENDER: dict[str, Callable[[Sequence[Row]], str]] = {
    "gaussians": gaussians,
    "latents": latents,
    "resources": resources,
    "health": health,
}
