"""A model that a long run follows: what is done to its folder meanwhile takes effect without a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from energyad.detector import AnomalyDetector
from energyad.errors import ModelError
from energyad.model.folder import MANIFEST


class ReloadingDetector:
    """The detector of a model folder, loaded again when the folder was replaced: calibrated, or fitted anew.

    The old one stays where the new one cannot be loaded. replaced: called with each new one; refused: once with each
    reason that there is none.
    """

    def __init__(
        self,
        folder: Path,
        load: Callable[[Path], AnomalyDetector],
        *,
        replaced: Callable[[AnomalyDetector], None] = lambda detector: None,
        refused: Callable[[ModelError], None] = lambda error: None,
    ) -> None:
        """Load it. Raises ModelError."""
        self._folder, self._load, self._replaced, self._refused = folder, load, replaced, refused
        self._version = self._look()  # before it is loaded: what comes in between is seen the next time
        self._reason = ""
        self._detector = load(folder)

    def __call__(self) -> AnomalyDetector:
        """The detector of the folder as it is now."""
        version = self._look()
        if version not in (None, self._version):
            try:
                self._detector = self._load(self._folder)
            except ModelError as error:
                if str(error) != self._reason:
                    self._refused(error)
                self._reason = str(error)
            else:
                self._version, self._reason = version, ""
                self._replaced(self._detector)
        return self._detector

    def _look(self) -> tuple[int, int] | None:
        try:
            found = (self._folder / MANIFEST).stat()
        except OSError:  # it is being replaced
            return None
        return found.st_ino, found.st_mtime_ns
