"""Run the application: bind the socket first, so that a port in use is one clear line; finish requests at the end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from energyad.errors import SettingsError

DRAIN_SECONDS = 60


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
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()


def run(app: FastAPI, listening: socket.socket, *, on_start: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or Ctrl-C; then take nothing new, finish what was taken, and return.

    Args:
        app: The application.
        listening: The socket of `listen`.
        on_start: Called when requests are answered and signals are handled.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    # uvicorn raises the signal again when it is done, for whoever ran it: here that is nobody.
    earlier = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _Server(config, on_start).run(sockets=[listening])
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
