"""`energyad run`."""

from __future__ import annotations

import contextlib
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Quiet
from energyad.cli.watch import stop_on_signals

if TYPE_CHECKING:
    from energyad.station.running import Station

SWITCH_SECONDS: Final = 0.0005
"""How long one thread may keep the others waiting; 0.005 is Python's own."""


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The station's file.")] = Path("station.toml"),
    once: Annotated[bool, typer.Option("--once", help="Score what is there now, and end.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run the station that a file describes: images in, one verdict a part, machines told.

    \b
      energyad station new                 asks a few questions and writes station.toml
      energyad station check               says what would keep it from running
      energyad run

    Each part's verdict is in the database before any output is told. Outputs are told in the parts' order, each at
    least once; one that is down holds up nobody. Ctrl-C or SIGTERM finishes the images at hand and ends with status 0.
    After a kill, the next run goes on where this one was.
    """
    from energyad.line.database import Database
    from energyad.station.config import read_station
    from energyad.station.running import Station

    config = read_station(file)
    with stop_on_signals() as stop, Database(config.database) as database:
        station = Station(config, database, say=console.say, warn=console.warn)

        pushing = _pushing(station)

        def on_start() -> None:
            _keep_pauses_short()
            folders = ", ".join(f"{view.name} {view.folder}/" for view in config.views)
            outputs = ", ".join(output.address for output in station.outputs) or "none"
            console.say(f"station {config.name}: views {folders}; outputs {outputs}; kept in {database.name}")

        with pushing:
            station.run(stop, on_start=on_start, once=once)
    _say_end(station)


def _keep_pauses_short() -> None:
    """Keep a part from waiting for Python itself: for the collection of what lives as long as the program, and for
    threads that have something to do as well.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)


def _pushing(station: Station) -> contextlib.AbstractContextManager[object]:
    """The server that takes images, where the file has one."""
    config = station.config
    if config.push is None:
        return contextlib.nullcontext()
    from energyad.extras import require

    require("serve", "[push]")
    from energyad.service.push import PushServer

    server = PushServer(
        station, config.push,
        max_pixels=round(config.max_megapixels * 1e6), decode_seconds=config.decode_seconds,
    )  # fmt: skip
    console.say(f"images: POST http://{config.push.host}:{server.port}/v1/views/NAME/images")
    return server


def _say_end(station: Station) -> None:
    status, latency = station.status, station.latency
    console.say(
        f"stopped: {status.total} parts so far, {status.rejected} ng"
        + ("" if latency is None else f"; of this run {latency.parts}, trigger to verdict {latency}")
    )
