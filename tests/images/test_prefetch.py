from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from energyad.errors import ImageError
from energyad.images.prefetch import batches, ordered_map, prefetch_map


@pytest.fixture
def new_threads() -> Callable[[], int]:
    """How many threads there are that were not there when the test began."""
    before = set(threading.enumerate())
    return lambda: len(set(threading.enumerate()) - before)


def test_results_come_in_order_however_long_each_takes() -> None:
    def slow_first(index: int) -> int:
        time.sleep(0.02 if index % 4 == 0 else 0)
        return index

    assert list(ordered_map(slow_first, range(20), workers=4)) == list(range(20))


def test_work_really_overlaps() -> None:
    together = threading.Barrier(3, timeout=5)  # passed only by three calls at once
    assert len(list(ordered_map(lambda _: together.wait(), range(6), workers=3))) == 6


@pytest.mark.parametrize("workers", [1, 3])
def test_little_is_taken_ahead_of_what_was_asked_for(workers: int) -> None:
    taken = itertools.count()
    results = ordered_map(lambda _: None, iter(lambda: next(taken), -1), workers=workers)
    for _ in range(50):
        next(results)
    assert next(taken) <= 50 + workers + 1
    results.close()  # type: ignore[attr-defined]


def test_closing_early_ends_all_threads(new_threads: Callable[[], int]) -> None:
    results = ordered_map(lambda x: x, itertools.count(), workers=3)
    assert next(results) == 0 and new_threads() > 0
    results.close()  # type: ignore[attr-defined]
    assert new_threads() == 0


def test_an_error_is_raised_in_its_place_and_ends_all_threads(new_threads: Callable[[], int]) -> None:
    def fail_at_five(index: int) -> int:
        if index == 5:
            raise ZeroDivisionError
        return index

    found = []
    with pytest.raises(ZeroDivisionError):
        for result in ordered_map(fail_at_five, itertools.count(), workers=3):
            found.append(result)
    assert found == [0, 1, 2, 3, 4]
    assert new_threads() == 0


def test_what_came_before_an_error_of_the_source_is_still_delivered() -> None:
    def source() -> Iterator[int]:
        yield from range(7)
        raise OSError("camera gone")

    found = []
    with pytest.raises(OSError, match="camera gone"):
        for result in ordered_map(lambda x: x, source(), workers=3):
            found.append(result)
    assert found == list(range(7))


def test_no_items_give_no_results() -> None:
    assert list(ordered_map(lambda x: x, [], workers=2)) == []
    assert list(batches([], 3)) == []


def test_batches_hold_all_items_once() -> None:
    assert list(batches(iter(range(7)), 3)) == [(0, 1, 2), (3, 4, 5), (6,)]


def test_an_item_that_cannot_be_read_costs_itself_alone() -> None:
    def read(index: int) -> np.ndarray:
        if index % 5 == 3:
            raise ImageError(str(index), "torn")
        return np.full((1, 1, 3), index, np.uint8)

    def work(pixels: Sequence[np.ndarray]) -> list[int]:
        return [int(each[0, 0, 0]) for each in pixels]

    done = list(prefetch_map(range(20), read, work, batch_size=4, workers=3))
    assert [each.item for each in done] == list(range(20))
    for each in done:
        if each.item % 5 == 3:
            assert each.error is not None and each.pixels is None
            with pytest.raises(ImageError, match="torn"):
                each.require()
        else:
            assert each.require() == each.item
