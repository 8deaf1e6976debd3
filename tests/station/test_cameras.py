"""Laws of cameras: the newest frame after a trigger, a lost camera is opened again, every trigger gets a verdict."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import cv2
import numpy as np
import pytest
from asyncua.sync import Client as OpcUaClient
from paho.mqtt.client import Client as MqttClient
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import ModbusTcpClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from benchmarks.station.machines import Broker, free_port
from energyad.line import watch
from energyad.line.database import Database, DatabaseUnavailable
from energyad.line.tables import Part
from energyad.station import cameras
from energyad.station.cameras import Camera, Wanted, open_capture, write_frame
from energyad.station.config import CameraConfig
from energyad.station.outage import Outage
from energyad.station.triggering import Debounce, PartNames
from energyad.station.triggers import Clock, Trigger

from .conftest import Rig, until


class Scripted:
    """Gives frames whose value counts, as fast as they are asked for, until it breaks."""

    def __init__(self, *, frames: int, opened: bool = True, pause: float = 0.001) -> None:
        self.left, self.opened, self.pause, self.given = frames, opened, pause, 0

    def isOpened(self) -> bool:  # noqa: N802
        return self.opened

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(self.pause)
        if self.left <= 0:
            return False, None
        self.left, self.given = self.left - 1, self.given + 1
        return True, np.full((4, 6, 3), self.given % 256, np.uint8)

    def release(self) -> None:
        self.opened = False


class Bench:
    """A camera in a thread, and what it says."""

    def __init__(self, folder: Path, captures: list[Scripted], *, names: Callable | None = None) -> None:
        self.folder, self.captures, self.clock = folder, captures, Clock()
        self.said: list[str] = []
        self.announced: list[Path] = []
        self.camera = Camera(
            "front", CameraConfig(source="0", timeout=0.2), folder, clock=self.clock,
            announce=lambda path, trigger: self.announced.append(path), name_frame=names,
            warn=self.said.append, say=self.said.append, open=lambda config: self.captures.pop(0),
        )  # fmt: skip
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.camera.run, args=(self.stop,))
        self.thread.start()

    def trigger(self) -> Trigger:
        return Trigger(self.clock.monotonic(), self.clock.now())

    def end(self) -> None:
        self.stop.set()
        self.thread.join(60)


def value(path: Path) -> int:
    return int(cv2.imread(str(path))[0, 0, 0])


def test_a_trigger_gets_the_first_frame_that_comes_after_it(tmp_path: Path) -> None:
    capture = Scripted(frames=10**9)
    bench = Bench(tmp_path, [capture])
    until(lambda: capture.given > 5)
    before = capture.given
    bench.camera.want(Wanted("a", bench.trigger()))
    until(lambda: (tmp_path / "a.png").exists())
    bench.end()
    assert before % 256 <= value(tmp_path / "a.png") or before > 200
    assert bench.announced == [tmp_path / "a.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_lost_camera_is_opened_again_and_each_loss_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cameras, "MIN_PAUSE", 0.001)
    monkeypatch.setattr(cameras, "MAX_PAUSE", 0.002)
    gone = [Scripted(frames=0, opened=False) for _ in range(5)]
    bench = Bench(tmp_path, [Scripted(frames=3), *gone, Scripted(frames=3), *gone, Scripted(frames=10**9)])
    until(lambda: len(bench.said) == 4)
    bench.camera.want(Wanted("a", bench.trigger()))
    until(lambda: (tmp_path / "a.png").exists())
    bench.end()
    assert ["no camera at 0" in text for text in bench.said] == [True, False] * 2
    assert ["is back" in text for text in bench.said] == [False, True] * 2


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_frame_that_does_not_come_in_time_is_given_up_and_said_unless_the_camera_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    monkeypatch.setattr(cameras, "MIN_PAUSE", 0.001)
    monkeypatch.setattr(cameras, "MAX_PAUSE", 0.001)
    lost = [Scripted(frames=0, opened=False)] * 100_000
    bench = Bench(tmp_path, lost if is_lost else [Scripted(frames=10**9)])
    until(lambda: is_lost or bench.camera.is_connected)
    bench.camera.want(Wanted("a", Trigger(bench.clock.monotonic() - 1.0, bench.clock.now())))
    until(lambda: not bench.camera._wanted)
    bench.end()
    assert not (tmp_path / "a.png").exists()
    said = [text for text in bench.said if "no frame within 0.2 s of the trigger of a" in text]
    assert len(said) == (not is_lost)


def test_each_frame_of_a_live_camera_is_a_part_and_none_piles_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = threading.Event()

    def write_slowly(path: Path, frame: np.ndarray) -> None:
        slow.wait(60)
        write_frame(path, frame)

    monkeypatch.setattr(cameras, "write_frame", write_slowly)
    names = PartNames(Clock())
    bench = Bench(tmp_path, [Scripted(frames=10**9)], names=lambda moment: names.new())
    until(lambda: bench.camera.num_passed_over > 20)
    assert bench.camera._writer._work_queue.qsize() == 0
    slow.set()
    until(lambda: len(list(tmp_path.glob("*.png"))) > 3)
    bench.end()


def write_video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    writer.release()


def test_every_frame_of_a_video_file_is_scored_in_order(rig: Rig) -> None:
    write_video(rig.root / "parts.avi", 12)
    rig.cameras = {"front": str(rig.root / "parts.avi")}
    rig.settings = {"images": {"folder": rig.root / "kept"}}
    rig.run_once()
    parts = rig.parts()
    assert len(parts) == 12
    assert [part.part for part in parts] == sorted(part.part for part in parts)
    kept = sorted((rig.root / "kept").rglob("*.png"))
    values = [float(cv2.imread(str(path)).mean()) for path in kept]
    assert values == pytest.approx([10 * number for number in range(12)], abs=3)


def test_a_capture_of_a_video_file_gives_its_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "parts.avi", 3)
    capture = open_capture(CameraConfig(source=str(tmp_path / "parts.avi")))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    assert count == 3
    assert not open_capture(CameraConfig(source=str(tmp_path / "none.avi"))).isOpened()


@pytest.mark.slow
def test_a_message_triggers_all_cameras_and_names_the_part(rig: Rig, broker: Broker) -> None:
    rig.views, rig.cameras = ("top", "side"), {"top": "0", "side": "1"}
    rig.settings = {
        "images": {"folder": rig.root / "kept"},
        "mqtt": {"host": "127.0.0.1", "port": broker.port, "topic": "energyad/test"},
        "trigger": {"kind": "mqtt", "topic": "line/trigger"},
    }
    client = MqttClient(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    rig.captures = {"0": Scripted(frames=10**9, pause=0.01), "1": Scripted(frames=10**9, pause=0.01)}
    with rig.running() as station:
        until(lambda: all(output._client.is_connected() for output in station.outputs))
        until(lambda: all(camera.is_connected for camera in station.cameras))

        def told() -> bool:
            client.publish("line/trigger", "serial ../7", qos=1)
            time.sleep(0.05)
            return len(rig.parts()) >= 1

        until(told)
    client.loop_stop()
    part = rig.parts()[0]
    assert part.part.startswith("serial_.._7-")
    assert [view.view for view in part.views] == ["top", "side"]
    assert part.latency is not None and part.latency > 0


@pytest.mark.slow
def test_a_coil_triggers_and_a_camera_that_is_away_makes_the_part_for_review(rig: Rig) -> None:
    port = free_port()
    rig.cameras = {"front": "0"}
    rig.settings = {
        "images": {"folder": rig.root / "kept"},
        "modbus": {"port": port, "acknowledge": False},
        "trigger": {"kind": "modbus", "debounce": 60.0},
        "part": {"deadline": 0.05},
    }
    rig.captures = {"0": Scripted(frames=0, opened=False)}
    with rig.running():
        client = ModbusTcpClient("127.0.0.1", port=port)
        client.connect()
        client.write_coil(0, True)
        client.write_coil(0, True)  # bounces
        (part,) = rig.await_parts(1)
        assert client.read_coils(0, count=1).bits[0] is False
        client.close()
    assert (part.verdict, part.missing, part.views) == ("review", ["front"], [])
    assert len(rig.parts()) == 1


def test_a_trigger_that_cannot_be_stored_is_refused_and_one_that_is_answered_is_stored(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, is_full = free_port(), threading.Event()
    monkeypatch.setattr(watch, "_RETRY_SECONDS", 0.01)
    original = Database.write

    def write(database: Database, *, durable: bool = True) -> contextlib.AbstractContextManager[Session]:
        if is_full.is_set():
            raise DatabaseUnavailable("energyad.db: not available (disk full)")
        return original(database, durable=durable)

    monkeypatch.setattr(Database, "write", write)
    rig.cameras, rig.captures = {"front": "0"}, {"0": Scripted(frames=10**9, pause=0.01)}
    rig.settings = {
        "images": {"folder": rig.root / "kept"},
        "modbus": {"port": port, "acknowledge": False},
        "archive": {"folder": rig.root / "archive"},
        "trigger": {"kind": "modbus"},
    }
    with rig.running() as station:
        client = ModbusTcpClient("127.0.0.1", port=port)
        client.connect()
        for outage in (1, 2):
            assert not client.write_coil(0, True).isError()
            with Database(rig.root / "energyad.db") as database, database.read() as session:
                assert session.scalar(select(func.count(Part.id))) == outage
            rig.await_parts(outage)
            until(lambda: not list((rig.root / "front").glob("*")))
            is_full.set()
            assert [client.write_coil(0, True).exception_code for _ in range(2)] == [6, 6]
            (rig.root / "front" / f"{outage}.png").write_text("0.5")  # a view sees the outage, too
            until(lambda: any("tried again until it is" in text for text in rig.warned))
            (rig.root / "front" / f"{outage}.png").unlink()
            is_full.clear()
            until(lambda: sum(len(camera._wanted) for camera in station.cameras) == 0)
        client.close()
    assert sum("not available" in text for text in rig.warned) == 1, rig.warned


def test_each_outage_of_the_database_is_said_once_however_many_notice_it() -> None:
    warned: list[str] = []
    now = [0.0]
    outage = Outage(Clock(monotonic=lambda: now[0]), warned.append)
    for moment in (1.0, 1.0, 9.0, 18.0, 28.1, 29.0):
        now[0] = moment
        outage.note(DatabaseUnavailable(f"away at {moment}"))
    assert [text.split(";")[0] for text in warned] == ["away at 1.0", "away at 28.1"]


@pytest.mark.slow
def test_a_client_of_opc_ua_that_triggers_is_answered_when_its_part_is_stored(rig: Rig) -> None:
    port = free_port()
    rig.cameras, rig.captures = {"front": "0"}, {"0": Scripted(frames=10**9, pause=0.01)}
    rig.settings = {
        "images": {"folder": rig.root / "kept"},
        "opcua": {"port": port, "acknowledge": False},
        "trigger": {"kind": "opcua"},
        "part": {"deadline": 3600.0},
    }
    with rig.running() as station, OpcUaClient(f"opc.tcp://127.0.0.1:{port}/energyad/test") as client:
        space = client.get_namespace_index("urn:energyad:station")
        trigger = client.get_node(f"ns={space};s=Station.Trigger")
        trigger.write_value("serial 9")
        with Database(rig.root / "energyad.db") as database, database.read() as session:
            assert (session.scalar(select(Part.name)) or "").startswith("serial_9-")
        rig.await_parts(1)
        refused: Future[bool] = Future()
        refused.set_result(False)
        station.outputs[0].on_trigger = lambda name: refused
        with pytest.raises(Exception, match="BadResourceUnavailable"):
            trigger.write_value("")
    assert len(rig.parts()) == 1


def test_parts_come_at_a_time_that_is_set(rig: Rig) -> None:
    rig.cameras = {"front": "0"}
    rig.settings = {
        "images": {"folder": rig.root / "kept"},
        "trigger": {"kind": "time", "every": 0.2},
        "part": {"deadline": 3600.0},
    }
    rig.captures = {"0": Scripted(frames=10**9, pause=0.02)}
    with rig.running():
        parts = rig.await_parts(3)
    assert [len(part.views) for part in parts] == [1] * len(parts)
    assert len({part.part for part in parts}) == len(parts)


def test_a_frame_that_is_scored_before_its_part_was_opened_is_that_part(rig: Rig) -> None:
    rig.cameras, rig.captures = {"front": "0"}, {"0": Scripted(frames=0, opened=False)}
    rig.settings = {
        "images": {"folder": rig.root / "kept"},
        "trigger": {"kind": "time", "every": 3600.0, "debounce": 3600.0},
        "part": {"deadline": 3600.0},
    }
    with rig.running() as station:
        rig.put("fast")
        until(lambda: any("fast" in path.name for path in (rig.root / "kept").rglob("*")))
        waiting = len(station.book.waiting())
        station.book.open("fast", Trigger(0.0, Clock().now()))
        assert len(station.book.waiting()) == waiting


def test_names_are_safe_and_never_the_same() -> None:
    names = PartNames(Clock())
    made = [names.new(given) for given in ("", "", "A 7", "../../etc/passwd", "x" * 500, "..")]
    stopped = Clock(wall=lambda: 0.0)
    made += [PartNames(stopped).new() for _ in range(2)]  # of two runs at the same time of the clock
    assert len(set(made)) == 8
    assert all("/" not in name and not name.startswith(".") and len(name) < 150 for name in made)


def test_a_debounce_counts_from_the_last_trigger_that_counted() -> None:
    debounce = Debounce(1.0)
    assert [debounce.accepts(moment) for moment in (0.0, 0.5, 0.99, 1.0, 1.5, 2.5)] == [
        True, False, False, True, False, True,
    ]  # fmt: skip
