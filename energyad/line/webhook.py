"""Results to another machine's address, signed, without scoring ever waiting for it.

The journal is the queue: a thread reads it behind the scorer and keeps, in a file beside it, how far it has come. So
nothing is lost while the receiver is down or the watcher is, and each line is delivered at least once.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from energyad.errors import SettingsError
from energyad.files import atomic_write

SECRET_VARIABLE: Final = "ENERGYAD_WEBHOOK_SECRET"
SECONDS: Final = 10.0
"""For one delivery."""
MAX_REFUSED_TRIES: Final = 3
_BUSY: Final = frozenset({408, 425, 429})


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the HMAC-SHA256 of `timestamp.body`, hexadecimal: only who knows the secret can make it, and an
    old delivery sent again is known by its time.
    """
    signed = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={signed.hexdigest()}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """A redirected POST would become a GET without its body."""
        return


class Webhook:
    """Delivers the journal's lines, in order, from where it last stopped; at first from the journal's end."""

    def __init__(
        self,
        url: str,
        journal: Path,
        *,
        secret: str | None,
        warn: Callable[[str], None],
        longest_pause: float = 60.0,
    ) -> None:
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise SettingsError(f"webhook {url!r}: must be an http or https address")
        self._url, self._journal, self._secret, self._warn = url, journal, secret, warn
        self._cursor = journal.with_name(f"{journal.name}.sent")
        self._longest_pause = longest_pause
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._stop, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="energyad-webhook", daemon=True)

    def start(self) -> None:
        """Begin; the journal must exist."""
        if not self._cursor.exists():
            self._advance(self._journal.stat().st_size)
        self._thread.start()

    def tell(self) -> None:
        """There is a new line."""
        self._news.set()

    def stop(self, *, seconds: float = 5.0) -> None:
        """Deliver what can be within some seconds; the rest goes out after the next start."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._thread.is_alive() and self._next()[0] is not None:
            self._news.set()
            time.sleep(0.05)
        self._stop.set()
        self._news.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _next(self) -> tuple[bytes | None, int]:
        """The next whole line, without its end, and where the one after it begins."""
        with contextlib.suppress(OSError, ValueError):
            offset = int(self._cursor.read_text())
            with self._journal.open("rb") as file:
                file.seek(offset)
                line = file.readline()
            if line.endswith(b"\n"):
                return line[:-1], offset + len(line)
        return None, 0

    def _advance(self, offset: int) -> None:
        atomic_write(self._cursor, str(offset))

    def _run(self) -> None:
        pause, tries = 0.0, 0
        while not self._stop.is_set():
            line, following = self._next()
            if line is None:
                self._news.wait(1.0)
                self._news.clear()
                continue
            failure, refused = self._deliver(line)
            tries += 1
            given_up = refused and tries >= MAX_REFUSED_TRIES
            if failure is None or given_up:
                self._advance(following)
                if given_up:
                    self._warn(
                        f"webhook: a result was refused ({failure}) and is left out; check the receiver"
                    )
                pause, tries = 0.0, 0
                continue
            if tries == 1:
                self._warn(
                    f"webhook: no delivery ({failure}); results wait in {self._journal} and scoring goes on"
                )
            pause = min(self._longest_pause, 2 * pause or 0.5)
            self._stop.wait(pause)

    def _deliver(self, body: bytes) -> tuple[str | None, bool]:
        """What went wrong, if anything, and whether the receiver will refuse it every time."""
        timestamp = str(int(time.time()))
        headers = {"Content-Type": "application/json", "X-Energyad-Timestamp": timestamp}
        if self._secret is not None:
            headers["X-Energyad-Signature"] = signature(self._secret, timestamp, body)
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=SECONDS):
                return None, False
        except urllib.error.HTTPError as error:
            with error:
                return f"status {error.code}", 300 <= error.code < 500 and error.code not in _BUSY
        except Exception as error:  # whatever the network or its libraries do, scoring goes on
            return str(getattr(error, "reason", None) or error or type(error).__name__), False
