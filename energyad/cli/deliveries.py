"""`energyad deliveries`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import DATABASE_NAME, Debug, Json, Quiet

if TYPE_CHECKING:
    from energyad.line.deliveries import DeliveryState, OutputCounts


def deliveries(
    database: Annotated[
        str, typer.Option("--database", metavar="FILE_OR_URL", help="That of `energyad watch`.")
    ] = DATABASE_NAME,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="List those that wait, not those that were set aside.")
    ] = False,
    retry: Annotated[
        list[int] | None,
        typer.Option("--retry", metavar="ID", help="Let this one wait again; may be given several times."),
    ] = None,
    retry_all: Annotated[
        bool, typer.Option("--retry-all", help="Let all wait again that were set aside.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="List at most so many.")] = 100,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what was delivered to webhooks, what waits, and what was set aside and why.

    \b
      energyad deliveries
      energyad deliveries --retry 17
      energyad deliveries --retry-all --database energyad.db

    A result is set aside after 10 tries that the receiver answered with 400, 413, 415 or 422, and 24 hours after its
    first try where it was not accepted for another reason. A running `energyad watch` delivers at once what waits.
    """
    from energyad.line.database import Database
    from energyad.line.deliveries import count_deliveries, list_deliveries, retry_deliveries
    from energyad.line.tables import DEAD, PENDING

    with Database(database, create=False) as opened:
        if retry or retry_all:
            count = retry_deliveries(opened, None if retry_all else retry)
            console.say(f"{count} wait again; a running `energyad watch` with that webhook delivers them")
        counts = count_deliveries(opened)
        listed = list_deliveries(opened, PENDING if waiting else DEAD, limit=limit)
    if as_json:
        fields = {"outputs": [asdict(row) for row in counts], "deliveries": [asdict(row) for row in listed]}
        console.echo_json(json.dumps(fields, ensure_ascii=False, default=lambda time: time.isoformat()))
    else:
        _print(counts, listed)


def _print(counts: list[OutputCounts], listed: list[DeliveryState]) -> None:
    if not counts:
        console.say("no outputs: `energyad watch --webhook URL` makes one")
        return
    states = ("delivered", "pending", "dead")
    console.print_table(
        ("output", "delivered", "waiting", "set aside"),
        [(output.address, *(str(output.counts[state]) for state in states)) for output in counts],
        right=("delivered", "waiting", "set aside"),
    )
    if listed:
        typer.echo("")
        columns = ("id", "image", "verdict", "tries", "last try", "reason", "output")
        console.print_table(columns, [_row(delivery) for delivery in listed], right=("id", "tries"))


def _row(delivery: DeliveryState) -> tuple[str, ...]:
    return (
        str(delivery.id),
        delivery.image,
        delivery.verdict or "unreadable",
        str(delivery.attempts),
        "" if delivery.last_tried is None else f"{delivery.last_tried:%Y-%m-%d %H:%M:%S} UTC",
        delivery.reason or "",
        delivery.address,
    )
