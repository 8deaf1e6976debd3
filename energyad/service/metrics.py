"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from energyad.detector.scored_image import ScoredImage
from energyad.line.drift import Drift
from energyad.scoring.results import ImageResult
from energyad.service.bodies import PendingBodies
from energyad.service.worker import Worker

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 4)


class Metrics:
    """The counters, histograms and gauges of one service, in a registry of their own."""

    def __init__(self, worker: Worker, bodies: PendingBodies) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "energyad_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "energyad_request_seconds",
            "From the request's head to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._images = Counter(
            "energyad_images",
            "Images by verdict: ok, review, ng, unreadable.",
            ["model", "verdict"],
            registry=registry,
        )
        self._shadow = Counter(
            "energyad_shadow_images",
            "Images by verdict of the model in charge and of its candidate in the shadow.",
            ["model", "verdict", "shadow"],
            registry=registry,
        )
        self._ratio = Histogram(
            "energyad_score_to_threshold",
            "Scores, divided by the model's threshold: above 1 is ng.",
            ["model"],
            buckets=_RATIOS,
            registry=registry,
        )
        _add_load_gauges(worker, bodies, registry)
        self._psi, self._shifted = _drift_gauges(registry)

    def record_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            route: The route's pattern, never the path that a client chose.
            status: HTTP status.
            seconds: From the request's head to its answer.
        """
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def record_result(self, result: ImageResult) -> None:
        """Count an image by verdict, and observe its score relative to the threshold."""
        self._images.labels(result.model.name, result.verdict or "unreadable").inc()
        if result.score is not None and result.threshold > 0:
            self._ratio.labels(result.model.name).observe(result.score / result.threshold)

    def record_shadow(self, image: ScoredImage) -> None:
        """Count an image by what the model in charge and its candidate say; nothing where none said anything."""
        if image.shadow is not None:
            verdict = image.shadow.verdict or "unreadable"
            self._shadow.labels(image.model.name, image.prediction.verdict, verdict).inc()

    def record_drift(self, model: str, drift: Drift) -> None:
        """Set the gauges of a model's drift."""
        self._shifted.labels(model).set(drift.state == "shifted")
        for shift in drift.shifts:
            self._psi.labels(model, shift.label).set(shift.psi)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


def _add_load_gauges(worker: Worker, bodies: PendingBodies, registry: CollectorRegistry) -> None:
    in_progress = Gauge(
        "energyad_requests_in_progress",
        "Requests whose images are arriving, wait or are scored.",
        registry=registry,
    )
    in_progress.set_function(lambda: worker.taken + len(bodies))
    limit = Gauge("energyad_requests_limit", "Requests that are taken at a time.", registry=registry)
    limit.set(worker.places)


def _drift_gauges(registry: CollectorRegistry) -> tuple[Gauge, Gauge]:
    psi = Gauge(
        "energyad_drift_psi",
        "Population stability index of the latest parts against held-out good ones.",
        ["model", "quantity"],
        registry=registry,
    )
    shifted = Gauge("energyad_drift_shifted", "1 where the line has drifted.", ["model"], registry=registry)
    return psi, shifted
