"""`python -m benchmarks.teaching.kinds_table [--into README.md] [--check]`: how often regions get the right name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.markdown import Place, table, tabulate
from benchmarks.provenance import read_rows

RESULTS: Final = Path(__file__).with_name("kinds.jsonl")
PLACE: Final = Place.of("kinds table")
SHARES: Final = ("right", "unknown", "right_of_named", "hidden_named")
HEAD: Final = ("category", "kinds", "examples of each", "right", "unknown", "right of the named")


def kinds_table(results: Path) -> str:
    """Return the means over splits; of rows of the same split the last counts.

    Args:
        results: The rows.
    """
    latest = {(row["category"], row["examples"], row["seed"]): row for row in read_rows(results)}
    lines = []
    for category, examples in sorted({(category, examples) for category, examples, _ in latest}):
        rows = [row for key, row in latest.items() if key[:2] == (category, examples)]
        means = [np.mean([row[name] for row in rows if row[name] is not None]) for name in SHARES]
        lines.append([category, str(rows[0]["kinds"]), str(examples), *(f"{mean:.2f}" for mean in means)])
    return table([*HEAD, "hidden kinds named"], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it into a file. Returns the exit status."""
    return tabulate(
        kinds_table,
        PLACE,
        results=RESULTS,
        program="benchmarks.teaching.kinds_table",
        what=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
