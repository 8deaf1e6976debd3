"""Engines that a forked process inherits: without their threads, so that even to free one would wait for ever."""

from __future__ import annotations

import os
import weakref

_opened: weakref.WeakSet[object] = weakref.WeakSet()
_inherited: list[object] = []


def keep_in_forks(engine: object) -> None:
    """Keep an engine from being freed in processes forked from this one; they open their own."""
    _opened.add(engine)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _inherited.extend(_opened))
