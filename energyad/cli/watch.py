"""`energyad watch`."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Model, Quiet, Threads

if TYPE_CHECKING:
    from energyad.detector import AnomalyDetector
    from energyad.line.drift import DriftMonitor
    from energyad.line.journal import Journal, JournalLine


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
    succeed and signed with ENERGYAD_WEBHOOK_SECRET. A model that is calibrated or fitted anew meanwhile counts from
    the next files on. Ctrl-C or SIGTERM ends it with status 0.
    """
    from energyad.detector import AnomalyDetector
    from energyad.line.journal import Journal
    from energyad.line.reloading import ReloadingDetector
    from energyad.line.watch import Watcher, scorer_of
    from energyad.line.webhook import SECRET_VARIABLE, Webhook
    from energyad.model.folder import find_model

    followed = ReloadingDetector(
        find_model(model),
        functools.partial(AnomalyDetector.load, threads=threads),
        replaced=lambda detector: teller.replaced(detector),
        refused=lambda error: console.warn(f"the old model stays: {error}"),
    )
    detector = followed()
    with _until_told() as stop, Journal(out) as journal:
        watcher = Watcher(folder, journal, scorer_of(followed), move_to=move_to)
        sender = None
        if webhook is not None:
            sender = Webhook(webhook, out, secret=os.environ.get(SECRET_VARIABLE), warn=console.warn)
            sender.start()
        teller = _Teller(detector, journal)

        def noted(line: JournalLine) -> None:
            teller.tell(line)
            if sender is not None:
                sender.tell()

        console.say(f"watching {folder}/ with {detector.name}; results in {out}")
        watcher.run(stop, noted=noted, interval=interval, once=once)
        if sender is not None:
            sender.stop()
    console.say("stopped")


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


class _Teller:
    """Says what a person should look at: parts that are not ok, drift when it begins or ends, and a new model."""

    _monitor: DriftMonitor
    _state: str
    _count: int

    def __init__(self, detector: AnomalyDetector, journal: Journal) -> None:
        self._journal = journal
        self._follow(detector)

    def replaced(self, detector: AnomalyDetector) -> None:
        """The model was calibrated or fitted anew."""
        self._follow(detector)
        console.say(f"{detector.name} was replaced; its threshold is {detector.threshold:.4g} from now on")

    def tell(self, line: JournalLine) -> None:
        """A file was noted."""
        if line.verdict != "ok":
            what = (
                f"{line.verdict}  {line.score:.4g}"
                if line.verdict and line.score is not None
                else "unreadable"
            )
            console.say(f"{what}  {line.image}{f': {line.error}' if line.error else ''}")
        if line.observation is None:
            return
        self._monitor.add(line.observation)
        self._count += 1
        if self._count % 10 == 0 and (found := self._monitor.check()).state != self._state:
            self._state = found.state
            (console.warn if self._state == "shifted" else console.say)(f"drift: {found.advice}")

    def _follow(self, detector: AnomalyDetector) -> None:
        from energyad.line.drift import DriftMonitor
        from energyad.line.journal import latest_parts
        from energyad.model.manifest import reference_statistics

        manifest = detector.manifest
        seen = latest_parts(self._journal.lines(), manifest)
        self._monitor = DriftMonitor.resumed(reference_statistics(manifest), seen, model=detector.name)
        self._state, self._count = self._monitor.check().state, 0
