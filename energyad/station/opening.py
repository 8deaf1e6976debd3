"""The outputs that a station's file names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from energyad.station.archive import ArchiveOutput
from energyad.station.config import StationConfig
from energyad.station.modbus import ModbusOutput
from energyad.station.mqtt import PASSWORD_VARIABLE, MqttOutput
from energyad.station.opcua import OpcUaOutput
from energyad.station.outputs import StationOutput
from energyad.station.posting import WebhookOutput


def outputs_of(config: StationConfig, warn: Callable[[str], None]) -> Iterator[StationOutput]:
    """Make the outputs that a station's file names; none is started.

    Args:
        config: The station.
        warn: Called with what people should know.

    Raises:
        MissingExtraError: A package that an output needs is not installed.
    """
    if config.mqtt is not None:
        yield MqttOutput(config.mqtt, config.name, password=os.environ.get(PASSWORD_VARIABLE))
    if config.modbus is not None:
        yield ModbusOutput(config.modbus, warn=warn)
    if config.opcua is not None:
        yield OpcUaOutput(config.opcua, config.name, warn=warn)
    if config.webhook is not None:
        yield WebhookOutput(config.webhook)
    if config.archive is not None:
        yield ArchiveOutput(config.archive, warn=warn)
