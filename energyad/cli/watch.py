"""`energyad watch`."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from energyad.cli import console
from energyad.cli.options import Debug, MaxMegapixels, Model, Quiet, Threads

if TYPE_CHECKING:
    from energyad.detector import AnomalyDetector
    from energyad.line.drift import DriftMonitor
    from energyad.line.journal import Journal, JournalLine

CHECK_EVERY: Final = 10
"""Parts between two checks for drift."""


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
    max_megapixels: MaxMegapixels = 200.0,
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
    from energyad.line.watch import Watcher, score_with
    from energyad.model.folder import find_model

    model_now = ReloadingDetector(
        find_model(model),
        functools.partial(AnomalyDetector.load, threads=threads),
        on_reload=lambda detector: messages.on_reload(detector),
        on_error=lambda error: console.warn(f"the old model stays: {error}"),
    )
    with _stop_on_signals() as stop, Journal(out) as journal:
        watcher = Watcher(
            folder, journal, score_with(model_now, max_pixels=round(max_megapixels * 1e6)), move_to=move_to
        )
        messages = _WatchMessages(model_now(), journal)
        with _deliveries(webhook, out) as deliver:

            def on_line(line: JournalLine) -> None:
                messages.on_line(line)
                deliver()

            console.say(f"watching {folder}/ with {model_now().name}; results in {out}")
            watcher.run(stop, noted=on_line, interval=interval, once=once)
    console.say("stopped")


@contextlib.contextmanager
def _deliveries(url: str | None, journal: Path) -> Iterator[Callable[[], None]]:
    """Deliver results to a URL while the block runs; gives what to call when there is a new result."""
    if url is None:
        yield lambda: None
        return
    from energyad.line.webhook import SECRET_VARIABLE, Webhook

    webhook = Webhook(url, journal, secret=os.environ.get(SECRET_VARIABLE), warn=console.warn)
    webhook.start()
    yield webhook.tell
    webhook.stop()


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
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


class _WatchMessages:
    """Messages for a person at the line: parts that are not ok, drift when it begins or ends, and a new model."""

    _monitor: DriftMonitor
    _state: str
    _num_parts: int

    def __init__(self, detector: AnomalyDetector, journal: Journal) -> None:
        self._journal = journal
        self._start_monitor(detector)

    def on_reload(self, detector: AnomalyDetector) -> None:
        """Say that the model was calibrated or fitted anew."""
        self._start_monitor(detector)
        console.say(f"{detector.name} was replaced; its threshold is {detector.threshold:.4g} from now on")

    def on_line(self, line: JournalLine) -> None:
        """Say what a new result is, unless it is ok, and whether there is drift with it."""
        if line.verdict is None or line.score is None:
            console.say(f"unreadable  {line.image}: {line.error}")
        elif line.verdict != "ok":
            console.say(f"{line.verdict}  {line.score:.4g}  {line.image}")
        if line.observation is None:
            return
        self._monitor.add(line.observation)
        self._num_parts += 1
        if self._num_parts % CHECK_EVERY == 0:
            self._check_drift()

    def _check_drift(self) -> None:
        drift = self._monitor.check()
        if drift.state != self._state:
            self._state = drift.state
            (console.warn if drift.state == "shifted" else console.say)(f"drift: {drift.advice}")

    def _start_monitor(self, detector: AnomalyDetector) -> None:
        from energyad.line.drift import DriftMonitor
        from energyad.line.journal import latest_parts

        manifest = detector.manifest
        latest = latest_parts(self._journal.lines(), manifest)
        self._monitor = DriftMonitor.resumed(manifest.good_parts, latest, model=detector.name)
        self._state, self._num_parts = self._monitor.check().state, 0
