"""Run the application: bind the socket first, so that a port in use is one clear line; finish requests at the end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from energyad.errors import SettingsError
from energyad.service.connections import Connections, LimitedConnection, Listener, file_limit
from energyad.service.settings import ServiceSettings

_BACKLOG_SECONDS = 0.1
"""Time for the requests of connections that were accepted last to be read, before idle ones are closed."""


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket to an address; port 0 takes any free one.

    Raises:
        SettingsError: The address cannot be listened on.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=256)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise SettingsError(
            f"{host}:{port}: cannot listen there ({reason}); give another --host or --port"
        ) from error


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, settings: ServiceSettings, on_start: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._settings = settings
        self._on_start = on_start
        self._listener: Listener | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])  # connections are accepted here, within limits
        connections = Connections(self._settings, file_limit())
        self._listener = Listener(
            sockets or [],
            connections,
            lambda: LimitedConnection(
                self.config, self.server_state, self.lifespan.state, connections=connections
            ),
        )
        self._listener.start()
        self.servers.append(self._listener)  # type: ignore[arg-type]
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._listener is not None:
            await self._listener.stop()
            await asyncio.sleep(_BACKLOG_SECONDS)
        await super().shutdown(sockets)


def create_server(app: FastAPI, *, on_start: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """Create the server of an application, with the limits of its settings.

    Args:
        app: The application.
        on_start: Called when requests are answered and signals are handled.
    """
    settings: ServiceSettings = app.state.service.settings
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_level="error",  # a line for each malformed request would fill a disk
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.idle_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=settings.drain_seconds,  # type: ignore[arg-type]
    )
    return _Server(config, settings, on_start)


def run(app: FastAPI, listening: socket.socket, *, on_start: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or Ctrl-C; then accept nothing new, answer what was accepted, and return.

    Answering takes at most the settings' `drain_seconds`; what is not done then is answered 503.

    Args:
        app: The application.
        listening: The socket of `listen`.
        on_start: Called when requests are answered and signals are handled.
    """
    # uvicorn raises the signal again when it is done, for whoever ran it: here that is nobody.
    earlier = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        create_server(app, on_start=on_start).run(sockets=[listening])
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
