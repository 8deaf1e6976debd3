"""Deliveries of the line's results, for people: how many wait, which were set aside and why, and another try."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select, update

from energyad.errors import DataError
from energyad.line.database import Database
from energyad.line.tables import DEAD, DELIVERED, PENDING, Arrival, Delivery, Output, Part, Result

STATES: Final = (PENDING, DELIVERED, DEAD)


@dataclass(frozen=True)
class OutputCounts:
    """An output, and how many of its deliveries are in each state."""

    kind: str
    address: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class DeliveryState:
    """One delivery. image: below the watched folder, or the part's name; attempts: tries so far; reason: why the last
    one failed.
    """

    id: int
    address: str
    image: str
    verdict: str | None
    state: str
    attempts: int
    first_tried: datetime.datetime | None
    last_tried: datetime.datetime | None
    reason: str | None
    key: str


def count_deliveries(database: Database) -> list[OutputCounts]:
    """Count the deliveries of each output."""
    query = select(Delivery.output_id, Delivery.state, func.count()).group_by(
        Delivery.output_id, Delivery.state
    )
    with database.read() as session:
        outputs = session.scalars(select(Output).order_by(Output.id)).all()
        counts = {(row[0], row[1]): row[2] for row in session.execute(query)}
    return [
        OutputCounts(
            output.kind, output.address, {state: counts.get((output.id, state), 0) for state in STATES}
        )
        for output in outputs
    ]


def list_deliveries(database: Database, state: str, *, limit: int = 100) -> list[DeliveryState]:
    """The first deliveries of a state, in their order."""
    query = (
        select(
            Delivery,
            Output.address,
            func.coalesce(Arrival.path, Part.name),
            func.coalesce(Result.verdict, Part.verdict),
        )
        .join(Output, Output.id == Delivery.output_id)
        .outerjoin(Result, Result.id == Delivery.result_id)
        .outerjoin(Arrival, Arrival.id == Result.arrival_id)
        .outerjoin(Part, Part.id == Delivery.part_id)
        .where(Delivery.state == state)
        .order_by(Delivery.output_id, Delivery.number)
        .limit(limit)
    )
    with database.read() as session:
        return [
            DeliveryState(
                id=row.id,
                address=address,
                image=path,
                verdict=verdict,
                state=row.state,
                attempts=row.attempts,
                first_tried=row.first_tried,
                last_tried=row.last_tried,
                reason=row.last_error,
                key=row.key,
            )
            for row, address, path, verdict in session.execute(query)
        ]


def retry_deliveries(database: Database, identifiers: Collection[int] | None = None) -> int:
    """Let deliveries that were set aside wait again, at their old places; returns how many.

    Args:
        database: The line's.
        identifiers: Which; None for all of them.

    Raises:
        DataError: One of them is not set aside.
    """
    chosen = Delivery.state == DEAD
    with database.write() as session:
        if identifiers is not None:
            chosen &= Delivery.id.in_(identifiers)
            dead = set(session.scalars(select(Delivery.id).where(chosen)))
            missing = sorted(set(identifiers) - dead)
            if missing:
                raise DataError(
                    f"{database.name}: delivery {missing[0]} is not set aside; list those with `energyad deliveries`"
                )
        values = {"state": PENDING, "attempts": 0, "first_tried": None}
        done = session.execute(update(Delivery).where(chosen).values(values))
        return int(getattr(done, "rowcount", 0))
