"""Folders of labelled images, and a database of either kind."""

from __future__ import annotations

from ..line.conftest import place, postgres

__all__ = ["place", "postgres"]
