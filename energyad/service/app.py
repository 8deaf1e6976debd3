"""The application: addresses, the page, and what holds for every answer."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage, ScoringOutcome
from energyad.errors import SettingsError, first_validation_error
from energyad.images.isolated import IsolatedDecoder
from energyad.service import kserve
from energyad.service.bodies import PendingBodies
from energyad.service.errors import RequestError, error_response
from energyad.service.metrics import Metrics
from energyad.service.routes import router
from energyad.service.scoring import ModelSession
from energyad.service.security import HEADERS, BrowserGuard, require_key
from energyad.service.settings import ServiceSettings
from energyad.service.state import Loader, ServiceState
from energyad.service.worker import DECODERS, Worker

if TYPE_CHECKING:
    from energyad.feedback.queue import ReviewQueue
    from energyad.line.shadow import Shadow

_log = logging.getLogger(__name__)
_PAGE: Final = {
    "/": ("index.html", "text/html"),
    "/common.js": ("common.js", "text/javascript"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_REVIEW_PAGE: Final = {
    "/review": ("review.html", "text/html"),
    "/review.js": ("review.js", "text/javascript"),
    "/review.css": ("review.css", "text/css"),
}


def create_app(
    detectors: Sequence[AnomalyDetector],
    settings: ServiceSettings | None = None,
    *,
    load: Loader | None = None,
    review: ReviewQueue | None = None,
    shadows: Mapping[str, Shadow] | None = None,
    folders: Mapping[str, Path] | None = None,
) -> FastAPI:
    """Create the service of some models.

    Args:
        detectors: The models, each of another name.
        settings: Limits and the key.
        load: Loads one of the models again, by its name; None where that is not wanted.
        review: Results that people label on the page /review; None for no such page.
        shadows: Candidates that score beside some of the models, by the models' names.
        folders: Of the models, by their names, for owners who promote candidates; None where that is not wanted.

    Raises:
        SettingsError: No model, or two of one name.

    Example:
        >>> app = create_app([AnomalyDetector.load("models/gasket")])
    """
    settings = settings or ServiceSettings()
    state = _create_state(detectors, settings, load, review, shadows or {}, folders or {})

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.ready = True
        yield
        app.state.ready = False
        state.close()

    app = FastAPI(
        title="energyad",
        version=metadata.version("energyad"),
        description="Visual anomaly detection: images in, verdicts, p-values and regions out.",
        lifespan=lifespan,
        openapi_url=None,  # it would be written anew for each request
        docs_url=None,  # these pages would fetch their scripts from another host
        redoc_url=None,
    )
    app.state.service, app.state.ready = state, False
    app.include_router(router)
    app.include_router(kserve.router)
    app.include_router(kserve.health)
    _add_health_routes(app)
    _add_document(app)
    _add_page(app, _PAGE)
    if review is not None:
        from energyad.service.review import (
            router as review_router,  # a database's client takes time to import
        )

        app.include_router(review_router)
        _add_page(app, _REVIEW_PAGE)
    add_error_handlers(app)
    app.add_middleware(BrowserGuard, settings=settings)
    app.add_middleware(SecurityAndMetricsMiddleware, metrics=state.metrics)  # the last one is the outermost
    return app


def _create_state(
    detectors: Sequence[AnomalyDetector],
    settings: ServiceSettings,
    load: Loader | None,
    review: ReviewQueue | None,
    shadows: Mapping[str, Shadow],
    folders: Mapping[str, Path],
) -> ServiceState:
    bodies, worker = PendingBodies(settings), Worker(settings.queue)
    metrics = Metrics(worker, bodies)
    seconds = settings.decode_seconds
    decoder = IsolatedDecoder(workers=DECODERS, timeout=seconds) if seconds is not None else None
    sessions = {
        detector.name: ModelSession(
            detector,
            max_pixels=settings.max_pixels,
            decoder=decoder,
            beside=_beside(shadows.get(detector.name), metrics),
        )
        for detector in detectors
    }
    if len(sessions) != len(detectors) or not detectors:
        names = ", ".join(detector.name for detector in detectors)
        raise SettingsError(
            f"a service needs models of different names, at least one; given: {names or 'none'}"
        )
    return ServiceState(sessions, load, settings, bodies, worker, metrics, decoder, review, folders)


def _beside(shadow: Shadow | None, metrics: Metrics) -> Callable[[ScoringOutcome], ScoringOutcome]:
    """Let a candidate score beside a model, and count what it says."""

    def score(image: ScoringOutcome) -> ScoringOutcome:
        if shadow is not None:
            image = shadow.beside(image)
            if isinstance(image, ScoredImage):
                metrics.record_shadow(image)
        return image

    return score


def _add_document(app: FastAPI) -> None:
    """The OpenAPI document, written once: a client that asks for it again and again holds up nobody."""

    @functools.cache
    def document() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False).encode()

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(document(), media_type="application/json")


def _add_health_routes(app: FastAPI) -> None:
    @app.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Whether it takes images")
    async def readyz() -> Response:
        ready: bool = app.state.ready
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    @app.get("/metrics", summary="For Prometheus", dependencies=[Depends(require_key)])
    async def metrics() -> Response:
        text = app.state.service.metrics.text()
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI, files: Mapping[str, tuple[str, str]]) -> None:
    folder = resources.files("energyad.service") / "page"
    for address, (name, kind) in files.items():
        content = (folder / name).read_bytes()
        app.add_route(address, _constant(content, kind), include_in_schema=False)


def _constant(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error as `{"error": reason}`."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        where, fault = first_validation_error(error)
        return error_response(400, f"{where}: {fault}")

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        return error_response(error.status_code, str(error.detail).lower(), headers=error.headers)


class SecurityAndMetricsMiddleware:
    """Adds the security headers to every response, and counts it; answers 500 where the application fails.

    Starlette's own handler of exceptions stands outside of all middleware, so its answers would lack both.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        is_answered = False

        async def answer(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                message["headers"] = _with_security_headers(message["headers"])
                route = getattr(scope.get("route"), "path", "(none)")
                self.metrics.record_request(route, message["status"], time.perf_counter() - started)
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except asyncio.CancelledError:
            if not is_answered:
                await error_response(503, "the service is ending; send it again")(scope, receive, answer)
            raise
        except Exception:
            if is_answered:  # the server closes the connection, since the answer is not whole
                raise
            _log.exception("%s %s failed", scope["method"], ascii(scope["path"]))
            reason = "a fault of energyad; the service's log says more"
            await error_response(500, reason)(scope, receive, answer)


def _with_security_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    known = {name.lower() for name, _ in headers}
    extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    return [*headers, *(pair for pair in extra if pair[0] not in known)]
