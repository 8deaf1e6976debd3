"""Parts in the nodes of an OPC UA server, for a PLC or a control room.

Below `Objects/Station`, in the namespace `NAMESPACE`: `State`, `Job`, `Heartbeat`, `Total` and `Rejected` say how the
station is; `Result` holds the part that is shown: `Part`, `Number`, `Verdict`, `PValue`, `Json` and, written last,
`Sequence`; a client writes that number to `Acknowledge`. What it writes to `Trigger` triggers the cameras, and names
the part where it is not empty; the write is answered when the part is stored, and fails where it cannot be. The names
are those of the Machine Vision companion specification (OPC 40100-1) where it has one for it: a job, a result, and the
system's state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from energyad.errors import DataError, first_line
from energyad.extras import require
from energyad.line.outbox import Send
from energyad.station.config import OpcUaConfig
from energyad.station.handshake import Handshake, ShownPart
from energyad.station.loops import LoopThread
from energyad.station.modbus import require_free
from energyad.station.outputs import Status

if TYPE_CHECKING:
    from asyncua import Node, Server

NAMESPACE: Final = "urn:energyad:station"
_STATION: Final[dict[str, tuple[str, Any]]] = {
    "State": ("String", "starting"),
    "Job": ("String", ""),
    "Heartbeat": ("UInt32", 0),
    "Total": ("UInt64", 0),
    "Rejected": ("UInt64", 0),
}
_RESULT: Final[dict[str, tuple[str, Any]]] = {
    "Part": ("String", ""),
    "Number": ("UInt64", 0),
    "Verdict": ("String", ""),
    "PValue": ("Double", math.nan),
    "Json": ("String", ""),
    "Sequence": ("UInt16", 0),
}


class OpcUaOutput:
    """Serves the part that is shown, and how the station is.

    Args:
        config: Where to listen.
        station: The station's name.
        warn: Called where parts are not acknowledged.

    Raises:
        MissingExtraError: The extra `station` is not installed.
    """

    kind = "opcua"
    linger = 0.2  # a machine that does not answer at once would be waited for in vain

    def __init__(
        self, config: OpcUaConfig, station: str, *, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        require("station", "an OPC UA output")
        self._config, self._station = config, station
        self.address = f"opc.tcp://{config.host}:{config.port}"
        self._handshake = Handshake(self.kind, acknowledge=config.acknowledge, show=self._show, warn=warn)
        self.on_trigger: Callable[[str], Future[bool]] | None = None
        self._loop: LoopThread | None = None
        self._server: Server | None = None
        self._nodes: dict[str, Node] = {}

    @property
    def send(self) -> Send:
        """Show a part until it is acknowledged."""
        return self._handshake.send

    def start(self) -> None:
        """Listen. Raises DataError where the port is taken."""
        require_free(self._config.host, self._config.port, "opcua")
        self._loop = LoopThread("opcua")
        try:
            self._loop.call(self._listen(), seconds=60.0)
        except Exception as error:
            self._loop.close()
            raise DataError(
                f"opcua: cannot listen on {self.address} ({first_line(error)}); give another opcua.port"
            ) from error

    def beat(self, status: Status) -> None:
        """Count the heartbeat, and show the station's counters."""
        if self._loop is not None:
            values = {
                "State": status.state,
                "Job": status.job,
                "Heartbeat": status.heartbeat % 2**32,
                "Total": status.total,
                "Rejected": status.rejected,
            }
            self._loop.post(self._write(values))

    def stop(self) -> None:
        """Close the connections and the port."""
        if self._loop is None or self._server is None:
            return
        with contextlib.suppress(Exception):  # the program ends
            self._loop.call(self._server.stop(), seconds=5.0)
        self._loop.close()

    def _show(self, part: ShownPart) -> None:
        result = part.result
        values = {
            "Part": result.part,
            "Number": result.number,
            "Verdict": result.verdict,
            "PValue": math.nan if result.p_value is None else result.p_value,
            "Json": result.json_line(),
            "Sequence": part.sequence,
        }
        if self._loop is not None:
            self._loop.call(self._write({"Acknowledge": 0, **values}))

    async def _listen(self) -> None:
        from asyncua import Server, ua
        from asyncua.common.callback import CallbackType

        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        server = self._server = Server()
        await server.init()
        server.set_endpoint(f"{self.address}/energyad/{self._station}")
        server.set_server_name(f"energyad station {self._station}")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.iserver.allow_remote_admin = False
        namespace = await server.register_namespace(NAMESPACE)
        station = await server.nodes.objects.add_object(f"ns={namespace};s=Station", f"{namespace}:Station")
        result = await station.add_object(f"ns={namespace};s=Station.Result", f"{namespace}:Result")
        for parent, path, table in ((station, "Station", _STATION), (result, "Station.Result", _RESULT)):
            for name, (kind, value) in table.items():
                self._nodes[name] = await parent.add_variable(
                    f"ns={namespace};s={path}.{name}", f"{namespace}:{name}", value, ua.VariantType[kind]
                )
        acknowledge = await station.add_variable(
            f"ns={namespace};s=Station.Acknowledge", f"{namespace}:Acknowledge", 0, ua.VariantType.UInt16
        )
        await acknowledge.set_writable()
        self._nodes["Acknowledge"] = acknowledge
        trigger = await station.add_variable(
            f"ns={namespace};s=Station.Trigger", f"{namespace}:Trigger", "", ua.VariantType.String
        )
        await trigger.set_writable()
        self._nodes["Trigger"] = trigger
        server.subscribe_server_callback(CallbackType.PreWrite, self._before_write)
        server.subscribe_server_callback(CallbackType.PostWrite, self._on_write)
        await server.start()

    async def _write(self, values: dict[str, Any]) -> None:
        from asyncua import ua

        kinds = {**_STATION, **_RESULT, "Acknowledge": ("UInt16", 0)}
        for name, value in values.items():
            await self._nodes[name].write_value(ua.Variant(value, ua.VariantType[kinds[name][0]]))

    async def _before_write(self, event: Any, service: Any) -> None:
        """A client triggers: it is answered when the part is stored, so that it gets a verdict whatever happens."""
        from asyncua import ua

        if not event.is_external or self.on_trigger is None:
            return
        for written in event.request_params.NodesToWrite:
            if written.NodeId == self._nodes["Trigger"].nodeid:
                name = written.Value.Value.Value
                if not await asyncio.wrap_future(self.on_trigger(name if isinstance(name, str) else "")):
                    raise ua.uaerrors.BadResourceUnavailable

    def _on_write(self, event: Any, service: Any) -> None:
        """A client has written: perhaps its acknowledgement."""
        if not event.is_external:
            return
        for written in event.request_params.NodesToWrite:
            if written.NodeId == self._nodes["Acknowledge"].nodeid:
                value = written.Value.Value.Value
                if isinstance(value, int):
                    self._handshake.acknowledged(value)
