"""Cameras: USB, RTSP, GenICam and video files, read all the time, so that a frame is always the newest one.

A frame that is wanted is written into the folder of its view, under a name of its own and in one step, and scored from
there: what was taken outlives the program. A camera that is lost is opened again and again, at growing pauses.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt

from energyad.errors import ImageError, os_reason
from energyad.station.config import CameraConfig
from energyad.station.motion import MotionDetector
from energyad.station.triggers import Clock, Trigger

MIN_PAUSE, MAX_PAUSE = 0.5, 30.0
"""Seconds between two tries to open a camera."""
_COMPRESSION: Final = 1
"""Of PNG: the quickest; frames are kept without loss."""

Frame: TypeAlias = UInt[np.ndarray, "h w c"]


class Capture(Protocol):
    """What gives frames: `cv2.VideoCapture`."""

    def isOpened(self) -> bool:  # noqa: N802
        """Whether it can be read."""

    def read(self) -> tuple[bool, Frame | None]:
        """Wait for the next frame, blue first; False where there is none."""

    def release(self) -> None:
        """Close it."""


def open_capture(config: CameraConfig) -> Capture:
    """Open a USB camera by its number or device, a URL, a video file, or a GenICam camera."""
    if config.is_genicam:
        from energyad.station.aravis import AravisCapture  # a library of the system

        return AravisCapture(config)
    if config.source.isdecimal():
        capture = cv2.VideoCapture(int(config.source))
    else:
        milliseconds = int(1000 * config.timeout)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
        capture = cv2.VideoCapture(config.source, cv2.CAP_ANY if config.is_device else cv2.CAP_FFMPEG, limits)
    for value, what in (
        (config.width, cv2.CAP_PROP_FRAME_WIDTH),
        (config.height, cv2.CAP_PROP_FRAME_HEIGHT),
        (config.fps, cv2.CAP_PROP_FPS),
    ):
        if value is not None:
            capture.set(what, value)
    return capture


@dataclass(frozen=True)
class Wanted:
    """A frame that is wanted: the first one that comes after its trigger."""

    part: str
    trigger: Trigger


class Camera:
    """One view's camera.

    Args:
        name: Of the view.
        config: Which camera.
        folder: Where its frames go.
        clock: Tells the time.
        announce: Called with a frame's path and trigger before the frame is there.
        on_written: Called when it is.
        name_frame: Where each frame is a part: returns the part's name, or None to pass a frame over. None where
            frames are asked for.
        warn: Called when the camera is lost, once, and of each frame that could not be had.
        say: Called when the camera is back.
        open: Opens the camera.
    """

    def __init__(
        self,
        name: str,
        config: CameraConfig,
        folder: Path,
        *,
        clock: Clock,
        announce: Callable[[Path, Trigger], None],
        on_written: Callable[[], None] = lambda: None,
        name_frame: Callable[[Trigger], str | None] | None = None,
        warn: Callable[[str], None],
        say: Callable[[str], None],
        open: Callable[[CameraConfig], Capture] = open_capture,
    ) -> None:
        self.name, self._config, self._folder, self._clock = name, config, folder, clock
        self._announce, self._on_written, self._name_frame = announce, on_written, name_frame
        self._open = open
        self._warn, self._say = warn, say
        self._motion: MotionDetector | None = None
        self._on_motion: Callable[[], object] = lambda: None
        self._wanted: list[Wanted] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"energyad-frames-{name}")
        self._writing: Future[None] | None = None
        self.num_frames = 0
        self.num_passed_over = 0
        self.is_connected = False
        self.has_ended = False

    def want(self, wanted: Wanted) -> None:
        """Ask for the first frame after a trigger."""
        with self._lock:
            self._wanted.append(wanted)

    def on_motion(self, detector: MotionDetector, fire: Callable[[], object]) -> None:
        """Have each frame looked at, and something called when a part comes into view; before `run`."""
        self._motion, self._on_motion = detector, fire

    def withdraw(self, part: str) -> None:
        """No longer ask for a frame of a part whose trigger was refused; one that is being written is removed."""
        with self._lock:
            self._wanted = [wanted for wanted in self._wanted if wanted.part != part]
        with contextlib.suppress(RuntimeError):  # the camera has ended
            self._writer.submit(self._path(part).unlink, missing_ok=True)

    def run(self, stop: threading.Event) -> None:
        """Read frames until `stop` is set, or the video has ended."""
        self._stop = stop
        pause = MIN_PAUSE
        was_lost = False
        try:
            while not stop.is_set() and not self.has_ended:
                capture = self._open(self._config)
                try:
                    if capture.isOpened():
                        count = self.num_frames
                        self._read(capture, stop, was_lost=was_lost)
                        if self.num_frames > count:
                            pause, was_lost = MIN_PAUSE, False
                finally:
                    self.is_connected = False
                    capture.release()
                if stop.is_set() or self.has_ended:
                    break
                if not was_lost:
                    self._warn(
                        f"view {self.name}: no camera at {self._config.source}; tried again until there is"
                    )
                was_lost = True
                self._forget_late()  # their parts say that this view is missing
                stop.wait(pause)
                pause = min(MAX_PAUSE, 2 * pause)
        finally:
            self._writer.shutdown()

    def _read(self, capture: Capture, stop: threading.Event, *, was_lost: bool) -> None:
        """Read until there are no more frames."""
        while not stop.is_set():
            is_there, frame = capture.read()
            if not is_there or frame is None:
                self.has_ended = self._config.is_file and self.num_frames > 0 and not self._config.loop
                return
            if was_lost and not self.is_connected:
                self._say(f"view {self.name}: the camera is back")
            self.is_connected = True
            self.num_frames += 1
            moment = Trigger(self._clock.monotonic(), self._clock.now())
            if self._name_frame is not None:
                self._take(frame, moment)
            else:
                if self._motion is not None and self._motion.sees(frame, moment.monotonic):
                    self._on_motion()
                self._give_up_late()
                self._serve(frame, moment)

    def _take(self, frame: Frame, moment: Trigger) -> None:
        """Each frame is a part; of a live camera only while the one before is not still being written."""
        if not self._config.is_file and self._writing is not None and not self._writing.done():
            self.num_passed_over += 1
            return
        part = self._name_frame(moment) if self._name_frame is not None else None
        if part is not None:
            self._submit(frame, [Wanted(part, moment)])

    def _serve(self, frame: Frame, moment: Trigger) -> None:
        with self._lock:
            ready = [wanted for wanted in self._wanted if wanted.trigger.monotonic <= moment.monotonic]
            self._wanted = [wanted for wanted in self._wanted if wanted not in ready]
        if ready:
            self._submit(frame, ready)

    def _give_up_late(self) -> None:
        for wanted in self._forget_late():
            self._warn(
                f"view {self.name}: no frame within {self._config.timeout:g} s of the trigger of {wanted.part}"
            )

    def _forget_late(self) -> list[Wanted]:
        """Forget frames that did not come in time, and return them."""
        oldest = self._clock.monotonic() - self._config.timeout
        with self._lock:
            late = [wanted for wanted in self._wanted if wanted.trigger.monotonic < oldest]
            self._wanted = [wanted for wanted in self._wanted if wanted not in late]
        return late

    def _submit(self, frame: Frame, wanted: list[Wanted]) -> None:
        before, copy = self._writing, frame.copy()
        if before is not None and self._config.is_file:
            before.result()

        def write() -> None:
            for one in wanted:
                self._write(copy, one)

        self._writing = self._writer.submit(write)

    def _path(self, part: str) -> Path:
        return self._folder / f"{part}.png"

    def _write(self, frame: Frame, wanted: Wanted) -> None:
        path = self._path(wanted.part)
        self._announce(path, wanted.trigger)
        was_said = False
        while True:
            try:
                write_frame(path, frame)
                self._on_written()
                return
            except OSError as error:  # a full disk: the frame waits
                if not was_said:
                    self._warn(f"{path}: cannot be written: {os_reason(error)}; tried again until it can")
                was_said = True
            if self._stop.wait(1.0):
                return


def write_frame(path: Path, frame: Frame) -> None:
    """Write a frame as PNG, whole or not at all.

    Args:
        path: The file.
        frame: Blue first, as OpenCV has it.

    Raises:
        OSError: It cannot be written.
    """
    is_coded, data = cv2.imencode(".png", frame, [cv2.IMWRITE_PNG_COMPRESSION, _COMPRESSION])
    if not is_coded:
        raise ImageError(path, "the frame cannot be coded as PNG; look at the camera's format")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data.tobytes())
    temporary.rename(path)
