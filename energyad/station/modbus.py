"""Parts in the registers of a Modbus TCP server, for a PLC.

Read only, addresses from 0. Discrete inputs: ok, review (also frames that cannot be judged), ng, running. Input
registers, see `INPUT_REGISTERS`; numbers of 32 bits have their high word first. Written by the PLC: holding register 0,
the sequence number of the part that it has taken; and coil 0, which triggers the cameras and reads as 0. The coil is
answered when the part is stored; exception 6 (device busy) says that it could not be, and that no part was triggered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from energyad.errors import DataError, os_reason
from energyad.extras import require
from energyad.line.outbox import Send
from energyad.station.config import ModbusConfig
from energyad.station.handshake import VERDICT_CODES, Handshake, ShownPart
from energyad.station.loops import LoopThread
from energyad.station.outputs import Status

if TYPE_CHECKING:
    from pymodbus.server import ModbusTcpServer

DISCRETE_INPUTS: Final = ("ok", "review", "ng", "running")
INPUT_REGISTERS: Final = (
    "heartbeat",
    "sequence",
    "verdict",
    "p_value_e4",
    "part_high",
    "part_low",
    "total_high",
    "total_low",
    "rejected_high",
    "rejected_low",
)
"""heartbeat: counts up about once a second. verdict: see `VERDICT_CODES`, 0 before the first part. p_value_e4: times
10,000; 65,535 where there is none. part: the number of the part that is shown. total, rejected: parts so far, and those
that are ng.
"""
ACKNOWLEDGE: Final = 0
"""The holding register that the PLC writes."""
TRIGGER: Final = 0
"""The coil that the PLC writes."""
_READ_COILS, _READ_DISCRETE, _READ_HOLDING, _READ_INPUT = 1, 2, 3, 4
_WRITE_REGISTER, _WRITE_COILS = (6, 16), (5, 15)
_NO_P_VALUE: Final = 65_535


class ModbusOutput:
    """Serves the part that is shown, and how the station is.

    Args:
        config: Where to listen.
        warn: Called where parts are not acknowledged.

    Raises:
        MissingExtraError: The extra `station` is not installed.
    """

    kind = "modbus"
    linger = 0.2  # a machine that does not answer at once would be waited for in vain

    def __init__(self, config: ModbusConfig, *, warn: Callable[[str], None] = lambda text: None) -> None:
        require("station", "a Modbus output")
        self._config = config
        self.address = f"modbus://{config.host}:{config.port}"
        self.port = config.port
        self._lock = threading.Lock()
        self._part: ShownPart | None = None
        self._status: Status | None = None
        self._holding = 0
        self.on_trigger: Callable[[], Future[bool]] | None = None
        self._handshake = Handshake(self.kind, acknowledge=config.acknowledge, show=self._show, warn=warn)
        self._loop: LoopThread | None = None
        self._server: ModbusTcpServer | None = None

    @property
    def send(self) -> Send:
        """Show a part until it is acknowledged."""
        return self._handshake.send

    def start(self) -> None:
        """Listen. Raises DataError where the port is taken."""
        require_free(self._config.host, self._config.port, "modbus")
        self._loop = LoopThread("modbus")
        try:
            self._loop.call(self._listen())
        except RuntimeError as error:
            self._loop.close()
            raise DataError(f"modbus: cannot listen on {self.address}; give another modbus.port") from error

    def beat(self, status: Status) -> None:
        """Count the heartbeat, and show the station's counters."""
        with self._lock:
            self._status = status

    def stop(self) -> None:
        """Close the connections and the port."""
        if self._loop is None or self._server is None:
            return
        with contextlib.suppress(Exception):  # the program ends
            self._loop.call(self._server.shutdown(), seconds=5.0)
        self._loop.close()

    def _show(self, part: ShownPart) -> None:
        with self._lock:
            self._part, self._holding = part, 0

    async def _listen(self) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        coils, bits = ([SimData(0, values=[False] * 16, datatype=DataType.BITS)] for _ in range(2))
        inputs = [SimData(0, count=len(INPUT_REGISTERS), datatype=DataType.REGISTERS)]
        holding = [SimData(0, count=1, datatype=DataType.REGISTERS)]
        device = SimDevice(0, simdata=(coils, bits, holding, inputs), action=self._access)
        self._server = ModbusTcpServer(device, address=(self._config.host, self._config.port))
        await self._server.serve_forever(background=True)
        self.port = self._server.transport.sockets[0].getsockname()[1]

    async def _access(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: Sequence[int] | None,
    ) -> Any:
        """Have the registers as they are now before they are read; take an acknowledgement where one is written."""
        with self._lock:
            if function == _READ_INPUT:
                registers[:] = self._inputs()
            elif function == _READ_COILS:
                registers[0] = 0
            elif function == _READ_DISCRETE:
                registers[0] = sum(bit << place for place, bit in enumerate(self._bits()))
            elif function == _READ_HOLDING:
                registers[:] = [self._holding]
            elif values is not None and address == ACKNOWLEDGE and function in _WRITE_REGISTER:
                self._holding = int(values[0])
        if values is not None and address == ACKNOWLEDGE and function in _WRITE_REGISTER:
            self._handshake.acknowledged(int(values[0]))
        if values is not None and address == TRIGGER and function in _WRITE_COILS and values[0]:
            return await self._trigger()
        return None

    async def _trigger(self) -> Any:
        """Answer when the part is stored, so that a trigger that was answered gets a verdict whatever happens."""
        from pymodbus.constants import ExcCodes

        if self.on_trigger is None or await asyncio.wrap_future(self.on_trigger()):
            return None
        return ExcCodes.DEVICE_BUSY

    def _bits(self) -> list[bool]:
        verdict = None if self._part is None else self._part.result.verdict
        running = self._status is not None and self._status.state == "running"
        return [verdict == "ok", verdict not in (None, "ok", "ng"), verdict == "ng", running]

    def _inputs(self) -> list[int]:
        status, part = self._status, self._part
        total, rejected = (0, 0) if status is None else (status.total, status.rejected)
        heartbeat = 0 if status is None else status.heartbeat % 65_536
        if part is None:
            return [heartbeat, 0, 0, _NO_P_VALUE, 0, 0, *_words(total), *_words(rejected)]
        result = part.result
        p_value = _NO_P_VALUE if result.p_value is None else round(result.p_value * 10_000)
        shown = [part.sequence, VERDICT_CODES[result.verdict], p_value, *_words(result.number)]
        return [heartbeat, *shown, *_words(total), *_words(rejected)]


def _words(number: int) -> tuple[int, int]:
    return number >> 16 & 0xFFFF, number & 0xFFFF


def require_free(host: str, port: int, table: str) -> None:
    """Check that an address can be listened on.

    Args:
        host: The address.
        port: The port; 0 is always free.
        table: Of the station's file, which errors name.

    Raises:
        DataError: Another program listens there, or the address is not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family):
            pass
    except OSError as error:
        raise DataError(
            f"{table}: cannot listen on {host}:{port}: {os_reason(error)}; give another {table}.host or {table}.port"
        ) from error
