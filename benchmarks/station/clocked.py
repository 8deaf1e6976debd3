"""`python -m benchmarks.station.clocked FILE ARGUMENTS`: energyad with a clock that is off by the seconds in a file.

The file is read all the time, so that the clock can be set while the program runs. What the clock of a machine does not
move stays as it is: the monotonic clock, and how long a thread sleeps.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path

import time_machine

from energyad.cli import main

_LOOK_SECONDS = 0.05


def follow(file: Path, clock: time_machine.Coordinates) -> None:
    """Set the clock whenever the file says another offset."""
    offset = 0.0
    while True:
        with contextlib.suppress(OSError, ValueError):  # it is being written
            wanted = float(file.read_text())
            clock.shift(wanted - offset)
            offset = wanted
        time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    shifted = time_machine.travel(time.time(), tick=True).start()
    threading.Thread(target=follow, args=(Path(sys.argv.pop(1)), shifted), daemon=True).start()
    main()
