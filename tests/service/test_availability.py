"""Laws: a client that sends nothing, little or too much costs nobody else an answer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from pathlib import Path

import pytest

from energyad.detector import AnomalyDetector
from energyad.service import connections
from energyad.service.bodies import PendingBodies
from energyad.service.connections import Connections, Listener, file_limit
from energyad.service.errors import RequestError
from energyad.service.settings import ServiceSettings

from .serving import HALF_BODY, HEALTH, answer_of, serving, wait_until


def test_half_bodies_hold_no_place_in_the_queue(fitted_detector: AnomalyDetector, defective: Path) -> None:
    with serving(fitted_detector, queue=2) as service, contextlib.ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(service.connect(HALF_BODY))
        wait_until(lambda: service.num_bodies == 16)
        assert service.app.state.service.worker.taken == 0
        assert b"200 OK" in service.score(defective.read_bytes())[:20]


@pytest.mark.parametrize("limit", ["max_bodies", "max_bodies_per_peer"])
def test_a_body_that_stalls_is_given_up_for_one_that_arrives(
    fitted_detector: AnomalyDetector, defective: Path, limit: str
) -> None:
    with serving(fitted_detector, **{limit: 3}) as service, contextlib.ExitStack() as stack:
        stalled = []
        for count in range(1, 4):  # one by one: who came first has stalled longest
            stalled.append(stack.enter_context(service.connect(HALF_BODY)))
            while service.num_bodies < count:
                time.sleep(0.01)
        time.sleep(0.3)
        assert b"200 OK" in service.score(defective.read_bytes())[:20]
        answer = answer_of(stalled[0])
        assert b" 408 " in answer[:20] and b"stalled while others were waiting" in answer
        assert answer_of(stalled[0]) == b""  # closed
        assert service.num_bodies == 2


def test_bodies_are_refused_where_too_many_arrive_and_none_stalls() -> None:
    async def arrive() -> None:
        bodies = PendingBodies(ServiceSettings(max_bodies=2, max_upload=1000, max_body_bytes=1500))
        async with bodies.arriving("a") as first, bodies.arriving("b") as second:
            first.add(800)
            second.add(700)
            with pytest.raises(RequestError) as too_large:
                second.add(1)
            with pytest.raises(RequestError) as too_many:
                async with bodies.arriving("c"):
                    pass
        assert (too_large.value.status, too_many.value.status) == (429, 429)
        assert too_many.value.headers["Retry-After"] == "1" and len(bodies) == 0

    asyncio.run(arrive())


def test_a_stalled_body_makes_room_for_the_bytes_of_another() -> None:
    async def arrive() -> None:
        bodies = PendingBodies(ServiceSettings(max_upload=1000, max_body_bytes=1500))

        async def stall() -> None:
            async with bodies.arriving("a") as first:
                first.add(800)
                await asyncio.sleep(20)

        stalling = asyncio.create_task(stall())
        await asyncio.sleep(0.3)
        async with bodies.arriving("b") as second:
            second.add(800)
        with pytest.raises(RequestError) as given_up:
            await stalling
        assert given_up.value.status == 408 and len(bodies) == 0

    asyncio.run(arrive())


@pytest.mark.parametrize("piece", [b"", b"x"], ids=["idle", "trickling"])
def test_a_body_is_given_up_when_it_is_idle_or_takes_too_long(
    fitted_detector: AnomalyDetector, piece: bytes
) -> None:
    limits = {"read_seconds": 0.4} if piece else {"idle_seconds": 0.2}
    with serving(fitted_detector, **limits) as service, service.connect(HALF_BODY) as slow:
        slow.settimeout(0.05)
        answer = trickle(slow, piece)
        assert b" 408 " in answer[:20] and b"did not arrive" in answer


HEADS = {
    "nothing": (b"", b""),
    "half a head": (b"", b"GET / HTTP/1.1\r\nHost: local"),
    "after an answer": (HEALTH, b"GET /"),
}


@pytest.mark.parametrize("piece", [b"", b"x"], ids=["idle", "trickling"])
@pytest.mark.parametrize("begun", HEADS)
def test_a_connection_without_a_whole_head_is_closed(
    fitted_detector: AnomalyDetector, begun: str, piece: bytes
) -> None:
    limits = {"head_seconds": 0.3, "idle_seconds": 30.0}
    whole, half = HEADS[begun]
    with serving(fitted_detector, **limits) as service, service.connect(whole) as slow:
        if whole:
            assert b"200 OK" in answer_of(slow)[:20]
        slow.sendall(half)
        slow.settimeout(0.05)
        answer = trickle(slow, piece)
        is_answered = begun != "nothing" or piece != b""
        assert (b"408 Request Timeout" in answer) == is_answered
        wait_until(lambda: service.num_connections == 0)


def trickle(slow: socket.socket, piece: bytes) -> bytes:
    """Send a piece now and then until the connection ends; return what came."""
    data, began = b"", time.perf_counter()
    while time.perf_counter() - began < 20:
        try:
            slow.sendall(piece)
            received = slow.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError:
            return data
        if not received:
            return data
        data += received
    raise AssertionError("the connection did not end")


@pytest.mark.slow
def test_a_client_that_does_not_take_up_its_answers_is_dropped(fitted_detector: AnomalyDetector) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(fitted_detector, idle_seconds=0.3) as service, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", service.port))
        wait_until(lambda: service.num_connections == 1)
        state = service.server.server_state
        (connection,) = state.connections
        sent = 0
        while connection.transport.get_write_buffer_size() == 0:  # the system buffers some answers
            slow.sendall(ask)
            sent += 1
            while state.total_requests < sent and connection.transport.get_write_buffer_size() == 0:
                time.sleep(0.001)
        wait_until(lambda: service.num_connections == 0)


@pytest.mark.parametrize("count", [2, 50])
def test_requests_that_do_not_wait_for_answers_get_one_and_the_connection_ends(
    fitted_detector: AnomalyDetector, count: int
) -> None:
    with serving(fitted_detector) as service, service.connect(HEALTH * count) as hasty:
        answer = answer_of(hasty)
        assert b"200 OK" in answer[:20] and b"connection: close" in answer.lower()
        assert answer_of(hasty) == b"" and answer.count(b"HTTP/1.1") == 1


def test_requests_that_wait_for_answers_share_a_connection(fitted_detector: AnomalyDetector) -> None:
    with serving(fitted_detector) as service, service.connect() as patient:
        for _ in range(5):
            patient.sendall(HEALTH)
            answer = answer_of(patient)
            assert b"200 OK" in answer[:20] and b"connection: close" not in answer.lower()


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("excess", [0, 1])
def test_a_head_is_parsed_up_to_its_limit(fitted_detector: AnomalyDetector, excess: int, pieces: int) -> None:
    begun = HEALTH.removesuffix(b"\r\n") + b"X-Long: "
    head = begun + b"a" * (connections.MAX_HEAD_BYTES + excess - len(begun) - 4) + b"\r\n\r\n"
    size = -(-len(head) // pieces)
    with serving(fitted_detector) as service, service.connect() as client:
        with contextlib.suppress(OSError):  # closed before all is sent
            for start in range(0, len(head), size):
                client.sendall(head[start : start + size])
                time.sleep(0.01)
        answer = answer_of(client)
    assert (b" 431 " if excess else b"200 OK") in answer[:20]


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_peer"])
def test_idle_connections_make_room_for_a_request(fitted_detector: AnomalyDetector, limit: str) -> None:
    with serving(fitted_detector, **{limit: 5}) as service, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(service.connect()) for _ in range(30)]
        for _ in range(3):
            assert b"200 OK" in service.ask(HEALTH)[:20]
        assert service.num_connections <= 5
        assert idle[0].recv(1) == b""  # the oldest is closed


def test_connections_that_never_asked_go_before_those_that_did(fitted_detector: AnomalyDetector) -> None:
    with serving(fitted_detector, max_connections=5) as service, contextlib.ExitStack() as stack:
        honest = stack.enter_context(service.connect(HEALTH))
        assert b"200 OK" in answer_of(honest)[:20]
        for _ in range(30):
            stack.enter_context(service.connect())
        assert b"200 OK" in service.ask(HEALTH)[:20]
        honest.sendall(HEALTH)
        assert b"200 OK" in answer_of(honest)[:20]


def test_connections_leave_files_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4096, 4096))
    assert 4096 - 1000 < file_limit() < 4096 - connections.RESERVED_FILES
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    assert file_limit() == connections.MIN_CONNECTIONS
    assert Connections(ServiceSettings(), 20).limit == 20


def test_failures_to_accept_are_logged_once_and_not_repeated_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "_RETRY_SECONDS", 0.02)
    num_tries = 0

    async def accept(_: socket.socket) -> None:
        nonlocal num_tries
        num_tries += 1
        raise OSError(errno.EMFILE, "Too many open files")

    async def listen() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "sock_accept", accept, raising=False)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listener = Listener([listening], Connections(ServiceSettings(), 8), pytest.fail)
            listener.start()
            await asyncio.sleep(0.2)
            await listener.stop()
            await listener.wait_closed()

    with caplog.at_level(logging.ERROR):
        asyncio.run(listen())
    assert 2 <= num_tries <= 11
    assert [record.getMessage() for record in caplog.records] == [
        "cannot accept connections: too many open files"
    ]


def test_malformed_requests_are_not_logged(
    fitted_detector: AnomalyDetector, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(fitted_detector) as service:
        for _ in range(10):
            assert b" 400 " in service.ask(b"nonsense\r\n\r\n")[:20]
    assert capfd.readouterr().err == ""
