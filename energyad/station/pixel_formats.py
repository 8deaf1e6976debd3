"""Pixel formats of industrial cameras, as GenICam's PFNC and GigE Vision define them, to arrays.

Values stay as they are: 12 bits come as 0 to 4095 in 16, which a model fitted with `--white-level 4095` reads rightly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt, UInt8

from energyad.errors import DataError

Bytes: TypeAlias = UInt8[np.ndarray, " n"]
Packing: TypeAlias = Literal["8", "16", "10Packed", "12Packed", "10p", "12p"]
"""How samples lie in bytes. Packed: GigE Vision's, two samples in three bytes, their low bits in the middle one; p:
PFNC's, a stream of bits, lowest first."""
BITS: Final[dict[Packing, int]] = {"8": 8, "16": 16, "10Packed": 12, "12Packed": 12, "10p": 10, "12p": 12}


@dataclass(frozen=True)
class PixelFormat:
    """One format.

    Attributes:
        name: PFNC's.
        packing: How its samples lie in bytes.
        pattern: Of a Bayer mosaic, the colours of the first two rows: "RGGB"; RGB or BGR of colour; None of grey.
    """

    name: str
    packing: Packing
    pattern: str | None = None


def _formats() -> dict[int, PixelFormat]:
    """Formats by their numbers in PFNC."""
    mono: dict[int, tuple[str, Packing]] = {
        0x01080001: ("Mono8", "8"),
        0x01100003: ("Mono10", "16"),
        0x010C0004: ("Mono10Packed", "10Packed"),
        0x010A0046: ("Mono10p", "10p"),
        0x01100005: ("Mono12", "16"),
        0x010C0006: ("Mono12Packed", "12Packed"),
        0x010C0047: ("Mono12p", "12p"),
        0x01100025: ("Mono14", "16"),
        0x01100007: ("Mono16", "16"),
    }
    patterns = {"GR": "GRBG", "RG": "RGGB", "GB": "GBRG", "BG": "BGGR"}
    bayer: list[tuple[int, str, Packing]] = [
        (0x01080008, "8", "8"),
        (0x0110000C, "10", "16"),
        (0x01100010, "12", "16"),
        (0x0110002E, "16", "16"),
        (0x010C0026, "10Packed", "10Packed"),
        (0x010C002A, "12Packed", "12Packed"),
    ]
    found = {number: PixelFormat(name, packing) for number, (name, packing) in mono.items()}
    for first, bits, packing in bayer:
        for offset, (colours, pattern) in enumerate(patterns.items()):
            found[first + offset] = PixelFormat(f"Bayer{colours}{bits}", packing, pattern)
    for offset, colours in enumerate(("BG", "GB", "GR", "RG")):  # 0x52 to 0x59, another order
        pattern = patterns[colours]
        found[0x010A0052 + 2 * offset] = PixelFormat(f"Bayer{colours}10p", "10p", pattern)
        found[0x010C0053 + 2 * offset] = PixelFormat(f"Bayer{colours}12p", "12p", pattern)
    found[0x02180014] = PixelFormat("RGB8", "8", "RGB")
    found[0x02180015] = PixelFormat("BGR8", "8", "BGR")
    return found


FORMATS: Final = _formats()
_DEMOSAIC: Final = {
    "RGGB": cv2.COLOR_BayerRGGB2BGR,
    "GRBG": cv2.COLOR_BayerGRBG2BGR,
    "GBRG": cv2.COLOR_BayerGBRG2BGR,
    "BGGR": cv2.COLOR_BayerBGGR2BGR,
}


def to_pixels(data: Bytes, number: int, *, width: int, height: int) -> UInt[np.ndarray, "h w c"]:
    """Turn a camera's bytes into pixels, blue first where they have colours.

    Args:
        data: As the camera sent them, without padding.
        number: The format's number in PFNC.
        width: Pixels.
        height: Pixels.

    Raises:
        DataError: The format is not known, or the bytes are too few.
    """
    form = FORMATS.get(number)
    if form is None:
        known = ", ".join(sorted(form.name for form in FORMATS.values()))
        raise DataError(f"pixel format 0x{number:08X} is not known; set the camera to one of {known}")
    channels = 3 if form.pattern in ("RGB", "BGR") else 1
    count = width * height * channels
    needed = -(-count * BITS[form.packing] // 8)
    if len(data) < needed:
        raise DataError(
            f"a frame of {width} x {height} pixels in {form.name} has {needed} bytes; {len(data)} came"
        )
    pixels = _UNPACK[form.packing](data[:needed], count).reshape(height, width, channels)
    if form.pattern is None or form.pattern == "BGR":
        return pixels
    if form.pattern == "RGB":
        return np.ascontiguousarray(pixels[:, :, ::-1])
    return cv2.cvtColor(pixels[:, :, 0], _DEMOSAIC[form.pattern])


def _packed(data: Bytes, count: int, bits: int) -> UInt[np.ndarray, " count"]:
    """Two samples in three bytes: the high bits of one, the low bits of both, the high bits of the other."""
    padded = np.concatenate([data, np.zeros(-len(data) % 3, np.uint8)]).reshape(-1, 3).astype(np.uint16)
    low, mask = bits - 8, (1 << bits - 8) - 1
    first = padded[:, 0] << low | padded[:, 1] & mask
    second = padded[:, 2] << low | padded[:, 1] >> 4 & mask
    return np.stack([first, second], axis=1).reshape(-1)[:count]


def _bit_stream(data: Bytes, count: int, bits: int) -> UInt[np.ndarray, " count"]:
    """Samples one after the other, lowest bits first."""
    stream = np.unpackbits(data, bitorder="little")[: count * bits].reshape(count, bits)
    weights = (1 << np.arange(bits)).astype(np.uint32)
    return (stream @ weights).astype(np.uint16)


_UNPACK: Final[dict[Packing, Callable[[Bytes, int], UInt[np.ndarray, " count"]]]] = {
    "8": lambda data, count: data,
    "16": lambda data, count: data.view("<u2"),
    "10Packed": lambda data, count: _packed(data, count, 10),
    "12Packed": lambda data, count: _packed(data, count, 12),
    "10p": lambda data, count: _bit_stream(data, count, 10),
    "12p": lambda data, count: _bit_stream(data, count, 12),
}
