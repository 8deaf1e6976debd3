"""`python -m benchmarks.detection.choices_table`: what each change of the defaults changes, from the rows alone."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from benchmarks import provenance
from benchmarks.detection.choices import CHANGES, DEFAULT, RESULTS, hashed, is_known
from benchmarks.markdown import Place, mean_and_deviation, table, tabulate
from energyad.settings import FitSettings

PLACE = Place.of("choices table")
FIGURES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
NOTHING = "—"

UNNAMED_SIZE = 256
"""The default's image size of rows that do not name it."""

Pair: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any]]
"""A row, and the default's that it is compared with."""
Key: TypeAlias = tuple[str, str, int]
"""Change, category, seed."""
AGES = {False: "earlier", True: "today's"}
"""Of the default that a line stands beside."""


def render(rows: Iterable[Mapping[str, Any]]) -> str:
    """A table for each image size of the default, the largest first."""
    by_size: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_size.setdefault(int(row.get("image_size", UNNAMED_SIZE)), []).append(row)
    parts = [
        (size, _table(of_size, today=hashed(FitSettings().with_values({"input.image_size": size}))))
        for size, of_size in sorted(by_size.items(), reverse=True)
    ]
    told = [f"With a default of {size} × {size} pixels:\n\n{text}" for size, text in parts if text]
    return "\n\n".join(told) or "No rows yet."


def _table(rows: Iterable[Mapping[str, Any]], *, today: str) -> str:
    """One line a change: by how many points it differs from the default, mean and range of the seeds they share.

    today: digits of today's default. A line of an earlier one says so.
    """
    pairs = of_today(beside_defaults(rows), today)
    categories = sorted({category for change, category, _ in pairs if change == DEFAULT})
    if not categories:
        return ""
    head = [
        "change",
        *(f"{name}, {label}" for name in categories for label in FIGURES.values()),
        "seeds",
        "default",
    ]
    known = {change for change, _, _ in pairs}
    lines = []
    for change in [*(c for c in CHANGES if c in known), *sorted(known - {*CHANGES})]:
        told = cell if change == DEFAULT else difference
        own = {
            name: [
                pair for (c, category, _), pair in sorted(pairs.items()) if (c, category) == (change, name)
            ]
            for name in categories
        }
        seeds = ", ".join(str(len(own[name])) for name in categories)
        cells = (told(own[name], figure) for name in categories for figure in FIGURES)
        ages = {_is_of(pair, today) for name in categories for pair in own[name]}
        lines.append([change, *cells, seeds, " and ".join(AGES[each] for each in sorted(ages))])
    return f"{table(head, lines)}\n\n{origin(row for pair in pairs.values() for row in pair)}"


def beside_defaults(rows: Iterable[Mapping[str, Any]]) -> Mapping[Key, Pair]:
    """The newest row of each change, category and seed that has a default of the same commit beside it.

    Changes of settings that are gone are left out.
    """
    ordered = sorted(rows, key=lambda row: str(row["date"]))
    places = {
        (row["commit"], row["category"], row["seed"]): row for row in ordered if row["change"] == DEFAULT
    }
    pairs: dict[Key, Pair] = {}
    for row in (row for row in ordered if is_known(row["change"])):
        default = places.get((row["commit"], row["category"], row["seed"]))
        if default is not None:
            pairs[row["change"], row["category"], row["seed"]] = (row, default)
    return pairs


def of_today(pairs: Mapping[Key, Pair], today: str) -> Mapping[Key, Pair]:
    """Of each change and category the pairs of today's default; where there are none, those of earlier ones."""
    measured = {key[:2] for key, pair in pairs.items() if _is_of(pair, today)}
    return {key: pair for key, pair in pairs.items() if _is_of(pair, today) or key[:2] not in measured}


def _is_of(pair: Pair, today: str) -> bool:
    return bool(pair[1]["settings_hash"] == today)


def cell(pairs: Sequence[Pair], figure: str) -> str:
    """The default's own figure."""
    values = [float(row[figure]) for row, _ in pairs if figure in row]
    return mean_and_deviation(values, 3) if values else NOTHING


def difference(pairs: Sequence[Pair], figure: str) -> str:
    """In points, seed by seed: each seed holds out other parts and other kinds of defects."""
    points = [100 * (float(row[figure]) - float(beside[figure])) for row, beside in pairs if figure in row]
    if not points:
        return NOTHING
    if len(points) == 1:
        return signed(points[0])
    return f"{signed(statistics.fmean(points))} ({signed(min(points))} to {signed(max(points))})"


def signed(points: float) -> str:
    """With its sign; nothing is neither gained nor lost below a twentieth of a point."""
    return "0.0" if abs(points) < 0.05 else f"{points:+.1f}"


def origin(rows: Iterable[Mapping[str, Any]]) -> str:
    """Where they were measured."""
    known = list({id(row): row for row in rows}.values())
    commits = sorted({str(row["commit"])[:9] + ("+" if row["modified"] else "") for row in known})
    seeds = sorted({int(row["seed"]) for row in known})
    return (
        f"{len(known)} rows, seeds {', '.join(map(str, seeds))}, commits {', '.join(commits)}; "
        f"{'; '.join(sorted({row['processor'] for row in known}))}. Of the default mean ± standard deviation; of a "
        "change the difference in points from the default of the same commit, its mean and range over seeds."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file, or check that the file has them. Returns the exit status."""
    return tabulate(
        lambda path: render(provenance.read_rows(path)),
        PLACE,
        results=RESULTS,
        program="benchmarks.detection.choices_table",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
