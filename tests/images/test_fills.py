"""No pixel comes from memory that no byte of the file determined."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from benchmarks.robustness.corpus import seeds
from benchmarks.robustness.decoding import compare_fills
from energyad.images.reading import decode_image

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fills are the GNU C library's")


@pytest.mark.slow
def test_damaged_files_decode_to_the_same_pixels_whatever_fresh_memory_holds() -> None:
    counts = compare_fills(seed=2, first=0, count=600)
    clean = replace(counts, foreign=0, crashed=0, differing=0, slow=0, large=0, examples=[])
    assert counts == clean
    assert counts.decoded > 50 and counts.refused > 50


@pytest.mark.filterwarnings("ignore:an? ")
def test_the_whole_files_that_are_damaged_can_all_be_read() -> None:
    *whole, without_a_frame = seeds()
    for data in whole:
        decode_image(data)
    with pytest.raises(Exception, match="truncated"):
        decode_image(without_a_frame)
