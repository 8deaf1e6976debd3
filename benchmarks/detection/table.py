"""`python -m benchmarks.detection.table`: the results as Markdown, from the rows alone."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from benchmarks.detection import rows, standing
from benchmarks.detection.ours import SHARED
from benchmarks.detection.rows import Row
from benchmarks.markdown import Place, mean_and_deviation, table, tabulate
from energyad.data.demo import DEMO_NAME

PLACE = Place.of("detection table")
NOTHING = "—"

Figure = Callable[[Row], float | None]


def render(all_rows: Iterable[Row]) -> str:
    """All tables: one model a category, its mean over categories, few good images, one model for all."""
    current = rows.current(all_rows)
    parts = []
    for size in sorted({row.image_size for row in current}):
        sized = [row for row in current if row.image_size == size]
        whole = [row for row in sized if row.shots is None and not row.unified]
        few = [row for row in sized if row.shots is not None and not row.unified]
        unified = [row for row in sized if row.shots is None and row.unified]
        parts.append(f"### {size} × {size} pixels")
        parts += [_category_table(name, _of(whole, name)) for name in _categories(whole)]
        real = [row for row in whole if row.category != DEMO_NAME]  # rendered parts are no evidence
        parts += [_mean_table(real)] if len(_categories(real)) > 1 else []
        parts += [_few_shot_table(name, _of(few, name)) for name in _categories(few)]
        parts += [_few_shot_means(few)] if len(_categories(few)) > 1 else []
        parts += [_unified_table(group, unified, whole) for group in sorted({r.categories for r in unified})]
    return "\n\n".join([*parts, _origin(current)]) if current else "No rows yet."


def _category_table(category: str, measured: Sequence[Row]) -> str:
    first = measured[0]
    title = f"**{category}**, one model a category, {first.num_test} test images"
    head = (
        "method",
        "image AUROC",
        "95 % interval",
        "pixel AUROC",
        "AUPRO",
        "AUPRO at 5 %",
        "AUPIMO",
        "pixel AP",
        "best F1",
        "model MB",
        "fit s (CPU s)",
        "ms an image (CPU ms)",
        "seeds",
    )
    return _table(title, head, [_category_line(method, found) for method, found in _by_method(measured)])


def _category_line(method: str, found: Sequence[Row]) -> tuple[str, ...]:
    low, high = _mean(found, lambda r: r.image_auroc_low), _mean(found, lambda r: r.image_auroc_high)
    return (
        method,
        _spread(found, lambda r: r.image_auroc),
        f"{low:.3f} to {high:.3f}",
        _spread(found, lambda r: r.pixel_auroc),
        _spread(found, lambda r: r.aupro),
        _spread(found, lambda r: r.aupro_5),
        _spread(found, lambda r: r.aupimo),
        _spread(found, lambda r: r.pixel_ap),
        _spread(found, lambda r: r.best_f1),
        f"{_mean(found, lambda r: r.model_bytes / 1e6):.2f}",
        f"{_mean(found, lambda r: r.fit_seconds):.0f} ({_mean(found, lambda r: r.fit_cpu_seconds):.0f})",
        f"{_mean(found, lambda r: r.image_ms):.0f} ({_mean(found, lambda r: r.image_cpu_ms):.0f})",
        str(len(found)),
    )


def _mean_table(whole: Sequence[Row]) -> str:
    categories = _categories(whole)
    lines = []
    for method, found in _by_method(whole):
        seeds = [list(group) for _, group in groupby(sorted(found, key=_seed), key=_seed)]
        complete = [group for group in seeds if {row.category for row in group} == set(categories)]
        if complete:
            figures = [_spread_of_means(complete, figure) for figure in FIGURES]
            lines.append((method, *figures, str(len(complete))))
    title = f"**Mean of {', '.join(categories)}**, one model a category, seeds that have all of them"
    return _table(title, ("method", "image AUROC", "pixel AUROC", "AUPRO", "seeds"), lines)


def _few_shot_table(category: str, few: Sequence[Row]) -> str:
    counts = sorted({row.shots for row in few if row.shots is not None})
    lines = []
    for method, found in _by_method(few):
        cells = []
        for count in counts:
            some = [row for row in found if row.shots == count]
            cells.append(f"{_spread(some, FIGURES[0])} / {_spread(some, FIGURES[1])}" if some else NOTHING)
        lines.append((method, *cells, str(len({row.seed for row in found}))))
    head = ("method", *(f"{count} good images" for count in counts), "seeds")
    return _table(f"**{category}**, few good images: image / pixel AUROC", head, lines)


def _few_shot_means(few: Sequence[Row]) -> str:
    """Means over the categories that all methods have, of the seeds that have all of these."""
    counts = sorted({row.shots for row in few if row.shots is not None})
    categories = _categories(few)
    lines = []
    for method, found in _by_method(few):
        cells, seeds = [], set()
        for count in counts:
            some = sorted((row for row in found if row.shots == count), key=_seed)
            groups = [list(group) for _, group in groupby(some, key=_seed)]
            complete = [group for group in groups if _categories(group) == categories]
            seeds |= {group[0].seed for group in complete}
            figures = [_spread_of_means([_masked(group) for group in complete], f) for f in FIGURES[1:]]
            cells.append(
                " / ".join([_spread_of_means(complete, FIGURES[0]), *figures]) if complete else NOTHING
            )
        if seeds:
            lines.append((method, *cells, str(len(seeds))))
    head = ("method", *(f"{count} good images" for count in counts), "seeds")
    what = "image AUROC; pixel AUROC and AUPRO of those with masks"
    title = f"**Mean of {', '.join(categories)}**, few good images: {what}"
    return _table(title, head, lines)


def _masked(group: Sequence[Row]) -> list[Row]:
    return [row for row in group if row.pixel_auroc is not None]


def _unified_table(group: tuple[str, ...], unified: Sequence[Row], whole: Sequence[Row]) -> str:
    lines = []
    for method, found in _by_method([row for row in unified if row.categories == group]):
        for category in group:
            alone = method.removesuffix(SHARED)
            one = _of(found, category)
            seeds = {row.seed for row in one}
            each = [r for r in _of(whole, category) if r.method == alone and r.seed in seeds]
            cells = [_spread(some, figure) for figure in FIGURES for some in (one, each)]
            lines.append((method, category, *cells, f"{len(one)}, {len(each)}"))
    names = ("image AUROC", "pixel AUROC", "AUPRO")
    head = (
        "method",
        "category",
        *(f"{name}, {kind}" for name in names for kind in ("unified", "each its own")),
    )
    return _table(f"**One model for {', '.join(group)}**, unified", (*head, "seeds"), lines)


FIGURES: tuple[Figure, ...] = (lambda r: r.image_auroc, lambda r: r.pixel_auroc, lambda r: r.aupro)


def _origin(current: Sequence[Row]) -> str:
    commits = sorted({(row.commit or "unknown")[:9] + ("+" if row.modified else "") for row in current})
    versions = sorted({f"{name} {version}" for row in current for name, version in row.versions.items()})
    machines = sorted({f"{row.processor}, {row.threads} thread(s)" for row in current})
    text = f"Commits {', '.join(commits)} (+ with uncommitted changes); {'; '.join(machines)}; {', '.join(versions)}."
    return (
        f"{text} Mean ± standard deviation over seeds; the interval is a bootstrap over test images, its ends \
averaged over seeds."
    )


def _table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return f"{title}\n\n{table(head, lines)}"


def _spread(found: Sequence[Row], figure: Figure) -> str:
    return _mean_and_deviation([value for row in found if (value := figure(row)) is not None])


def _spread_of_means(seeds: Sequence[Sequence[Row]], figure: Figure) -> str:
    means = []
    for group in seeds:
        values = [value for row in group if (value := figure(row)) is not None]
        means += [statistics.fmean(values)] if len(values) == len(group) else []
    return _mean_and_deviation(means)


def _mean_and_deviation(values: Sequence[float]) -> str:
    return mean_and_deviation(values, 4) if values else NOTHING


def _mean(found: Sequence[Row], figure: Callable[[Row], float]) -> float:
    return statistics.fmean(figure(row) for row in found)


def _by_method(measured: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Methods with their rows, best image AUROC first."""
    found: dict[str, list[Row]] = {}
    for row in measured:
        found.setdefault(row.method, []).append(row)
    return sorted(found.items(), key=lambda item: -_mean(item[1], lambda r: r.image_auroc))


def _of(measured: Sequence[Row], category: str) -> list[Row]:
    return [row for row in measured if row.category == category]


def _categories(measured: Sequence[Row]) -> list[str]:
    return sorted({row.category for row in measured})


def _seed(row: Row) -> int:
    return row.seed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file, or check that the file has them. Returns the exit status."""
    return tabulate(
        lambda path: render(standing.read(path)),
        PLACE,
        results=rows.RESULTS,
        program="benchmarks.detection.table",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
