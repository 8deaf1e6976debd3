"""`python -m benchmarks.detection.games_table`: what DxMI gives, from the rows of `benchmarks.detection.games`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import provenance
from benchmarks.detection.differences import FIGURES, categories_of, lines_of, source_of
from benchmarks.detection.games import ALONE, GAMES, RESULTS, SPHERE, START, STARTS, WHOLE
from benchmarks.markdown import Place, table, tabulate

PLACE = Place.of("games table")


def render(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table for each start and each view; of several rows of one cell the newest counts."""
    measured = list(rows)
    parts = []
    for start in (*STARTS, SPHERE):
        for view in (WHOLE, ALONE):
            newest = {
                (row["game"], row["category"], row["seed"]): row
                for row in measured
                if (row["start"], row["view"]) == (start, view)
            }
            if newest:
                parts.append(f"**Start: {start}; {view}**\n\n{_table(newest)}\n\n{source_of(newest)}")
    return "\n\n".join(parts) or "No rows yet."


def render_health(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table of the health of DxMI from the first start, one line for each category's finest scale."""
    found = {
        row["category"]: row["health"][0]
        for row in rows
        if (row["start"], row["game"], row["view"]) == (next(iter(STARTS)), "DxMI", WHOLE)
    }
    if not found:
        return ""
    head = (
        "category",
        "energy of samples / data",
        "at the bound",
        "mean square / data's",
        "classifier's AUROC",
        "objective before",
        "after",
    )
    names = ("energy_ratio", "bound_share", "mean_square_ratio", "classifier_auroc")
    objectives = ("objective_before", "objective_after")
    lines = [
        [category, *(f"{health[name]:.2f}" for name in (*names, *objectives))]
        for category, health in sorted(found.items())
    ]
    return "**Health of DxMI, finest scale**\n\n" + table(head, lines)


def _table(newest: Mapping[tuple[str, str, int], Mapping[str, Any]]) -> str:
    categories = categories_of(newest, "image_auroc", START)
    others = {game: game for game in GAMES if game != START}
    lines = []
    for figure, name in FIGURES.items():
        masked = categories_of(newest, figure, START)
        for line in lines_of(newest, figure, base=START, others=others, categories=masked):
            game, *cells = line
            by_category = dict(zip([*masked, "mean"], cells, strict=True))
            lines.append([name, game, *(by_category.get(column, "") for column in [*categories, "mean"])])
    return table(["figure", "game", *categories, "mean"], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file. Returns the exit status."""
    return tabulate(
        lambda path: "\n\n".join(
            [render(provenance.read_rows(path)), render_health(provenance.read_rows(path))]
        ).rstrip(),
        PLACE,
        results=RESULTS,
        program="benchmarks.detection.games_table",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
