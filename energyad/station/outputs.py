"""What every output of a station has in common, and which outputs a station's file names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from energyad.line.outbox import Send
from energyad.station.config import StationConfig

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


def outputs_of(config: StationConfig, warn: Callable[[str], None]) -> Iterator[StationOutput]:
    """Make the outputs that a station's file names; none is started.

    Args:
        config: The station.
        warn: Called with what people should know.

    Raises:
        MissingExtraError: A package that an output needs is not installed.
    """
    from energyad.station.archive import ArchiveOutput
    from energyad.station.modbus import ModbusOutput
    from energyad.station.mqtt import PASSWORD_VARIABLE, MqttOutput
    from energyad.station.opcua import OpcUaOutput
    from energyad.station.posting import WebhookOutput

    if config.mqtt is not None:
        yield MqttOutput(config.mqtt, config.name, password=os.environ.get(PASSWORD_VARIABLE))
    if config.modbus is not None:
        yield ModbusOutput(config.modbus)
    if config.opcua is not None:
        yield OpcUaOutput(config.opcua, config.name)
    if config.webhook is not None:
        yield WebhookOutput(config.webhook)
    if config.archive is not None:
        yield ArchiveOutput(config.archive, warn=warn)
