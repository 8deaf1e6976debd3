"""Images that other programs POST to a running station, within the bounds of `serve` and by its rules of access."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response

from energyad.errors import DataError, ImageError
from energyad.images.isolated import IsolatedDecoder
from energyad.service.app import SecurityAndMetricsMiddleware, add_error_handlers
from energyad.service.bodies import PendingBodies
from energyad.service.errors import RequestError
from energyad.service.metrics import Metrics
from energyad.service.scoring import status_of
from energyad.service.security import BrowserGuard, require_key
from energyad.service.server import create_server, listen
from energyad.service.settings import KEY_VARIABLE, MIB, ServiceSettings, require_safe
from energyad.service.uploads import Upload, read_uploads
from energyad.service.worker import DECODERS, Worker
from energyad.station.config import PushConfig
from energyad.station.pushing import PartExists, UnknownView

_SUFFIXES: Final = ((b"\x89PNG", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"BM", ".bmp"), (b"RIFF", ".webp"))
_JOIN_SECONDS: Final = 35.0


class TakesImages(Protocol):
    """What images are pushed to: a station."""

    def push(self, view: str, part: str, data: bytes, *, suffix: str) -> str:
        """Put an image into a view's folder; returns its part's name.

        Raises:
            UnknownView: There is no such view.
            PartExists: An image of that part waits there already.
            DataError: The part must be named.
            OSError: It cannot be written.
        """


@dataclass(frozen=True)
class _State:
    """What requests share."""

    settings: ServiceSettings
    bodies: PendingBodies
    worker: Worker
    decoder: IsolatedDecoder
    station: TakesImages


router = APIRouter(prefix="/v1", dependencies=[Depends(require_key)])


@router.post("/views/{view}/images", status_code=202)
async def push(
    request: Request,
    view: str,
    part: Annotated[
        str, Query(max_length=200, description="Names the part; by default, its time does.")
    ] = "",
) -> Response:
    """Take one image of a part: the body, or the one file of a multipart form. Its verdict comes by the outputs."""
    state: _State = request.app.state.service
    (upload,) = await read_uploads(request, state.bodies, most=1)
    state.worker.enter()
    try:
        name = await state.worker.decode_and_run(
            functools.partial(_check, state, upload), lambda _: _put(state, view, part, upload)
        )
    finally:
        state.worker.leave()
    return JSONResponse({"part": name}, status_code=202)


def _check(state: _State, upload: Upload) -> None:
    """Decode the image once, in a process that can be ended: what no model could score is refused at once."""
    try:
        state.decoder.decode(upload.data, max_pixels=state.settings.max_pixels)
    except ImageError as error:
        raise RequestError(status_of(error), error.reason) from error


def _put(state: _State, view: str, part: str, upload: Upload) -> str:
    suffix = next((suffix for start, suffix in _SUFFIXES if upload.data.startswith(start)), ".tif")
    try:
        return state.station.push(view, part, upload.data, suffix=suffix)
    except UnknownView as error:
        raise RequestError(404, str(error)) from error
    except PartExists as error:
        raise RequestError(409, str(error)) from error
    except DataError as error:
        raise RequestError(400, str(error)) from error
    except OSError as error:
        raise RequestError(507, "the image cannot be stored; send it again later") from error


def create_push_app(station: TakesImages, settings: ServiceSettings) -> FastAPI:
    """Create the application that takes images.

    Args:
        station: Where they go.
        settings: Limits and the key.
    """
    bodies, worker = PendingBodies(settings), Worker(settings.queue)
    decoder = IsolatedDecoder(workers=DECODERS, timeout=settings.decode_seconds or 10.0)
    metrics = Metrics(worker, bodies)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with decoder:
            yield
        worker.close()

    app = FastAPI(
        title="energyad station", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.state.service = _State(settings, bodies, worker, decoder, station)
    app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(BrowserGuard, settings=settings)
    app.add_middleware(SecurityAndMetricsMiddleware, metrics=metrics)
    return app


class PushServer:
    """Takes images in a thread of its own.

    Args:
        station: Where they go.
        config: Where to listen, and limits.
        max_pixels: Width times height of the largest image.
        decode_seconds: Longest time to decode one.

    Raises:
        SettingsError: Other machines could push without a key, the key is too short, or the port is taken.
    """

    def __init__(
        self, station: TakesImages, config: PushConfig, *, max_pixels: int, decode_seconds: float
    ) -> None:
        key = os.environ.get(KEY_VARIABLE)
        require_safe(config.host, asks_for_key=key is not None, open_to_all=False)
        max_upload = round(config.max_upload_mib * MIB)
        settings = ServiceSettings(
            max_upload=max_upload,
            max_body_bytes=8 * max_upload,
            max_pixels=max_pixels,
            decode_seconds=decode_seconds,
            host=config.host,
            allowed_hosts=config.allowed_hosts,
            api_key=key,
        )
        self._socket = listen(config.host, config.port)
        self.port = int(self._socket.getsockname()[1])
        self._is_ready = threading.Event()
        self._server: uvicorn.Server = create_server(
            create_push_app(station, settings), on_start=self._is_ready.set
        )
        self._thread = threading.Thread(
            target=lambda: self._server.run(sockets=[self._socket]), name="energyad-push", daemon=True
        )

    def __enter__(self) -> PushServer:
        """Begin to take images."""
        self._thread.start()
        self._is_ready.wait(_JOIN_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        """Answer what was accepted, and end."""
        self._server.should_exit = True
        self._thread.join(_JOIN_SECONDS)
        self._socket.close()
