"""What would keep a station from running, all of it, before anything starts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from energyad.detector import AnomalyDetector
from energyad.errors import EnergyadError, os_reason
from energyad.line.database import Database
from energyad.line.watch import Watcher
from energyad.model.folder import find_model
from energyad.station.aligning import choose_method, limit_of, open_aligner
from energyad.station.archive import ArchiveOutput
from energyad.station.cameras import open_capture
from energyad.station.combining import share_rates
from energyad.station.config import (
    AlignConfig,
    CameraConfig,
    PushConfig,
    StationConfig,
    ViewConfig,
    examine_station,
)
from energyad.station.modbus import require_free

TIMED_IMAGES = 3
_BETTER = 0.02
"""By how much a method must correlate better to be named."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: The thing.
        detail: What is to be said of it; of a fault, what to do.
        is_fault: Whether it keeps the station from running.
    """

    what: str
    detail: str
    is_fault: bool = False


def check_station(path: Path, *, samples: Sequence[Path] = ()) -> list[Finding]:
    """Look at everything that a station needs; nothing is started, and no image is scored into the database.

    Args:
        path: The station's file.
        samples: Images of good parts, for views that align them: every method is tried on them.
    """
    config, faults = examine_station(path)
    if config is None:
        return [Finding(str(path), fault.removeprefix(f"{path}: "), is_fault=True) for fault in faults]
    findings = [Finding(str(path), f"station {config.name}, {len(config.views)} view(s)")]
    for view in config.views:
        findings += _view(config, view, samples)
    findings += _guarded("database", lambda: _database(config))
    for table, check in _outputs(config):
        findings += _guarded(table, check)
    return findings


def _guarded(what: str, check: Callable[[], str]) -> list[Finding]:
    try:
        return [Finding(what, check())]
    except EnergyadError as error:
        return [Finding(what, str(error), is_fault=True)]


def _view(config: StationConfig, view: ViewConfig, samples: Sequence[Path]) -> Iterator[Finding]:
    if view.camera is not None:
        camera = view.camera
        yield from _guarded(f"view {view.name}: camera", lambda: _camera(camera))
    else:
        yield from _guarded(f"view {view.name}: folder", lambda: _folder(config, view))
    yield from _guarded(f"view {view.name}: model", lambda: _model(config, view))
    align = view.align
    if align is not None:
        yield from _guarded(f"view {view.name}: align", lambda: _alignment(align, samples))


def _alignment(align: AlignConfig, samples: Sequence[Path]) -> str:
    """How the view's method finds parts, and whether another finds them better."""
    height, width = open_aligner(align).shape
    said = f"{align.reference}, {width} x {height} pixels, by {align.method}"
    if not samples:
        return f"{said}; give --samples DIR to try it on good parts"
    best, trials = choose_method(align.reference, samples)
    own = next(trial for trial in trials if trial.method == align.method)
    said += f": {own.found} of {own.samples} parts found, correlation {own.correlation:.2f}"
    if own.found < own.samples or own.lowest < align.min_correlation:
        raise EnergyadError(
            f'{said}, lowest {own.lowest:.2f}; give method = "{best.method}", min_correlation = {limit_of(best)}'
        )
    if best.correlation > own.correlation + _BETTER:
        said += f"; {best.method} finds them at {best.correlation:.2f}"
    return said


def _folder(config: StationConfig, view: ViewConfig) -> str:
    Watcher.require_folder(view.folder)
    needed = os.R_OK | os.X_OK | (os.W_OK if config.images is not None else 0)
    if not os.access(view.folder, needed):
        why = "read, and images moved away" if config.images is not None else "read"
        raise EnergyadError(f"{view.folder}: cannot be {why}; change its permissions")
    return str(view.folder)


def _camera(camera: CameraConfig) -> str:
    """One frame of it."""
    capture = open_capture(camera)
    try:
        is_there, frame = capture.read() if capture.isOpened() else (False, None)
    finally:
        capture.release()
    if not is_there or frame is None:
        raise EnergyadError(f"{camera.source}: gives no frame; check the cable, the address and the password")
    height, width = frame.shape[:2]
    return f"{camera.source}, {width} x {height} pixels"


def _model(config: StationConfig, view: ViewConfig) -> str:
    detector = AnomalyDetector.load(find_model(config.model_of(view)), threads=config.threads)
    detector.check()
    seconds = _seconds_for_one(detector)
    budget = config.latency.budget
    if budget is not None and seconds > budget:
        raise EnergyadError(
            f"{detector.name}: scoring takes {seconds:.3f} s here, which is over latency.budget = {budget:g}; "
            "raise the budget, or fit a smaller model"
        )
    shared = share_rates(detector.calibration, views=len(config.views))
    return f"{detector.name}, {seconds:.3f} s an image; {shared.guarantee()}"


def _seconds_for_one(detector: AnomalyDetector) -> float:
    """The median time for one image of the network's input size."""
    height, width = detector.input_shape
    image = np.zeros((height, width, 3), np.uint8)
    times = []
    for _ in range(TIMED_IMAGES):
        began = time.perf_counter()
        detector.score_pixels([image])
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def _database(config: StationConfig) -> str:
    if "://" not in config.database and not Path(config.database).exists():
        _require_writable(Path(config.database).parent, "database")
        return f"{config.database} will be made"
    with Database(config.database, create=False) as database:
        return database.name


def _require_writable(folder: Path, name: str) -> None:
    present = next(place for place in (folder, *folder.parents) if place.exists())
    if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
        raise EnergyadError(f"{folder}: cannot be written; give another {name}, or change its permissions")


def _outputs(config: StationConfig) -> Iterator[tuple[str, Callable[[], str]]]:
    """Each output of the file, and what looks at it."""
    if config.metrics is not None:
        metrics = config.metrics
        yield "metrics", lambda: _port("metrics", metrics.host, metrics.port)
    if config.push is not None:
        push = config.push
        yield "push", lambda: _push(push)
    if config.mqtt is not None:
        yield "mqtt", lambda: _broker(config)
    if config.modbus is not None:
        modbus = config.modbus
        yield "modbus", lambda: _server("modbus", modbus.host, modbus.port)
    if config.opcua is not None:
        opcua = config.opcua
        yield "opcua", lambda: _server("opcua", opcua.host, opcua.port)
    if config.webhook is not None:
        url = config.webhook.url
        yield "webhook", lambda: f"{url}, not tried"
    if config.archive is not None:
        yield "archive", lambda: _archive(config)
    if config.images is not None:
        images = config.images
        yield "images", lambda: _writable(images.folder, "images.folder")


def _server(table: str, host: str, port: int) -> str:
    from energyad.extras import require

    require("station", f"[{table}]")
    return _port(table, host, port)


def _port(table: str, host: str, port: int) -> str:
    require_free(host, port, table)
    return f"{host}:{port} is free"


def _push(push: PushConfig) -> str:
    from energyad.extras import require

    require("serve", "[push]")
    is_local = push.host in ("localhost", "127.0.0.1", "::1")
    if not is_local and not os.environ.get("ENERGYAD_API_KEY"):
        raise EnergyadError(f"{push.host}: other machines could push without a key; set ENERGYAD_API_KEY")
    return _port("push", push.host, push.port)


def _broker(config: StationConfig) -> str:
    from energyad.station.mqtt import PASSWORD_VARIABLE, probe

    mqtt = config.mqtt
    assert mqtt is not None
    reason = probe(mqtt, password=os.environ.get(PASSWORD_VARIABLE))
    if reason is not None:
        raise EnergyadError(f"{mqtt.host}:{mqtt.port}: {reason}; start the broker, or correct [mqtt]")
    return f"{mqtt.host}:{mqtt.port} answers; topics {mqtt.topic}/parts and {mqtt.topic}/status"


def _archive(config: StationConfig) -> str:
    archive = config.archive
    assert archive is not None
    ArchiveOutput(archive)
    return _writable(archive.folder, "archive.folder")


def _writable(folder: Path, name: str) -> str:
    try:
        _require_writable(folder, name)
    except OSError as error:
        raise EnergyadError(f"{folder}: {os_reason(error)}; give another {name}") from error
    return str(folder)
