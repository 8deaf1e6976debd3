"""`python -m benchmarks.speed.table`: the tables, ratios first, from the newest row of each kind."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.markdown import Place, tabulate
from benchmarks.provenance import read_rows

RESULTS = Path(__file__).with_name("results.jsonl")
PLACE = Place.of("speed table")
KEYS = ("part", "subject", "source", "batch", "side", "num_train")
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "throughput": {
        "subject": "subject",
        "source": "from",
        "batch": "batch",
        "of_backbone": "of the bare backbone",
        "of_backbone_cpu": "in CPU time",
        "of_best_backbone_cpu": "of its best",
        "times_patchcore": "times PatchCore",
        "times_patchcore_cpu": "in CPU time",
        "times_patchcore_default": "times PatchCore's default",
        "images_per_second": "images a second",
        "cpu_ms": "CPU ms an image",
        "p50_ms": "p50 ms",
        "p95_ms": "p95 ms",
        "p99_ms": "p99 ms",
    },
    "card": {
        "subject": "subject",
        "source": "from",
        "batch": "batch",
        "of_backbone": "of the bare backbone",
        "images_per_second": "images a second",
        "cpu_ms": "CPU ms an image",
        "p50_ms": "p50 ms",
        "p95_ms": "p95 ms",
        "p99_ms": "p99 ms",
        "score_difference": "scores apart",
        "heatmap_difference": "heatmaps apart",
    },
    "parts": {
        "subject": "part of a prediction",
        "source": "engine",
        "batch": "batch",
        "ms_an_image": "ms an image",
        "of_whole": "of the whole",
        "of_backbone": "of the backbone",
    },
    "memory": {"subject": "subject", "peak_mb": "peak MB", "fitted_bytes": "fitted bytes"},
    "flat": {
        "count": "images",
        "network_size": "network px",
        "peak_mb": "peak MB",
        "growth_after_1000_mb": "growth after 1,000, MB",
    },
    "image size": {"side": "file px", "ms_an_image": "ms an image", "peak_mb": "peak MB"},
    "training set": {
        "num_train": "images",
        "seconds": "fit s",
        "cpu_seconds": "CPU s",
        "peak_mb": "peak MB",
    },
}


def tables(rows: Iterable[Mapping[str, Any]]) -> str:
    """Markdown of all parts that have rows."""
    newest = {tuple(row.get(key) for key in KEYS): row for row in best(rows)}
    parts = []
    for part, columns in COLUMNS.items():
        own = [row for row in newest.values() if row["part"] == part]
        own.sort(key=lambda row: (row.get("side", 0), row.get("num_train", 0)))
        if own:
            parts.append(f"**{part}** ({where(own[-1])})\n\n{table(own, columns)}")
    return "\n\n".join(parts)


def best(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Full runs' rows; quick ones' of parts that no full run has measured."""
    rows = list(rows)
    full = {row["part"] for row in rows if not row.get("quick")}
    return [row for row in rows if not row.get("quick") or row["part"] not in full]


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """One Markdown table; an en dash where a row has no such figure."""
    lines = [["–" if row.get(key) is None else f"{row[key]}" for key in columns] for row in rows]
    return markdown.table(list(columns.values()), lines)


def where(row: Mapping[str, Any]) -> str:
    """Machine, with its card where that was measured, load and commit of a row."""
    commit = str(row["commit"])[:9] + ("+" if row["modified"] else "")
    card = f"{row['card']}; " if "card" in row else ""
    return f"{card}{row['processor']}, {row['threads']} thread(s), load {row['load']}, commit {commit}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file, or check that the file has them. Returns the exit status."""
    return tabulate(
        lambda path: tables(read_rows(path)),
        PLACE,
        results=RESULTS,
        program="benchmarks.speed.table",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
