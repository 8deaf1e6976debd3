"""`python -m benchmarks.features.table [--into README.md] [--check]`: the table, from the newest row of each cell."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.features.rows import FEATURES, TOOLS
from benchmarks.markdown import Place, table, tabulate
from benchmarks.provenance import read_rows

FOLDER: Final = Path(__file__).parent
PLACE: Final = Place.of("features table")

Row = dict[str, Any]


def tables(folder: Path) -> str:
    """The table of features, and what was not tried and why."""
    rows = {(row["tool"], row["feature"]): row for row in read_rows(folder / "results.jsonl")}
    return f"{feature_table(rows)}\n\n{not_tried(rows)}".strip()


def feature_table(rows: Mapping[tuple[str, str], Row]) -> str:
    """A line for each feature, a column for each tool whose probes were all run."""
    tools = [tool for tool in TOOLS.values() if all((tool, feature) in rows for feature in FEATURES)]
    versions = {
        tool: next((row["version"] for row in rows.values() if row["tool"] == tool), "") for tool in tools
    }
    head = ["feature", *(f"{tool} {versions[tool]}".strip() for tool in tools)]
    lines = [[text, *(rows[tool, feature]["answer"] for tool in tools)] for feature, text in FEATURES.items()]
    return table(head, lines)


def not_tried(rows: Mapping[tuple[str, str], Row]) -> str:
    """Why cells say so."""
    cells: Sequence[Row] = [row for row in rows.values() if row["answer"] in ("not tried", "failed")]
    return "\n".join(
        f"- {row['tool']}, {FEATURES[row['feature']]}: {row['answer']}, {row['said']}." for row in cells
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it into a file. Returns the exit status."""
    return tabulate(
        tables, PLACE, results=FOLDER, program="benchmarks.features.table", what=__doc__, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
