"""Reading and working on many images in threads: in order, in bounded memory, and ended when nobody listens."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import UInt8

from energyad.errors import ImageError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Done(Generic[Item, Result]):
    """One item, its pixels and what was made of them; or why it could not be read."""

    item: Item
    pixels: UInt8[np.ndarray, "h w 3"] | None
    result: Result | None
    error: ImageError | None

    def require(self) -> Result:
        """The result. Raises ImageError where there is none."""
        if self.result is None:
            raise self.error or ImageError(str(self.item), "cannot be read")
        return self.result


def prefetch_map(
    items: Iterable[Item],
    read: Callable[[Item], UInt8[np.ndarray, "h w 3"]],
    work: Callable[[Sequence[UInt8[np.ndarray, "h w 3"]]], Sequence[Result]],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Done[Item, Result]]:
    """Read each item and work on batches of what could be read; results come in the items' order.

    Threads each read a batch and work on it, so that reading, working and what the caller does with the results
    overlap. `read` raises ImageError for an item that cannot be read; any other error ends the iteration.
    """

    def both(batch: Sequence[Item]) -> list[Done[Item, Result]]:
        readings = [_read(read, item) for item in batch]
        pixels = [pixels for pixels, _ in readings if pixels is not None]
        results = iter(work(pixels) if pixels else ())
        return [
            Done(item, pixels, None if pixels is None else next(results), error)
            for item, (pixels, error) in zip(batch, readings, strict=True)
        ]

    for done in ordered_map(both, batches(items, batch_size), workers=workers):
        yield from done


def readable(done: Iterable[Done[Item, Result]], *, skip_bad: bool) -> Iterator[Done[Item, Result]]:
    """Those that could be read. Raises ImageError at the first other one, or leaves it out with a warning."""
    for image in done:
        if image.error is None:
            yield image
        else:
            skip_or_raise(image.error, skip_bad=skip_bad)


def skip_or_raise(error: ImageError, *, skip_bad: bool) -> None:
    """Warn of an image that is left out, or raise ImageError with what to do about it."""
    if not skip_bad:
        raise ImageError(error.path, f"{error.reason}; remove it or give --skip-bad") from error
    warnings.warn(f"left out: {error}", stacklevel=2)


def ordered_map(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """The result for each item, in order, from `workers` threads.

    At most `workers + 1` items are taken ahead, so items may be without end and memory stays flat. An error of `work`
    or of `items` is raised in its place, after the results before it; then, or when the iterator is closed, nothing
    more is begun and the threads end.
    """
    source, failure = iter(items), None
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="energyad")
    try:
        ended = False
        while pending or not ended:
            while not ended and len(pending) <= workers:
                try:
                    pending.append(pool.submit(work, next(source)))
                except StopIteration:
                    ended = True
                except Exception as error:  # what came before it is still to be delivered
                    ended, failure = True, error
            if pending:
                yield pending.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batches(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Consecutive items, `size` at a time; the last batch may be smaller."""
    source = iter(items)
    while batch := tuple(islice(source, size)):
        yield batch


def _read(
    read: Callable[[Item], UInt8[np.ndarray, "h w 3"]], item: Item
) -> tuple[UInt8[np.ndarray, "h w 3"] | None, ImageError | None]:
    try:
        return read(item), None
    except ImageError as error:
        return None, error
