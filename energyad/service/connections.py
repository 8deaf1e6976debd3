"""The open connections: how many, and how long each may wait for its client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from energyad.service.settings import ServiceSettings

RESERVED_FILES: Final = 32
"""Files that are left for models, decoder processes and what the libraries open."""
MIN_CONNECTIONS: Final = 8
_RETRY_SECONDS: Final = 0.5
_LOG_SECONDS: Final = 60.0
_TIMEOUT_ANSWER: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_LONG_HEAD_ANSWER: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
MAX_HEAD_BYTES: Final = 16 << 10
"""Of a request line with its headers; web servers allow 8 to 32 KiB. Longer ones are not parsed."""
_log = logging.getLogger(__name__)


class LimitedConnection(H11Protocol):
    """A connection of uvicorn that is closed where its client lets it wait.

    uvicorn limits the time between two requests alone: a connection that sends nothing, half a head, or that does not
    take up its answer would stay open for ever.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.peer = ""
        self._open_connections = connections
        self._idle_since = self._received = self._taken_up = self.loop.time()
        self._num_unsent = 0
        self._has_answered = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection."""
        super().connection_made(transport)
        self.peer = self.client[0] if self.client is not None else ""
        self._open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection no more."""
        self._open_connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note when something came, and take it."""
        self._received = self.loop.time()
        if self._is_between_requests() and self._has_long_head(data):
            self.transport.write(_LONG_HEAD_ANSWER)
            self.transport.close()
            return
        super().data_received(data)
        self._refuse_pipelining()

    def on_response_complete(self) -> None:
        """Note the end of an answer."""
        self._idle_since = self.loop.time()
        self._has_answered = True
        super().on_response_complete()

    def waiting_since(self) -> float | None:
        """Return since when the connection waits for its client, on the loop's clock; None where it does not."""
        if self.cycle is None or self.cycle.response_complete:
            return self._idle_since
        return self._received if self.cycle.more_body else None

    def priority(self) -> tuple[bool, float]:
        """Return what orders waiting connections: those that never had an answer first, then by time of waiting."""
        return self._has_answered, self.waiting_since() or 0.0

    def close_if_overdue(self, settings: ServiceSettings) -> None:
        """Close the connection where its client takes too long. Bodies are limited where they are read."""
        now, num_unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if num_unsent == 0 or num_unsent != self._num_unsent:
            self._num_unsent, self._taken_up = num_unsent, now
        if now - self._taken_up > settings.idle_seconds:
            self.transport.abort()
        elif self._is_between_requests() and now - self._idle_since > settings.head_seconds:
            if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
                self.transport.write(_TIMEOUT_ANSWER)
            self.transport.close()

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _has_long_head(self, data: bytes) -> bool:
        begun = self.conn.trailing_data[0]
        if len(begun) + len(data) <= MAX_HEAD_BYTES:
            return False
        head = (begun + data[:MAX_HEAD_BYTES])[:MAX_HEAD_BYTES]
        return b"\n\r\n" not in head and b"\n\n" not in head  # both end a head for h11

    def _refuse_pipelining(self) -> None:
        """End the connection after this answer where more requests have come before it.

        A client that waits for its answers never does this; one that sends thousands at once would take the event
        loop's time from all others.
        """
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or not self.conn.trailing_data[0]:
            return
        if cycle.keep_alive:
            cycle.keep_alive = False
            cycle.default_headers = [*cycle.default_headers, CLOSE_HEADER]


class Connections:
    """The open connections of a service. Used by the event loop's thread alone.

    Args:
        settings: Limits.
        limit: Connections at a time; never more than the settings allow.
    """

    def __init__(self, settings: ServiceSettings, limit: int) -> None:
        self.settings = settings
        self.limit = min(limit, settings.max_connections)
        self._open: set[LimitedConnection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: LimitedConnection) -> None:
        """Count a connection."""
        self._open.add(connection)

    def discard(self, connection: LimitedConnection) -> None:
        """Count a connection no more."""
        self._open.discard(connection)

    def make_room(self, peer: str) -> bool:
        """Close a waiting connection where there are too many: of that peer, or of the peer that has the most.

        Args:
            peer: The address of the client that connects.

        Returns:
            Whether there is room for one more.
        """
        counts = Counter(connection.peer for connection in self._open)
        if counts[peer] >= self.settings.max_connections_per_peer:
            return self._close_one([connection for connection in self._open if connection.peer == peer])
        if len(self._open) < self.limit:
            return True
        waiting = [connection for connection in self._open if connection.waiting_since() is not None]
        most = max((counts[connection.peer] for connection in waiting), default=0)
        return self._close_one([connection for connection in waiting if counts[connection.peer] == most])

    def close_overdue(self) -> None:
        """Close the connections whose clients take too long."""
        for connection in list(self._open):
            connection.close_if_overdue(self.settings)

    def _close_one(self, connections: list[LimitedConnection]) -> bool:
        waiting = [connection for connection in connections if connection.waiting_since() is not None]
        if not waiting:
            return False
        longest = min(waiting, key=LimitedConnection.priority)
        self._open.discard(longest)
        longest.transport.abort()
        return True


class Listener:
    """Accepts connections. asyncio's own server would log each failure, thousands in a second without free files.

    Args:
        listening: The sockets.
        connections: The open connections.
        connect: Makes the protocol of a new connection.
    """

    def __init__(
        self,
        listening: list[socket.socket],
        connections: Connections,
        connect: Callable[[], LimitedConnection],
    ) -> None:
        self._listening = listening
        self._connections = connections
        self._connect = connect
        self._logged = -_LOG_SECONDS
        self._starting: set[asyncio.Task[Any]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Accept connections from now on, and close those that are overdue."""
        loop = asyncio.get_running_loop()
        for listening in self._listening:
            listening.setblocking(False)
            self._tasks.append(loop.create_task(self._accept_all(listening)))
        self._tasks.append(loop.create_task(self._close_overdue()))

    async def stop(self) -> None:
        """Accept what has connected already, and nothing after that."""
        for task in self._tasks[:-1]:
            task.cancel()
        await asyncio.gather(*self._tasks[:-1], return_exceptions=True)
        for listening in self._listening:
            with contextlib.suppress(OSError):  # BlockingIOError where nobody else waits
                while True:
                    self._take(*listening.accept())
        await asyncio.gather(*self._starting, return_exceptions=True)

    def close(self) -> None:
        """Do nothing; whoever opened the sockets closes them. uvicorn calls this."""

    async def wait_closed(self) -> None:
        """End the watch over the connections. uvicorn calls this when all are closed."""
        self._tasks[-1].cancel()

    async def _accept_all(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted = await loop.sock_accept(listening)
            except OSError as error:
                if loop.time() - self._logged >= _LOG_SECONDS:
                    self._logged = loop.time()
                    _log.error("cannot accept connections: %s", str(error.strerror or error).lower())
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                starting = self._take(*accepted)
                if starting is not None:
                    await asyncio.wait({starting})

    def _take(self, accepted: socket.socket, address: Any) -> asyncio.Task[Any] | None:
        if not self._connections.make_room(address[0] if address else ""):
            accepted.close()
            return None
        accepted.setblocking(False)
        loop = asyncio.get_running_loop()
        starting = loop.create_task(_start(self._connect, accepted))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        return starting

    async def _close_overdue(self) -> None:
        settings = self._connections.settings
        interval = min(0.5, settings.head_seconds / 4, settings.idle_seconds / 4)
        while True:
            await asyncio.sleep(interval)
            self._connections.close_overdue()


async def _start(connect: Callable[[], LimitedConnection], accepted: socket.socket) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(connect, accepted)
    except OSError:  # the client has gone already
        accepted.close()


def file_limit() -> int:
    """Return how many connections the process's limit of open files leaves room for."""
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        num_open = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 64
    except ImportError:  # Windows has no such limit
        return 2**31
    if soft == resource.RLIM_INFINITY:
        return 2**31
    return max(MIN_CONNECTIONS, soft - num_open - RESERVED_FILES)
