"""One thread that scores, a few that decode, and a bounded number of requests in the queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from energyad.service.errors import RequestError

DECODERS: Final = 4
"""Images decoded at a time; decoded ones wait in these places until they are scored, which bounds their memory."""

_P = ParamSpec("_P")
_D = TypeVar("_D")
_T = TypeVar("_T")


class Worker:
    """Runs one call at a time, in the order of the requests.

    A request takes a place when its body has arrived, so a slow client holds none. Memory is bounded by `places`
    bodies, and by `PendingBodies` before that. More threads would not score faster: the runtime uses all cores for
    one image.

    Args:
        places: Requests taken at a time.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0  # of the event loop's thread alone
        self._usual_seconds = 0.1
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="energyad-score")
        self._decoding = ThreadPoolExecutor(DECODERS, thread_name_prefix="energyad-decode")
        self._decoders = asyncio.Semaphore(DECODERS)

    def enter(self) -> None:
        """Take a place.

        Raises:
            RequestError: 429 where there is none, with the seconds after which one may be free.
        """
        if self.taken >= self.places:
            raise RequestError(
                429,
                f"{self.places} requests are waiting already; send this one again a little later",
                headers={"Retry-After": str(max(1, math.ceil(self.taken * self._usual_seconds)))},
            )
        self.taken += 1

    def leave(self) -> None:
        """Give the place back."""
        self.taken -= 1

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call `work` in the thread when its turn has come, and return its result."""

        def timed() -> _T:
            started = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self._usual_seconds += 0.1 * (time.perf_counter() - started - self._usual_seconds)

        return await asyncio.get_running_loop().run_in_executor(self._pool, timed)

    async def decode_and_run(self, decode: Callable[[], _D], work: Callable[[_D], _T]) -> _T:
        """Call `decode` in a thread of its own, and then `work` with its result in the one that scores.

        An image that is slow to decode holds one of `DECODERS` places, and nobody's scoring.
        """
        async with self._decoders:
            decoded = await asyncio.get_running_loop().run_in_executor(self._decoding, decode)
            return await self.run(work, decoded)

    def close(self) -> None:
        """Finish the call that runs, drop those that nobody waits for any more, and end the thread."""
        self._decoding.shutdown(wait=True, cancel_futures=True)
        self._pool.shutdown(wait=True, cancel_futures=True)
