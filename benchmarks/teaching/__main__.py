"""`python -m benchmarks.teaching`: what a model gains from few labelled defects; one row each, appended."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import provenance
from benchmarks.detection.data import open_anywhere
from benchmarks.teaching import protocol, table
from benchmarks.teaching.protocol import METHODS, Bench
from energyad.errors import EnergyadError

RESULTS = Path(__file__).with_name("results.jsonl")
PACKAGES = (*provenance.PACKAGES, "scikit-learn", "onnxruntime")
KEY = ("category", "seed", "method", "labels", "hidden")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.teaching", description=__doc__)
    p.add_argument("--data-root", action="append", type=Path, help="folder of categories; several times")
    p.add_argument("--categories", nargs="+", metavar="NAME", help="none prints the table of the rows")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--labels", nargs="+", type=int, default=[10, 1, 2, 5, 20], metavar="N")
    p.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    p.add_argument("--models", type=Path, default=Path("build/teaching"), help="where fitted models are kept")
    p.add_argument("--results", type=Path, default=RESULTS)
    p.add_argument("--threads", type=int, default=1)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what has no row yet, or print the table. Returns the exit status."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if not options.categories:
        print(table.markdown(provenance.read_rows(options.results)))
        return 0
    try:
        for name in options.categories:
            category = open_anywhere(name, options.data_root)
            for seed in options.seeds:
                place = options.models / f"{name}-{seed}"
                bench = protocol.open_bench(category, place, seed=seed, threads=options.threads)
                _measure(bench, seed, options)
    except EnergyadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(bench: Bench, seed: int, options: argparse.Namespace) -> None:
    done = {tuple(row[name] for name in KEY) for row in provenance.read_rows(options.results)}
    for method, labels, hidden in _cells(options):
        key = (bench.category.name, seed, method, labels, hidden)
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
    yield "alarms", protocol.NUM_CORRECTED, False
    for labels in options.labels:
        yield "marks", labels, False
        yield "marks", labels, True
    for method in options.methods:
        for labels in options.labels:
            if method != "marks":
                yield method, labels, False


def _figures(bench: Bench, seed: int, method: str, labels: int, *, hidden: bool) -> dict[str, Any]:
    if method == "alarms":
        return protocol.corrected_alarms(bench, seed=seed)
    drawn = protocol.draw(bench, seed=seed, hide=hidden)
    none = method == "none"
    scored = protocol.as_it_was(bench) if none else METHODS[method](bench, drawn.shown[:labels])
    row: dict[str, Any] = {
        "shown": protocol.figures(bench, scored, drawn.measured),
        "threshold": scored.threshold,
        "raise_limit": scored.raise_limit,
        "hidden_kinds": drawn.hidden_kinds,
    }
    if hidden:
        row["others"] = protocol.figures(bench, scored, drawn.others)
    if scored.head is not None:
        row["resampled_rate"] = round(protocol.resampled_rate(bench, scored, seed=seed), 5)
    return row


if __name__ == "__main__":
    sys.exit(main())
