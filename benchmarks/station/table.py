"""`python -m benchmarks.station.table [--into README.md] [--check]`: what the rows show, as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.markdown import Place, table, tabulate
from benchmarks.provenance import read_rows

FOLDER: Final = Path(__file__).parent
PLACE: Final = Place.of("station tables")
Row = dict[str, Any]


def tables(folder: Path) -> str:
    """All tables of the rows in a folder; rows of the first form, which counted less, are left out."""
    rows = [row for row in read_rows(folder / "results.jsonl") if "triggers" in row]
    alignment = folder / "alignment.jsonl"
    made = [throughput_table([row for row in rows if row["part"] == "throughput"])]
    made += [faults_table(row) for row in rows if row["part"] == "faults"][-1:]
    made += [alignment_table(read_rows(alignment))] if alignment.exists() else []
    return "\n\n".join(made)


def throughput_table(rows: Sequence[Row]) -> str:
    """A line for each run."""
    head = [
        "commit",
        "parts",
        "threads",
        "scheduler",
        "load",
        "not at an output",
        "twice",
        "out of order",
        "no frame",
    ]
    head += ["trigger to verdict: p50, p99, worst ms", "one frame alone, ms", "ratio of p99"]
    head += ["at MQTT: p50, p99, worst ms", "memory, MB"]
    lines = []
    for row in rows:
        out = (row.get("out_ms") or {}).get("mqtt")
        fewest = min(row[name] for name in ("mqtt", "modbus", "opcua", "archive"))
        counts = [row["parts"] - fewest, row["doubled"], row["disordered"], row["missing"]]
        times = [row[f"{name}_ms"] for name in ("p50", "p99", "worst")]
        lines.append(
            [
                *(row["commit"][:7], str(row["parts"]), str(row.get("threads", 1))),
                *(row.get("scheduler", "other"), str(row["load"])),
                *map(str, counts),
                *(_joined(times), str(row["own_ms"]), str(row["ratio"])),
                *("" if out is None else _joined(out), _joined(row["memory_mb"])),
            ]
        )
    return f"**throughput**, five parts a second\n\n{table(head, lines)}"


def faults_table(row: Row) -> str:
    """A line for each kind of fault, and what all sides counted in the end."""
    head = ["fault", "made", "all sides agreed", "said once", "longest until they agreed, s"]
    lines = [
        [name, *(str(kind[key]) for key in ("made", "agreed", "said", "settled_s"))]
        for name, kind in sorted(row["faults"].items())
    ]
    made, agreed = (sum(kind[key] for kind in row["faults"].values()) for key in ("made", "agreed"))
    counted = ", ".join(
        f"{row[name]} {what}"
        for name, what in (
            ("triggers", "triggers accepted"), ("unanswered", "without an answer"), ("parts", "parts in the database"),
            ("mqtt", "at MQTT"), ("modbus", "at Modbus"), ("opcua", "at OPC UA"), ("archive", "in the tables"),
            ("missing", "without a frame"), ("doubled", "told twice"), ("disordered", "out of order"),
        )
    )  # fmt: skip
    begin = f"**faults** at {row['commit'][:7]}, seed {row['seed']}, load {row['load']}"
    return (
        f"{begin}: after {agreed} of {made} all sides agreed. In the end: {counted}.\n\n{table(head, lines)}"
    )


def alignment_table(rows: Sequence[Row]) -> str:
    """A line for each fit."""
    head = ["category", "parts come", "aligned by", "images of the fit", "good", "defective", "no part found"]
    head += ["false alarms", "AUROC"]
    lines = []
    for row in rows:
        auroc = "" if row["auroc"] is None else f"{row['auroc']:.4f}"
        counts = [str(row[name]) for name in ("train", "good", "defective", "no_part")]
        shares = [f"{100 * row['false_rejects']:.1f} %", auroc]
        lines.append([row["category"], row["copies"], row["method"] or "", *counts, *shares])
    return f"**alignment**\n\n{table(head, lines)}"


def _joined(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file."""
    return tabulate(
        lambda results: tables(results.parent), PLACE,
        results=FOLDER / "results.jsonl", program="benchmarks.station.table", what=__doc__, arguments=arguments,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
