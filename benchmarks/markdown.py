"""Tables in Markdown, and the places in files that they are kept in."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from energyad.errors import DataError, EnergyadError


@dataclass(frozen=True)
class Place:
    """What stands between two comments of a Markdown file, written by a command."""

    start: str
    end: str

    @classmethod
    def of(cls, name: str) -> Place:
        """The place of that name."""
        return cls(f"<!-- {name}: start -->", f"<!-- {name}: end -->")

    def filled(self, path: Path, text: str) -> tuple[str, str]:
        """The file as it is and as it is with this text. Raises DataError where the comments are not."""
        old = path.read_text(encoding="utf-8")
        before, start, rest = old.partition(self.start)
        _, end, after = rest.partition(self.end)
        if not start or not end:
            raise DataError(
                f"{path}: no markers to put tables between; add the lines {self.start} and {self.end}"
            )
        return old, f"{before}{start}\n\n{text}\n\n{end}{after}"

    def fill(self, path: Path, text: str) -> None:
        """Replace what stands there. Raises DataError where the comments are not."""
        path.write_text(self.filled(path, text)[1], encoding="utf-8")


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def mean_and_deviation(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation, of several values."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def difference(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation of several differences, their sign before it."""
    text = mean_and_deviation(values, digits)
    return text if text.startswith("-") else f"+{text}"


def tabulate(
    render: Callable[[Path], str],
    place: Place,
    *,
    results: Path,
    program: str,
    what: str | None,
    arguments: Sequence[str] | None,
) -> int:
    """A command that prints tables, or writes them into a file, or checks that the file has them.

    render: tables from the results' path. results: where these are by default. Returns the exit status.
    """
    p = argparse.ArgumentParser(prog=f"python -m {program}", description=what)
    p.add_argument("--results", type=Path, default=results)
    p.add_argument("--into", type=Path, help="Markdown file with the two markers")
    p.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    options = p.parse_args(arguments)
    try:
        text = render(options.results)
        if options.into is None:
            print(text)
            return 0
        old, new = place.filled(options.into, text)
    except EnergyadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.check:
        print("up to date" if old == new else f"{options.into}: out of date; run without --check")
        return int(old != new)
    options.into.write_text(new, encoding="utf-8")
    return 0
