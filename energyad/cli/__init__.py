"""The program `energyad`: one file a command, listed here. No command's module imports torch or the like on its top."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Annotated, Final

import typer

from energyad.cli import console
from energyad.cli.audit import audit
from energyad.cli.calibrate import calibrate
from energyad.cli.config import config
from energyad.cli.deliveries import deliveries
from energyad.cli.demo import demo
from energyad.cli.drift import drift
from energyad.cli.evaluate import evaluate
from energyad.cli.export import export
from energyad.cli.fit import fit
from energyad.cli.import_model import import_model
from energyad.cli.label import label
from energyad.cli.models import models
from energyad.cli.options import Debug, Quiet
from energyad.cli.promote import promote, rollback
from energyad.cli.report import report
from energyad.cli.review import review
from energyad.cli.run import run
from energyad.cli.score import score
from energyad.cli.serve import serve
from energyad.cli.station import station
from energyad.cli.teach import extend, teach
from energyad.cli.watch import watch

OBJECTS_PER_COLLECTION: Final = 50_000
"""Imports make many objects that stay: with Python's 700, looking through them again and again is a fourteenth of a
start's time."""

COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "fit": fit,
    "config": config,
    "score": score,
    "evaluate": evaluate,
    "calibrate": calibrate,
    "watch": watch,
    "station": station,
    "run": run,
    "deliveries": deliveries,
    "serve": serve,
    "review": review,
    "label": label,
    "teach": teach,
    "extend": extend,
    "promote": promote,
    "rollback": rollback,
    "audit": audit,
    "drift": drift,
    "report": report,
    "export": export,
    "import": import_model,
    "models": models,
    "demo": demo,
}

app = typer.Typer(
    name="energyad",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, command in COMMANDS.items():
    app.command(name)(console.guarded(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"energyad {metadata.version('energyad')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find defects on images of parts, from images of good parts alone.

    \b
      energyad demo                          try everything on synthetic images
      energyad fit --images good/ --name gasket
      energyad score new/ --model gasket --heatmaps

    Results go to standard output, messages to standard error. Exit status: 0 all is well, 1 `score` found a part that
    is ng, 2 an error.
    """


def main() -> None:
    """Run the program and exit with its status."""
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    console.reset()
    try:
        app(prog_name="energyad")
    except KeyboardInterrupt:  # before or after a command's own work
        raise SystemExit(2) from None
