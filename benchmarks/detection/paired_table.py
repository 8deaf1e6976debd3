"""`python -m benchmarks.detection.paired_table`: whether energyad and others differ by more than luck, from the rows.

Two methods' intervals may overlap and they still differ, since both score the same images: an image that is hard for
one is hard for the other. So test images are drawn anew for both at once (paired bootstrap). Two of energyad's own
variants share what a seed draws, too, so their difference is also given seed by seed; DxMI's own is in `games`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from benchmarks.detection import rows, scores, standing
from benchmarks.detection.scores import ScoreRow
from benchmarks.markdown import Place, difference, table, tabulate
from energyad.data.demo import DEMO_NAME
from energyad.errors import DataError
from energyad.evaluation import metrics

PLACE = Place.of("paired table")
OURS = "energyad"
DRAWS = 4000
FEWEST_SEEDS = 3
"""That both must have, where energyad has as many."""
NOTHING = "—"

Seeds: TypeAlias = Mapping[int, ScoreRow]
Lead: TypeAlias = Float[np.ndarray, "d g"]
"""How much more of a (defective, good) pair one method ranks right than the other: from -1 to 1."""


@dataclass(frozen=True)
class Compared:
    """energyad beside a method. found: its lead, of each category and seed that both have."""

    method: str
    found: Mapping[str, Mapping[int, Lead]]

    @functools.cached_property
    def averaged(self) -> Mapping[str, Lead]:
        """Of each category, over its seeds."""
        return {name: np.mean(list(each.values()), axis=0) for name, each in self.found.items()}

    @functools.cached_property
    def ahead(self) -> float:
        """The mean of the categories' leads in AUROC."""
        return float(np.mean([each.mean() for each in self.averaged.values()]))


def render(kept: Sequence[ScoreRow]) -> str:
    """One line a method that shares categories and seeds with energyad, the strongest rival first; a table a size.

    Compared over the seeds that both have.
    """
    real = [row for row in kept if row.category != DEMO_NAME]
    parts = []
    for size in sorted({row.image_size for row in real}):
        sized = [row for row in real if row.image_size == size]
        if text := _table(sized):
            parts.append(f"{size} × {size} pixels:\n\n{text}\n\n{_origin(sized)}")
    return "\n\n".join(parts) or "No rows yet."


def _table(real: Sequence[ScoreRow]) -> str:
    """Of one image size; empty where nothing stands beside energyad."""
    categories = sorted({row.category for row in real})
    ours = {name: _seeds(real, OURS, name) for name in categories}
    lines = []
    for other in sorted({row.method for row in real} - {OURS}):
        found = {}
        for name in categories:
            theirs = _seeds(real, other, name)
            shared = ours[name].keys() & theirs.keys()
            if ours[name] and len(shared) >= min(FEWEST_SEEDS, len(ours[name])):
                found[name] = leads({seed: ours[name][seed] for seed in shared}, theirs)
        if found:
            lines.append(Compared(other, found))
    if not lines:
        return ""
    lines.sort(key=lambda line: line.ahead)
    whole = f"mean of {', '.join(categories)}"
    head = (f"{OURS} beside", *categories, whole, "seed by seed", "seeds")
    return table(head, [_line(line, categories) for line in lines])


def _origin(rows: Sequence[ScoreRow]) -> str:
    commits = sorted({(row.commit or "unknown")[:9] + ("+" if row.modified else "") for row in rows})
    return (
        f"Points of image AUROC that the first is ahead (+) or behind (-), with the 95 % interval of {DRAWS} "
        f"paired draws of test images; AUROC averaged over seeds. Seed by seed: the mean's difference, mean ± standard "
        f"deviation over the seeds. Commits {', '.join(commits)}."
    )


def leads(ours: Seeds, theirs: Seeds) -> Mapping[int, Lead]:
    """Of each of our seeds. Raises DataError for scores of other images."""
    if any(ours[seed].defective != theirs[seed].defective for seed in ours):
        raise DataError("scores of other test images stand side by side; measure both methods again")
    return {seed: _won(ours[seed]) - _won(theirs[seed]) for seed in sorted(ours)}


def _line(line: Compared, categories: Sequence[str]) -> tuple[str, ...]:
    generator, found = np.random.default_rng(0), line.found
    drawn = {
        name: metrics.redrawn_means(each, draws=DRAWS, generator=generator)
        for name, each in line.averaged.items()
    }
    cells = [
        _cell(line.averaged[name].mean(), drawn[name]) if name in found else NOTHING for name in categories
    ]
    whole, by_seed = NOTHING, NOTHING
    if len(found) == len(categories):
        whole = _cell(line.ahead, np.mean([drawn[name] for name in categories], axis=0))
        shared = set.intersection(*(set(each) for each in found.values()))
        by_seed = _spread([float(np.mean([each[seed].mean() for each in found.values()])) for seed in shared])
    seeds = sorted({len(each) for each in found.values()})
    return (line.method, *cells, whole, by_seed, ", ".join(map(str, seeds)))


def _spread(differences: Sequence[float]) -> str:
    return NOTHING if len(differences) < 2 else difference([100 * each for each in differences], 2)


def _cell(mean: float, drawn: Float[np.ndarray, " draws"]) -> str:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _won(row: ScoreRow) -> Lead:
    return metrics.pairs_won(row.defective, row.scores)


def _seeds(kept: Sequence[ScoreRow], method: str, category: str) -> Seeds:
    return {row.seed: row for row in kept if (row.method, row.category) == (method, category)}


def read(path: Path) -> list[ScoreRow]:
    """The scores of the rows that count, those beside these results. Raises DataError."""
    whole = [row for row in standing.read(path) if row.shots is None and not row.unified]
    return scores.of_rows(scores.read(scores.beside(path)), whole)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it into a file, or check that the file has it. Returns the exit status."""
    return tabulate(
        lambda path: render(read(path)),
        PLACE,
        results=rows.RESULTS,
        program="benchmarks.detection.paired_table",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
