"""Locks of a line's database, each held until its transaction ends. In SQLite a writer is alone anyway."""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session


class Lock(IntEnum):
    """What one transaction does at a time, in the order in which a transaction may take them."""

    CREATION = 7_216_945_122
    """Rows that must be there once."""
    AUDIT = 7_216_945_123
    """The end of the audit."""


def one_at_a_time(connection: Connection | Session, lock: Lock = Lock.CREATION) -> None:
    """Let no other transaction do this until this one ends."""
    bind = connection.get_bind() if isinstance(connection, Session) else connection
    if bind.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({int(lock)})"))
