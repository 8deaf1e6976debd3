"""`python -m benchmarks.teaching`: what a model gains from few labelled defects; one row each, appended."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import provenance
from benchmarks.detection.data import open_anywhere
from benchmarks.teaching import protocol, table
from benchmarks.teaching.protocol import METHODS, Bench, Learned, Predicted
from energyad.errors import EnergyadError

PACKAGES = (*provenance.PACKAGES, "scikit-learn", "onnxruntime")
KEY = ("category", "image_size", "seed", "method", "labels", "hidden")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.teaching", description=__doc__)
    p.add_argument("--data-root", action="append", type=Path, help="folder of categories; several times")
    p.add_argument("--categories", nargs="+", metavar="NAME", help="none prints the table of the rows")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--labels", nargs="+", type=int, default=[10, 1, 2, 5, 20], metavar="N")
    p.add_argument(
        "--methods", nargs="+", default=list(protocol.QUICK_METHODS), choices=list(METHODS), metavar="NAME"
    )
    p.add_argument(
        "--image-size",
        type=int,
        default=table.IMAGE_SIZE,
        metavar="PIXELS",
        help="a side; one for all rows of a table",
    )
    p.add_argument("--models", type=Path, default=Path("build/teaching"), help="where fitted models are kept")
    p.add_argument("--results", type=Path, default=table.RESULTS)
    p.add_argument("--threads", type=int, default=1)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what has no row yet, or print the table. Returns the exit status."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if not options.categories:
        print(table.tables(options.results, image_size=options.image_size))
        return 0
    try:
        for name in options.categories:
            category = open_anywhere(name, options.data_root)
            for seed in options.seeds:
                folder = options.models / f"{name}-{options.image_size}-{seed}"
                bench = protocol.open_bench(
                    category, folder, image_size=options.image_size, seed=seed, threads=options.threads
                )
                _measure(bench, seed, options)
    except EnergyadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(bench: Bench, seed: int, options: argparse.Namespace) -> None:
    done = {tuple(row.get(name) for name in KEY) for row in provenance.read_rows(options.results)}
    for method, labels, hidden in _cells(options):
        key = (bench.category.name, options.image_size, seed, method, labels, hidden)
        if key in done:
            continue
        row = dict(zip(KEY, key, strict=True)) | _figures(bench, seed, method, labels, hidden=hidden)
        stamp = vars(provenance.stamp(threads=options.threads, packages=PACKAGES))
        provenance.append_row(options.results, row | stamp)
        print({name: value for name, value in row.items() if name != "hidden_kinds"}, flush=True)


def _cells(options: argparse.Namespace) -> Iterator[tuple[str, int, bool]]:
    """Method, number of labels, whether kinds are hidden."""
    yield "none", 0, False
    yield "none", 0, True
    for method in protocol.LIGHTS:
        yield method, protocol.NUM_CORRECTED, False
    for labels in options.labels:
        yield "marks", labels, False
        yield "marks", labels, True
    for method in options.methods:
        for labels in options.labels:
            if method != "marks":
                yield method, labels, False


def _figures(bench: Bench, seed: int, method: str, labels: int, *, hidden: bool) -> dict[str, Any]:
    if method in protocol.LIGHTS:
        return protocol.corrected_alarms(bench, seed=seed, gains=protocol.LIGHTS[method])
    drawn = protocol.draw(bench, seed=seed, hide=hidden)
    started = time.process_time()
    shown = drawn.shown[:labels]
    learned = METHODS[method](bench, shown) if method != "none" else protocol.not_taught(bench)
    learn_seconds = time.process_time() - started
    good = protocol.predict(bench, learned, [i for i, kind in enumerate(bench.kinds) if kind == "good"])
    row: dict[str, Any] = {
        "shown": _figures_of(bench, learned, good, drawn.measured),
        "threshold": learned.threshold,
        "raise_limit": learned.raise_limit,
        "learn_seconds": round(learn_seconds, 2),
        "resampled_rate": round(protocol.resampled_rate(good.scores, seed=seed), 5),
    }
    if hidden:
        others = _figures_of(bench, learned, good, drawn.others)
        row |= {"hidden_kinds": drawn.hidden_kinds, "others": others}
    return row


def _figures_of(
    bench: Bench, learned: Learned, good: Predicted, indices: Sequence[int]
) -> dict[str, float | None]:
    return protocol.figures(good, protocol.predict(bench, learned, indices), learned.threshold)


if __name__ == "__main__":
    sys.exit(main())
