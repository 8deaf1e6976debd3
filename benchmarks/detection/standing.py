"""Which rows stand: those of methods as they are today.

A changed default makes another configuration, and what was measured before it says nothing of it. So a table shows a
variant of energyad, or a rule on its features, with today's settings alone; peers have none of ours.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

from benchmarks.detection import rows
from benchmarks.detection.ours import CHANGES, energyad_method
from benchmarks.detection.rows import Row
from benchmarks.detection.same_features import is_rule, rule_named

PEERS = ("padim", "patchcore-", "mh-patchcore")


def read(path: Path) -> list[Row]:
    """The rows that stand, of a cell measured twice the newer one. Raises DataError."""
    return standing(rows.read(path))


def standing(measured: Iterable[Row]) -> list[Row]:
    """Those of these rows that stand."""
    return [row for row in rows.current(measured) if row.method.startswith(PEERS) or _is_of_today(row)]


def _is_of_today(row: Row) -> bool:
    return row.settings_hash == _hash_today(row.method, row.image_size)


@functools.cache
def _hash_today(name: str, image_size: int) -> str | None:
    """None for a method that is gone."""
    if name in CHANGES:
        return rows.settings_hash(energyad_method(name, image_size=image_size).settings)
    return rows.settings_hash(rule_named(name, image_size=image_size).settings) if is_rule(name) else None
