"""When cameras take a part: at a time, at a message, at a coil; and how parts of cameras are called."""

from __future__ import annotations

import contextlib
import queue
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from energyad.errors import DataError
from energyad.line.database import DatabaseUnavailable
from energyad.station.cameras import Camera, Wanted
from energyad.station.config import TriggerConfig
from energyad.station.motion import MotionDetector
from energyad.station.outage import Outage
from energyad.station.parts import PartBook
from energyad.station.triggers import Clock, Trigger

if TYPE_CHECKING:
    from energyad.station.modbus import ModbusOutput
    from energyad.station.mqtt import MqttOutput
    from energyad.station.opcua import OpcUaOutput

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_NAME: Final = 100
_RETRY_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 0.1
"""Between two looks whether the station ends."""
_ANSWERED: Final = ("modbus", "opcua")
"""Kinds of triggers whose senders are answered, and so may be refused."""


class PartNames:
    """Names of parts that cameras take: the time in UTC, letters of this run, and a number that counts; a name that
    somebody gave first. The letters keep names apart where the clock was set back between two runs.

    Args:
        clock: Tells the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._count, self._lock = clock, 0, threading.Lock()
        self._run = secrets.token_hex(2)

    def new(self, given: str = "") -> str:
        """Return a name that no other part has.

        Args:
            given: What the part is called by who triggered it; what no file may hold is left out.
        """
        with self._lock:
            self._count += 1
            count = self._count
        time = f"{self._clock.now():%Y%m%dT%H%M%S}-{self._run}-{count:06d}"
        safe = self.safe(given)
        return f"{safe}-{time}" if safe else time

    @staticmethod
    def safe(given: str) -> str:
        """Return a name without what no file may hold; it may be empty."""
        return _UNSAFE.sub("_", given).strip("._")[:_MAX_NAME]


class Debounce:
    """Lets a trigger through where none came shortly before.

    Args:
        seconds: In which others do not count.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, float("-inf")

    def accepts(self, moment: float) -> bool:
        """Whether a trigger at this time of the monotonic clock counts."""
        if moment - self._last < self._seconds:
            return False
        self._last = moment
        return True


class Triggers:
    """Opens a part at each trigger, and asks every camera for a frame of it.

    Args:
        config: What triggers.
        book: The parts.
        cameras: Of all views that have one.
        clock: Tells the time.
        names: Of the parts.
        outage: Told where a part cannot be stored yet.
        warn: Called with other faults.
    """

    def __init__(
        self,
        config: TriggerConfig,
        book: PartBook,
        cameras: Sequence[Camera],
        *,
        clock: Clock,
        names: PartNames,
        outage: Outage,
        warn: Callable[[str], None],
    ) -> None:
        self._config, self._book, self._cameras, self._clock, self._warn = config, book, cameras, clock, warn
        self._names, self._outage = names, outage
        self._debounce = Debounce(config.debounce)
        self._fired: queue.SimpleQueue[tuple[str, Trigger, Future[bool]]] = queue.SimpleQueue()

    def fire(self, given: str = "") -> Future[bool]:
        """A trigger came; returns at once.

        Args:
            given: What the part is called by who triggered it.

        Returns:
            True when its part is stored, or where it is a bounce of the one before it; False where it is refused.
        """
        taken: Future[bool] = Future()
        self._fired.put((given, Trigger(self._clock.monotonic(), self._clock.now()), taken))
        return taken

    def connect(
        self, *, mqtt: MqttOutput | None, modbus: ModbusOutput | None, opcua: OpcUaOutput | None
    ) -> None:
        """Be told by the outputs that machines can write to, and by the first camera where motion triggers."""
        if self._config.kind == "motion" and self._cameras:
            self._cameras[0].on_motion(MotionDetector(self._config.motion), self.fire)
        if self._config.kind == "opcua" and opcua is not None:
            opcua.on_trigger = self.fire
        if self._config.kind == "mqtt" and mqtt is not None and self._config.topic is not None:
            mqtt.on_topic(self._config.topic, lambda payload: self.fire(payload.decode("utf-8", "replace")))
        if self._config.kind == "modbus" and modbus is not None:
            modbus.on_trigger = self.fire

    def run(self, stop: threading.Event) -> None:
        """Take parts until `stop` is set."""
        every = self._config.every or 1.0
        next_time = self._clock.monotonic()
        while not stop.is_set():
            wait = _STOP_SECONDS
            if self._config.kind == "time":
                now = self._clock.monotonic()
                if now >= next_time:
                    next_time = max(next_time + every, now)  # a time that passed is not made up for
                    self.fire()
                wait = min(wait, max(0.0, next_time - now))
            with contextlib.suppress(queue.Empty):
                given, trigger, taken = self._fired.get(timeout=wait)
                accepts = self._debounce.accepts(trigger.monotonic)
                taken.set_result(self._take(given, trigger, stop) if accepts else True)
        with contextlib.suppress(queue.Empty):
            while True:
                self._fired.get_nowait()[2].set_result(False)

    def _take(self, given: str, trigger: Trigger, stop: threading.Event) -> bool:
        """Whether the part is stored. A trigger that can be refused is not kept waiting for the database."""
        name = self._names.new(given)
        for camera in self._cameras:
            camera.want(Wanted(name, trigger))
        while True:
            try:
                self._book.open(name, trigger)
                return True
            except DatabaseUnavailable as error:
                self._outage.note(error)
                can_be_refused = self._config.kind in _ANSWERED
                if can_be_refused:
                    for camera in self._cameras:
                        camera.withdraw(name)
                if can_be_refused or stop.wait(_RETRY_SECONDS):
                    return False
            except DataError as error:  # the views end with it
                self._warn(f"part {name}: {error}")
                return False


def name_frames(names: PartNames, debounce: Debounce) -> Callable[[Trigger], Any]:
    """Return what names each frame of a camera that is a part by itself; None for one that is passed over."""
    return lambda moment: names.new() if debounce.accepts(moment.monotonic) else None
