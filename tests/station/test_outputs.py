"""Laws of outputs, against real programs: each part at least once and in order; one that is down holds up nobody."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua.sync import Client as OpcUaClient
from paho.mqtt.client import Client as MqttClient
from paho.mqtt.client import MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import ModbusTcpClient

from benchmarks.station.machines import Broker, free_port
from energyad.errors import DataError
from energyad.line.outbox import Message
from energyad.station import handshake
from energyad.station.archive import ArchiveOutput
from energyad.station.config import ArchiveConfig, MqttConfig
from energyad.station.handshake import Handshake, ShownPart, sequence_of
from energyad.station.modbus import DISCRETE_INPUTS, INPUT_REGISTERS
from energyad.station.mqtt import probe
from energyad.station.results import PartResult

from .conftest import Rig, until


class Subscriber:
    """Keeps what is published below a topic, by a client that is told apart from others by its name."""

    def __init__(self, broker: Broker) -> None:
        self.came: list[MQTTMessage] = []
        self.client = MqttClient(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        self.client.reconnect_delay_set(min_delay=1, max_delay=1)
        subscribed = threading.Event()
        self.client.on_connect = lambda *_: self.client.subscribe("energyad/#", qos=1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = lambda client, data, message: self.came.append(message)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert subscribed.wait(60)

    def parts(self) -> list[str]:
        return [m.payload.decode() for m in list(self.came) if m.topic == "energyad/test/parts"]

    def states(self) -> list[str]:
        topic = "energyad/test/status"
        return [json.loads(m.payload)["state"] for m in list(self.came) if m.topic == topic]

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def subscribed(broker: Broker) -> Iterator[Subscriber]:
    subscriber = Subscriber(broker)
    yield subscriber
    subscriber.stop()


def lines(rig: Rig) -> list[str]:
    return [part.json_line() for part in rig.parts()]


def test_mqtt_tells_each_part_in_order_as_it_is_kept_and_a_retained_state(rig: Rig, broker: Broker) -> None:
    rig.settings = {"mqtt": {"host": "127.0.0.1", "port": broker.port, "topic": "energyad/test"}}
    with subscribed(broker) as subscriber:
        with rig.running():
            for name in ("a", "b", "c"):
                rig.inspect(name)
            until(lambda: len(subscriber.parts()) == 3)
            until(lambda: "running" in subscriber.states())
        until(lambda: subscriber.states()[-1] == "offline")
        assert subscriber.parts() == lines(rig)
        keys = [
            dict(m.properties.UserProperty)["idempotency-key"] for m in subscriber.came if "parts" in m.topic
        ]
        assert len(set(keys)) == 3
    with subscribed(broker) as late:
        until(lambda: late.states() == ["offline"])  # retained
        assert late.parts() == []


@pytest.mark.slow
def test_a_broker_that_is_down_holds_up_nothing_and_is_told_when_it_is_back(rig: Rig, broker: Broker) -> None:
    rig.settings = {
        "mqtt": {"host": "127.0.0.1", "port": broker.port, "topic": "energyad/test"},
        "archive": {"folder": rig.root / "archive"},
    }
    with rig.running():
        broker.stop()
        for name in ("a", "b"):
            rig.inspect(name)
        until(lambda: len(archived(rig.root / "archive")) == 2)
        broker.start()
        with subscribed(broker) as subscriber:
            until(lambda: len(subscriber.parts()) == 2)
            assert subscriber.parts() == lines(rig)
    assert any(text.startswith("mqtt: no delivery") for text in rig.warned)


def test_a_broker_is_probed(broker: Broker) -> None:
    assert probe(MqttConfig(host="127.0.0.1", port=broker.port), password=None) is None
    assert "refused" in (probe(MqttConfig(host="127.0.0.1", port=free_port()), password=None) or "")


class Plc:
    """Reads what the Modbus server shows."""

    def __init__(self, port: int) -> None:
        self.client = ModbusTcpClient("127.0.0.1", port=port)
        assert self.client.connect()

    def read(self) -> dict[str, int]:
        registers = self.client.read_input_registers(0, count=len(INPUT_REGISTERS)).registers
        bits = self.client.read_discrete_inputs(0, count=len(DISCRETE_INPUTS)).bits
        return dict(zip(INPUT_REGISTERS, registers, strict=True)) | {
            f"is_{name}": int(bit) for name, bit in zip(DISCRETE_INPUTS, bits, strict=False)
        }

    def acknowledge(self, sequence: int) -> None:
        self.client.write_register(0, sequence)


@pytest.mark.slow
def test_modbus_shows_each_part_in_order_until_it_is_acknowledged(rig: Rig) -> None:
    port = free_port()
    rig.settings = {"modbus": {"port": port}}
    with rig.running():
        plc = Plc(port)
        for name, score in (("a", "0.5"), ("b", "1.5"), ("c", "3")):
            rig.inspect(name, score)
        seen = []
        for sequence in (1, 2, 3):
            until(lambda: plc.read()["sequence"] == sequence)  # noqa: B023
            shown = plc.read()
            seen.append(
                (shown["verdict"], shown["is_ok"], shown["is_review"], shown["is_ng"], shown["part_low"])
            )
            plc.acknowledge(sequence)
        assert seen == [(1, 1, 0, 0, 1), (2, 0, 1, 0, 2), (3, 0, 0, 1, 3)]
        until(lambda: (plc.read()["total_low"], plc.read()["rejected_low"]) == (3, 1))
        before = plc.read()["heartbeat"]
        until(lambda: plc.read()["heartbeat"] > before)
        assert plc.read()["is_running"] == 1
        plc.client.close()


@pytest.mark.slow
def test_a_part_that_no_plc_acknowledged_is_shown_again_after_the_next_start_with_its_number(
    rig: Rig,
) -> None:
    port = free_port()
    rig.settings = {"modbus": {"port": port}}
    rig.put("a", "3")
    rig.run_once()
    rig.put("b", "0.5")
    with rig.running():
        plc = Plc(port)
        rig.await_parts(2)
        until(lambda: plc.read()["sequence"] == 1)
        plc.acknowledge(7)  # another part's
        plc.acknowledge(1)
        until(lambda: plc.read()["sequence"] == 2)
        plc.client.close()


def test_a_port_that_is_taken_is_an_error_of_one_line(rig: Rig) -> None:
    port = free_port()
    rig.settings = {"modbus": {"port": port}, "opcua": {"port": port}}
    with (
        pytest.raises(DataError, match=rf"opcua: cannot listen on 127.0.0.1:{port}.*opcua.port"),
        rig.running(),
    ):
        pass


@pytest.mark.slow
def test_opc_ua_shows_each_part_in_order_until_it_is_acknowledged(rig: Rig) -> None:
    port = free_port()
    rig.settings = {"opcua": {"port": port}}
    with rig.running(), OpcUaClient(f"opc.tcp://127.0.0.1:{port}/energyad/test") as client:
        space = client.get_namespace_index("urn:energyad:station")

        def node(path: str) -> Any:
            return client.get_node(f"ns={space};s=Station.{path}")

        for name, score in (("a", "0.5"), ("b", "3")):
            rig.inspect(name, score)
        seen = []
        for sequence in (1, 2):
            until(lambda: node("Result.Sequence").read_value() == sequence)  # noqa: B023
            seen.append(node("Result.Json").read_value())
            kind = node("Acknowledge").read_data_type_as_variant_type()
            node("Acknowledge").write_value(sequence, kind)
        assert seen == lines(rig)
        assert node("Result.Verdict").read_value() == "ng"
        until(lambda: (node("Total").read_value(), node("Rejected").read_value()) == (2, 1))
        assert node("State").read_value() == "running"
        with pytest.raises(Exception, match=r"BadUserAccessDenied|BadNotWritable|not writable|denied"):
            node("Result.Verdict").write_value("ok")


def archived(folder: Path) -> list[dict[str, str]]:
    return [row for path in sorted(folder.glob("*.csv")) for row in csv.DictReader(path.open())]


def part(number: int, day: str = "2026-03-01", *, name: str = "a") -> PartResult:
    return PartResult(
        station="test", part=name, number=number, verdict="ok", p_value=0.5, reason=None, missing=[],
        triggered=None, decided=f"{day}T12:00:00.000+00:00", latency=0.1, views=[],
    )  # fmt: skip


def send(output: ArchiveOutput, sent: PartResult) -> None:
    assert output.send(Message(1, "key", sent.number, sent.json_line()), threading.Event()) is None


def test_the_archive_holds_each_part_once_although_it_is_told_again(tmp_path: Path) -> None:
    output = ArchiveOutput(ArchiveConfig(folder=tmp_path))
    for number in (1, 2, 2, 3, 3):
        send(output, part(number, name="=cmd()"))
        output = ArchiveOutput(ArchiveConfig(folder=tmp_path))
    rows = archived(tmp_path)
    assert [row["number"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["part"] == "'=cmd()"


def test_a_row_that_a_kill_left_half_written_is_written_whole(tmp_path: Path) -> None:
    output = ArchiveOutput(ArchiveConfig(folder=tmp_path))
    send(output, part(1))
    (path,) = tmp_path.glob("*.csv")
    whole = path.read_bytes()
    path.write_bytes(whole + b"2,2026-03-01T12")
    send(output, part(2))
    assert [row["number"] for row in archived(tmp_path)] == ["1", "2"]


def test_the_archive_keeps_as_many_days_as_it_is_told(tmp_path: Path) -> None:
    output = ArchiveOutput(ArchiveConfig(folder=tmp_path, days=2))
    (tmp_path / "notes.txt").write_text("of a person")
    for number, day in enumerate(("2026-02-27", "2026-02-28", "2026-03-01"), start=1):
        send(output, part(number, day))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2026-02-28.csv",
        "2026-03-01.csv",
        "notes.txt",
    ]


def test_days_that_are_over_become_parquet_where_that_is_wanted(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    output = ArchiveOutput(ArchiveConfig(folder=tmp_path, format="parquet"))
    for number, day in enumerate(("2026-02-28", "2026-02-28", "2026-03-01"), start=1):
        send(output, part(number, day))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2026-02-28.parquet", "2026-03-01.csv"]
    assert parquet.read_table(tmp_path / "2026-02-28.parquet")["number"].to_pylist() == [1, 2]


def test_a_part_that_nobody_acknowledges_is_said_once_and_so_is_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handshake, "SILENT_SECONDS", 0.0)
    warned: list[str] = []
    shown = Handshake("modbus", acknowledge=True, show=lambda part: None, warn=warned.append)
    messages = [Message(number, "", number, part(number).json_line()) for number in (1, 2)]
    sender = threading.Thread(target=lambda: [shown.send(one, threading.Event()) for one in messages])
    sender.start()
    until(lambda: len(warned) == 1)
    shown.acknowledged(1)
    until(lambda: len(warned) == 3)
    shown.acknowledged(2)
    sender.join(60)
    assert [text.split(": ")[1] for text in warned] == [
        "part 1 is not acknowledged; the parts behind it wait", "parts are acknowledged again",
        "part 2 is not acknowledged; the parts behind it wait", "parts are acknowledged again",
    ]  # fmt: skip


def test_a_part_that_was_acknowledged_and_could_not_be_noted_is_not_shown_again() -> None:
    shown: list[int] = []

    def show(part: ShownPart) -> None:
        shown.append(part.sequence)
        threading.Thread(target=output.acknowledged, args=(part.sequence,)).start()

    output = Handshake("opcua", acknowledge=True, show=show)
    for number in (1, 1, 2):  # the database was full when the first was to be noted
        assert output.send(Message(number, "", number, part(number).json_line()), threading.Event()) is None
    assert shown == [1, 2]


def test_sequence_numbers_fit_a_register_and_are_never_zero() -> None:
    assert [sequence_of(number) for number in (1, 65_535, 65_536, 131_070)] == [1, 65_535, 1, 65_535]
