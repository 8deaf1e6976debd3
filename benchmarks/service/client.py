"""A light HTTP client that keeps its schedule: `python -m benchmarks.service.client`, its plan on standard input.

It runs in a process of its own and prints its observations as one JSON object. Requests are sent at their planned
times, however long the answers take (an open loop): a slow service does not slow its clients down. Without a rate each
connection sends again as soon as it was answered.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """What to send. rate: requests a second, or None; connections: that stay open; images: files, sent in turn."""

    port: int
    rate: float | None
    seconds: float
    connections: int
    images: list[str]


@dataclass
class Observations:
    """What came back. milliseconds: of the answers 200 and 429, from planned sending to the last byte.

    scores: of each image, all that were given: one where the service always says the same. lost: requests whose
    connection ended without an answer; late: sent more than 50 ms after their time, since the client was too slow.
    """

    sent: int = 0
    lost: int = 0
    late: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {"200": [], "429": []})
    scores: dict[str, list[float]] = field(default_factory=dict)
    without_retry_after: int = 0


async def run(plan: Plan) -> Observations:
    """Send everything, wait for every answer."""
    seen = Observations()
    bodies = [(path, Path(path).read_bytes()) for path in plan.images]
    numbers = itertools.count() if plan.rate is None else iter(range(int(plan.rate * plan.seconds)))
    started = time.perf_counter() + 0.1
    await asyncio.gather(
        *(_connection(plan, bodies, numbers, started, seen) for _ in range(plan.connections))
    )
    return seen


async def _connection(
    plan: Plan,
    bodies: Sequence[tuple[str, bytes]],
    numbers: Iterator[int],
    started: float,
    seen: Observations,
) -> None:
    """One connection takes the next request that nobody has taken, until there are none."""
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    for number in numbers:
        now = time.perf_counter()
        planned = max(now, started) if plan.rate is None else started + number / plan.rate
        if plan.rate is None and now > started + plan.seconds:
            break
        await asyncio.sleep(max(0.0, planned - now))
        seen.late += time.perf_counter() - planned > 0.05
        path, body = bodies[number % len(bodies)]
        seen.sent += 1
        try:
            streams = streams or await asyncio.open_connection("127.0.0.1", plan.port)
            status, headers, answer = await post(*streams, body)
        except (OSError, asyncio.IncompleteReadError):
            seen.lost += 1
            streams = None
            continue
        _note(seen, path, status, headers, answer, 1000 * (time.perf_counter() - planned))
        if headers.get("connection", "").lower() == "close":
            streams[1].close()
            streams = None
    if streams is not None:
        streams[1].close()


def _note(
    seen: Observations, path: str, status: str, headers: dict[str, str], answer: bytes, milliseconds: float
) -> None:
    seen.statuses[status] += 1
    seen.milliseconds.setdefault(status, []).append(milliseconds)
    seen.without_retry_after += status == "429" and "retry-after" not in headers
    if status == "200":
        known, score = seen.scores.setdefault(path, []), json.loads(answer)["score"]
        if score not in known:
            known.append(score)


async def post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
) -> tuple[str, dict[str, str], bytes]:
    """One request and its answer: status, headers in lower case, body."""
    head = "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return lines[0].split()[1], headers, await reader.readexactly(int(headers["content-length"]))


if __name__ == "__main__":
    plan = Plan(**json.load(sys.stdin))
    print(json.dumps(vars(asyncio.run(run(plan)))))
