"""Start the service, find what it can answer, ask for twice that from another process, and end it under load."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.service.client import Plan

CONNECTIONS = 64


@dataclass(frozen=True)
class LoadRun:
    """What was seen. Rates: requests a second. errors: answers that are neither 200 nor 429. lost: requests without an
    answer. differing: images of which not every answer was the same score. Memory: resident set of the service, median
    of the second quarter of the time and of the last. unfinished: requests that were taken and not answered when the
    service was told to end; exit_status: of the service then.
    """

    capacity: float
    asked: float
    answered: float
    seconds: float
    sent: int
    ok: int
    refused: int
    errors: int
    lost: int
    late: int
    differing: int
    p50_ms: float
    p99_ms: float
    p99_refused_ms: float
    memory_mb: float
    memory_end_mb: float
    unfinished: int
    exit_status: int
    drain_seconds: float


def measure(
    model: Path,
    images: Sequence[Path],
    *,
    seconds: float,
    times: float = 2.0,
    queue: int = 16,
    threads: int = 2,
) -> LoadRun:
    """One run. images: PNG files, sent in turn. times: how many times the capacity is asked for.

    Raises RuntimeError where the service does not start.
    """
    paths = [str(path) for path in images]
    with serving(model, queue=queue, threads=threads) as (process, port):
        capacity = find_capacity(port, paths, seconds=max(1.5, seconds / 6), connections=queue // 2)
        memory = Memory(process.pid)
        with memory.sampling():
            seen = _ask(Plan(port, times * capacity, seconds, CONNECTIONS, paths))
        unfinished, status, drained = end_under_load(process, port, images[0].read_bytes(), requests=queue)
    took = {status: np.array(values or [np.nan]) for status, values in seen["milliseconds"].items()}
    refused, ok = (seen["statuses"].get(status, 0) for status in ("429", "200"))
    return LoadRun(
        capacity=round(capacity, 1),
        asked=round(times * capacity, 1),
        answered=round(ok / seconds, 1),
        seconds=seconds,
        sent=seen["sent"],
        ok=ok,
        refused=refused,
        errors=sum(seen["statuses"].values()) - ok - refused + seen["without_retry_after"],
        lost=seen["lost"],
        late=seen["late"],
        differing=sum(len(scores) != 1 for scores in seen["scores"].values()),
        p50_ms=round(float(np.percentile(took["200"], 50)), 1),
        p99_ms=round(float(np.percentile(took["200"], 99)), 1),
        p99_refused_ms=round(float(np.percentile(took["429"], 99)), 1),
        memory_mb=memory.at(0.25, 0.5),
        memory_end_mb=memory.at(0.75, 1.0),
        unfinished=unfinished,
        exit_status=status,
        drain_seconds=drained,
    )


@contextlib.contextmanager
def serving(model: Path, *, queue: int, threads: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service in a process of its own, on any free port."""
    options = ["--port", "0", "--queue", str(queue), "--threads", str(threads)]
    command = [sys.executable, "-m", "energyad", "serve", "--model", str(model), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("ENERGYAD_API_KEY", None)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        said = process.stderr.readline() if process.stderr is not None else ""
        found = re.search(r":(\d+) without a key", said)
        if found is None:
            raise RuntimeError(f"the service did not start: {said}")
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def find_capacity(port: int, paths: list[str], *, seconds: float, connections: int) -> float:
    """Requests a second that are answered to clients that wait for their answers: the best of three tries, since
    whatever else the machine does can only lower it.
    """
    each = seconds / 3
    tries = [_ask(Plan(port, None, each, connections, paths))["statuses"]["200"] for _ in range(3)]
    return float(max(tries)) / each


def _ask(plan: Plan) -> dict[str, Any]:
    """Run the client in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.service.client"],
        input=json.dumps(asdict(plan)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Memory:
    """The resident set of a process, ten times a second."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/statm")
        self._samples: list[float] = []

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample until the block ends."""
        stop = threading.Event()

        def sample() -> None:
            while not stop.wait(0.1):
                pages = int(self._path.read_text().split()[1])
                self._samples.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        yield
        stop.set()
        thread.join()

    def at(self, begin: float, end: float) -> float:
        """The median of a part of the time, MB."""
        count = len(self._samples)
        return round(float(np.median(self._samples[int(begin * count) : max(1, int(end * count))])), 1)


def end_under_load(
    process: subprocess.Popen[str], port: int, image: bytes, *, requests: int
) -> tuple[int, int, float]:
    """Send requests, and SIGTERM when all are taken: how many got no whole answer, the exit status, the seconds.

    Their last bytes are sent after the signal, so that none can be answered before it. Raises TimeoutError.
    """
    head = "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {len(image)}\r\n\r\n"
    connections = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(requests)]
    for connection in connections:
        connection.sendall(head.encode() + image[:-1])
    deadline = time.perf_counter() + 20
    while _in_progress(port) < requests:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{_in_progress(port)} of {requests} requests were taken within 20 s")
    process.send_signal(signal.SIGTERM)
    began = time.perf_counter()
    time.sleep(0.1)  # it is ending now
    for connection in connections:
        connection.sendall(image[-1:])
    answers = [_all_of(connection) for connection in connections]
    status = process.wait(timeout=60)
    complete = sum(b"200 OK" in answer[:20] and answer.endswith(b"}") for answer in answers)
    return requests - complete, status, round(time.perf_counter() - began, 2)


def _in_progress(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found = re.search(r"^energyad_requests_in_progress (\d+)", answer.read().decode(), re.MULTILINE)
    return int(found[1]) if found is not None else 0


def _all_of(connection: socket.socket) -> bytes:
    received = b""
    with connection, contextlib.suppress(OSError):
        while piece := connection.recv(65536):
            received += piece
    return received
