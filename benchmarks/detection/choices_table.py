"""`python -m benchmarks.detection.choices_table`: what each change of the defaults changes, from the rows alone."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import provenance
from benchmarks.detection.choices import CHANGES, DEFAULT, RESULTS, hashed, settings_of
from benchmarks.markdown import Place, mean_and_deviation, table
from energyad.errors import EnergyadError, SettingsError
from energyad.settings import FitSettings

PLACE = Place.of("choices table")
FIGURES = {"image_auroc": "image", "pixel_auroc": "pixel"}

Found: TypeAlias = Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]]
"""Of each change and category, the rows of each seed."""


def render(rows: Iterable[Mapping[str, Any]]) -> str:
    """One line a change: by how many points it differs from the default, mean and range of the seeds they share."""
    found = of_todays_defaults(rows)
    categories = sorted({category for change, category in found if change == DEFAULT})
    if not categories:
        return "No rows of today's defaults yet."
    head = ["change", *(f"{name}, {label} AUROC" for name in categories for label in FIGURES.values())]
    first = [cell(found[DEFAULT, name], figure) for name in categories for figure in FIGURES]
    lines = [[DEFAULT, *first]]
    known = {change for change, _ in found}
    for change in [*(c for c in CHANGES[1:] if c in known), *sorted(known - {*CHANGES})]:
        both = [(found.get((change, name), {}), found[DEFAULT, name]) for name in categories]
        lines.append([change, *(difference(*pair, figure) for pair in both for figure in FIGURES)])
    return f"{table(head, lines)}\n\n{origin(row for seeds in found.values() for row in seeds.values())}"


def of_todays_defaults(rows: Iterable[Mapping[str, Any]]) -> Found:
    """The newest row of each change, category and seed. What was changed from other defaults is left out."""
    found: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: str(row["date"])):
        if row["settings_hash"] == _hash_today(str(row["change"])):
            found.setdefault((row["change"], row["category"]), {})[int(row["seed"])] = row
    return found


def _hash_today(change: str) -> str | None:
    try:
        return hashed(settings_of(change, FitSettings()))
    except SettingsError:  # a setting that there is no longer
        return None


def cell(seeds: Mapping[int, Mapping[str, Any]], figure: str) -> str:
    """The default's own figure."""
    return mean_and_deviation([float(row[figure]) for row in seeds.values()], 3)


def difference(
    seeds: Mapping[int, Mapping[str, Any]], default: Mapping[int, Mapping[str, Any]], figure: str
) -> str:
    """In points, seed by seed: each seed holds out other parts and other kinds of defects."""
    points = [
        100 * (float(row[figure]) - float(default[seed][figure]))
        for seed, row in seeds.items()
        if seed in default
    ]
    if not points:
        return "—"
    if len(points) == 1:
        return signed(points[0])
    return f"{signed(statistics.fmean(points))} ({signed(min(points))} to {signed(max(points))})"


def signed(points: float) -> str:
    """With its sign; nothing is neither gained nor lost below a twentieth of a point."""
    return "0.0" if abs(points) < 0.05 else f"{points:+.1f}"


def origin(rows: Iterable[Mapping[str, Any]]) -> str:
    """Where they were measured."""
    known = list(rows)
    commits = sorted({str(row["commit"])[:9] + ("+" if row["modified"] else "") for row in known})
    seeds = sorted({int(row["seed"]) for row in known})
    return (
        f"{len(known)} rows, seeds {', '.join(map(str, seeds))}, commits {', '.join(commits)}; "
        f"{'; '.join(sorted({row['processor'] for row in known}))}. Of the default mean ± standard deviation; of a "
        "change the difference in points, its mean and range over seeds."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it into a file, or check that the file has it. Returns the exit status."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.detection.choices_table", description=__doc__)
    p.add_argument("--results", type=Path, default=RESULTS)
    p.add_argument("--into", type=Path, help="Markdown file with the two markers")
    p.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    options = p.parse_args(arguments)
    try:
        text = render(provenance.read_rows(options.results))
        if options.into is None:
            print(text)
            return 0
        old, new = PLACE.filled(options.into, text)
    except EnergyadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.check:
        print("up to date" if old == new else f"{options.into}: out of date; run without --check")
        return int(old != new)
    options.into.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
