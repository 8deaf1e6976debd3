"""What stands around a station: camera, broker, subscriber, PLC and control room, each of which can be taken away."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CYCLE_SECONDS = 0.01
"""Of the PLC."""
PUBLISHING_MILLISECONDS = 20
"""Of the control room's subscription."""


def free_port() -> int:
    """A port that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def program(name: str, package: str) -> str:
    """Where a program is. Raises FileNotFoundError that names its package where it is not."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise FileNotFoundError(f"no {name}: apt install {package}")
    return path


class FakeCamera:
    """Aravis' GigE Vision camera without a camera, on this machine's loopback.

    In a run at real-time priority its own is higher, as a camera has a processor of its own: where it is interrupted
    in its wait for the next frame, it sends none for 100 ms.
    """

    def __init__(self) -> None:
        first = ["chrt", "-r", "2"] if os.sched_getscheduler(0) == os.SCHED_RR else []
        self._command = [*first, program("arv-fake-gv-camera-0.8", "aravis-tools"), "-i", "127.0.0.1"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Plug it in."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """Unplug it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None


class Broker:
    """A Mosquitto of its own, which can be ended and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self._command = [program("mosquitto", "mosquitto"), "-c", str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None


class Subscriber:
    """Keeps the numbers of the parts that a broker passes on. It keeps its session, so that none is missed."""

    def __init__(self, port: int, topic: str) -> None:
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion

        self.numbers: list[int] = []
        self.times: list[float] = []
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="subscriber", protocol=MQTTv5)
        self.client.reconnect_delay_set(min_delay=1, max_delay=1)
        self.client.on_connect = lambda *_: self.client.subscribe(f"{topic}/parts", qos=1)
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        self.times.append(time.monotonic())
        self.numbers.append(json.loads(message.payload)["number"])

    def stop(self) -> None:
        """Disconnect."""
        self.client.disconnect()
        self.client.loop_stop()


class Machine:
    """A program that reads each part and acknowledges it; `away` takes it from the network for a while.

    Attributes:
        numbers: Of the parts that came, in their order.
        times: When each was read, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.times: list[float] = []
        self.away = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(Exception), self.connected() as connection:  # it connects again
                last = 0
                while not self._stop.is_set() and not self.away.is_set():
                    sequence, number = self.read(connection)
                    if sequence not in (0, last):
                        self.times.append(time.monotonic())
                        self.numbers.append(number)
                        last = sequence
                        self.acknowledge(connection, sequence)
                    self.wait()
            while self.away.is_set() and not self._stop.is_set():
                time.sleep(0.01)
            time.sleep(0.1)

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """A connection to the station."""
        raise NotImplementedError
        yield

    def wait(self) -> None:
        """Between two looks at the station."""
        raise NotImplementedError

    def read(self, connection: Any) -> tuple[int, int]:
        """Sequence number and number of the part that is shown."""
        raise NotImplementedError

    def acknowledge(self, connection: Any, sequence: int) -> None:
        """The part is taken."""
        raise NotImplementedError


class Plc(Machine):
    """Reads the Modbus registers in each of its cycles."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """A Modbus connection."""
        from pymodbus.client import ModbusTcpClient

        client = ModbusTcpClient("127.0.0.1", port=self._port, retries=0, timeout=3)
        client.connect()
        try:
            yield client
        finally:
            client.close()

    def wait(self) -> None:
        """For the next cycle."""
        time.sleep(CYCLE_SECONDS)

    def read(self, connection: Any) -> tuple[int, int]:
        """Of the input registers."""
        registers = connection.read_input_registers(0, count=6).registers
        return registers[1], registers[4] << 16 | registers[5]

    def acknowledge(self, connection: Any, sequence: int) -> None:
        """By holding register 0."""
        connection.write_register(0, sequence)


class Trigger:
    """What triggers the cameras: it writes coil 0, and knows of each trigger whether the station has taken it.

    Attributes:
        accepted: Triggers that the station answered for.
        refused: Those that it refused.
        unanswered: Those of which the answer did not come: they may have a part, or none.
        times: When the accepted ones were sent, by the monotonic clock.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._client: Any = None
        self.accepted = self.refused = self.unanswered = 0
        self.times: list[float] = []

    def fire(self) -> None:
        """Trigger once."""
        from pymodbus.client import ModbusTcpClient

        if self._client is None:
            self._client = ModbusTcpClient("127.0.0.1", port=self._port, retries=0, timeout=3)
        try:
            if not self._client.connect():
                self.refused += 1  # nobody heard it
                return
            sent = time.monotonic()
            answer = self._client.write_coil(0, True)
        except Exception:  # of many kinds
            self.stop()
            self.unanswered += 1
            return
        if answer.isError():
            self.refused += 1
        else:
            self.accepted += 1
            self.times.append(sent)

    def stop(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.close()
            self._client = None


class ControlRoom(Machine):
    """Subscribes to the OPC UA node of the sequence number, and reads the others when it changes."""

    def __init__(self, port: int, station: str) -> None:
        super().__init__()
        self._changed = threading.Event()
        self._url = f"opc.tcp://127.0.0.1:{port}/energyad/{station}"

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """An OPC UA session, and the nodes."""
        from asyncua.sync import Client

        with Client(self._url) as client:
            space = client.get_namespace_index("urn:energyad:station")
            names = ("Result.Sequence", "Result.Number", "Acknowledge")
            nodes = [client.get_node(f"ns={space};s=Station.{name}") for name in names]
            client.create_subscription(PUBLISHING_MILLISECONDS, self).subscribe_data_change(nodes[0])
            yield nodes

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        """The server says that the sequence number has changed."""
        self._changed.set()

    def wait(self) -> None:
        """For a change; half a second later it is seen whether the server is still there."""
        self._changed.wait(0.5)
        self._changed.clear()

    def read(self, connection: Any) -> tuple[int, int]:
        """Of the nodes."""
        return connection[0].read_value(), connection[1].read_value()

    def acknowledge(self, connection: Any, sequence: int) -> None:
        """By the node."""
        from asyncua import ua

        connection[2].write_value(sequence, ua.VariantType.UInt16)
