"""What all commands of the benchmarks do with an error."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from energyad.errors import EnergyadError

P = ParamSpec("P")


def command(run: Callable[P, None]) -> Callable[P, int]:
    """Return a command: its status is 0, or 2 with one line on standard error for what the package refuses."""

    @functools.wraps(run)
    def status_of(*arguments: P.args, **options: P.kwargs) -> int:
        try:
            run(*arguments, **options)
        except EnergyadError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    return status_of
