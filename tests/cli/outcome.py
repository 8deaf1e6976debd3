"""What a run of the program leaves behind, and what an error must look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What one run of the program left behind."""

    status: int
    out: str
    err: str


Program = Callable[..., Outcome]


def is_one_line_error(outcome: Outcome, *words: str) -> bool:
    """Status 2, nothing on standard output, no stack trace, and the last line names what it should."""
    last = outcome.err.strip().splitlines()[-1]
    assert outcome.status == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert last.startswith("error: ") and outcome.err.count("error: ") == 1
    assert all(word in last for word in words), last
    return True
