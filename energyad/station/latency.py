"""How long verdicts take: quantiles of the latest parts, and the worst of all."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 10_000
"""Parts that quantiles are of."""


@dataclass(frozen=True)
class LatencySummary:
    """Seconds from trigger to verdict.

    Attributes:
        parts: How many it is of.
        p50: Half of the parts took at most this long.
        p99: 99 of 100 did.
        worst: The longest since the start.
    """

    parts: int
    p50: float
    p99: float
    worst: float

    def __str__(self) -> str:
        """For people."""
        return f"p50 {self.p50:.3f} s, p99 {self.p99:.3f} s, worst {self.worst:.3f} s"


class LatencyWindow:
    """The latencies of the latest parts. Safe to call from several threads."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=WINDOW)
        self._worst = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Note a part."""
        with self._lock:
            self._latest.append(seconds)
            self._worst = max(self._worst, seconds)

    def summary(self) -> LatencySummary | None:
        """Return the quantiles; None before the first part."""
        with self._lock:
            ordered, worst = sorted(self._latest), self._worst
        if not ordered:
            return None
        return LatencySummary(len(ordered), quantile(ordered, 0.5), quantile(ordered, 0.99), worst)


def quantile(ordered: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the ascending values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]
