"""A service under attack: requests that its OpenAPI allows and forbids, and honest clients beside hundreds of others.

The service is `energyad serve` in a process of its own; honest and hostile clients are processes of their own too.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

KEY: Final = "a key for a benchmark"
HONEST: Final = 4
PAUSE: Final = 0.2
"""Seconds between two requests of an honest client, as a line sends them."""
MAX_RATIO: Final = 3.0
START_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class ProtocolCounts:
    """Of requests that schemathesis made of the service's OpenAPI.

    server_errors: answers of 500 and above. undocumented: answers of a status or content that the OpenAPI does not
    have. broken: requests without an answer. is_alive: whether the service scored an image afterwards.
    """

    kind: str = "protocol"
    requests: int
    answers: dict[str, int]
    server_errors: int
    undocumented: int
    broken: int
    is_alive: bool
    examples: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether every request was answered as the OpenAPI says."""
        return self.is_alive and not any((self.server_errors, self.undocumented, self.broken))


@dataclass(frozen=True, kw_only=True)
class FloodCounts:
    """Of honest clients beside slow and hostile ones, and without them before.

    unanswered: honest requests that got neither a result nor 429. quiet_p99, p99: seconds of those that got a result.
    ratio: between the two.
    """

    kind: str = "flood"
    hostile: int
    seconds: float
    requests: int
    scored: int
    busy: int
    unanswered: int
    quiet_p99: float
    p99: float
    ratio: float
    memory_mib: int
    is_alive: bool
    examples: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether every honest request was answered, and in time."""
        return self.is_alive and not self.unanswered and self.ratio <= MAX_RATIO


@dataclass(frozen=True)
class Served:
    """A running service."""

    port: int
    process: int

    def score(self, image: bytes, *, timeout: float = 60.0) -> int:
        """Ask for an image's score; returns the status. Raises OSError or HTTPException without an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            headers = {"X-API-Key": KEY, "Content-Type": "image/png"}
            connection.request("POST", "/v1/score", body=image, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def is_alive(self, image: bytes) -> bool:
        """Whether it scores an image."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.score(image) == 200
        return False

    def memory_mib(self) -> int:
        """Most memory that its process had."""
        for line in Path(f"/proc/{self.process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) >> 10
        return 0


@contextlib.contextmanager
def served(model: Path) -> Iterator[Served]:
    """Serve a model. Raises RuntimeError where it does not start."""
    command = [
        sys.executable,
        "-m",
        "energyad",
        "serve",
        "--model",
        str(model),
        "--port",
        "0",
        "--threads",
        "1",
    ]
    environment = {**os.environ, "ENERGYAD_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    if process.stderr is None:
        raise RuntimeError("no pipe")
    try:
        for line in process.stderr:
            if line.startswith("serving "):
                port = int(line.split("127.0.0.1:")[1].split()[0])
                break
        else:
            raise RuntimeError("the service did not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # so that its pipe is never full
        yield Served(port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# What the OpenAPI allows and forbids


def try_protocol(model: Path, image: Path, *, examples: int, seed: int) -> ProtocolCounts:
    """Send so many requests to each operation, good and bad ones.

    Args:
        model: That is served.
        image: A good one, to see whether the service lives.
        examples: Requests for each operation and kind.
        seed: Of what is drawn.
    """
    import schemathesis  # of the extra `dev`
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation.modes import GenerationMode
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    answers: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    told: list[str] = []

    def check(case: Any) -> None:
        try:
            answer = case.call(headers={"X-API-Key": KEY}, timeout=60)
        except Exception as error:  # requests and urllib3 raise many kinds
            faults["broken"] += 1
            told.append(f"{case.method} {case.path}: {type(error).__name__}"[:200])
            return
        answers[str(answer.status_code)] += 1
        checks = {
            "server_errors": [not_a_server_error],
            "undocumented": [status_code_conformance, response_schema_conformance],
        }
        for name, functions in checks.items():
            try:
                case.validate_response(answer, checks=functions)
            except BaseException as error:  # a group of failures
                faults[name] += 1
                told.append(f"{case.method} {case.path}: {answer.status_code} {str(error)[:300]}")

    with served(model) as service:
        schema = schemathesis.openapi.from_url(
            f"http://127.0.0.1:{service.port}/openapi.json", headers={"X-API-Key": KEY}
        )
        for result in schema.get_all_operations():
            operation: Any = result.ok()  # type: ignore[union-attr]
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _draw(operation.as_strategy(generation_mode=mode), check, examples, seed)
        alive = service.is_alive(image.read_bytes())
    return ProtocolCounts(
        requests=answers.total() + faults["broken"],
        answers=dict(sorted(answers.items())),
        server_errors=faults["server_errors"],
        undocumented=faults["undocumented"],
        broken=faults["broken"],
        is_alive=alive,
        examples=told[:20],
    )


def _draw(strategy: Any, check: Callable[[Any], None], examples: int, seed: int) -> None:
    import hypothesis

    every_check = list(hypothesis.HealthCheck)
    options = hypothesis.settings(
        max_examples=examples, database=None, deadline=None, suppress_health_check=every_check
    )

    @hypothesis.seed(seed)
    @options
    @hypothesis.given(case=strategy)
    def run(case: Any) -> None:
        check(case)

    with contextlib.suppress(
        hypothesis.errors.Unsatisfiable
    ):  # an operation that takes nothing has no bad request
        run()


# Honest clients beside others


def try_flood(model: Path, image: Path, *, hostile: int, seconds: float, seed: int) -> FloodCounts:
    """Measure honest clients alone, then beside so many slow and hostile ones for so long."""
    data = image.read_bytes()
    with served(model) as service:
        service.score(data)
        quiet = _honest(service.port, image, max(10.0, seconds / 5))
        command = [sys.executable, "-m", "benchmarks.robustness.service", "hostile"]
        command += [str(service.port), str(image), str(hostile), str(seconds + 4), str(seed)]
        attack = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(2.0)
        beside = _honest(service.port, image, seconds)
        attack.wait(seconds + 60)
        time.sleep(1.0)
        alive, memory = service.is_alive(data), service.memory_mib()
    scored = [took for status, took in beside if status == 200]
    unanswered = [str(status) for status, _ in [*quiet, *beside] if status not in (200, 429)]
    quiet_p99 = float(np.percentile([took for status, took in quiet if status == 200] or [np.nan], 99))
    p99 = float(np.percentile(scored or [np.nan], 99))
    return FloodCounts(
        hostile=hostile,
        seconds=seconds,
        requests=len(beside),
        scored=len(scored),
        busy=sum(status == 429 for status, _ in beside),
        unanswered=len(unanswered),
        quiet_p99=round(quiet_p99, 4),
        p99=round(p99, 4),
        ratio=round(p99 / quiet_p99, 2),
        memory_mib=memory,
        is_alive=alive,
        examples=unanswered[:20],
    )


def _honest(port: int, image: Path, seconds: float) -> list[tuple[int | str, float]]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.robustness.service",
        "honest",
        str(port),
        str(image),
        str(seconds),
    ]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    return [(status, took) for status, took in json.loads(outcome.stdout)]


def _ask_honestly(port: int, image: Path, seconds: float) -> list[tuple[int | str, float]]:
    """What `HONEST` clients got, one request after the other, and how long each took."""
    service, data = Served(port, 0), image.read_bytes()
    answers: list[tuple[int | str, float]] = []
    end = time.monotonic() + seconds

    def ask() -> None:
        while time.monotonic() < end:
            started = time.perf_counter()
            status: int | str
            try:
                status = service.score(data)
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
            answers.append((status, time.perf_counter() - started))
            time.sleep(PAUSE)

    threads = [threading.Thread(target=ask) for _ in range(HONEST)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


HEAD: Final = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + KEY.encode() + b"\r\n"


async def _attack(port: int, image: bytes, count: int, seconds: float, seed: int) -> None:
    end = time.monotonic() + seconds
    await asyncio.gather(
        *(_hostile(port, image, end, random.Random(f"{seed} {one}"), one) for one in range(count))
    )


async def _hostile(port: int, image: bytes, end: float, rng: random.Random, number: int) -> None:
    """One client, which does the same thing again and again on new connections."""
    behave = _BEHAVIOURS[number % len(_BEHAVIOURS)]
    while time.monotonic() < end:
        writer = None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            longest = min(20.0, end - time.monotonic())
            await asyncio.wait_for(behave(reader, writer, image, rng), max(0.1, longest))
        if writer is not None:
            writer.close()
        await asyncio.sleep(rng.uniform(0.5, 2.0))


async def _idle(reader: asyncio.StreamReader, *_: object) -> None:
    await reader.read()


async def _slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *_: object) -> None:
    for byte in HEAD:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.3)


async def _slow_body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, image: bytes, rng: random.Random
) -> None:
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(image))
    for byte in image:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.2)


async def _half_body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, image: bytes, rng: random.Random
) -> None:
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(image) + image[: len(image) // 2])
    await reader.read()


async def _huge(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, image: bytes, rng: random.Random
) -> None:
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % rng.choice((2**31, 2**63, 10**30)) + image)
    await reader.read()


async def _garbage(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, image: bytes, rng: random.Random
) -> None:
    writer.write(rng.randbytes(2000))
    await reader.read()


async def _chunks(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, image: bytes, rng: random.Random
) -> None:
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _time in range(40):
        writer.write(rng.choice((b"1\r\nx\r\n", b"zz\r\n", b"ffffffffffffffff\r\n", b"0\r\n\r\n")))
        await writer.drain()
        await asyncio.sleep(0.2)


async def _multipart(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, image: bytes, rng: random.Random
) -> None:
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nx\r\n' % n for n in range(300)
    )
    head = HEAD + b"Content-Type: multipart/form-data; boundary=b\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(parts) + parts)
    await reader.read()


async def _no_reader(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, image: bytes, rng: random.Random
) -> None:
    """Many requests on one connection, of which no answer is read."""
    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
    await asyncio.sleep(15)


async def _many_headers(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, image: bytes, rng: random.Random
) -> None:
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n")
    await reader.read()


_BEHAVIOURS: Final[tuple[Callable[..., Any], ...]] = (
    *(_idle, _slow_head, _slow_body, _half_body, _half_body, _huge, _garbage, _chunks, _multipart),
    *(_no_reader, _many_headers),
)


def main(words: list[str]) -> None:
    """Be honest or hostile clients; see `try_flood`."""
    port, image = int(words[1]), Path(words[2])
    if words[0] == "honest":
        print(json.dumps(_ask_honestly(port, image, float(words[3]))))
    else:
        os.nice(15)  # hostile clients bring processors of their own
        asyncio.run(_attack(port, image.read_bytes(), int(words[3]), float(words[4]), int(words[5])))


if __name__ == "__main__":
    main(sys.argv[1:])
