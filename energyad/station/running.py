"""A running station: views in threads of their own, one verdict a part, outputs that wait for nobody."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sqlalchemy import func, select

from energyad.errors import DataError
from energyad.line.database import Database, DatabaseUnavailable
from energyad.line.deliveries import count_deliveries
from energyad.line.outbox import Outbox
from energyad.line.results_file import ResultsFile
from energyad.line.tables import Part
from energyad.line.watch import ScoreFiles
from energyad.line.watchers import Registration
from energyad.station.cameras import Camera
from energyad.station.config import StationConfig
from energyad.station.images import ImageKeeper
from energyad.station.latency import LatencySummary, LatencyWindow
from energyad.station.metrics import MetricsServer, Reading
from energyad.station.modbus import ModbusOutput
from energyad.station.mqtt import MqttOutput
from energyad.station.opcua import OpcUaOutput
from energyad.station.opening import outputs_of
from energyad.station.outage import Outage
from energyad.station.outputs import State, StationOutput, Status
from energyad.station.parts import PartBook
from energyad.station.pushing import UnknownView, put_image
from energyad.station.results import SEVERITY, PartResult, PartVerdict
from energyad.station.triggering import Debounce, PartNames, Triggers, name_frames
from energyad.station.triggers import Clock, ClockWatch, Trigger
from energyad.station.views import View

BEAT_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.05
STALL_SECONDS: Final = 60.0
"""A view that has not finished a look for this long stops the heartbeat."""
TIDY_SECONDS: Final = 10.0
"""From the end of one look at the kept images to the next one."""
IMAGES_A_TICK: Final = 50
"""Kept images that are looked at in one tick, in about a millisecond."""


class Station:
    """Runs a station.

    Args:
        config: The station.
        database: The line's.
        say: Called with messages for people.
        warn: Called with warnings for people.
        clock: Tells the time.

    Raises:
        ModelError: A model cannot be loaded.
        MissingExtraError: A package that an output needs is not installed.
        DataError: A results file is of another database.
    """

    def __init__(
        self,
        config: StationConfig,
        database: Database,
        *,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        clock: Clock | None = None,
    ) -> None:
        self.config, self._database, self._say, self._warn = config, database, say, warn
        self._clock = clock or Clock()
        self._outage = Outage(self._clock, warn)
        for folder in (view.folder for view in config.views if view.camera is not None):
            folder.mkdir(parents=True, exist_ok=True)
        self.outputs: list[StationOutput] = list(outputs_of(config, warn))
        self.views = [
            View(config, view, database, clock=self._clock, outage=self._outage, say=say, warn=warn)
            for view in config.views
        ]
        self.stream_id = self.views[0].store.stream_id
        self.book = PartBook(
            database,
            self.stream_id,
            station=config.name,
            views=[view.name for view in config.views],
            latency=config.latency,
            clock=self._clock,
            opens_first=self._opens_first,
            on_part=self._on_part,
            warn=warn,
        )
        self.cameras = self._make_cameras()
        self._latency = LatencyWindow()
        self._counts, self._num_late = _counts_of(database, self.stream_id)
        self._heartbeat = 0
        self._state: State = "running"
        self._outboxes: list[Outbox] = []
        self._lock = threading.Lock()
        self._triggers = self._connect_triggers()

    @property
    def _opens_first(self) -> bool:
        """Whether parts are opened by a trigger, before their images come."""
        has_camera = any(view.camera is not None for view in self.config.views)
        return has_camera and self.config.trigger.kind != "frame"

    def _make_cameras(self) -> list[Camera]:
        self._names = PartNames(self._clock)
        debounce = Debounce(self.config.trigger.debounce)
        name_frame = None if self._opens_first else name_frames(self._names, debounce)
        return [
            Camera(
                *(config.name, config.camera, config.folder),
                clock=self._clock,
                announce=view.triggers.announce,
                on_written=view.wake,
                name_frame=name_frame,
                warn=self._warn,
                say=self._say,
            )
            for view, config in zip(self.views, self.config.views, strict=True)
            if config.camera is not None
        ]

    @property
    def latency(self) -> LatencySummary | None:
        """Of the parts of this run."""
        return self._latency.summary()

    @property
    def status(self) -> Status:
        """How the station is."""
        with self._lock:
            total, rejected = sum(self._counts.values()), self._counts["ng"]
        job = ", ".join(dict.fromkeys(view.model().name for view in self.views))
        return Status(self._state, self._heartbeat, total, rejected, job)

    def run(
        self,
        stop: threading.Event,
        *,
        on_start: Callable[[], None] = lambda: None,
        once: bool = False,
        score: Mapping[str, ScoreFiles] | None = None,
    ) -> None:
        """Score parts and tell the outputs, until `stop` is set; the images at hand are finished first.

        Args:
            stop: Ends it.
            on_start: Called when everything runs.
            once: End when what is there has been scored and told.
            score: What scores the files of each view, for tests; by default its model.

        Raises:
            DataError: A folder is lost, the database is damaged, or an output's port is taken.
        """
        registration = Registration(self._database)
        with contextlib.ExitStack() as stack:
            stack.callback(self._end, registration)
            results = stack.enter_context(
                ResultsFile(self._database, self.stream_id, self.config.results, warn=self._warn)
            )
            self._start_outputs(stack, registration.id)
            if self.config.metrics is not None:
                server = MetricsServer(self.config.metrics, self.reading)
                server.start()
                stack.callback(server.stop)
            views_stop = threading.Event()
            if once:  # videos to their ends, before what they gave is looked at
                self._run_cameras(stop)
            threads = self._start_views(views_stop, results.tell, once=once, score=score or {})
            if not once:
                threads += self._start_cameras(views_stop)
            try:
                on_start()
                self._supervise(stop, views_stop, threads, registration)
            finally:
                views_stop.set()
                for view in self.views:
                    view.wake()
                self._state = "stopping"
                for thread in threads:
                    thread.join()
                for output in self.outputs:
                    output.beat(self.status)
                if once:
                    self._expire_all()
        for view in self.views:
            if view.error is not None:
                raise view.error

    def push(self, view: str, part: str, data: bytes, *, suffix: str) -> str:
        """Put an image into a view's folder, as a camera would.

        Args:
            view: The view's name.
            part: The part's; where it is empty, the time names it.
            data: Of the image file.
            suffix: Of the file.

        Returns:
            The part's name.

        Raises:
            UnknownView: There is no such view.
            PartExists: An image of that part waits there already.
            DataError: The part is not named, and has several views.
            OSError: It cannot be written.
        """
        trigger = Trigger(self._clock.monotonic(), self._clock.now())
        by_name = {one.name: (one, config) for one, config in zip(self.views, self.config.views, strict=True)}
        if view not in by_name:
            raise UnknownView(f"{view[:100]}: there is no such view; known: {', '.join(by_name)}")
        name = PartNames.safe(part)
        if not name and len(by_name) > 1:
            raise DataError("part: name it, since its views are joined by that name")
        name = name or self._names.new()
        target, config = by_name[view]
        path = config.folder / f"{name}{suffix}"
        target.triggers.announce(path, trigger)
        put_image(path, data)
        target.wake()
        return name

    def reading(self) -> Reading:
        """Return what the metrics say."""
        with self._lock:
            verdicts = {str(verdict): count for verdict, count in self._counts.items()}
            late = self._num_late
        try:
            outputs = count_deliveries(self._database)
        except DataError:  # not now
            outputs = []
        drift = {view.name: view.is_drifted for view in self.views}
        return Reading(verdicts, late, self._heartbeat, self.latency, outputs, drift)

    def _start_outputs(self, stack: contextlib.ExitStack, watcher: str) -> None:
        for output in self.outputs:
            output.start()
            stack.callback(output.stop)
            row = self.book.add_output(output.kind, output.address)
            self._outboxes.append(
                Outbox(
                    output.kind,
                    self._database,
                    output=row,
                    watcher=watcher,
                    send=output.send,
                    warn=self._warn,
                    longest_pause=10.0,
                )
            )
        stack.callback(self._stop_outboxes)
        for outbox in self._outboxes:
            outbox.start()

    def _start_views(
        self,
        stop: threading.Event,
        on_image: Callable[[], None],
        *,
        once: bool,
        score: Mapping[str, ScoreFiles],
    ) -> list[threading.Thread]:
        threads = [
            threading.Thread(
                target=view.watch,
                args=(self.book, stop),
                kwargs={"on_image": on_image, "once": once, "score": score.get(view.name)},
                name=f"energyad-view-{view.name}",
            )
            for view in self.views
        ]
        for thread in threads:
            thread.start()
        for view in self.views:
            view.is_ready.wait()
        return threads

    def _run_cameras(self, stop: threading.Event) -> None:
        for camera in self.cameras:
            camera.run(stop)

    def _start_cameras(self, stop: threading.Event) -> list[threading.Thread]:
        """Read the cameras, and take parts where something else than a frame triggers."""
        work: list[tuple[str, Callable[[threading.Event], None]]] = [
            (f"camera-{camera.name}", camera.run) for camera in self.cameras
        ]
        if self._triggers is not None:
            work.append(("trigger", self._triggers.run))
        threads = [
            threading.Thread(target=run, args=(stop,), name=f"energyad-{name}", daemon=True)
            for name, run in work
        ]
        for thread in threads:
            thread.start()
        return threads

    def _connect_triggers(self) -> Triggers | None:
        if not self._opens_first:
            return None
        triggers = Triggers(
            self.config.trigger,
            self.book,
            self.cameras,
            clock=self._clock,
            names=self._names,
            outage=self._outage,
            warn=self._warn,
        )
        mqtt = next((output for output in self.outputs if isinstance(output, MqttOutput)), None)
        modbus = next((output for output in self.outputs if isinstance(output, ModbusOutput)), None)
        opcua = next((output for output in self.outputs if isinstance(output, OpcUaOutput)), None)
        triggers.connect(mqtt=mqtt, modbus=modbus, opcua=opcua)
        return triggers

    def _supervise(
        self,
        stop: threading.Event,
        views_stop: threading.Event,
        threads: Sequence[threading.Thread],
        registration: Registration,
    ) -> None:
        """Beat, and decide parts whose views did not come, until the station is to end."""
        keeper = None if self.config.images is None else ImageKeeper(self.config.images)
        clock_watch = ClockWatch(self._clock)
        last_beat = last_look = float("-inf")
        while not stop.is_set() and not views_stop.is_set() and any(thread.is_alive() for thread in threads):
            now = self._clock.monotonic()
            self._patiently(self._expire)
            if now - last_beat >= BEAT_SECONDS:
                last_beat = now
                self._patiently(registration.beat)
                self._beat(now)
                self._database.checkpoint()
                self._note_clock(clock_watch.change())
            if keeper is not None and now - last_look >= TIDY_SECONDS and keeper.look_at(IMAGES_A_TICK):
                last_look = now
            stop.wait(TICK_SECONDS)
        if keeper is not None:
            keeper.tidy()

    def _note_clock(self, change: float) -> None:
        if change != 0.0:
            direction = "forward" if change > 0 else "back"
            self._warn(
                f"the clock was set {direction} by {abs(change):.0f} s; latencies and the order of parts do not depend "
                "on it"
            )

    def _beat(self, now: float) -> None:
        """Count the heartbeat where every view looks, and tell the outputs."""
        looks = [view.last_look for view in self.views]
        if self._heartbeat == 0 or now - min(looks) < STALL_SECONDS:
            self._heartbeat += 1
        status = self.status
        for output in self.outputs:
            output.beat(status)

    def _expire(self) -> None:
        if len(self.views) > 1 or self._opens_first:
            self.book.expire({view.name: view.last_look for view in self.views}, self.config.part.deadline)

    def _expire_all(self) -> None:
        """With `once`: what is still missing will not come."""
        self.book.expire({view.name: float("inf") for view in self.views}, 0.0)

    def _patiently(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(DatabaseUnavailable):  # a view says so; tried again at the next tick
            work()

    def _on_part(self, part: PartResult) -> None:
        """A part's verdict is on the disk."""
        with self._lock:
            self._counts[part.verdict] += 1
            self._num_late += self.config.latency.is_missed(part.latency)
        if part.latency is not None:
            self._latency.add(part.latency)
        if part.verdict != "ok" or part.reason is not None:
            p_value = "" if part.p_value is None else f"  p {part.p_value:.3g}"
            self._say(
                f"{part.verdict}  {part.part}{p_value}{'' if part.reason is None else f'  {part.reason}'}"
            )
        for outbox in self._outboxes:
            outbox.tell()

    def _stop_outboxes(self) -> None:
        began = self._clock.monotonic()
        for output, outbox in zip(self.outputs, self._outboxes, strict=False):
            outbox.stop(seconds=max(0.1, output.linger - (self._clock.monotonic() - began)))

    def _end(self, registration: Registration) -> None:
        with contextlib.suppress(DatabaseUnavailable):  # the next start does it
            registration.end()


def _counts_of(database: Database, stream_id: int) -> tuple[dict[PartVerdict, int], int]:
    """Parts so far by verdict, and how many were late."""
    decided = (Part.stream_id == stream_id, Part.number.is_not(None))
    with database.read() as session:
        rows = session.execute(
            select(Part.verdict, func.count()).where(*decided).group_by(Part.verdict)
        ).all()
        late = session.scalar(select(func.count()).where(*decided, Part.late)) or 0
    counts = dict.fromkeys(SEVERITY, 0)
    for verdict, count in rows:
        counts[verdict] += count  # type: ignore[index]  # one of SEVERITY
    return counts, late
