"""Deliveries of an output, sent in order by one thread, without scoring ever waiting for it.

Each delivery is a row that is stored with its result or part. It is sent until it is accepted, so each arrives at least
once; a receiver that sees one again knows it by its key, which is the same in every try. How it is sent is the
output's part: a web address, a broker, registers.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlalchemy import func, select

from energyad.errors import DataError
from energyad.line.database import Database, DatabaseUnavailable
from energyad.line.tables import DEAD, DELIVERED, PENDING, Delivery, Output, Part, Result, WatcherProcess

MAX_REFUSALS: Final = 10
"""Tries after which a delivery that the receiver calls wrong is set aside: about three minutes."""
GIVE_UP_HOURS: Final = 24.0
"""After its first try a delivery that is not accepted for another reason is set aside."""


@dataclass(frozen=True)
class Failure:
    """Why a delivery was not accepted.

    Attributes:
        reason: For people.
        is_refusal: Whether the receiver called this very delivery wrong.
    """

    reason: str
    is_refusal: bool = False


@dataclass(frozen=True)
class Message:
    """A delivery whose turn it is.

    Attributes:
        id: The delivery's row.
        key: The same in every try.
        number: Its place in the output's order, from 1.
        line: The result or the part as JSON.
    """

    id: int
    key: str
    number: int
    line: str


Send: TypeAlias = Callable[[Message, threading.Event], Failure | None]
"""Sends a message; None where it was accepted. The event is set when the program ends; see `Unanswered`."""


class Unanswered(Exception):
    """The program ends while a receiver has not answered yet: no try is counted, and the message goes out again."""


class Outbox:
    """Sends the deliveries of an output in order.

    Of several processes with the same output one delivers, and the next when that one has ended.

    Args:
        name: Begins each warning.
        database: Holds the deliveries.
        output: The output's row.
        watcher: This process's row.
        send: Sends one.
        warn: Called when deliveries begin to fail, and of each that is set aside.
        longest_pause: Seconds between two tries at most.
        give_up_hours: See `GIVE_UP_HOURS`.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        *,
        output: int,
        watcher: str,
        send: Send,
        warn: Callable[[str], None],
        longest_pause: float = 60.0,
        give_up_hours: float = GIVE_UP_HOURS,
    ) -> None:
        self._name, self._database, self._send, self._warn = name, database, send, warn
        self._output, self._watcher = output, watcher
        self._longest_pause, self._give_up = longest_pause, datetime.timedelta(hours=give_up_hours)
        self._stop, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"energyad-{name}", daemon=True)
        self._is_failing = False

    def start(self) -> None:
        """Begin with what is waiting."""
        self._thread.start()

    def tell(self) -> None:
        """There is a new result."""
        self._news.set()

    def stop(self, *, seconds: float = 5.0) -> None:
        """Deliver what can be within some seconds; the rest goes out after the next start."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._thread.is_alive() and self._has_work():
            self._news.set()
            time.sleep(0.05)
        self._stop.set()
        self._news.set()
        self._thread.join(max(0.0, deadline - time.monotonic()) + 0.1)

    def _has_work(self) -> bool:
        try:
            return self._next() is not None
        except DataError:
            return False

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.is_set():
            try:
                sent = self._send_next()
            except Unanswered:
                continue
            except DatabaseUnavailable:  # whoever scores says so
                sent = False
            except (
                Exception
            ) as error:  # a full disk, a server that is away: the line goes on, and so does this
                self._warn_once(f"{self._name}: waits: {error}")
                sent = False
            if sent is None:
                self._news.wait(1.0)
                self._news.clear()
            elif sent:
                pause = 0.0
            else:
                pause = min(self._longest_pause, 2 * pause or 0.5)
                self._stop.wait(pause)

    def _send_next(self) -> bool | None:
        """Whether the next delivery is done with; None where there is none."""
        message = self._next()
        if message is None:
            return None
        failure = self._send(message, self._stop)
        if failure is None:
            self._note(message, DELIVERED, None)
            self._is_failing = False
            return True
        is_dead = self._note(message, PENDING, failure)
        if is_dead:
            self._warn(
                f"{self._name}: a result was not accepted ({failure.reason}) and is set aside; "
                "see `energyad deliveries`"
            )
        else:
            self._warn_once(
                f"{self._name}: no delivery ({failure.reason}); results wait, and scoring goes on"
            )
        return is_dead

    def _warn_once(self, text: str) -> None:
        """Say that deliveries fail, until one succeeds."""
        if not self._is_failing:
            self._is_failing = True
            self._warn(text)

    def _next(self) -> Message | None:
        """The next delivery, where it is on this process to send it."""
        with self._database.read() as session:
            row = session.execute(
                select(
                    Output.watcher_id,
                    Delivery.id,
                    Delivery.key,
                    Delivery.number,
                    func.coalesce(Result.line, Part.line).label("line"),
                )
                .join(Output, Output.id == Delivery.output_id)
                .outerjoin(Result, Result.id == Delivery.result_id)
                .outerjoin(Part, Part.id == Delivery.part_id)
                .where(Delivery.output_id == self._output, Delivery.state == PENDING)
                .order_by(Delivery.number)
                .limit(1)
            ).first()
        if row is None:
            return None
        is_ours = row.watcher_id == self._watcher or self._takes_over()
        return Message(row.id, row.key, row.number, row.line) if is_ours else None

    def _takes_over(self) -> bool:
        """Whether this process delivers from now on: nobody does, or who did has ended."""
        with self._database.write() as session:
            output = session.get_one(Output, self._output, with_for_update={"key_share": True})
            holder = None if output.watcher_id is None else session.get(WatcherProcess, output.watcher_id)
            if holder is None or holder.ended:
                output.watcher_id = self._watcher
            return output.watcher_id == self._watcher

    def _note(self, message: Message, state: str, failure: Failure | None) -> bool:
        """Store what a try came to; whether the delivery is set aside with it."""
        now = datetime.datetime.now(datetime.UTC)
        # Where the power fails before this is on the disk, it is sent again: at least once.
        with self._database.write(durable=False) as session:
            row = session.get_one(Delivery, message.id)
            row.attempts += 1
            row.first_tried, row.last_tried = row.first_tried or now, now
            row.state, row.last_error = state, None if failure is None else failure.reason
            if failure is not None:
                too_often = failure.is_refusal and row.attempts >= MAX_REFUSALS
                if too_often or now - row.first_tried >= self._give_up:
                    row.state = DEAD
            return row.state == DEAD
