"""One part at a time in registers or nodes, until a machine has acknowledged it by its sequence number."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from energyad.line.outbox import Failure, Message, Unanswered
from energyad.station.results import PartResult, PartVerdict

SEQUENCES: Final = 65_535
"""Sequence numbers run from 1 to this and begin anew, as one register holds them. 0: no part so far."""
SILENT_SECONDS: Final = 5.0
"""How long a part waits for its acknowledgement before that is said."""
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
        name: Of the output; begins each warning.
        acknowledge: False to show each part at once, whether anybody looks or not.
        show: Called with each part that is to be seen from now on.
        warn: Called once when parts are no longer acknowledged, and once when they are again.
    """

    def __init__(
        self,
        name: str,
        *,
        acknowledge: bool,
        show: Callable[[ShownPart], None],
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._name, self._acknowledge, self._show, self._warn = name, acknowledge, show, warn
        self._is_silent = False
        self._changed = threading.Condition()
        self._acknowledged = 0
        self._taken = 0  # the number of the message that was acknowledged last

    def acknowledged(self, sequence: int) -> None:
        """A machine wrote this sequence number back."""
        with self._changed:
            self._acknowledged = sequence
            self._changed.notify_all()

    def send(self, message: Message, stop: threading.Event) -> Failure | None:
        """Show a part, and wait until it is acknowledged. One that was, and could not be noted, is done with.

        Raises:
            Unanswered: The program ends before that.
        """
        if message.number == self._taken:  # shown again, it would look to the machine as it did before
            return None
        part = ShownPart(sequence_of(message.number), PartResult.model_validate_json(message.line))
        with self._changed:
            self._acknowledged = 0
            self._show(part)
            shown = time.monotonic()
            while self._acknowledge and self._acknowledged != part.sequence:
                if stop.is_set():
                    raise Unanswered
                self._changed.wait(0.05)
                self._note_silence(part, time.monotonic() - shown)
        self._taken = message.number
        if self._is_silent:
            self._is_silent = False
            self._warn(f"{self._name}: parts are acknowledged again")
        return None

    def _note_silence(self, part: ShownPart, seconds: float) -> None:
        if seconds >= SILENT_SECONDS and not self._is_silent:
            self._is_silent = True
            self._warn(
                f"{self._name}: part {part.result.number} is not acknowledged; the parts behind it wait"
            )


def sequence_of(number: int) -> int:
    """Return the sequence number of the n-th delivery: 1 to 65,535, then 1 again."""
    return (number - 1) % SEQUENCES + 1
