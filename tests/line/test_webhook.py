"""Laws of the webhook: signed, in order, repeated until it is accepted, and never in the way."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from energyad.errors import DataError, SettingsError
from energyad.line import webhook
from energyad.line.database import Database, DatabaseUnavailable
from energyad.line.deliveries import count_deliveries, list_deliveries, retry_deliveries
from energyad.line.outbox import MAX_REFUSALS, Outbox
from energyad.line.store import LineStore
from energyad.line.tables import DEAD, PENDING
from energyad.line.webhook import KIND

from .conftest import Line, look, renamed

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
    def bodies(self) -> list[str]:
        return [body.decode() for _, body in self.came]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Sender:
    """A line whose results go to a URL, and what delivers them."""

    def __init__(self, line: Line, url: str, *, give_up_hours: float = 24.0) -> None:
        self.line, self.warnings = line, line.warnings
        self.store: LineStore = line.store()
        self.database: Database = self.store.database
        self.watcher = line.watcher(store=self.store)
        self.webhook = webhook.webhook(
            *(url, self.database),
            output=self.store.add_output(KIND, url),
            watcher=self.store.watcher_id,
            secret=SECRET,
            warn=self.warnings.append,
            longest_pause=0.01,
            give_up_hours=give_up_hours,
        )

    def score(self, *names: str) -> list[str]:
        """Score files of these names; gives the lines of all results so far."""
        for name in names:
            renamed(self.line.folder / f"{name}.png", name)
            assert look(self.watcher) == [f"{name}.png"]
        self.webhook.tell()
        return [row.json_line() for row in self.line.rows()]


def test_each_result_arrives_in_order_as_it_is_kept_and_signed(any_line: Line, receiver: Receiver) -> None:
    sender = Sender(any_line, receiver.url)
    sender.webhook.start()
    lines = sender.score("a", "b", "c")
    sender.webhook.stop(seconds=20)
    assert receiver.bodies == lines
    headers, body = receiver.came[0]
    signed = headers["X-Energyad-Timestamp"].encode() + b"." + body
    expected = "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["X-Energyad-Signature"] == expected
    keys = {headers["Idempotency-Key"] for headers, _ in receiver.came}
    assert len(keys) == 3 and all(len(key) == 36 for key in keys)


@pytest.mark.slow
@pytest.mark.parametrize("status", [302, 404, 401, 429, 500, 503])
def test_what_is_not_accepted_is_repeated_with_the_same_key_and_nothing_overtakes_it(
    line: Line, receiver: Receiver, status: int
) -> None:
    receiver.statuses = [status] * (MAX_REFUSALS + 2)
    sender = Sender(line, receiver.url)
    sender.webhook.start()
    first, second = sender.score("a", "b")
    until(lambda: len(receiver.came) == MAX_REFUSALS + 4)
    sender.webhook.stop()
    assert receiver.bodies == [first] * (MAX_REFUSALS + 3) + [second]
    assert len({headers["Idempotency-Key"] for headers, body in receiver.came if body == first.encode()}) == 1
    assert len(sender.warnings) == 1 and str(status) in sender.warnings[0]


@pytest.mark.slow
@pytest.mark.parametrize("status", sorted(webhook.REFUSED))
def test_a_result_that_the_receiver_calls_wrong_is_set_aside_and_can_be_tried_again(
    line: Line, receiver: Receiver, status: int
) -> None:
    receiver.statuses = [status] * MAX_REFUSALS
    sender = Sender(line, receiver.url)
    sender.webhook.start()
    first, second = sender.score("a", "b")
    until(lambda: receiver.bodies[-1:] == [second])
    (dead,) = list_deliveries(sender.database, DEAD)
    assert (dead.image, dead.attempts, dead.reason) == ("a.png", MAX_REFUSALS, f"status {status}")
    assert "set aside" in sender.warnings[-1]
    assert retry_deliveries(sender.database, [dead.id]) == 1
    until(lambda: receiver.bodies[-1:] == [first])
    sender.webhook.stop()
    assert [output.counts for output in count_deliveries(sender.database)] == [
        {"pending": 0, "delivered": 2, "dead": 0}
    ]
    with pytest.raises(DataError, match="not set aside"):
        retry_deliveries(sender.database, [dead.id])


def test_a_result_that_nobody_accepts_for_too_long_is_set_aside(line: Line) -> None:
    sender = Sender(line, "http://127.0.0.1:1/", give_up_hours=0.0)
    sender.webhook.start()
    sender.score("a")
    until(lambda: len(list_deliveries(sender.database, DEAD)) == 1)
    sender.webhook.stop()
    assert retry_deliveries(sender.database) == 1


def test_what_could_not_be_delivered_is_after_the_next_start(line: Line, receiver: Receiver) -> None:
    receiver.statuses = [503] * 10_000
    sender = Sender(line, receiver.url)
    sender.webhook.start()
    sender.score("a", "b")
    began = time.monotonic()
    sender.webhook.stop(seconds=0.2)
    assert time.monotonic() - began < 12  # an end that does not wait for ever
    sender.store.end()
    receiver.came.clear()
    receiver.statuses.clear()
    again = Sender(line, receiver.url)
    again.webhook.start()
    lines = again.score("c")
    until(lambda: len(receiver.came) == 3)
    again.webhook.stop()
    assert receiver.bodies == lines


def test_of_two_watchers_one_delivers_and_the_other_when_that_has_ended(
    any_line: Line, receiver: Receiver
) -> None:
    one, other = Sender(any_line, receiver.url), Sender(any_line, receiver.url)
    one.webhook.start()
    lines = one.score("a")
    until(lambda: receiver.bodies == lines)
    other.webhook.start()
    other.score("b")
    one.webhook.stop()
    one.store.end()
    lines = other.score("c")
    until(lambda: len(receiver.came) >= 3)
    other.webhook.stop()
    assert receiver.bodies == lines


def test_a_full_disk_delays_deliveries_and_does_not_end_them(
    line: Line, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = Sender(line, receiver.url)
    original, failures = Outbox._note, [DatabaseUnavailable("the disk is full"), OSError("no space left")]

    def note(self: Outbox, *arguments: object) -> bool:
        if failures:
            raise failures.pop()
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Outbox, "_note", note)
    sender.webhook.start()
    line_a, line_b = sender.score("a", "b")
    until(lambda: not list_deliveries(sender.database, PENDING))
    sender.webhook.stop()
    assert receiver.bodies == [line_a] * 3 + [line_b]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "https://", "results", ""])
def test_only_web_addresses_are_taken(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="http"):
        webhook.checked_url(url)
