"""Results to another machine's address, signed, without scoring ever waiting for it.

Each delivery is a row that is stored with its result. A thread sends them in order, and each until it is accepted (a
status of 2xx), so each arrives at least once; a receiver that sees one again knows it by its `Idempotency-Key`.

Headers: `Idempotency-Key`, the same in every try; `X-Energyad-Timestamp`, seconds since 1970; and with a secret
`X-Energyad-Signature`, see `signature`.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import select

from energyad.errors import DataError, SettingsError
from energyad.line.database import Database
from energyad.line.tables import DEAD, DELIVERED, PENDING, Delivery, Output, Result, WatcherProcess

SECRET_VARIABLE: Final = "ENERGYAD_WEBHOOK_SECRET"
SECONDS: Final = 10.0
"""For one delivery."""
MAX_REFUSALS: Final = 10
"""Tries after which a result that the receiver calls wrong (`REFUSED`) is set aside: about three minutes."""
GIVE_UP_HOURS: Final = 24.0
"""After its first try a result that is not accepted for another reason is set aside."""
REFUSED: Final = frozenset({400, 413, 415, 422})
KIND: Final = "webhook"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the HMAC-SHA256 of `timestamp.body`, hexadecimal: only who knows the secret can make it, and an
    old delivery sent again is known by its time.
    """
    signed = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={signed.hexdigest()}"


def checked_url(url: str) -> str:
    """The URL. Raises SettingsError where it is no web address."""
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise SettingsError(f"webhook {url!r}: must be an http or https address")
    return url


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """A redirected POST would become a GET without its body."""
        return


@dataclass(frozen=True)
class _Try:
    """Why a delivery was not accepted, and whether the receiver called this very result wrong."""

    failure: str
    is_refusal: bool


@dataclass(frozen=True)
class _Next:
    """The delivery whose turn it is."""

    id: int
    key: str
    line: str
    attempts: int


class Webhook:
    """Delivers the results of an output in order.

    Of several processes with the same output one delivers, and the next when that one has ended.

    Args:
        url: The receiver's.
        database: Holds the deliveries.
        output: The output's row.
        watcher: This process's row.
        secret: Signs; None for no signature.
        warn: Called when deliveries begin to fail, and of each that is set aside.
        longest_pause: Seconds between two tries at most.
        give_up_hours: See `GIVE_UP_HOURS`.

    Raises:
        SettingsError: The URL is no web address.
    """

    def __init__(
        self,
        url: str,
        database: Database,
        *,
        output: int,
        watcher: str,
        secret: str | None,
        warn: Callable[[str], None],
        longest_pause: float = 60.0,
        give_up_hours: float = GIVE_UP_HOURS,
    ) -> None:
        self._url, self._database, self._secret, self._warn = checked_url(url), database, secret, warn
        self._output, self._watcher = output, watcher
        self._longest_pause, self._give_up = longest_pause, datetime.timedelta(hours=give_up_hours)
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._stop, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="energyad-webhook", daemon=True)
        self._is_failing = False

    def start(self) -> None:
        """Begin with what is waiting."""
        self._thread.start()

    def tell(self) -> None:
        """There is a new result."""
        self._news.set()

    def stop(self, *, seconds: float = 5.0) -> None:
        """Deliver what can be within some seconds; the rest goes out after the next start."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._thread.is_alive() and self._has_work():
            self._news.set()
            time.sleep(0.05)
        self._stop.set()
        self._news.set()
        self._thread.join(max(0.0, deadline - time.monotonic()) + 0.1)

    def _has_work(self) -> bool:
        try:
            return self._next() is not None
        except DataError:
            return False

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.is_set():
            try:
                sent = self._send_next()
            except (
                Exception
            ) as error:  # a full disk, a server that is away: the line goes on, and so does this
                self._warn_once(f"webhook: waits: {error}")
                sent = False
            if sent is None:
                self._news.wait(1.0)
                self._news.clear()
            elif sent:
                pause = 0.0
            else:
                pause = min(self._longest_pause, 2 * pause or 0.5)
                self._stop.wait(pause)

    def _send_next(self) -> bool | None:
        """Whether the next delivery is done with; None where there is none."""
        delivery = self._next()
        if delivery is None:
            return None
        failed = self._post(delivery)
        if failed is None:
            self._note(delivery, DELIVERED, None)
            self._is_failing = False
            return True
        is_dead = self._note(delivery, PENDING, failed)
        if is_dead:
            self._warn(
                f"webhook: a result was not accepted ({failed.failure}) and is set aside; see `energyad deliveries`"
            )
        else:
            self._warn_once(f"webhook: no delivery ({failed.failure}); results wait, and scoring goes on")
        return is_dead

    def _warn_once(self, text: str) -> None:
        """Say that deliveries fail, until one succeeds."""
        if not self._is_failing:
            self._is_failing = True
            self._warn(text)

    def _next(self) -> _Next | None:
        """The next delivery, where it is on this process to send it."""
        with self._database.read() as session:
            row = session.execute(
                select(Delivery.id, Delivery.key, Result.line, Delivery.attempts)
                .join(Result, Result.id == Delivery.result_id)
                .where(Delivery.output_id == self._output, Delivery.state == PENDING)
                .order_by(Delivery.number)
                .limit(1)
            ).first()
            holder = session.get_one(Output, self._output).watcher_id
        if row is None or (holder != self._watcher and not self._takes_over()):
            return None
        return _Next(*row)

    def _takes_over(self) -> bool:
        """Whether this process delivers from now on: nobody does, or who did has ended."""
        with self._database.write() as session:
            output = session.get_one(Output, self._output, with_for_update={"key_share": True})
            holder = None if output.watcher_id is None else session.get(WatcherProcess, output.watcher_id)
            if holder is None or holder.ended:
                output.watcher_id = self._watcher
            return output.watcher_id == self._watcher

    def _note(self, delivery: _Next, state: str, failed: _Try | None) -> bool:
        """Store what a try came to; whether the delivery is set aside with it."""
        now = datetime.datetime.now(datetime.UTC)
        with self._database.write() as session:
            row = session.get_one(Delivery, delivery.id)
            row.attempts += 1
            row.first_tried, row.last_tried = row.first_tried or now, now
            row.state, row.last_error = state, None if failed is None else failed.failure
            if failed is not None:
                too_often = failed.is_refusal and row.attempts >= MAX_REFUSALS
                if too_often or now - row.first_tried >= self._give_up:
                    row.state = DEAD
            return row.state == DEAD

    def _post(self, delivery: _Next) -> _Try | None:
        """Send it; None where it was accepted."""
        body, timestamp = delivery.line.encode(), str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": delivery.key,
            "X-Energyad-Timestamp": timestamp,
        }
        if self._secret is not None:
            headers["X-Energyad-Signature"] = signature(self._secret, timestamp, body)
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                status = answer.status
            return None if 200 <= status < 300 else _Try(f"status {status}", False)
        except urllib.error.HTTPError as error:
            with error:
                return _Try(f"status {error.code}", error.code in REFUSED)
        except Exception as error:  # whatever the network or its libraries do
            return _Try(str(getattr(error, "reason", None) or error or type(error).__name__), False)
