"""One part at a time in registers or nodes, until a machine has acknowledged it by its sequence number."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from energyad.line.outbox import Failure, Message, Unanswered
from energyad.station.results import PartResult, PartVerdict

SEQUENCES: Final = 65_535
"""Sequence numbers run from 1 to this and begin anew, as one register holds them. 0: no part so far."""
VERDICT_CODES: Final[dict[PartVerdict, int]] = {
    "ok": 1,
    "review": 2,
    "ng": 3,
    "dark": 4,
    "saturated": 5,
    "no_part": 6,
    "blurred": 7,
}


@dataclass(frozen=True)
class ShownPart:
    """The part that a machine sees. sequence: what it writes back."""

    sequence: int
    result: PartResult


class Handshake:
    """Shows parts one after the other, each until its sequence number was written back.

    Args:
        acknowledge: False to show each part at once, whether anybody looks or not.
        show: Called with each part that is to be seen from now on.
    """

    def __init__(self, *, acknowledge: bool, show: Callable[[ShownPart], None]) -> None:
        self._acknowledge, self._show = acknowledge, show
        self._changed = threading.Condition()
        self._acknowledged = 0

    def acknowledged(self, sequence: int) -> None:
        """A machine wrote this sequence number back."""
        with self._changed:
            self._acknowledged = sequence
            self._changed.notify_all()

    def send(self, message: Message, stop: threading.Event) -> Failure | None:
        """Show a part, and wait until it is acknowledged.

        Raises:
            Unanswered: The program ends before that.
        """
        part = ShownPart(sequence_of(message.number), PartResult.model_validate_json(message.line))
        with self._changed:
            self._acknowledged = 0
            self._show(part)
            while self._acknowledge and self._acknowledged != part.sequence:
                if stop.is_set():
                    raise Unanswered
                self._changed.wait(0.05)
        return None


def sequence_of(number: int) -> int:
    """Return the sequence number of the n-th delivery: 1 to 65,535, then 1 again."""
    return (number - 1) % SEQUENCES + 1
