"""Which processes work for the line, and whether they still live: what a dead one had claimed is taken over.

Of a process of this machine the process table says so, at once. Of others, behind a shared server, a heartbeat does.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from energyad.line.database import Database
from energyad.line.tables import WatcherProcess

HEARTBEAT_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.25
"""Between two looks for processes that ended."""
SILENT_SECONDS: Final = 60.0
"""After which a process of another machine counts as dead."""


class Registration:
    """This process as one of the line's watchers."""

    def __init__(self, database: Database) -> None:
        self.id = uuid.uuid4().hex
        self._database = database
        self._beaten = time.monotonic()
        self._looked = float("-inf")
        with database.write() as session:
            session.add(
                WatcherProcess(
                    id=self.id,
                    place=_place(),
                    process=os.getpid(),
                    started=_start_of(os.getpid()) or "",
                    heartbeat=clock_of(session),
                )
            )

    def beat(self) -> None:
        """Say that this process lives, every few seconds; mark the dead ones."""
        if time.monotonic() - self._beaten < HEARTBEAT_SECONDS:
            return
        with self._database.write(durable=False) as session:
            row = session.get_one(WatcherProcess, self.id)
            row.heartbeat, row.ended = clock_of(session), False
        self._beaten = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look for processes that ended."""
        return time.monotonic() - self._looked >= LOOK_SECONDS

    def mark_dead(self) -> None:
        """Mark the processes that ended without saying so."""
        self._looked = time.monotonic()
        with self._database.read() as session:
            now = clock_of(session)
            listed = session.scalars(select(WatcherProcess).where(~WatcherProcess.ended)).all()
        dead = [watcher.id for watcher in listed if watcher.id != self.id and not _is_alive(watcher, now)]
        self._end(dead)

    def end(self) -> None:
        """Say that this process ends."""
        self._end([self.id])

    def _end(self, identifiers: Sequence[str]) -> None:
        if not identifiers:
            return
        with self._database.write() as session:
            for watcher in session.scalars(select(WatcherProcess).where(WatcherProcess.id.in_(identifiers))):
                watcher.ended = True


def clock_of(session: Session) -> float:
    """Seconds since 1970 by the one clock that all watchers of a database share."""
    if session.get_bind().dialect.name == "postgresql":
        return float(session.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0.0)
    return time.time()


def _is_alive(watcher: WatcherProcess, now: float) -> bool:
    if watcher.place == _place():
        return _start_of(watcher.process) == watcher.started
    return now - watcher.heartbeat < SILENT_SECONDS


def _place() -> str:
    """This machine since it was started, and the namespace of its process numbers (containers have their own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return platform.node()


def _start_of(process: int) -> str | None:
    """When a process was started, so that another one of the same number is told apart; None where there is none."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    else:
        return None if status[0] in "ZX" else status[19]
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:  # it belongs to somebody else
        return ""
    return ""
