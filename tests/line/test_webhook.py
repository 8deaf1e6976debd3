"""Laws of the webhook: signed, in order, repeated until it arrives, and never in the way."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from energyad.errors import SettingsError
from energyad.line import webhook
from energyad.line.webhook import Webhook

SECRET = "of the line"


class Receiver:
    """Answers with the statuses it was told, then with 200; keeps what came."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.came: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.came.append((dict(self.headers), body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/results"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def numbers(self) -> list[int]:
        return [json.loads(body)["number"] for _, body in self.came]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    path.write_text('{"number": 0}\n')  # from before the webhook was wanted
    return path


def note(journal: Path, *numbers: int) -> None:
    with journal.open("a") as file:
        file.writelines(f'{{"number": {number}}}\n' for number in numbers)


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def started(url: str, journal: Path, warnings: list[str] | None = None) -> Webhook:
    sender = Webhook(
        url, journal, secret=SECRET, warn=(warnings or []).append if warnings is None else warnings.append,
        longest_pause=0.01,
    )  # fmt: skip
    sender.start()
    return sender


def test_each_new_line_arrives_in_order_as_it_was_noted_and_signed(receiver: Receiver, journal: Path) -> None:
    sender = started(receiver.url, journal)
    note(journal, 1, 2, 3)
    sender.tell()
    sender.stop()
    assert receiver.numbers == [1, 2, 3]
    headers, body = receiver.came[0]
    assert body + b"\n" == journal.read_bytes().splitlines(keepends=True)[1]
    signed = headers["X-Energyad-Timestamp"].encode() + b"." + body
    expected = "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["X-Energyad-Signature"] == expected


def test_a_failed_delivery_is_repeated_and_nothing_overtakes_it(receiver: Receiver, journal: Path) -> None:
    receiver.statuses = [503, 429, 500]
    warnings: list[str] = []
    sender = started(receiver.url, journal, warnings)
    note(journal, 1, 2)
    sender.tell()
    until(lambda: len(receiver.came) == 5)
    sender.stop()
    assert receiver.numbers == [1, 1, 1, 1, 2]
    assert len(warnings) == 1 and "503" in warnings[0]


@pytest.mark.parametrize("status", [400, 302])
def test_a_line_that_is_refused_every_time_does_not_hold_up_the_others(
    receiver: Receiver, journal: Path, status: int
) -> None:
    receiver.statuses = [status] * webhook.MAX_REFUSED_TRIES
    warnings: list[str] = []
    sender = started(receiver.url, journal, warnings)
    note(journal, 1, 2)
    sender.tell()
    until(lambda: receiver.numbers[-1:] == [2])
    sender.stop()
    assert receiver.numbers == [1] * webhook.MAX_REFUSED_TRIES + [2]
    assert "left out" in warnings[-1]


def test_what_could_not_be_delivered_is_after_the_next_start(receiver: Receiver, journal: Path) -> None:
    nobody = "http://127.0.0.1:1/"
    sender = started(nobody, journal)
    note(journal, 1, 2)
    sender.tell()
    began = time.monotonic()
    sender.stop(seconds=0.2)
    assert time.monotonic() - began < 2  # an end that does not wait for ever
    note(journal, 3)
    again = started(receiver.url, journal)
    until(lambda: len(receiver.came) == 3)
    again.stop()
    assert receiver.numbers == [1, 2, 3]


def test_a_line_half_written_waits_for_its_end(receiver: Receiver, journal: Path) -> None:
    sender = started(receiver.url, journal)
    with journal.open("a") as file:
        file.write('{"number": 1')
        file.flush()
        sender.tell()
        time.sleep(0.05)
        assert receiver.came == []
        file.write("}\n")
    sender.tell()
    until(lambda: receiver.numbers == [1])
    sender.stop()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "https://", "results", ""])
def test_only_web_addresses_are_taken(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="http"):
        Webhook(url, tmp_path / "x", secret=None, warn=print)
