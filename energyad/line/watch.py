"""A folder that images arrive in: each complete file is scored once, also when the watcher is killed in between.

The line's database is the memory. Where files are moved, each is first renamed to a private name, so that nobody can
overwrite what is being scored; where they stay, each is known by path, size, time of change and the hash of its
content. A result is in the database, on the disk, before anything else is done with its file. Polling, since network
folders, where cameras write, report no changes.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import numpy as np
from jaxtyping import UInt8

from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage, ScoringOutcome, UnreadableImage, name_of
from energyad.errors import DataError, DecoderEnded, EnergyadError, ImageError, os_reason
from energyad.images.decoding import DEFAULT_MAX_PIXELS, NO_MEMORY
from energyad.images.isolated import IsolatedDecoder
from energyad.line.database import DatabaseUnavailable
from energyad.line.filing import file_away, free_name, is_claimed, original_path, private_path, sync_folder
from energyad.line.incoming import (
    FileState,
    Folder,
    FoundFile,
    Look,
    NotReady,
    fingerprint_of,
    hash_file,
    is_written,
    read_file,
)
from energyad.line.journal import FileSeen, JournalLine, Statistics
from energyad.line.store import Claim, LineStore, Scored

POLL_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 2.0
"""How long a file that cannot be read must be unchanged before that is noted."""
CHUNK: Final = 16
"""Files claimed and noted together: one wait for the disk for all of them."""
MAX_ATTEMPTS: Final = 3
"""Times that scoring a file is begun and ends the process, before the file is put in quarantine."""
MEMORY_PER_PIXEL: Final = 40
"""For decoding: 24 bytes of 16-bit images, 8 of the file, and what the decoder needs."""
MIN_DECODE_MEMORY: Final = 2 << 30
_OLD_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 2.0

ReadBytes: TypeAlias = Callable[[Path], bytes]
ScoreFiles: TypeAlias = Callable[[Sequence[Path], ReadBytes], Iterable[ScoringOutcome]]
"""Scores files in their order, each read with the function that is given, which raises ImageError; one that cannot be
read gives an UnreadableImage."""
BeforeScoring: TypeAlias = Callable[[Path, UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h w 3"]]
"""Returns the pixels that are scored for those that were decoded."""
T = TypeVar("T")


def score_with(
    model: Callable[[], AnomalyDetector],
    decoder: IsolatedDecoder,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    beside: Callable[[ScoringOutcome], ScoringOutcome] | None = None,
    before: BeforeScoring | None = None,
) -> ScoreFiles:
    """Score each batch of files with the detector that `model` returns at that moment.

    Args:
        model: Returns the detector.
        decoder: Decodes the files, in processes that can be ended.
        max_pixels: Files with more pixels are not decoded.
        beside: Called with each image that was scored, see `energyad.line.shadow`.
        before: Called with each image that was decoded, in any thread.
    """

    def score(paths: Sequence[Path], read: ReadBytes) -> Iterator[ScoringOutcome]:
        detector = model()

        def pixels(path: Path) -> UInt8[np.ndarray, "h w 3"]:
            try:
                decoded = decoder.decode(
                    read(path),
                    name=str(name_of(path)),
                    max_pixels=max_pixels,
                    white_level=detector.manifest.input.white_level,
                )
                return decoded if before is None else before(path, decoded)
            except MemoryError as error:
                raise ImageError(path, NO_MEMORY) from error

        outcomes = _within_memory(detector, paths, lambda batch: detector.score_images(batch, read=pixels))
        yield from outcomes if beside is None else map(beside, outcomes)

    return score


def open_decoder(model: AnomalyDetector, *, seconds: float, max_pixels: int) -> IsolatedDecoder:
    """Return what decodes a line's files, in processes that can be ended; to be used in a `with` block.

    Args:
        model: Decides how many files are decoded at a time.
        seconds: Longest time to decode one image.
        max_pixels: Of the largest image, which decides how much memory a process may take.
    """
    memory = max(MIN_DECODE_MEMORY, MEMORY_PER_PIXEL * max_pixels)
    return IsolatedDecoder(workers=model.runtime.plan.workers, timeout=seconds, max_memory=memory)


def _within_memory(
    detector: AnomalyDetector,
    paths: Sequence[Path],
    score: Callable[[Sequence[Path]], Iterable[ScoringOutcome]],
) -> Iterator[ScoringOutcome]:
    """Score together, and what that has no memory for one by one: it costs the images that are too large alone."""
    done = 0
    try:
        for outcome in score(paths):
            done += 1
            yield outcome
    except MemoryError:
        if len(paths) > 1:
            for path in paths[done:]:
                yield from _within_memory(detector, [path], score)
        else:
            error = ImageError(paths[0], NO_MEMORY)
            yield UnreadableImage(paths[0], detector.reference, detector.calibration, error)


@dataclass(frozen=True)
class _Work:
    """A file that is worked on. path: where it is now; original: where it came. faulty_since: by the monotonic clock,
    when its present state was first found unreadable.
    """

    claim: Claim
    path: Path
    original: Path
    state: FileState | None = None
    faulty_since: float | None = None


class Watcher:
    """Scores what arrives in a folder and stores the results.

    Args:
        folder: Where images arrive.
        store: The line's memory.
        score: Scores files.
        move_to: Where scored files go, into a folder for each verdict; None leaves them where they are.
        settle: Seconds for which a file that cannot be read must be unchanged before that is noted.
        max_bytes: Larger files are not read.
        warn: Called with what is wrong and does not end the watcher.
        on_new: Called at each look with the complete files that are new.
        is_whole: Whether a file is known to be put there whole: it is not looked at twice.
        news: Set when there is a new file, and when the watcher is to end: it looks at once then.
        on_outage: Called each time that the database is tried and is away; by default that is warned of once.

    Raises:
        DataError: There is no such folder, or `move_to` cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        store: LineStore,
        score: ScoreFiles,
        *,
        move_to: Path | None = None,
        settle: float = SETTLE_SECONDS,
        max_bytes: int = 8 * DEFAULT_MAX_PIXELS,
        warn: Callable[[str], None] = lambda text: None,
        on_new: Callable[[Mapping[Path, FoundFile]], None] = lambda files: None,
        is_whole: Callable[[Path], bool] = lambda path: False,
        news: threading.Event | None = None,
        on_outage: Callable[[DatabaseUnavailable], None] | None = None,
    ) -> None:
        self.require_folder(folder)
        if move_to is not None:
            try:
                move_to.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = os_reason(error)
                raise DataError(f"{move_to}: cannot be made: {reason}; give another --move-to") from error
        self.folder = Folder(folder, leave_out=move_to, is_whole=is_whole, warn=warn)
        self._warn, self._news = warn, news
        self._store, self._score, self._move_to = store, score, move_to
        self._settle, self._max_bytes, self._on_new = settle, max_bytes, on_new
        self._held: dict[int, _Work] = {}
        self._known: dict[Path, str] = {}
        self._num_waiting = 0
        self._stop = threading.Event()
        self._is_out = False
        self._on_outage = on_outage or self._warn_of_outage

    @staticmethod
    def require_folder(folder: Path) -> None:
        """Raise DataError where there is no such folder."""
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; make it, or check the path")

    def run(
        self,
        stop: threading.Event,
        *,
        noted: Callable[[JournalLine], None] = lambda line: None,
        interval: float = POLL_SECONDS,
        once: bool = False,
    ) -> None:
        """Look, score, note, until `stop` is set; the files at hand are finished first.

        Args:
            stop: Ends it.
            noted: Called for each result when it is on the disk.
            interval: Seconds between looks, where no news come.
            once: End when what is there has been scored.

        Raises:
            DataError: The folder is lost, the database is damaged, or with `once` a file cannot be moved.
        """
        looks = 0
        try:
            while not stop.is_set():
                for line in self.look(stop):
                    noted(line)
                looks += 1
                if once and looks >= 2 and not self._is_waiting():
                    self._require_all_filed()
                    break
                (stop if self._news is None else self._news).wait(interval)
                if self._news is not None:
                    self._news.clear()
        finally:
            with contextlib.suppress(DatabaseUnavailable):  # the next watcher does it then
                self._let_go()
                self._store.end()

    def look(self, stop: threading.Event) -> Iterator[JournalLine]:
        """Look once: score the complete files that are new, and move those that are done."""
        self._stop, self._num_waiting = stop, 0
        look = self.folder.look()
        if self._store.registration.is_due:
            self._patiently(self._store.registration.beat)
            self._patiently(self._store.registration.mark_dead)
            self._take_over(look)
        for works in self._held_works():
            if stop.is_set():
                return
            yield from self._process(works)
        claim = self._claim_in_place if self._move_to is None else self._claim_by_name
        new = self._new_files(look)
        self._on_new({path: look.complete[path] for path in new})
        for start in range(0, len(new), CHUNK):
            if stop.is_set():
                return
            works = claim(new[start : start + CHUNK])
            suspects = [work for work in works if work.claim.attempts]
            yield from self._process([work for work in works if not work.claim.attempts])
            for work in suspects:
                yield from self._process([work])

    # Claiming

    def _new_files(self, look: Look) -> list[Path]:
        """Complete files that nobody has, and without a result so far as is known without reading them."""
        held = {work.path for work in self._held.values()}
        new = [path for path, file in look.complete.items() if self._known.get(path) != file.fingerprint]
        new = [path for path in new if path not in held]
        if self._move_to is not None:
            return self._not_written(new)
        self._known = {path: known for path, known in self._known.items() if path in look.complete}
        keys = {path: (self._name(path), look.complete[path].fingerprint) for path in new}
        settled = self._patiently(lambda: self._store.settled(keys.values()))
        self._known.update({path: key[1] for path, key in keys.items() if settled.get(key)})
        return self._not_written([path for path in new if keys[path] not in settled])

    def _not_written(self, paths: Sequence[Path]) -> list[Path]:
        finished = [path for path in paths if not is_written(path)]
        self._num_waiting += len(paths) - len(finished)
        return finished

    def _claim_in_place(self, paths: Sequence[Path]) -> list[_Work]:
        states = {}
        for path in paths:
            with contextlib.suppress(NotReady):
                states[self._name(path)] = (path, self._state_of(path))
        self._num_waiting += len(paths) - len(states)
        files = [(name, state) for name, (_, state) in states.items()]
        claims = self._patiently(lambda: self._store.claim_in_place(files))
        works = []
        for claim in claims:
            path, state = states[claim.path]
            works.append(_Work(claim, path, path, state))
        return works

    def _claim_by_name(self, paths: Sequence[Path]) -> list[_Work]:
        claims = self._patiently(lambda: self._store.claim_by_name([self._name(path) for path in paths]))
        works, missed, in_place = [], [], []
        for path, claim in zip(paths, claims, strict=True):
            private = private_path(path, claim.token or "")
            try:
                renamed = is_claimed(path, private)
            except OSError as error:
                renamed = False
                in_place.append(path)
                reason = os_reason(error)
                self.folder.warn_once(
                    f"{path.parent}: files cannot be renamed or moved: {reason}; they are scored where they are"
                )
            if renamed:
                works.append(_Work(claim, private, path))
            else:
                missed.append(claim)
        if missed:
            self._patiently(lambda: self._store.drop(missed))
        return self._with_earlier_results(works) + self._only_new(in_place)

    def _only_new(self, paths: Sequence[Path]) -> list[_Work]:
        """Files that stay where they are although others are moved; each is claimed once."""
        self._known.update({path: _fingerprint(path) or "" for path in paths})
        return self._claim_in_place(paths) if paths else []

    def _with_earlier_results(self, works: Sequence[_Work]) -> list[_Work]:
        """Files of which the results are there, from a time when they were not moved, need no scoring."""
        stated = []
        for work in works:
            try:
                stated.append(replace(work, state=self._state_of(work.path)))
            except NotReady:
                self._hold(work)
        states = {work.claim: work.state for work in stated if work.state is not None}
        earlier = self._patiently(lambda: self._store.with_earlier_results(states))
        return [replace(work, claim=earlier.get(work.claim, work.claim)) for work in stated]

    def _take_over(self, look: Look) -> None:
        """Go on with what ended watchers had begun."""
        tokens = set(look.private) - {work.claim.token for work in self._held.values()}
        for claim in self._patiently(lambda: self._store.adopt(tokens)) if tokens else ():
            path = look.private[claim.token or ""]
            work = _Work(claim, path, original_path(path) or path.with_name(Path(claim.path).name))
            if self._move_to is None:
                self._give_back(work)
            else:
                self._hold(work)
        if look.is_whole:
            present = set(look.private)
            exists = lambda name: os.path.lexists(self.folder.folder / name)  # noqa: E731
            self._patiently(lambda: self._store.settle_missing(present, exists))
        for token in self._patiently(lambda: self._store.unknown(tokens)) if tokens else ():
            original = original_path(look.private[token])
            if self._store.is_ours(token) and original is not None:  # the claim was lost with the power
                with contextlib.suppress(FileNotFoundError):  # another watcher was faster
                    look.private[token].rename(free_name(original))
                continue
            self.folder.warn_once(
                f"{look.private[token]}: claimed by a watcher with another database; give it its name back if "
                "that database is gone"
            )

    def _give_back(self, work: _Work) -> None:
        """Let a file have its own name again, or one beside it where there is a new file of that name."""
        with contextlib.suppress(FileNotFoundError):
            target = free_name(work.original)
            work.path.rename(target)
            sync_folder(target.parent)
            if work.claim.destination is not None:
                self._store.released(work.claim, self._name(target))
                return
        self._store.drop([work.claim])

    def _let_go(self) -> None:
        """Give back what was claimed and not scored."""
        for work in self._held.values():
            if work.claim.destination is None:
                if work.claim.token is None:
                    self._store.drop([work.claim])
                else:
                    self._give_back(work)
        self._held.clear()

    # Scoring

    def _held_works(self) -> list[list[_Work]]:
        """What is held from earlier looks: in groups, but what may have ended a watcher alone."""
        works = list(self._held.values())
        together = [work for work in works if not work.claim.attempts]
        groups = [together[start : start + CHUNK] for start in range(0, len(together), CHUNK)]
        return groups + [[work] for work in works if work.claim.attempts]

    def _process(self, works: Sequence[_Work]) -> Iterator[JournalLine]:
        """Score some files, store the results, and file what is to be filed."""
        done = [work for work in works if work.claim.destination is not None]
        ready = [ready for work in works if work.claim.destination is None for ready in self._ready(work)]
        if ready and ready[0].claim.attempts:
            (work,) = ready
            self._patiently(lambda: self._store.set_attempts({work.claim.arrival: work.claim.attempts + 1}))
        try:
            results = self._results(ready) if ready else []
        except EnergyadError:  # the model's fault, or the folder's: no file's
            for work in ready:
                self._hold(work)
            raise
        self._forgive(ready)
        stored = self._patiently(lambda: self._store.record(results)) if results else []
        by_claim = {work.claim: work for work in ready}
        for scored in results:
            self._held.pop(scored.claim.arrival, None)
        for scored in stored:
            work = by_claim[scored.claim]
            if work.claim.token is not None:
                done.append(replace(work, claim=replace(work.claim, destination=scored.destination)))
            elif work.state is not None:
                self._known[work.path] = work.state.fingerprint
        self._file(done)
        for scored in stored:
            yield scored.line

    def _forgive(self, works: Sequence[_Work]) -> None:
        """Take back attempts that ended nothing: a watcher killed while its file waits is not that file's fault."""
        waiting = [self._held.get(work.claim.arrival) for work in works if work.claim.attempts]
        attempts = {work.claim.arrival: work.claim.attempts for work in waiting if work is not None}
        if attempts:
            self._patiently(lambda: self._store.set_attempts(attempts))

    def _ready(self, work: _Work) -> list[_Work]:
        """The file with its present state, if it can be worked on now."""
        now = time.monotonic()
        waits = work.faulty_since is not None and now - work.faulty_since < self._settle
        try:
            if waits and work.state is not None and _fingerprint(work.path) == work.state.fingerprint:
                self._hold(work)
                return []
            if work.claim.token is not None and is_written(work.path):
                raise NotReady(work.path, "is being written")
            state = self._state_of(work.path)
        except NotReady:
            self._not_ready(work)
            return []
        if work.state is None or (state.sha256 == work.state.sha256 and state.size == work.state.size):
            return [replace(work, state=state)]
        if work.claim.token is None:  # its row says what it was
            self._forget(work)
            return []
        return [replace(work, state=state, faulty_since=None)]

    def _results(self, works: Sequence[_Work]) -> list[Scored]:
        by_path = {work.path: work for work in works}

        def read(path: Path) -> bytes:
            work = by_path[path]
            if work.state is None:
                raise NotReady(path, "is not known")
            if work.claim.attempts >= MAX_ATTEMPTS:
                raise DecoderEnded(
                    path, f"scoring it was begun {work.claim.attempts} times and ended the watcher"
                )
            return read_file(path, work.state.sha256, max_bytes=self._max_bytes)

        outcomes = self._score([work.path for work in works], read)
        results = (self._result(work, outcome) for work, outcome in zip(works, outcomes, strict=True))
        return [result for result in results if result is not None]

    def _result(self, work: _Work, outcome: ScoringOutcome) -> Scored | None:
        """The result to be stored; None where the file is looked at again later."""
        if work.state is None:
            return None
        quarantined = False
        if isinstance(outcome, UnreadableImage):
            if isinstance(outcome.error, NotReady):
                self._not_ready(work)
                return None
            if isinstance(outcome.error, DecoderEnded):
                quarantined = work.claim.attempts >= MAX_ATTEMPTS - 1
                if not quarantined:
                    attempts = work.claim.attempts + 1
                    self._hold(replace(work, claim=replace(work.claim, attempts=attempts)))
                    return None
            elif not self._is_final_fault(work):
                return None
        elif work.claim.token is not None and _fingerprint(work.path) != work.state.fingerprint:
            self._not_ready(work)  # what will be filed is not what was scored
            return None
        line = _line(outcome, work)
        shadow = outcome.shadow if isinstance(outcome, ScoredImage) else None
        scored = Scored(work.claim, work.state, line, quarantined, shadow=shadow)
        if work.claim.token is None or self._move_to is None:
            return scored
        target = free_name(self._move_to / scored.destination / self._relative(work.original))
        return replace(scored, filed_as=name_of(target))

    def _is_final_fault(self, work: _Work) -> bool:
        """Whether a file that cannot be read has been the same for long enough; else it is held."""
        if work.state is None or _fingerprint(work.path) != work.state.fingerprint:
            self._not_ready(work)
            return False
        since = work.faulty_since or time.monotonic()
        is_old = time.time() - work.state.mtime_ns / 1e9 > _OLD_SECONDS
        if is_old or time.monotonic() - since >= self._settle:
            return True
        self._hold(replace(work, faulty_since=since))
        return False

    def _state_of(self, path: Path) -> FileState:
        """The file's state; without a hash where it cannot be read, so that this can be noted. Raises NotReady."""
        try:
            return hash_file(path, max_bytes=self._max_bytes)
        except NotReady:
            raise
        except ImageError as error:
            with contextlib.suppress(OSError):
                status = path.stat()
                return FileState(status.st_size, status.st_mtime_ns, "", fingerprint_of(status))
            raise NotReady(path, error.reason) from error

    # Holding and filing

    def _hold(self, work: _Work) -> None:
        self._held[work.claim.arrival] = work

    def _forget(self, work: _Work) -> None:
        self._held.pop(work.claim.arrival, None)
        self._num_waiting += 1
        self._patiently(lambda: self._store.drop([work.claim]))

    def _not_ready(self, work: _Work) -> None:
        """Look at a file again later; forget it where it is gone."""
        if work.claim.token is None or not os.path.lexists(work.path):
            self._forget(work)
        else:
            self._hold(replace(work, state=None, faulty_since=None))

    def _file(self, works: Sequence[_Work]) -> None:
        """Move scored files to the folders of their verdicts."""
        filed: dict[Claim, str | None] = {}
        folders: set[Path] = set()
        for work in works:
            self._held.pop(work.claim.arrival, None)
            if self._move_to is None or work.claim.destination is None:
                continue
            target = self._move_to / work.claim.destination / self._relative(work.original)
            try:
                moved = file_away(work.path, target, token=work.claim.token or "")
            except FileNotFoundError:  # somebody else took it
                filed[work.claim] = None
            except OSError as error:
                self._hold(work)
                self.folder.warn_once(f"{target}: cannot be moved there: {os_reason(error)}; tried again")
            else:
                filed[work.claim] = name_of(moved)
                folders |= {moved.parent, work.path.parent}
        for folder in folders:
            sync_folder(folder)
        if filed:
            self._patiently(lambda: self._store.filed(filed))

    def _is_waiting(self) -> bool:
        return self._num_waiting > 0 or any(work.claim.destination is None for work in self._held.values())

    def _require_all_filed(self) -> None:
        if self._held:
            count, work = len(self._held), next(iter(self._held.values()))
            raise DataError(
                f"{self._move_to}: {count} scored files could not be moved there, such as {work.original}; "
                "check the folder and the space left"
            )

    def _relative(self, original: Path) -> Path:
        return original.relative_to(self.folder.folder)

    def _name(self, path: Path) -> str:
        return name_of(Path(self._relative(path).as_posix())) or ""

    def _warn_of_outage(self, error: DatabaseUnavailable) -> None:
        if not self._is_out:
            self._is_out = True
            self._warn(f"{error}; tried again until it is")

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do something with the database; where that is not available, again until it is, or the watcher ends."""
        while True:
            try:
                result = work()
            except DatabaseUnavailable as error:
                if self._stop.is_set():
                    raise
                self._on_outage(error)
                self._stop.wait(_RETRY_SECONDS)
            else:
                self._is_out = False
                return result


def _fingerprint(path: Path) -> str | None:
    try:
        return fingerprint_of(path.stat())
    except OSError:
        return None


def _line(outcome: ScoringOutcome, work: _Work) -> JournalLine:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    statistics = None
    if isinstance(outcome, ScoredImage):
        statistics = Statistics(
            **{name: getattr(outcome.statistics, name) for name in Statistics.model_fields}
        )
    seen = None
    if work.state is not None:
        state = work.state
        seen = FileSeen(
            path=work.claim.path, size=state.size, mtime_ns=state.mtime_ns, sha256=state.sha256 or None
        )
    result = outcome.result(name=name_of(work.original))
    return JournalLine(**dict(result), time=now, file=seen, statistics=statistics)
