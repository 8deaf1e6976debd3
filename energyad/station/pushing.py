"""Images that other programs hand to a running station."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from energyad.errors import DataError


class UnknownView(DataError):
    """There is no such view."""


class PartExists(DataError):
    """An image of the part waits in the view's folder already."""


def put_image(path: Path, data: bytes) -> None:
    """Write an image into a view's folder, whole or not at all; never over another one.

    Args:
        path: Of the image.
        data: Of the file.

    Raises:
        PartExists: There is a file of that name.
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:60]}-{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        raise PartExists(f"{path.stem}: an image of this part waits already; give another name") from None
    finally:
        temporary.unlink(missing_ok=True)
