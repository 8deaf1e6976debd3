"""Chains of hashes: each entry holds the hash of the one before, so that a changed or removed one is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST: Final = "0" * 64
"""What the first entry has for the hash of the one before."""


@dataclass(frozen=True)
class ChainCheck:
    """What a check of a chain found.

    Attributes:
        entries: Entries that fit, from the first one on.
        head: Hash of the last of these.
        fault: The first thing that does not fit, in one line; None where all is as it was stored.
        known_heads: Of the hashes that were looked for, those that are in the chain.
    """

    entries: int
    head: str
    fault: str | None
    known_heads: frozenset[str]
