"""Processes of this machine, as /proc describes them: what descends from which, their processor time and memory."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SCORER: Final = "ray::MapWorker"
"""What Ray calls a process whose actor scores."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """A process.

    Attributes:
        number: Its process number.
        parent: That of its parent.
        command: Its command line, or the name that it gave itself.
        cpu_seconds: Of its threads.
        peak_mb: Its largest resident set, 0 where it has ended.
    """

    number: int
    parent: int
    command: str
    cpu_seconds: float
    peak_mb: float


def descendants(ancestor: int) -> list[Process]:
    """Return the processes that descend from one, itself left out."""
    processes = {process.number: process for process in map(_read, _numbers()) if process is not None}
    found: list[Process] = []
    for process in processes.values():
        parent = process.parent
        while parent > 1 and parent != ancestor:
            parent = processes[parent].parent if parent in processes else 0
        if parent == ancestor:
            found.append(process)
    return found


def scorers(ancestor: int) -> list[Process]:
    """Return the processes below one whose actors score."""
    return [process for process in descendants(ancestor) if process.command.startswith(SCORER)]


@dataclass
class Usage:
    """What processes below this one took until now, those that have ended among them.

    Attributes:
        cpu_seconds: Of each process, when it was last seen.
        peak_mb: The largest resident set of each.
        commands: Of each.
    """

    cpu_seconds: dict[int, float] = field(default_factory=dict)
    peak_mb: dict[int, float] = field(default_factory=dict)
    commands: dict[int, str] = field(default_factory=dict)

    def add(self, processes: list[Process]) -> None:
        """Note what is running now."""
        for process in processes:
            self.cpu_seconds[process.number] = process.cpu_seconds
            self.peak_mb[process.number] = max(process.peak_mb, self.peak_mb.get(process.number, 0.0))
            self.commands[process.number] = process.command

    def peak_of(self, start: str) -> float:
        """Return the largest resident set of those whose command starts so, in MB."""
        peaks = (
            self.peak_mb[number] for number, command in self.commands.items() if command.startswith(start)
        )
        return max(peaks, default=0.0)


class Sampler:
    """Notes what the descendants of this process take, twice a second, in a `with` block."""

    def __init__(self, seconds: float = 0.5) -> None:
        self.usage = Usage()
        self._seconds, self._ended = seconds, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Usage:
        self._thread.start()
        return self.usage

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.usage.add(descendants(os.getpid()))
            if self._ended.wait(self._seconds):
                return


def _numbers() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _read(number: int) -> Process | None:
    """The process of a number; None where it has ended."""
    place = Path("/proc", str(number))
    try:
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        command = (place / "cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ").strip()
        peak = (place / "status").read_text().partition("VmHWM:")[2].split()
    except OSError:
        return None
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    return Process(number, int(fields[1]), command, cpu, int(peak[0]) / 1024 if peak else 0.0)
