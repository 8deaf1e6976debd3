"""The bodies that are arriving: how many, how large together, and how long they may take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from energyad.service.errors import RequestError
from energyad.service.settings import ServiceSettings

CLOSE: Final = {"Connection": "close"}  # the rest of the body is not wanted
STALL_SECONDS: Final = 0.25
"""A body of which nothing has come for so long may be given up for another."""


class Arrival:
    """One body that is arriving.

    Attributes:
        peer: The client's address.
        num_bytes: What has arrived.
        touched: When the latest piece came, on the event loop's clock.
        is_given_up: Whether it made room for another.
    """

    def __init__(self, bodies: PendingBodies, peer: str, timeout: asyncio.Timeout) -> None:
        self.peer = peer
        self.num_bytes = 0
        self.touched = asyncio.get_running_loop().time()
        self.is_given_up = False
        self._bodies = bodies
        self._timeout = timeout
        self._deadline = self.touched + bodies.settings.read_seconds
        self._extend()

    def add(self, num_bytes: int) -> None:
        """Count a piece.

        Raises:
            RequestError: 429 where all bodies together are too large and none of them stalls.
        """
        self.touched = asyncio.get_running_loop().time()
        self._bodies.reserve(self, num_bytes)
        self.num_bytes += num_bytes
        self._extend()

    def give_up(self) -> None:
        """End the reading of this body with status 408."""
        self.is_given_up = True
        if not self._timeout.expired():
            self._timeout.reschedule(self.touched)

    def _extend(self) -> None:
        if not self.is_given_up:
            self._timeout.reschedule(min(self._deadline, self.touched + self._bodies.settings.idle_seconds))


class PendingBodies:
    """The bodies that are arriving, of all requests.

    They are counted apart from the requests that wait to be scored: a client that sends nothing holds up nobody. Where
    there are too many, or they are too large together, the one that has stalled longest is given up; where none stalls,
    the new one is refused. Used by the event loop's thread alone.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self._arrivals: set[Arrival] = set()

    def __len__(self) -> int:
        return len(self._arrivals)

    @contextlib.asynccontextmanager
    async def arriving(self, peer: str) -> AsyncIterator[Arrival]:
        """Count a body for as long as the block reads it.

        Args:
            peer: The client's address.

        Raises:
            RequestError: 408 where the body does not arrive in time, 429 where too many are arriving.
        """
        arrival: Arrival | None = None
        try:
            async with asyncio.timeout(None) as timeout:
                self._make_room(peer)
                arrival = Arrival(self, peer, timeout)
                self._arrivals.add(arrival)
                yield arrival
        except TimeoutError:
            raise self._too_slow(arrival) from None
        finally:
            if arrival is not None:
                self._arrivals.discard(arrival)

    def reserve(self, arrival: Arrival, num_bytes: int) -> None:
        """Make room for further bytes of a body.

        Raises:
            RequestError: 429 where there is none.
        """
        total = sum(other.num_bytes for other in self._arrivals) + num_bytes
        while total > self.settings.max_body_bytes:
            total -= self._give_up([other for other in self._arrivals if other is not arrival])

    def _make_room(self, peer: str) -> None:
        of_peer = [arrival for arrival in self._arrivals if arrival.peer == peer]
        if len(of_peer) >= self.settings.max_bodies_per_peer:
            self._give_up(of_peer)
        elif len(self._arrivals) >= self.settings.max_bodies:
            self._give_up(list(self._arrivals))

    def _give_up(self, arrivals: list[Arrival]) -> int:
        """Give up the body that has stalled longest, and return its bytes."""
        stalled_before = asyncio.get_running_loop().time() - STALL_SECONDS
        stalled = [arrival for arrival in arrivals if arrival.touched <= stalled_before]
        if not stalled:
            raise RequestError(
                429,
                "too many requests are arriving; send this one again a little later",
                headers={**CLOSE, "Retry-After": "1"},
            )
        longest = min(stalled, key=lambda arrival: arrival.touched)
        self._arrivals.discard(longest)
        longest.give_up()
        return longest.num_bytes

    def _too_slow(self, arrival: Arrival | None) -> RequestError:
        if arrival is not None and arrival.is_given_up:
            reason = "the image stalled while others were waiting; send it again"
        else:
            limits = (
                f"within {self.settings.read_seconds:g} s, {self.settings.idle_seconds:g} s for each piece"
            )
            reason = f"the image did not arrive {limits}; send it again"
        return RequestError(408, reason, headers=CLOSE)
