"""The database is away: said once, however many notice it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from energyad.line.database import DatabaseUnavailable
from energyad.station.triggers import Clock

QUIET_SECONDS: Final = 10.0
"""After this long without a failure, the next one is another outage."""


class Outage:
    """Says that the database is away. For all threads of a station.

    Args:
        clock: Tells the time.
        warn: Called once for each outage.
    """

    def __init__(self, clock: Clock, warn: Callable[[str], None]) -> None:
        self._clock, self._warn = clock, warn
        self._last = float("-inf")
        self._lock = threading.Lock()

    def note(self, error: DatabaseUnavailable) -> None:
        """The database was tried, and is away."""
        with self._lock:
            now = self._clock.monotonic()
            is_new = now - self._last > QUIET_SECONDS
            self._last = now
        if is_new:
            self._warn(f"{error}; tried again until it is, and triggers that are answered are refused")
