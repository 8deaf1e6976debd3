"""`python -m benchmarks.detection.dxmi_table`: what DxMI gives beside its own start and without entropy, from the rows.

A start and its games share what a seed draws, memory bank and synthetic defects among it, so differences are those of
each seed by itself: between seeds both move together.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from benchmarks.detection import rows, standing
from benchmarks.detection.ours import CHANGES
from benchmarks.detection.rows import Row
from benchmarks.detection.table import FIGURES, Figure
from benchmarks.markdown import Place, difference, table, tabulate
from energyad.data.demo import DEMO_NAME

PLACE = Place.of("dxmi table")
START, NO_ENTROPY = "-init", "-tau0"
GAMES = tuple(name for name in CHANGES if f"{name}{START}" in CHANGES)
NAMES = ("image AUROC", "pixel AUROC", "AUPRO")
NOTHING = "—"

Differences = Mapping[int, float]
"""Of each seed that both have, in points."""


def render(all_rows: Iterable[Row]) -> str:
    """A table of each image size. Rendered parts are no evidence, and have no column."""
    kept = [row for row in rows.current(all_rows) if not row.unified and row.category != DEMO_NAME]
    kept.sort(key=_size)
    found = [(size, _table(list(sized))) for size, sized in groupby(kept, key=_size)]
    parts = [f"{size} × {size} pixels:\n\n{text}" for size, text in found if text]
    return "\n\n".join([*parts, _legend(kept)]) if parts else "No rows yet."


def _table(sized: Sequence[Row]) -> str:
    categories = sorted({row.category for row in sized})
    lines = []
    for game in GAMES:
        for shots in sorted({row.shots for row in sized}, key=lambda count: (count is not None, count)):
            some = [row for row in sized if row.shots == shots]
            for other in (START, NO_ENTROPY):
                lines += _lines(some, game, f"{game}{other}", categories)
    whole = f"mean of {', '.join(categories)}"
    head = ("game", "beside", "good images", "figure", *categories, whole, "seeds")
    return table(head, lines) if lines else ""


def _lines(some: Sequence[Row], game: str, other: str, categories: Sequence[str]) -> list[tuple[str, ...]]:
    """One of each figure, where a category has several seeds of both."""
    lines = []
    for name, figure in zip(NAMES, FIGURES, strict=True):
        found = [differences(some, game, other, category, figure) for category in categories]
        if any(len(each) > 1 for each in found):
            shared = sorted(set[int].intersection(*map(set, found)))
            means = {seed: statistics.fmean(each[seed] for each in found) for seed in shared}
            shots = some[0].shots
            seeds = ", ".join(map(str, sorted({len(each) for each in found if each})))
            cells = [_cell(each) for each in (*found, means)]
            lines.append((game, other, "all" if shots is None else str(shots), name, *cells, seeds))
    return lines


def differences(some: Iterable[Row], game: str, other: str, category: str, figure: Figure) -> Differences:
    """How far a game is ahead of another method on a category."""
    values: dict[str, dict[int, float]] = {game: {}, other: {}}
    for row in some:
        value = figure(row)
        if row.method in values and row.category == category and value is not None:
            values[row.method][row.seed] = value
    shared = sorted(values[game].keys() & values[other].keys())
    return {seed: 100 * (values[game][seed] - values[other][seed]) for seed in shared}


def _cell(found: Differences) -> str:
    """Bold where all seeds agree on who is ahead."""
    values = list(found.values())
    if len(values) < 2:
        return NOTHING
    text = difference(values, 2)
    return f"**{text}**" if min(values) > 0 or max(values) < 0 else text


def _legend(kept: Sequence[Row]) -> str:
    shown = {f"{game}{other}" for game in GAMES for other in ("", START, NO_ENTROPY)}
    commits = sorted({(row.commit or "unknown")[:9] for row in kept if row.method in shown})
    return (
        "Points that the game is ahead (+) or behind (-), seed by seed: mean ± standard deviation; bold where it has "
        f"one sign in every seed. Commits {', '.join(commits)}."
    )


def _size(row: Row) -> int:
    return row.image_size


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file, or check that the file has them. Returns the exit status."""
    return tabulate(
        lambda path: render(standing.read(path)),
        PLACE,
        results=rows.RESULTS,
        program="benchmarks.detection.dxmi_table",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
