"""Storage that dies after some writes, as a process that is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from energyad.integrations.storage import StorageFolder


@contextmanager
def dying_after(writes: int, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `writes` files be written in the `with` block, and raise the error at the next one."""
    left, write = writes, StorageFolder.write

    def write_or_die(folder: StorageFolder, name: str, content: bytes) -> None:
        nonlocal left
        if left == 0:
            raise error
        left -= 1
        write(folder, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(StorageFolder, "write", write_or_die)
        yield
