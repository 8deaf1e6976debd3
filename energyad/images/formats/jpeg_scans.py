"""What the scans of a JPEG must hold, by its frame header (ITU-T T.81): units, restart markers, all coefficients."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from energyad.images.formats.raw import require, unsupported

RESTART: Final = re.compile(rb"\xff+[\xd0-\xd7]")
NUM_COEFFICIENTS: Final = 64


@dataclass(frozen=True)
class Frame:
    """A frame header.

    Attributes:
        width: Columns.
        height: Rows.
        sampling: Horizontal and vertical sampling factors by the components' numbers.
        is_progressive: Whether coefficients come in several scans.
    """

    width: int
    height: int
    sampling: Mapping[int, tuple[int, int]]
    is_progressive: bool

    @property
    def channels(self) -> int:
        """Number of components: 1, 3 or 4."""
        return len(self.sampling)

    def num_units(self, components: list[int]) -> int:
        """Coded units (MCU) of a scan: the blocks of one component, or all blocks of a place of several (A.2)."""
        widest, highest = (max(factors[axis] for factors in self.sampling.values()) for axis in (0, 1))
        if len(components) > 1:
            return -(-self.width // (8 * widest)) * -(-self.height // (8 * highest))
        horizontal, vertical = self.sampling[components[0]]
        columns, rows = -(-self.width * horizontal // widest), -(-self.height * vertical // highest)
        return -(-columns // 8) * -(-rows // 8)


def parse_frame(body: bytes, *, is_progressive: bool) -> Frame:
    """Read a frame header.

    Raises:
        ImageError: It is cut off, contradicts itself, or is of a kind that is not supported.
    """
    require(len(body) >= 6)
    precision, height, width, channels = struct.unpack_from(">BHHB", body)
    if precision != 8:
        raise unsupported(f"JPEG with {precision} bits", "save it as 16-bit PNG or TIFF")
    if height == 0:
        raise unsupported("JPEG that states its height after the pixels")
    if channels not in {1, 3, 4}:
        raise unsupported(f"JPEG with {channels} channels")
    require(width > 0 and len(body) >= 6 + 3 * channels)
    entries = [body[6 + 3 * index : 9 + 3 * index] for index in range(channels)]
    sampling = {entry[0]: (entry[1] >> 4, entry[1] & 15) for entry in entries}
    require(len(sampling) == channels)
    require(all(1 <= factor <= 4 for factors in sampling.values() for factor in factors))
    return Frame(width, height, sampling, is_progressive)


class ScanChecker:
    """Checks scans against their frame, and at the end that all of the image was coded.

    A decoder fills what is missing with grey or leaves it blurred, and says nothing.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        # Of each coefficient, its lowest bit that was coded; 8 for none.
        self._lowest = {component: [8] * NUM_COEFFICIENTS for component in frame.sampling}

    def add(self, header: bytes, coded: bytes, *, interval: int) -> None:
        """Check a scan.

        Args:
            header: The body of its header.
            coded: The coded data that follow.
            interval: Units between restart markers, 0 for none.

        Raises:
            ImageError: It names other components, or a restart marker is missing or out of order.
        """
        require(len(header) >= 1 and 1 <= header[0] <= 4 and len(header) >= 4 + 2 * header[0])
        components = [header[1 + 2 * index] for index in range(header[0])]
        require(all(component in self.frame.sampling for component in components))
        _require_restarts(coded, self.frame.num_units(components), interval)
        first, last, bits = header[1 + 2 * header[0] : 4 + 2 * header[0]]
        if not self.frame.is_progressive:
            first, last, bits = 0, NUM_COEFFICIENTS - 1, 0
        require(first <= last < NUM_COEFFICIENTS)
        for component in components:
            self._lowest[component][first : last + 1] = [bits & 15] * (last + 1 - first)

    def require_complete(self) -> None:
        """Require every bit of every coefficient.

        Raises:
            ImageError: Something was not coded, as in a progressive file whose last scans are missing.
        """
        require(all(not any(lowest) for lowest in self._lowest.values()))


def _require_restarts(coded: bytes, num_units: int, interval: int) -> None:
    """Require the restart markers of a scan, in their order; one more at the end, as some encoders write it, may be."""
    numbers = [marker[0][-1] - 0xD0 for marker in RESTART.finditer(coded)]
    num_wanted = -(-num_units // interval) - 1 if interval > 0 else 0
    require(num_wanted <= len(numbers) <= num_wanted + 1)
    require(all(number == index % 8 for index, number in enumerate(numbers[:num_wanted])))
