"""`energyad watch`."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import (
    DATABASE_NAME,
    Debug,
    MaxMegapixels,
    Model,
    Quiet,
    Shadowed,
    Threads,
    TrustedKeys,
)
from energyad.cli.shadow import open_shadow

if TYPE_CHECKING:
    from energyad.detector import AnomalyDetector
    from energyad.detector.scored_image import ScoringOutcome
    from energyad.line.database import Database
    from energyad.line.drift import DriftMonitor
    from energyad.line.journal import JournalLine
    from energyad.line.reloading import ReloadingDetector
    from energyad.line.shadow import Shadow
    from energyad.line.store import LineStore


def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where images arrive.")],
    model: Model = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where results go, one JSON line an image.")
    ] = Path("results.jsonl"),
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            metavar="FILE_OR_URL",
            help=f"The line's memory: a file ({DATABASE_NAME} beside --out by default) or a postgresql:// URL.",
        ),
    ] = None,
    station: Annotated[
        str | None,
        typer.Option(
            "--station", metavar="NAME", help="This station's name on a server; its host's by default."
        ),
    ] = None,
    move_to: Annotated[
        Path | None,
        typer.Option(
            "--move-to", metavar="DIR", help="Move scored images there, by verdict: ok, review, ng."
        ),
    ] = None,
    shadow: Shadowed = None,
    webhook: Annotated[
        str | None, typer.Option("--webhook", metavar="URL", help="Also POST each result there.")
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", min=0.01, metavar="SECONDS", help="Between two looks.")
    ] = 0.5,
    settle: Annotated[
        float,
        typer.Option(
            "--settle",
            min=0.0,
            metavar="SECONDS",
            help="How long a file that cannot be read must be unchanged before that is noted.",
        ),
    ] = 2.0,
    decode_seconds: Annotated[
        float,
        typer.Option(
            "--decode-seconds", min=0.1, metavar="SECONDS", help="Longest time to decode one image."
        ),
    ] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="Score what is there now, and end.")] = False,
    max_megapixels: MaxMegapixels = 200.0,
    trusted_key: TrustedKeys = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score images as they arrive in a folder, each once.

    \b
      energyad watch incoming/ --model gasket --out results.jsonl
      energyad watch incoming/ --move-to sorted/ --webhook https://line.example/results
      tail -f results.jsonl | jq -c 'select(.verdict == "ng") | [.image, .score]'

    A file is taken when it is complete: the same in two looks and open for writing nowhere, or renamed into place. Its
    result is in the database before anything else happens, so a watcher that was killed goes on where it was, and two
    watchers on one folder share the work. Deliveries are repeated until they are accepted and signed with
    ENERGYAD_WEBHOOK_SECRET; `energyad deliveries` lists them. A model that is calibrated or fitted anew meanwhile
    counts from the next files on. Ctrl-C or SIGTERM ends it with status 0.
    """
    from energyad.detector import AnomalyDetector
    from energyad.images.decoding import largest_file
    from energyad.line.database import Database
    from energyad.line.reloading import ReloadingDetector
    from energyad.line.store import LineStore
    from energyad.line.watch import Watcher
    from energyad.model.folder import find_model

    _check_inputs(folder, webhook)
    max_pixels = round(max_megapixels * 1e6)
    watched = find_model(model)
    load = functools.partial(AnomalyDetector.load, threads=threads, trusted_keys=trusted_key)
    candidate = None if shadow is None else open_shadow(watched, shadow, load)
    # A model that is replaced before the first look is the one to begin with, and nothing is said of it.
    messages: _WatchMessages | None = None
    model_now = ReloadingDetector(
        *(watched, load),
        on_reload=lambda detector: None if messages is None else messages.on_reload(detector),
        on_error=lambda error: console.warn(f"the old model stays: {error}"),
    )
    location = database or out.resolve().with_name(DATABASE_NAME)
    with stop_on_signals() as stop, Database(location) as opened:
        store = LineStore(opened, out=out, folder=folder, station=station)
        with (
            _scoring(model_now, decode_seconds, max_pixels, candidate) as score,
            _sinks(opened, store, webhook) as on_result,
        ):
            messages = _WatchMessages(model_now(), store, on_result)
            watcher = Watcher(
                *(folder, store, score),
                move_to=move_to,
                settle=settle,
                max_bytes=largest_file(max_pixels),
                warn=console.warn,
            )
            where = f"results in {out}, kept in {opened.name}"
            console.say(f"watching {folder}/ with {model_now().name}; {where}")
            watcher.run(stop, noted=messages.on_line, interval=interval, once=once)
        if candidate is not None:
            _say_comparison(store, candidate)
    console.say("stopped")


def _check_inputs(folder: Path, webhook: str | None) -> None:
    from energyad.errors import DataError

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; make it, or check the path")
    if webhook is not None:
        from energyad.line.webhook import checked_url

        checked_url(webhook)


@contextlib.contextmanager
def _scoring(
    model: ReloadingDetector,
    decode_seconds: float,
    max_pixels: int,
    candidate: Shadow | None,
) -> Iterator[Callable[[Sequence[Path], Callable[[Path], bytes]], Iterable[ScoringOutcome]]]:
    """What scores files: decoded in processes that can be ended."""
    from energyad.line.watch import open_decoder, score_with

    beside = None if candidate is None else candidate.beside
    with open_decoder(model(), seconds=decode_seconds, max_pixels=max_pixels) as decoder:
        yield score_with(model, decoder, max_pixels=max_pixels, beside=beside)


def _say_comparison(store: LineStore, candidate: Shadow) -> None:
    """Say how often the candidate said otherwise."""
    from energyad.line.shadow import compare

    with store.database.read() as session:
        found = compare(session, candidate.sha256, stream_id=store.stream_id)
    console.say(
        f"shadow     {found.images} images: {found.newly_ng} newly ng, {found.no_longer_ng} no longer, "
        f"{found.other} otherwise; `energyad review` lists them"
    )


@contextlib.contextmanager
def _sinks(database: Database, store: LineStore, url: str | None) -> Iterator[Callable[[], None]]:
    """Write the results file and deliver to a URL while the block runs; gives what to call when there is a result."""
    from energyad.line.results_file import ResultsFile

    with ResultsFile(database, store.stream_id, store.out, warn=console.warn) as results:
        if url is None:
            yield results.tell
            return
        from energyad.line.webhook import KIND, SECRET_VARIABLE, webhook

        deliveries = webhook(
            *(url, database),
            output=store.add_output(KIND, url),
            watcher=store.watcher_id,
            secret=os.environ.get(SECRET_VARIABLE),
            warn=console.warn,
        )
        deliveries.start()

        def tell() -> None:
            results.tell()
            deliveries.tell()

        yield tell
        deliveries.stop()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
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
    """Messages for a person at the line: parts that are not ok, drift when it begins or ends, and a new model.

    Args:
        detector: The one in use.
        store: The line's memory.
        on_result: Called when there is a result, before anything is said of it.
    """

    _monitor: DriftMonitor
    _state: str
    _num_parts: int

    def __init__(self, detector: AnomalyDetector, store: LineStore, on_result: Callable[[], None]) -> None:
        self._store, self._on_result = store, on_result
        self._start_monitor(detector)

    def on_reload(self, detector: AnomalyDetector) -> None:
        """Say that the model was calibrated or fitted anew."""
        self._start_monitor(detector)
        console.say(f"{detector.name} was replaced; its threshold is {detector.threshold:.4g} from now on")

    def on_line(self, line: JournalLine) -> None:
        """Say what a new result is, unless it is ok, and whether there is drift with it."""
        self._on_result()
        if line.verdict is None or line.score is None:
            console.say(f"unreadable  {line.image}: {line.error}")
        elif line.verdict != "ok":
            console.say(f"{line.verdict}  {line.score:.4g}  {line.image}")
        if line.observation is None:
            return
        self._monitor.add(line.observation)
        from energyad.line.drift import CHECK_EVERY

        self._num_parts += 1
        if self._num_parts % CHECK_EVERY == 0:
            self._check_drift()

    def _check_drift(self) -> None:
        drift = self._monitor.check()
        if drift.state != self._state:
            self._state = drift.state
            (console.warn if drift.state == "shifted" else console.say)(f"drift: {drift.advice}")

    def _start_monitor(self, detector: AnomalyDetector) -> None:
        self._monitor = self._store.drift_monitor(detector.manifest)
        self._state, self._num_parts = self._monitor.check().state, 0
