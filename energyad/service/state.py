"""What the addresses of one service share: its models, its limits, its one worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from energyad.detector import AnomalyDetector
from energyad.errors import EnergyadError, ModelError
from energyad.feedback import versions
from energyad.images.isolated import IsolatedDecoder
from energyad.scoring.results import ImageResult
from energyad.service.bodies import PendingBodies
from energyad.service.errors import RequestError
from energyad.service.metrics import Metrics
from energyad.service.scoring import ModelSession
from energyad.service.settings import ServiceSettings
from energyad.service.worker import Worker

if TYPE_CHECKING:
    from energyad.feedback.queue import ReviewQueue

Loader: TypeAlias = Callable[[str], AnomalyDetector]
"""Loads a model of the service again, by its name. Raises ModelError."""


@dataclass(frozen=True)
class ServiceState:
    """What the routes share.

    Attributes:
        sessions: The models by name.
        load: Loads a model of the service again; None where models cannot be loaded again.
        settings: Limits and the key.
        bodies: The bodies that are arriving.
        worker: The one thread that scores.
        metrics: Counts of requests and images.
        decoder: Decodes images in a process that can be ended; None where images are decoded in this one.
        review: What waits for labels; None where the service reviews nothing.
        folders: Of the models, by their names; none where versions are not changed here.
    """

    sessions: dict[str, ModelSession]
    load: Loader | None
    settings: ServiceSettings
    bodies: PendingBodies
    worker: Worker
    metrics: Metrics
    decoder: IsolatedDecoder | None
    review: ReviewQueue | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)

    def session(self, name: str | None) -> ModelSession:
        """Return the model of that name, or the only one.

        Raises:
            RequestError: 400 where a name is needed, 404 for an unknown one.
        """
        if name is None and len(self.sessions) == 1:
            return next(iter(self.sessions.values()))
        names = ", ".join(self.sessions)
        if name is None:
            raise RequestError(400, f"which model? Give ?model= one of: {names}")
        if name not in self.sessions:
            raise RequestError(404, f"there is no such model; there are: {names}")
        return self.sessions[name]

    def reload(self, name: str) -> ModelSession:
        """Load a model again, in the worker's thread: between two images.

        Raises:
            RequestError: 409 where it cannot be loaded or scores no image; the old one stays.
        """
        old = self.session(name)
        if self.load is None:
            raise RequestError(
                409, "this service was given its models and cannot load them again; start it anew"
            )
        try:
            detector = self.load(name)
            detector.check()
        except ModelError as error:
            raise RequestError(409, f"the old model stays: {error}") from None
        if detector.name != name:
            raise RequestError(
                409, f"the old model stays: its folder holds {detector.name} now; start the service anew"
            )
        self.sessions[name] = ModelSession(
            detector, max_pixels=old.max_pixels, decoder=old.decoder, beside=old.beside
        )
        return self.sessions[name]

    def promote(self, name: str, *, force: bool, by: str) -> ModelSession:
        """Put the candidate of a model in charge, in the worker's thread, and load it.

        Raises:
            RequestError: 409 where there is none, or it has faults.
        """
        return self._switch(name, lambda folder: versions.promote(folder, force=force, by=by))

    def rollback(self, name: str, *, by: str) -> ModelSession:
        """Put the version before back in charge, likewise."""
        return self._switch(name, lambda folder: versions.rollback(folder, by=by))

    def _switch(self, name: str, switch: Callable[[Path], str]) -> ModelSession:
        self.session(name)
        if name not in self.folders:
            raise RequestError(409, "this service was given its models and changes no versions of them")
        try:
            switch(self.folders[name])
        except EnergyadError as error:
            raise RequestError(409, str(error)) from None
        return self.reload(name)

    def record(self, session: ModelSession, result: ImageResult) -> ImageResult:
        """Count a result in the metrics, and return it."""
        self.metrics.record_result(result)
        self.metrics.record_drift(session.detector.name, session.drift)
        return result

    def close(self) -> None:
        """End the thread that scores and the process that decodes."""
        self.worker.close()
        if self.decoder is not None:
            self.decoder.close()
