"""Services on a port, and clients that speak HTTP by hand."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from energyad.detector import AnomalyDetector
from energyad.service import server
from energyad.service.app import create_app
from energyad.service.settings import ServiceSettings

HALF_BODY = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def client_of(app: FastAPI, *, raise_server_exceptions: bool = True) -> TestClient:
    """A client that calls the service by a name that it has."""
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=raise_server_exceptions)


@dataclass(frozen=True)
class Running:
    """A service on a port, in a thread."""

    app: FastAPI
    server: uvicorn.Server
    port: int
    thread: threading.Thread

    @property
    def num_connections(self) -> int:
        return len(self.server.server_state.connections)

    @property
    def num_bodies(self) -> int:
        return len(self.app.state.service.bodies)

    def connect(self, data: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(data)
        return connection

    def ask(self, data: bytes) -> bytes:
        """Send a request, and return all that comes until the answer is whole."""
        with self.connect(data) as connection:
            return answer_of(connection)

    def score(self, image: bytes) -> bytes:
        head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}\r\n\r\n"
        return self.ask(head.encode() + image)


@contextlib.contextmanager
def serving(detector: AnomalyDetector, **limits: Any) -> Iterator[Running]:
    """A service with these settings. It decodes in its own process and its end waits for nobody: both are quicker."""
    app = create_app([detector], ServiceSettings(**{"decode_seconds": None, "drain_seconds": 0.2, **limits}))
    ready = threading.Event()
    service = server.create_server(app, on_start=ready.set)
    with server.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=service.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        assert ready.wait(20)
        try:
            yield Running(app, service, port, thread)
        finally:
            service.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


@contextlib.contextmanager
def on_a_port(app: FastAPI) -> Iterator[str]:
    """The address of an application for a browser."""
    service = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with server.listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=service.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not service.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        service.should_exit = True
        thread.join()


def wait_until(condition: Callable[[], bool], *, seconds: float = 20.0) -> float:
    """Wait for a condition; return the seconds it took. Raises AssertionError where it does not come."""
    began = time.perf_counter()
    while not condition():
        assert time.perf_counter() - began < seconds
        time.sleep(0.01)
    return time.perf_counter() - began


def answer_of(connection: socket.socket) -> bytes:
    """One answer, or what comes before the connection ends."""
    data = b""
    while True:
        head, found, body = data.partition(b"\r\n\r\n")
        lengths = [
            int(line.partition(b":")[2])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        if found and lengths and len(body) >= lengths[0]:
            return data
        try:
            piece = connection.recv(1 << 16)
        except ConnectionResetError:
            return data
        if not piece:
            return data
        data += piece
