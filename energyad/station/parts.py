"""Parts in the line's database: images that belong together become one part, and each part gets one verdict, in order.

A view's result joins its part in the transaction that stores the result, and so does the verdict of a part that it
completes, with its deliveries: whatever ends the program, they are all there or none. Parts are decided in the order
in which their first images were stored, so a part that waits for a view holds up those behind it until its deadline.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from sqlalchemy import Select, event, select
from sqlalchemy.orm import Session

from energyad.line import audit
from energyad.line.database import Database
from energyad.line.journal import JournalLine
from energyad.line.store import add_delivery, locked, locked_outputs, output_of
from energyad.line.tables import Part, PartView, Result, Stream
from energyad.scoring.results import ImageResult
from energyad.station.combining import combine_p_values
from energyad.station.config import LatencyConfig
from energyad.station.frames import Fault
from energyad.station.results import PartResult, PartVerdict, ViewResult, worst
from energyad.station.triggers import Clock, Trigger

_DECIDED: Final = "energyad.station.decided"


@dataclass(frozen=True)
class _Image:
    """One view of a part, as it is stored."""

    view: str
    line: JournalLine
    fault: Fault | None


class PartBook:
    """The parts of one station.

    Args:
        database: The line's.
        stream_id: The station's results.
        station: Its name.
        views: Names of a part's views, in the file's order.
        latency: The budget.
        clock: Tells the time.
        opens_first: Whether parts are opened by `open`, before their images come.
        on_part: Called with each part that was decided, when that is on the disk.
        warn: Called of images that come too late.
    """

    def __init__(
        self,
        database: Database,
        stream_id: int,
        *,
        station: str,
        views: Sequence[str],
        latency: LatencyConfig,
        clock: Clock,
        opens_first: bool = False,
        on_part: Callable[[PartResult], None] = lambda part: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._database, self._stream_id, self._station = database, stream_id, station
        self._views, self._latency, self._clock = tuple(views), latency, clock
        self._on_part, self._warn = on_part, warn
        self._joins = opens_first or len(self._views) > 1
        self._outputs: list[int] = []
        self._opened: dict[int, float] = {}
        self._lock = threading.Lock()
        with database.read() as session:
            waiting = session.scalars(self._open_parts()).all()
        self._opened = {part.id: clock.monotonic() for part in waiting}

    def add_output(self, kind: str, address: str) -> int:
        """Have each part from now on delivered there, too; returns the output's row."""
        with self._database.write() as session:
            locked(session, Stream, self._stream_id)
            output = output_of(session, self._stream_id, kind, address)
        self._outputs.append(output)
        return output

    def add(
        self,
        session: Session,
        result: Result,
        *,
        view: str,
        name: str,
        trigger: Trigger | None,
        fault: Fault | None = None,
    ) -> None:
        """Join an image to its part, and decide the parts that are complete, in the transaction that stores the image.

        Args:
            session: Of that transaction; the stream is locked.
            result: The image's row.
            view: Which view it is.
            name: Of its part.
            trigger: When it came; None where nobody saw it come.
            fault: Why its frame cannot be judged.
        """
        part = self._part_for(session, view, name, trigger)
        too_late = part.number is not None
        session.add(PartView(part_id=part.id, view=view, result_id=result.id, too_late=too_late, fault=fault))
        session.flush()
        if too_late:
            self._after_commit(session).late.append(
                f"part {name}: view {view} came after the deadline; it does not count"
            )
        else:
            self._after_commit(session).opened[part.id] = part.name
        self._decide(session, expired=())

    def open(self, name: str, trigger: Trigger) -> None:
        """A part was triggered; its images are to come. From now on it gets a verdict, whatever happens.

        An image that was faster than this has opened the part already.

        Args:
            name: Of the part; no other has it.
            trigger: When that was.

        Raises:
            DatabaseUnavailable: It could not be stored.
        """
        with self._database.write() as session:
            locked(session, Stream, self._stream_id)
            named = (Part.stream_id == self._stream_id, Part.name == name)
            if session.scalar(select(Part.id).where(*named).limit(1)) is not None:
                return
            part = self._new(session, name, trigger)
            self._after_commit(session).opened[part.id] = name

    def waiting(self) -> list[tuple[int, float]]:
        """Parts that wait for views, oldest first, with the monotonic time of their first image."""
        with self._lock:
            return sorted(self._opened.items())

    def expire(self, seen: Mapping[str, float], deadline: float) -> None:
        """Decide parts whose missing views did not come in time.

        A part waits until a look into the folder of every view began after its deadline and has ended: an image that
        came in time and is still to be scored is not missing.

        Args:
            seen: When the last complete look of each view began, by the monotonic clock.
            deadline: Seconds from a part's first image.
        """
        looked = min(seen.values())
        expired = [part for part, opened in self.waiting() if looked > opened + deadline]
        if not expired:
            return
        with self._database.write() as session:
            locked(session, Stream, self._stream_id)
            self._decide(session, expired=expired)

    # In a transaction

    def _open_parts(self) -> Select[Part]:
        return select(Part).where(Part.stream_id == self._stream_id, Part.number.is_(None)).order_by(Part.id)

    def _part_for(self, session: Session, view: str, name: str, trigger: Trigger | None) -> Part:
        """The part that an image belongs to: the latest of its name that still lacks this view, else a new one."""
        if self._joins:
            newest = (
                select(Part, PartView.id)
                .outerjoin(PartView, (PartView.part_id == Part.id) & (PartView.view == view))
                .where(Part.stream_id == self._stream_id, Part.name == name)
                .order_by(Part.id.desc())
                .limit(1)
            )
            row = session.execute(newest).first()
            if row is not None and row[1] is None:
                return row[0]
        return self._new(session, name, trigger)

    def _new(self, session: Session, name: str, trigger: Trigger | None) -> Part:
        part = Part(
            stream_id=self._stream_id,
            name=name,
            triggered_at=None if trigger is None else trigger.time,
        )
        session.add(part)
        session.flush()
        self._clock.remember(part.id, trigger)
        return part

    def _decide(self, session: Session, *, expired: Collection[int]) -> None:
        """Decide the oldest open parts, up to the first that is still to wait."""
        for part in session.scalars(self._open_parts()).all():
            images = self._images(session, part)
            lacking = [view for view in self._views if view not in images]
            if lacking and part.id not in expired:
                return
            self._close(session, part, images, lacking)

    def _images(self, session: Session, part: Part) -> dict[str, _Image]:
        rows = session.execute(
            select(PartView.view, Result.line, PartView.fault)
            .join(Result, Result.id == PartView.result_id)
            .where(PartView.part_id == part.id)
            .order_by(PartView.id)
        )
        return {
            view: _Image(view, JournalLine.model_validate_json(line), cast(Fault | None, fault))
            for view, line, fault in rows
        }

    def _close(
        self, session: Session, part: Part, images: Mapping[str, _Image], lacking: Sequence[str]
    ) -> None:
        """Give a part its number, its verdict and its deliveries."""
        stream = session.get_one(Stream, self._stream_id)  # which is locked
        stream.last_part_number += 1
        latency = self._clock.since(part.id, part.triggered_at)
        decided = self._clock.now()
        ordered = [images[view] for view in self._views if view in images]
        verdict, reasons = verdict_of([(image.line, image.fault) for image in ordered], lacking)
        is_late = self._latency.is_missed(latency)
        if is_late:
            verdict = worst([verdict, self._latency.missed])
            reasons.append(f"the verdict took {latency:.3f} s; the budget is {self._latency.budget:g} s")
        p_values = [image.line.p_value for image in ordered if image.line.p_value is not None]
        is_whole = len(p_values) == len(self._views)
        result = PartResult(
            station=self._station,
            part=part.name,
            number=stream.last_part_number,
            verdict=verdict,
            p_value=combine_p_values(p_values) if is_whole else None,
            reason="; ".join(reasons) or None,
            missing=list(lacking),
            triggered=None if part.triggered_at is None else _iso(part.triggered_at),
            decided=_iso(decided),
            latency=None if latency is None else round(latency, 6),
            views=[
                ViewResult(view=image.view, fault=image.fault, result=_image_result(image.line))
                for image in ordered
            ],
        )
        part.number, part.verdict, part.p_value = result.number, result.verdict, result.p_value
        part.decided_at, part.latency, part.late = decided, result.latency, is_late
        part.reason, part.line = result.reason, result.json_line()
        session.flush()
        for output in locked_outputs(session, self._outputs):
            add_delivery(session, output, part_id=part.id)
        audit.record(session, "part", [(part.id, audit.part_digest(part))])
        self._after_commit(session).decided.append((part.id, result))

    # After a transaction

    def _after_commit(self, session: Session) -> _Changes:
        """What is told when, and only when, the transaction is on the disk."""
        changes = session.info.get(_DECIDED)
        if changes is None:
            changes = session.info[_DECIDED] = _Changes({}, [], [])
            event.listen(session, "after_commit", lambda _: self._tell(changes), once=True)
        return changes

    def _tell(self, changes: _Changes) -> None:
        with self._lock:
            for part in changes.opened:
                self._opened.setdefault(part, self._clock.monotonic())
            for part, _ in changes.decided:
                self._opened.pop(part, None)
                self._clock.forget(part)
        for text in changes.late:
            self._warn(text)
        for _, result in changes.decided:
            self._on_part(result)


@dataclass(frozen=True)
class _Changes:
    """What a transaction changed."""

    opened: dict[int, str]
    decided: list[tuple[int, PartResult]]
    late: list[str]


def verdict_of(
    images: Sequence[tuple[ImageResult, Fault | None]], missing: Sequence[str]
) -> tuple[PartVerdict, list[str]]:
    """Return the verdict of a part, and why it is not that of its images alone.

    Args:
        images: The result of each view, and why its frame cannot be judged: that counts instead.
        missing: Names of the views that did not come.
    """
    verdicts: list[PartVerdict] = []
    reasons = []
    for image, fault in images:
        name = image.image or "an image"
        if image.verdict is None:
            verdicts.append("review")
            reasons.append(f"{name}: {image.error}")
        elif fault is not None:
            verdicts.append(fault)
            reasons.append(f"{name}: {fault}")
        else:
            verdicts.append(image.verdict)
    if missing:
        verdicts.append("review")
        reasons += [f"view {view} is missing" for view in missing]
    return worst(verdicts), reasons


def _image_result(line: JournalLine) -> ImageResult:
    return ImageResult(**{name: getattr(line, name) for name in ImageResult.model_fields})


def _iso(time: datetime.datetime) -> str:
    return time.astimezone(datetime.UTC).isoformat(timespec="milliseconds")
