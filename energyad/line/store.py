"""What a watcher keeps of its line in the database: which files came, who works on them, and what the results are.

Each method is one transaction. A result, the state of its arrival, its deliveries and its entry in the audit are stored
together.
"""

from __future__ import annotations

import datetime
import hashlib
import socket
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from energyad.errors import DataError
from energyad.line import audit
from energyad.line.database import Database
from energyad.line.drift import WINDOW, DriftMonitor
from energyad.line.incoming import FileState
from energyad.line.journal import JournalLine
from energyad.line.latest import latest_parts_of
from energyad.line.locks import one_at_a_time
from energyad.line.tables import (
    CLAIMED,
    FILED,
    KEPT,
    PENDING,
    SCORED,
    Arrival,
    Delivery,
    Output,
    Result,
    ShadowResult,
    Source,
    Stream,
    WatcherProcess,
)
from energyad.line.watchers import Registration
from energyad.model.folder import graph_file
from energyad.model.manifest import Manifest
from energyad.model.statistics import PartStatistics
from energyad.scoring.results import ImageResult

QUARANTINE: Final = "quarantine"
UNREADABLE: Final = "unreadable"
Row = TypeVar("Row")
_PREFIX: Final = 12
"""Characters of a private name that say whose it is."""
_CHUNK: Final = 400
"""Values in one query; SQLite takes 32,766, older ones 999."""


@dataclass(frozen=True)
class Claim:
    """A file that this watcher works on.

    Attributes:
        arrival: Its row.
        path: Below the folder, as it came.
        token: What its private name holds; None for a file that stays under its own name.
        attempts: How often scoring it was begun before.
        place: The verdict's folder it is to be filed in; None where it is still to be scored.
    """

    arrival: int
    path: str
    token: str | None
    attempts: int = 0
    destination: str | None = None


@dataclass(frozen=True)
class Scored:
    """A result to be stored. filed_as: where its file will lie; None where it stays. shadow: what a candidate says."""

    claim: Claim
    state: FileState
    line: JournalLine
    quarantined: bool = False
    filed_as: str | None = None
    shadow: ImageResult | None = None

    @property
    def destination(self) -> str:
        """The folder for its kind."""
        return place_of(self.line.verdict, quarantined=self.quarantined)


OnResult: TypeAlias = Callable[[Session, Result, Scored], None]


def place_of(verdict: str | None, *, quarantined: bool) -> str:
    """The folder that images of a verdict are moved to."""
    return QUARANTINE if quarantined else verdict or UNREADABLE


class LineStore:
    """The rows of one results file and one watched folder, for one watcher.

    Args:
        database: The line's.
        out: The results file; another one is another memory in the same database.
        folder: The watched folder.
        station: Tells the machines apart that share a server; the host's name there by default.
        on_result: Called with each new result in the transaction that stores it, which may be repeated: for what is
            stored with it or not at all.

    Raises:
        DataError: The results file exists, and the database does not know it.
    """

    def __init__(
        self,
        database: Database,
        *,
        out: Path,
        folder: Path,
        station: str | None = None,
        on_result: OnResult | None = None,
    ) -> None:
        self.database = database
        self.out = out.resolve()
        station = station or (socket.gethostname() if database.is_server else "local")
        with database.write() as session:
            one_at_a_time(session)
            stream = _stream(session, station, self.out)
            if stream is None:
                raise DataError(
                    f"{out}: exists, but {database.name} knows nothing of it; move it away or give another --out"
                )
            self.stream_id = stream.id
            self._source_id = _source(session, stream.id, str(folder.resolve())).id
        self.registration = Registration(database)
        self._outputs: list[int] = []
        self._on_result = on_result
        owner = f"{station}\n{self.out}".encode("utf-8", "backslashreplace")
        self._token_prefix = hashlib.sha256(owner).hexdigest()[:_PREFIX]

    @property
    def watcher_id(self) -> str:
        """This process."""
        return self.registration.id

    def add_output(self, kind: str, address: str) -> int:
        """Have each result from now on delivered there, too; returns the output's row."""
        with self.database.write() as session:
            locked(session, Stream, self.stream_id)
            output = output_of(session, self.stream_id, kind, address)
        self._outputs.append(output)
        return output

    # Files that came

    def settled(self, files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bool]:
        """Which of these paths and fingerprints need no look: True where the result is stored, False where a living
        watcher works on it.
        """
        requested, answer = set(files), {}
        with self.database.read() as session:
            for chunk in _chunks(sorted({fingerprint for _, fingerprint in requested})):
                rows = session.execute(
                    select(Arrival.path, Arrival.fingerprint, Arrival.state)
                    .join(WatcherProcess)
                    .where(
                        Arrival.source_id == self._source_id,
                        Arrival.fingerprint.in_(chunk),
                        Arrival.claim.is_(None),
                        (Arrival.state != CLAIMED)
                        | (~WatcherProcess.ended & (Arrival.watcher_id != self.watcher_id)),
                    )
                )
                answer.update({(row[0], row[1] or ""): row[2] != CLAIMED for row in rows})
        return {key: value for key, value in answer.items() if key in requested}

    def claim_in_place(self, files: Sequence[tuple[str, FileState]]) -> list[Claim]:
        """Claim files under their own names, but those that have a result or that a living watcher works on."""
        claims = []
        with self.database.write() as session:
            locked(session, Source, self._source_id)
            for path, state in files:
                arrival = session.scalar(
                    select(Arrival).where(*self._identity(path, state), Arrival.claim.is_(None))
                )
                if arrival is None:
                    arrival = self._new(session, path, state=state)
                    claims.append(Claim(arrival.id, path, None))
                elif arrival.state == CLAIMED and self._is_free(session, arrival):
                    arrival.watcher_id = self.watcher_id
                    claims.append(Claim(arrival.id, path, None, arrival.attempts))
                arrival.fingerprint = state.fingerprint
        return claims

    def claim_by_name(self, paths: Sequence[str]) -> list[Claim]:
        """New private names for files; whoever then succeeds in renaming one has it.

        Where the power fails a name may be on the disk and its claim not: the name says whose it was, see `is_ours`.
        """
        with self.database.write(durable=False) as session:
            arrivals = [
                self._new(session, path, claim=self._token_prefix + uuid.uuid4().hex[_PREFIX:])
                for path in paths
            ]
        return [Claim(arrival.id, arrival.path, arrival.claim) for arrival in arrivals]

    def with_earlier_results(self, claims: Mapping[Claim, FileState]) -> dict[Claim, Claim]:
        """Those of these claims whose file was scored before under its own name, and the claim of that result."""
        earlier_results = {}
        with self.database.read() as session:
            for claim, state in claims.items():
                query = select(Arrival.id).where(
                    *self._identity(claim.path, state), Arrival.claim.is_(None), Arrival.state == KEPT
                )
                earlier = session.scalar(query)
                if earlier is not None:
                    earlier_results[claim] = earlier
        return {claim: self._moved_to(claim, earlier) for claim, earlier in earlier_results.items()}

    def _moved_to(self, claim: Claim, earlier: int) -> Claim:
        with self.database.write() as session:
            session.delete(session.get_one(Arrival, claim.arrival))
            session.flush()
            arrival = session.get_one(Arrival, earlier)
            arrival.claim, arrival.watcher_id, arrival.state = claim.token, self.watcher_id, SCORED
            return _claim_of(session, arrival)

    def adopt(self, tokens: Collection[str]) -> list[Claim]:
        """Take over the files of these private names whose watchers have ended."""
        claims: list[Claim] = []
        with self.database.read() as session:
            abandoned = {arrival.claim or "" for arrival in session.scalars(self._abandoned())}
        for chunk in _chunks(sorted(abandoned.intersection(tokens))):
            with self.database.write() as session:
                locked(session, Source, self._source_id)
                for arrival in session.scalars(self._abandoned().where(Arrival.claim.in_(chunk))):
                    arrival.watcher_id = self.watcher_id
                    claims.append(_claim_of(session, arrival))
        return claims

    def unknown(self, tokens: Collection[str]) -> set[str]:
        """Those of these private names that the database does not know."""
        with self.database.read() as session:
            known = {
                token
                for chunk in _chunks(sorted(tokens))
                for token in session.scalars(select(Arrival.claim).where(Arrival.claim.in_(chunk)))
            }
        return set(tokens) - known

    def is_ours(self, token: str) -> bool:
        """Whether a private name was given for these results, by this process or an earlier one."""
        return token.startswith(self._token_prefix)

    def settle_missing(self, present: Collection[str], exists: Callable[[str], bool]) -> None:
        """Clear up after watchers that ended between the database and the disk.

        Args:
            present: The private names that were found after they had ended.
            exists: Whether there is a file of this path below the folder.
        """
        with self.database.read() as session:
            if session.scalar(self._abandoned().limit(1)) is None:
                return
        with self.database.write() as session:
            locked(session, Source, self._source_id)
            for arrival in session.scalars(self._abandoned()):
                if arrival.claim in present or (arrival.claim is None and exists(arrival.path)):
                    continue
                if arrival.state == SCORED and exists(arrival.path):
                    self._release(session, arrival)  # it has its own name again
                elif arrival.state == SCORED:
                    arrival.state = FILED  # it was moved; only the note was missing
                else:
                    session.delete(arrival)  # it was never renamed, or is gone

    def set_attempts(self, attempts: Mapping[int, int]) -> None:
        """Note how often scoring these arrivals was begun; the first attempt is noted with the claim.

        It is on the disk before the attempt is made: a file that ends its watcher is known by these.
        """
        with self.database.write() as session:
            for key, count in attempts.items():
                arrival = session.get(Arrival, key)
                if arrival is not None and arrival.watcher_id == self.watcher_id:
                    arrival.attempts = count

    def drop(self, claims: Sequence[Claim]) -> None:
        """Forget claims; their files will be found again."""
        with self.database.write() as session:
            for claim in claims:
                arrival = session.get(Arrival, claim.arrival)
                if arrival is not None and arrival.state == CLAIMED and arrival.watcher_id == self.watcher_id:
                    session.delete(arrival)

    def filed(self, places: Mapping[Claim, str | None]) -> None:
        """These files lie there now; None for one that was gone before."""
        with self.database.write(durable=False) as session:  # a file that is gone was filed
            for claim, filed_as in places.items():
                arrival = session.get_one(Arrival, claim.arrival)
                arrival.state = FILED
                arrival.filed_as = filed_as or arrival.filed_as

    def released(self, claim: Claim, path: str) -> None:
        """A scored file has left its private name and stays in the folder, under this path."""
        with self.database.write() as session:
            arrival = session.get_one(Arrival, claim.arrival)
            arrival.path = path
            self._release(session, arrival)

    def _release(self, session: Session, arrival: Arrival) -> None:
        same_file = (
            Arrival.source_id == self._source_id,
            Arrival.path == arrival.path,
            Arrival.claim.is_(None),
        )
        same = (Arrival.size == arrival.size, Arrival.mtime_ns == arrival.mtime_ns)
        taken = select(Arrival.id).where(*same_file, *same, Arrival.sha256 == arrival.sha256)
        if session.scalar(taken) is None:
            arrival.claim, arrival.filed_as, arrival.state = None, None, KEPT
        else:
            arrival.state = FILED

    # Results

    def record(self, results: Sequence[Scored]) -> list[Scored]:
        """Store results with their deliveries; returns those stored, without files that another watcher took over.

        May be repeated where it is not known whether it succeeded.
        """
        stored, entries = [], []
        with self.database.write() as session:
            stream = locked(session, Stream, self.stream_id)
            outputs = locked_outputs(session, self._outputs)
            for scored in results:
                arrival = session.get(Arrival, scored.claim.arrival)
                if arrival is None or arrival.watcher_id != self.watcher_id:
                    continue
                stored.append(scored)
                if arrival.state == CLAIMED:
                    result = self._add(session, stream, outputs, arrival, scored)
                    entries.append((result.id, audit.result_digest(result, arrival.sha256)))
            audit.record(session, "verdict", entries)
        return stored

    def drift_monitor(self, manifest: Manifest) -> DriftMonitor:
        """Return a monitor of a model's drift that goes on from the parts that it scored before.

        Args:
            manifest: Of the model.
        """
        latest = self.latest_parts(manifest.files.get(graph_file(manifest)), window=WINDOW)
        return DriftMonitor.resumed(manifest.good_parts, latest, model=manifest.name)

    def latest_parts(self, model_sha256: str | None, *, window: int) -> list[PartStatistics]:
        """The latest parts of this results file that a model scored, oldest first, for drift."""
        with self.database.read() as session:
            return latest_parts_of(session, model_sha256, window=window, stream_id=self.stream_id)

    def end(self) -> None:
        """This watcher works no more."""
        self.registration.end()

    def _add(
        self, session: Session, stream: Stream, outputs: Sequence[Output], arrival: Arrival, scored: Scored
    ) -> Result:
        line, state = scored.line, scored.state
        arrival.size, arrival.mtime_ns, arrival.sha256 = state.size, state.mtime_ns, state.sha256
        arrival.state = KEPT if arrival.claim is None else SCORED
        arrival.filed_as = scored.filed_as
        stream.last_number += 1
        seen = line.statistics.model_dump() if line.statistics is not None else {}
        result = Result(
            stream_id=stream.id,
            number=stream.last_number,
            arrival_id=arrival.id,
            scored_at=datetime.datetime.now(datetime.UTC),
            model_name=line.model.name,
            model_sha256=line.model.sha256,
            verdict=line.verdict,
            score=line.score,
            category=line.category,
            error=line.error,
            quarantined=scored.quarantined,
            line=line.json_line(),
            **seen,
        )
        session.add(result)
        session.flush()
        if scored.shadow is not None:
            session.add(_shadow_row(result, scored.shadow))
        for output in outputs:
            add_delivery(session, output, result_id=result.id)
        if self._on_result is not None:
            self._on_result(session, result, scored)
        return result

    def _new(
        self, session: Session, path: str, *, state: FileState | None = None, claim: str | None = None
    ) -> Arrival:
        arrival = Arrival(
            source_id=self._source_id,
            path=path,
            size=None if state is None else state.size,
            mtime_ns=None if state is None else state.mtime_ns,
            sha256=None if state is None else state.sha256,
            claim=claim,
            state=CLAIMED,
            watcher_id=self.watcher_id,
            attempts=1,
        )
        session.add(arrival)
        session.flush()
        return arrival

    def _identity(self, path: str, state: FileState) -> tuple:
        return (
            Arrival.source_id == self._source_id,
            Arrival.path == path,
            Arrival.size == state.size,
            Arrival.mtime_ns == state.mtime_ns,
            Arrival.sha256 == state.sha256,
        )

    def _is_free(self, session: Session, arrival: Arrival) -> bool:
        return (
            arrival.watcher_id == self.watcher_id
            or session.get_one(WatcherProcess, arrival.watcher_id, populate_existing=True).ended
        )

    def _abandoned(self) -> Select[Arrival]:
        """Arrivals of ended watchers that are not done with."""
        return (
            select(Arrival)
            .join(WatcherProcess)
            .where(
                Arrival.source_id == self._source_id,
                WatcherProcess.ended,
                Arrival.state.in_((CLAIMED, SCORED)),
            )
            .order_by(Arrival.id)
        )


def _shadow_row(result: Result, shadow: ImageResult) -> ShadowResult:
    return ShadowResult(
        result_id=result.id,
        model_name=shadow.model.name,
        model_sha256=shadow.model.sha256,
        verdict=shadow.verdict,
        score=shadow.score,
        differs=shadow.verdict != result.verdict,
        line=shadow.json_line(),
    )


def _claim_of(session: Session, arrival: Arrival) -> Claim:
    destination = None
    if arrival.state == SCORED:
        result = session.scalars(select(Result).where(Result.arrival_id == arrival.id)).one()
        destination = place_of(result.verdict, quarantined=result.quarantined)
    return Claim(arrival.id, arrival.path, arrival.claim, arrival.attempts, destination)


def _stream(session: Session, station: str, out: Path) -> Stream | None:
    """The row of a results file; None where the file was written without this database."""
    path = str(out).encode("utf-8", "backslashreplace").decode()
    stream = session.scalar(select(Stream).where(Stream.station == station, Stream.path == path))
    if stream is None:
        if out.exists() and out.stat().st_size:
            return None
        stream = Stream(station=station, path=path)
        session.add(stream)
        session.flush()
    return stream


def _source(session: Session, stream_id: int, folder: str) -> Source:
    folder = folder.encode("utf-8", "backslashreplace").decode()
    locked(session, Stream, stream_id)
    source = session.scalar(select(Source).where(Source.stream_id == stream_id, Source.folder == folder))
    if source is None:
        source = Source(stream_id=stream_id, folder=folder)
        session.add(source)
        session.flush()
    return source


def locked(session: Session, table: type[Row], key: int) -> Row:
    """A row that no other transaction changes until this one ends."""
    return session.get_one(table, key, with_for_update={"key_share": True}, populate_existing=True)


def locked_outputs(session: Session, keys: Collection[int]) -> Sequence[Output]:
    """Outputs that no other transaction changes until this one ends, in the order in which all take them."""
    if not keys:
        return []
    query = select(Output).where(Output.id.in_(keys)).order_by(Output.id)
    return session.scalars(
        query.with_for_update(key_share=True), execution_options={"populate_existing": True}
    ).all()


def output_of(session: Session, stream_id: int, kind: str, address: str) -> int:
    """Return the row of an output of a stream, which is made where there is none; the stream must be locked."""
    named = (Output.stream_id == stream_id, Output.kind == kind, Output.address == address)
    output = session.scalar(select(Output).where(*named))
    if output is None:
        output = Output(stream_id=stream_id, kind=kind, address=address)
        session.add(output)
        session.flush()
    return output.id


def add_delivery(
    session: Session, output: Output, *, result_id: int | None = None, part_id: int | None = None
) -> None:
    """Have a result or a part delivered to an output, which must be locked, after all that it was given before."""
    output.last_number += 1
    session.add(
        Delivery(
            output_id=output.id,
            number=output.last_number,
            result_id=result_id,
            part_id=part_id,
            key=str(uuid.uuid4()),
            state=PENDING,
        )
    )


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
