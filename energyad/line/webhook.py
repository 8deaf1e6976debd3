"""Results to another machine's address, signed. They are sent in order until each is accepted: see `outbox`.

A delivery is accepted with a status of 2xx, so each arrives at least once; a receiver that sees one again knows it by
its `Idempotency-Key`.

Headers: `Idempotency-Key`, the same in every try; `X-Energyad-Timestamp`, seconds since 1970; and with a secret
`X-Energyad-Signature`, see `signature`.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from energyad.errors import SettingsError
from energyad.line.database import Database
from energyad.line.outbox import GIVE_UP_HOURS, Failure, Message, Outbox

SECRET_VARIABLE: Final = "ENERGYAD_WEBHOOK_SECRET"
SECONDS: Final = 10.0
"""For one delivery."""
REFUSED: Final = frozenset({400, 413, 415, 422})
"""Statuses by which a receiver calls this very result wrong."""
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


class WebhookSender:
    """Posts one delivery after the other.

    Args:
        url: The receiver's.
        secret: Signs; None for no signature.

    Raises:
        SettingsError: The URL is no web address.
    """

    def __init__(self, url: str, *, secret: str | None) -> None:
        self._url, self._secret = checked_url(url), secret
        self._opener = urllib.request.build_opener(_NoRedirects)

    def send(self, message: Message, stop: threading.Event) -> Failure | None:
        """Post it; None where it was accepted."""
        body, timestamp = message.line.encode(), str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": message.key,
            "X-Energyad-Timestamp": timestamp,
        }
        if self._secret is not None:
            headers["X-Energyad-Signature"] = signature(self._secret, timestamp, body)
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                status = answer.status
            return None if 200 <= status < 300 else Failure(f"status {status}")
        except urllib.error.HTTPError as error:
            with error:
                return Failure(f"status {error.code}", error.code in REFUSED)
        except Exception as error:  # whatever the network or its libraries do
            return Failure(str(getattr(error, "reason", None) or error or type(error).__name__))


def webhook(
    url: str,
    database: Database,
    *,
    output: int,
    watcher: str,
    secret: str | None,
    warn: Callable[[str], None],
    longest_pause: float = 60.0,
    give_up_hours: float = GIVE_UP_HOURS,
) -> Outbox:
    """Return what delivers the results of an output to a URL; it is still to be started.

    Args:
        url: The receiver's.
        database: Holds the deliveries.
        output: The output's row.
        watcher: This process's row.
        secret: Signs; None for no signature.
        warn: See `Outbox`.
        longest_pause: See `Outbox`.
        give_up_hours: See `Outbox`.

    Raises:
        SettingsError: The URL is no web address.
    """
    return Outbox(
        KIND,
        database,
        output=output,
        watcher=watcher,
        send=WebhookSender(url, secret=secret).send,
        warn=warn,
        longest_pause=longest_pause,
        give_up_hours=give_up_hours,
    )
