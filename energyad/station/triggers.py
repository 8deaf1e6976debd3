"""When each part was triggered, by a clock that cannot be set back."""

from __future__ import annotations

import datetime
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from energyad.line.incoming import FoundFile

_FILE_CLOCK_SECONDS: Final = 0.05
"""How far times of files may lag behind the clock."""
_MAX_ANNOUNCED: Final = 1_000
"""Latest files whose triggers are known from cameras; of more that wait, the oldest have the times of their files."""
_SET_SECONDS: Final = 2.0
"""A clock that moves by less between two looks is taken for one that is slewed."""


@dataclass(frozen=True)
class Trigger:
    """The moment from which a part's latency counts. monotonic: in this process alone; time: for people."""

    monotonic: float
    time: datetime.datetime


@dataclass
class Clock:
    """Tells how long ago a part was triggered: by the monotonic clock, for parts of an earlier process by the time.

    Attributes:
        monotonic: Seconds, never set back.
        wall: Seconds since 1970.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    _triggers: dict[int, Trigger | None] = field(default_factory=dict)

    def now(self) -> datetime.datetime:
        """Return the time."""
        return datetime.datetime.fromtimestamp(self.wall(), datetime.UTC)

    def remember(self, part: int, trigger: Trigger | None) -> None:
        """Note when a part was triggered."""
        self._triggers[part] = trigger

    def forget(self, part: int) -> None:
        """A part is decided."""
        self._triggers.pop(part, None)

    def since(self, part: int, triggered: datetime.datetime | None) -> float | None:
        """Return the seconds since a part was triggered; None where that is not known.

        Args:
            part: Its row.
            triggered: When it was triggered, for a part of an earlier process.
        """
        trigger = self._triggers.get(part)
        if trigger is not None:
            return self.monotonic() - trigger.monotonic
        if triggered is None:
            return None
        seconds = (self.now() - triggered).total_seconds()
        return seconds if seconds >= 0 else None  # the clock was set back


class ClockWatch:
    """Sees when the clock of the machine is set.

    Args:
        clock: Tells the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = self._measure()

    def change(self) -> float:
        """Return the seconds by which the clock was set since the last call; 0 where it was not."""
        before, self._offset = self._offset, self._measure()
        change = self._offset - before
        return change if abs(change) >= _SET_SECONDS else 0.0

    def _measure(self) -> float:
        return self._clock.wall() - self._clock.monotonic()


class FolderTriggers:
    """When the files of a folder were complete: at their last change, or two looks before, if that is later.

    A look finds files that came since the one before it, or that changed since the second last one; the clock of a file
    may be set, that of looks not. Files that were there at the first look have no trigger: how long they waited says
    nothing of the station.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._triggers: dict[Path, Trigger | None] = {}
        self._announced: OrderedDict[Path, Trigger] = OrderedDict()
        self._looks: tuple[float, ...] = ()
        self._first_look = 0.0  # seconds since 1970
        self._lock = threading.Lock()

    def on_new(self, files: Mapping[Path, FoundFile]) -> None:
        """Note the files that a look found new."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        longest = now - self._looks[0] if self._looks else None
        with self._lock:
            self._triggers = {path: trigger for path, trigger in self._triggers.items() if path in files}
            for path, file in files.items():
                if path not in self._triggers:
                    self._triggers[path] = self._trigger(file, now, wall, longest)
        if not self._looks:
            self._first_look = wall
        self._looks = (*self._looks[-1:], now)

    def _trigger(self, file: FoundFile, now: float, wall: float, longest: float | None) -> Trigger | None:
        changed = file.changed_ns / 1e9
        if longest is None or (len(self._looks) == 1 and changed < self._first_look - _FILE_CLOCK_SECONDS):
            return None  # it was there at the first look, or was found at the second as it was at the first
        age = min(max(0.0, wall - changed), longest)
        return Trigger(now - age, datetime.datetime.fromtimestamp(wall - age, datetime.UTC))

    def announce(self, path: Path, trigger: Trigger) -> None:
        """A camera is about to write a frame: its trigger is known better than by its file."""
        with self._lock:
            self._announced[path] = trigger
            while len(self._announced) > _MAX_ANNOUNCED:
                self._announced.popitem(last=False)

    def is_announced(self, path: Path) -> bool:
        """Whether this program put the file there, which it does in one step."""
        with self._lock:
            return path in self._announced

    def of(self, path: Path) -> Trigger | None:
        """Return when a file was complete; None where nobody saw it come."""
        with self._lock:
            return self._announced.get(path, self._triggers.get(path))
