"""`energyad run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Quiet
from energyad.cli.watch import stop_on_signals


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

        def on_start() -> None:
            folders = ", ".join(f"{view.name} {view.folder}/" for view in config.views)
            outputs = ", ".join(output.address for output in station.outputs) or "none"
            console.say(f"station {config.name}: views {folders}; outputs {outputs}; kept in {database.name}")

        station.run(stop, on_start=on_start, once=once)
    status, latency = station.status, station.latency
    console.say(
        f"stopped: {status.total} parts so far, {status.rejected} ng"
        + ("" if latency is None else f"; of this run {latency.parts}, trigger to verdict {latency}")
    )
