"""A detector for long runs, which follows its model folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from energyad.detector import AnomalyDetector
from energyad.errors import ModelError
from energyad.model.folder import MANIFEST


class ReloadingDetector:
    """The detector of a model folder, loaded again when the folder was replaced: calibrated, or fitted anew.

    Args:
        folder: The model folder.
        load: Loads it. Raises ModelError. What it gives must score an image before it is used, see
            `AnomalyDetector.check`.
        on_reload: Called with each new detector.
        on_error: Called with the reason that the folder cannot be loaded, once for each reason; the old detector
            stays in use.

    Raises:
        ModelError: The folder cannot be loaded at first.

    Example:
        >>> model = ReloadingDetector(Path("models/gasket"), AnomalyDetector.load)
        >>> model().score("part.png").verdict
    """

    def __init__(
        self,
        folder: Path,
        load: Callable[[Path], AnomalyDetector],
        *,
        on_reload: Callable[[AnomalyDetector], None] = lambda detector: None,
        on_error: Callable[[ModelError], None] = lambda error: None,
    ) -> None:
        self._folder, self._load, self._on_reload, self._on_error = folder, load, on_reload, on_error
        self._version = (
            self._read_version()
        )  # before it is loaded: what comes in between is seen the next time
        self._reason = ""
        self._lock = threading.RLock()
        self._detector = self._load_checked()

    def __call__(self) -> AnomalyDetector:
        """Return the detector of the folder as it is now. Of several threads one loads it, once, and all wait."""
        with self._lock:
            self._follow()
            return self._detector

    def _follow(self) -> None:
        version = self._read_version()
        if version not in (None, self._version):
            try:
                self._detector = self._load_checked()
            except ModelError as error:
                if str(error) != self._reason:
                    self._on_error(error)
                self._reason = str(error)
            else:
                self._version, self._reason = version, ""
                self._on_reload(self._detector)

    def _load_checked(self) -> AnomalyDetector:
        detector = self._load(self._folder)
        detector.check()
        return detector

    def _read_version(self) -> tuple[int, int] | None:
        try:
            status = (self._folder / MANIFEST).stat()
        except OSError:  # it is being replaced
            return None
        return status.st_ino, status.st_mtime_ns
