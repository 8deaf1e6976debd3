"""The height and width of a network's input."""

from __future__ import annotations

from energyad.errors import SettingsError


def parse_image_size(text: str) -> int | tuple[int, int]:
    """Return a side, or height and width.

    Args:
        text: "256", or "192x320" for 192 pixels high and 320 wide.

    Raises:
        SettingsError: for any other text.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) not in {1, 2} or not all(part.isascii() and part.isdigit() for part in parts):
        raise SettingsError(f"image size '{text}': give a side, or HEIGHTxWIDTH such as 192x320")
    sides = tuple(int(part) for part in parts)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
