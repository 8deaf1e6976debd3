"""What every output of a station has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from energyad.line.outbox import Send

State: TypeAlias = Literal["running", "stopping"]


@dataclass(frozen=True)
class Status:
    """How the station is.

    Attributes:
        state: Running, or about to end.
        heartbeat: Counts up while images are looked for; stands still where they are not.
        total: Parts so far, of all runs.
        rejected: Of them, those that are ng.
        job: The models that score.
    """

    state: State
    heartbeat: int
    total: int
    rejected: int
    job: str


class StationOutput(Protocol):
    """An output of a station: it is sent parts one by one, and told how the station is.

    Attributes:
        kind: Which kind of output.
        address: Names it among outputs of its kind; the same in every run.
        linger: Seconds in which what waits may still be sent when the station ends; the rest is at the next start.
    """

    kind: str
    address: str
    linger: float

    @property
    def send(self) -> Send:
        """Send one part, see `energyad.line.outbox`."""

    def start(self) -> None:
        """Begin. Raises DataError where a port is taken."""

    def beat(self, status: Status) -> None:
        """Tell how the station is, about once a second. Never waits, never raises."""

    def stop(self) -> None:
        """End."""
