"""`energyad watch`."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import terminal
from energyad.cli.options import Debug, Model, Quiet, Threads

if TYPE_CHECKING:
    from energyad.detector import AnomalyDetector
    from energyad.journal import JournalLine


def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where images arrive.")],
    model: Model = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where results go, one JSON line an image.")
    ] = Path("results.jsonl"),
    move_to: Annotated[
        Path | None,
        typer.Option(
            "--move-to", metavar="DIR", help="Move scored images there, by verdict: ok, review, ng."
        ),
    ] = None,
    webhook: Annotated[
        str | None, typer.Option("--webhook", metavar="URL", help="Also POST each result there.")
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", min=0.01, metavar="SECONDS", help="Between two looks.")
    ] = 0.5,
    once: Annotated[bool, typer.Option("--once", help="Score what is there now, and end.")] = False,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score images as they arrive in a folder, each once.

    \b
      energyad watch incoming/ --model gasket --out results.jsonl
      energyad watch incoming/ --move-to sorted/ --webhook https://line.example/results
      tail -f results.jsonl | jq -c 'select(.verdict == "ng") | [.image, .score]'

    A file is taken when it is complete: the same in two looks, or renamed into place. Its result is on the disk before
    anything else happens, so a watcher that was killed goes on where it was. Deliveries are repeated until they
    succeed and signed with ENERGYAD_WEBHOOK_SECRET. Ctrl-C or SIGTERM ends it with status 0.
    """
    from energyad import artifact
    from energyad.detector import AnomalyDetector
    from energyad.journal import Journal
    from energyad.watch import Watcher, scorer_of
    from energyad.webhook import SECRET_VARIABLE, Webhook

    detector = AnomalyDetector.load(artifact.find_model(model), threads=threads)
    with _until_told() as stop, Journal(out) as journal:
        watcher = Watcher(folder, journal, scorer_of(detector), move_to=move_to)
        sender = None
        if webhook is not None:
            sender = Webhook(webhook, out, secret=os.environ.get(SECRET_VARIABLE), warn=terminal.warn)
            sender.start()
        told = _teller(detector, journal.lines())

        def noted(line: JournalLine) -> None:
            told(line)
            if sender is not None:
                sender.tell()

        terminal.say(f"watching {folder}/ with {detector.name}; results in {out}")
        watcher.run(stop, noted=noted, interval=interval, once=once)
        if sender is not None:
            sender.stop()
    terminal.say("stopped")


@contextlib.contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _teller(detector: AnomalyDetector, earlier: list[JournalLine]) -> Callable[[JournalLine], None]:
    """Says what a person should look at: parts that are not ok, and drift when it begins or ends."""
    from energyad import drift, observation

    seen = [line.observation for line in earlier[-drift.WINDOW :]]
    monitor = drift.DriftMonitor.resumed(
        observation.reference_of(detector.manifest),
        [each for each in seen if each is not None],
        model=detector.name,
    )
    state, count = monitor.check().state, 0

    def tell(line: JournalLine) -> None:
        nonlocal state, count
        if line.verdict != "ok":
            what = (
                f"{line.verdict}  {line.score:.4g}"
                if line.verdict and line.score is not None
                else "unreadable"
            )
            terminal.say(f"{what}  {line.image}{f': {line.error}' if line.error else ''}")
        if line.observation is None:
            return
        monitor.add(line.observation)
        count += 1
        if count % 10 == 0 and (found := monitor.check()).state != state:
            state = found.state
            (terminal.warn if state == "shifted" else terminal.say)(f"drift: {found.advice}")

    return tell
