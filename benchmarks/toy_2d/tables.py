"""FeatureStore of results into Markdown tables: mean ± standard deviation over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks import markdown
from benchmarks.markdown import Place

Row = dict[str, Any]
Getter = Callable[[Row], float | None]
PLACE = Place("<!-- results: written by the command -->", "<!-- end of results -->")


def samples(name: str, sampler: str = "full") -> Getter:
    """A measure of the samples after the game."""
    return lambda row: row.get("samples", {}).get(sampler, {}).get(name)


def energy(name: str) -> Getter:
    """A measure of the energy."""
    return lambda row: row.get("energy", {}).get(name)


def ddpm(name: str) -> Getter:
    """A measure of the samples before the game, the better of a noisy and a noiseless last step."""

    def read(row: Row) -> float | None:
        before = row.get("ddpm")
        return None if before is None else min(quality[name] for quality in before.values())

    return read


def kilobytes(name: str) -> Getter:
    """Activations kept by one sampler update."""
    return lambda row: row["bytes_saved"][name] / 1000 if "bytes_saved" in row else None


def seconds(row: Row) -> float | None:
    """Seconds of the game, pretraining and measuring not counted."""
    return row.get("seconds")


COLUMNS: dict[str, tuple[Getter, int]] = {
    "AUROC": (energy("auroc"), 3),
    "of": (energy("true_auroc"), 3),
    "rank": (energy("spearman"), 3),
    "SW": (samples("sliced_wasserstein"), 3),
    "SW, DDPM": (ddpm("sliced_wasserstein"), 3),
    "floor": (lambda row: row["floor"], 3),
    "modes": (samples("modes"), 1),
    "mode error": (samples("mode_error"), 2),
    "seconds": (seconds, 0),
}
MAIN = ("AUROC", "of", "rank", "SW", "SW, DDPM", "floor", "modes", "mode error", "seconds")
TABLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Before and after, pretrained and from scratch", ("ddpm_T5", "ddpm_T100", "pretrained", "scratch")),
    ("Temperature", ("tau_0", "tau_001", "tau_003", "pretrained", "tau_03")),
    ("Path cost (pretrained) against adaptive cost", ("pretrained", "adaptive")),
    ("Steps", ("T_1", "T_2", "T_4", "pretrained", "T_10")),
    ("Other targets", ("skewed_mixture", "two_spirals")),
)


def tables(rows: list[Row]) -> str:
    """All tables as Markdown."""
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row["run"], []).append(row)
    parts = [table(title, runs, names, {name: COLUMNS[name] for name in MAIN}) for title, names in TABLES]
    parts += [by_seed(runs), through_time(runs), any_steps(runs), provenance(rows)]
    return "\n\n".join(part for part in parts if part)


def table(
    title: str, runs: dict[str, list[Row]], names: Iterable[str], columns: dict[str, tuple[Getter, int]]
) -> str:
    """One line a run that has rows."""
    lines = []
    for name in names:
        if name in runs:
            cells = [
                spread([getter(row) for row in runs[name]], digits) for getter, digits in columns.values()
            ]
            lines.append([name, str(len(runs[name])), *cells])
    return f"### {title}\n\n{markdown.table(['run', 'seeds', *columns], lines)}"


def spread(values: list[float | None], digits: int) -> str:
    """Mean ± standard deviation; nothing where a run lacks the measure."""
    present = [value for value in values if value is not None]
    return markdown.mean_and_deviation(present, digits) if present else ""


def by_seed(runs: dict[str, list[Row]]) -> str:
    """The pretrained run seed by seed, beside both DDPMs of as many steps."""
    longer = {row["seed"]: ddpm("sliced_wasserstein")(row) for row in runs.get("ddpm_T5", [])}
    head = (
        "seed",
        "SW before (DDPM)",
        "SW of the long DDPM",
        "SW after",
        "floor",
        "AUROC",
        "of",
        "mode error",
    )
    lines = []
    for row in sorted(runs.get("pretrained", []), key=lambda row: row["seed"]):
        values = [
            ddpm("sliced_wasserstein")(row),
            longer.get(row["seed"]),
            samples("sliced_wasserstein")(row),
        ]
        values += [row["floor"], energy("auroc")(row), energy("true_auroc")(row), samples("mode_error")(row)]
        lines.append([str(row["seed"]), *("" if v is None else f"{v:.3f}" for v in values)])
    title = "### Seed by seed: 8 Gaussians, T = 5, pretrained, τ = 0.1"
    return f"{title}\n\n{markdown.table(head, lines)}"


def through_time(runs: dict[str, list[Row]]) -> str:
    """DxDP against back-propagation through time."""
    columns = {name: COLUMNS[name] for name in ("AUROC", "rank", "SW", "seconds")}
    ours, theirs = "pretrained", "through_time"
    columns["kB kept"] = (
        lambda row: kilobytes("through_time" if row["run"] == theirs else "all_steps")(row),
        0,
    )
    columns["kB kept, one step at a time"] = (
        lambda row: None if row["run"] == theirs else kilobytes("one_step")(row),
        0,
    )
    return table("DxDP (pretrained) against back-propagation through time", runs, (ours, theirs), columns)


def any_steps(runs: dict[str, list[Row]]) -> str:
    """One sampler at every number of steps, beside samplers trained for that number, and the single step."""
    rows = runs.get("any_steps", [])
    if not rows:
        return ""
    fixed = {"1": "T_1", "2": "T_2", "4": "T_4", "5": "pretrained", "10": "T_10"}
    head = ("steps", "one sampler", "trained for these steps alone", "DDPM of these steps")
    lines = []
    for steps in [name for name in rows[0]["samples"] if name.isdigit()]:
        of_fixed = runs.get(fixed.get(steps, ""), [])
        cells = [[samples("sliced_wasserstein", steps)(row) for row in rows]]
        cells += [
            [getter(row) for row in of_fixed]
            for getter in (samples("sliced_wasserstein"), ddpm("sliced_wasserstein"))
        ]
        lines.append([steps, *(spread(values, 3) for values in cells)])
    single = spread([samples("sliced_wasserstein", "single_step")(row) for row in rows], 3)
    lines.append(["1, played on in single steps", single, "", ""])
    title = "### One sampler for any number of steps: sliced Wasserstein"
    return f"{title}\n\n{markdown.table(head, lines)}"


def provenance(rows: list[Row]) -> str:
    """Commits, dates and machines of the rows."""
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    dates = sorted(row["date"] for row in rows)
    machines = ", ".join(
        sorted({f"{row['machine']['processor']}, {row['machine']['cores']} cores" for row in rows})
    )
    versions = ", ".join(
        sorted({f"Python {row['versions']['python']}, torch {row['versions']['torch']}" for row in rows})
    )
    return f"{len(rows)} rows, commits {commits}, {dates[0]} to {dates[-1]}, {versions}, {machines}, one thread a run."
