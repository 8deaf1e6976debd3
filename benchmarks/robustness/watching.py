"""Watchers killed with SIGKILL at random moments, in many layouts: is every file scored once, filed and delivered?

A launcher that has imported everything forks each watcher, so that a life begins at once. Most layouts score files of
random bytes by their sum; those that run the program itself score images with a model.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
from sqlalchemy import func, select

from benchmarks.robustness.launching import Launcher, fork_lives
from benchmarks.robustness.postgres import new_database
from energyad.errors import DataError, ImageError
from energyad.line.database import Database
from energyad.line.store import place_of
from energyad.line.tables import CLAIMED, DELIVERED, PENDING, SCORED, Arrival, Delivery, Result

SIZE: Final = 400
"""Bytes of a file; all have as many, so that those of one name differ in content alone."""
BROKEN: Final = b"BROKEN"
TOO_LONG: Final = 240.0
STATUSES: Final = (200, 204, 200, 200, 500, 503, 404, 302, 429, 0)
"""What a failing receiver answers, in turn at random; 0 hangs up."""


@dataclass(frozen=True)
class Layout:
    """How files come, where they go, and what else happens.

    Attributes:
        name: Of the layout.
        move: Files stay, or are moved within a file system, or to another one.
        names: Of the files: each its own, three names in turn, in subfolders, in folders behind links.
        writing: Renamed into place, written in two halves with a pause, or by turns.
        watchers: On the folder at the same time.
        memories: True for a results file for each watcher.
        webhook: Results are delivered to a receiver that fails two times in five.
        disk: `full` is full every now and then.
        results: What happens to the results file.
        server: The database is PostgreSQL's.
        program: The watcher is `energyad watch` with a model.
    """

    name: str
    move: Literal["no", "same", "other"] = "no"
    names: Literal["own", "same", "folders", "linked"] = "own"
    writing: Literal["both", "renamed", "slow"] = "both"
    watchers: int = 1
    memories: bool = False
    webhook: bool = False
    disk: Literal["ample", "full"] = "ample"
    results: Literal["left", "removed", "linked"] = "left"
    server: bool = False
    program: bool = False


LAYOUTS: Final = (
    Layout("stay"),
    Layout("stay, slow writers", writing="slow"),
    Layout("stay, same names", names="same", writing="renamed"),
    Layout("stay, folders", names="folders"),
    Layout("stay, linked folders", names="linked"),
    Layout("stay, two watchers", watchers=2),
    Layout("stay, two watchers, same names", watchers=2, names="same", writing="renamed"),
    Layout("stay, webhook", webhook=True),
    Layout("stay, full disk", disk="full", writing="renamed"),
    Layout("stay, results removed", results="removed"),
    Layout("stay, results behind a link", results="linked"),
    Layout("stay, server", server=True),
    Layout("stay, server, two watchers", server=True, watchers=2),
    Layout("move", move="same"),
    Layout("move, slow writers", move="same", writing="slow"),
    Layout("move, same names", move="same", names="same", writing="renamed"),
    Layout("move, folders", move="same", names="folders"),
    Layout("move, linked folders", move="same", names="linked"),
    Layout("move, two watchers", move="same", watchers=2),
    Layout("move, two watchers, same names", move="same", watchers=2, names="same", writing="renamed"),
    Layout("move, two results files", move="same", watchers=2, memories=True),
    Layout("move, webhook", move="same", webhook=True),
    Layout("move, full disk", move="same", disk="full", writing="renamed"),
    Layout("move, full disk, webhook", move="same", disk="full", webhook=True, writing="renamed"),
    Layout("move, results removed", move="same", results="removed"),
    Layout("move to another file system", move="other"),
    Layout("move to another file system, two watchers", move="other", watchers=2),
    Layout("move, server, two watchers, webhook", move="same", server=True, watchers=2, webhook=True),
    Layout("program, stay", program=True, writing="renamed"),
    Layout("program, move", program=True, move="same", writing="renamed"),
    Layout("program, move, two watchers", program=True, move="same", watchers=2),
)


@dataclass(frozen=True, kw_only=True)
class KillCounts:
    """What was left after the kills.

    lost: files without a result. doubled: with several. wrong: with a result that is not that of their content.
    unlike: lines of results files that differ from the database. unfiled: files that should have been moved and lie
    elsewhere, or twice. without_row: files that were moved, of which the database knows no result. undelivered: results
    that the receiver did not accept. disordered: that it accepted before an earlier one. repeated: accepted again.
    quarantined: files that were being scored in three kills, so that the line takes them for the cause.
    at_work: kills that came while files were still to be scored.
    """

    layout: str
    files: int
    kills: int
    at_work: int
    lost: int
    doubled: int
    wrong: int
    unlike: int
    unfiled: int
    without_row: int
    undelivered: int
    disordered: int
    repeated: int
    quarantined: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled or filed unscored."""
        faults = (self.lost, self.doubled, self.wrong, self.unlike, self.unfiled, self.without_row)
        return not any(faults) and not self.undelivered and not self.disordered


@dataclass
class Place:
    """The folders and the database of one run."""

    root: Path
    database: str
    other: Path
    url: str | None = None

    @property
    def incoming(self) -> Path:
        """Where files arrive."""
        return self.root / "incoming"

    def sorted(self, layout: Layout) -> Path | None:
        """Where they are moved to."""
        return {"no": None, "same": self.root / "sorted", "other": self.other / "sorted"}[layout.move]

    def out(self, layout: Layout, watcher: int) -> Path:
        """A watcher's results file."""
        number = watcher if layout.memories else 0
        folder = "behind" if layout.results == "linked" else "."
        return self.root / folder / f"results{number}.jsonl"


# The watchers


def launch() -> None:
    """Fork a watcher for each line on standard input. See `launching.fork_lives`."""
    import energyad.cli.watch
    import energyad.detector
    import energyad.line.watch  # noqa: F401  (each life finds them imported)

    fork_lives(lambda spec: (_run_program if spec["program"] else _run_stub)(spec))


def _run_program(spec: dict[str, Any]) -> None:
    from energyad.cli import main

    options = ["--model", spec["model"], "--out", spec["out"], "--database", spec["database"]]
    options += ["--interval", "0.02", "--settle", "0.1", "--threads", "1", "--station", "one"]
    if spec["move_to"] is not None:
        options += ["--move-to", spec["move_to"]]
    if spec["url"] is not None:
        options += ["--webhook", spec["url"]]
    sys.argv = ["energyad", "watch", spec["folder"], *options]
    main()


def _run_stub(spec: dict[str, Any]) -> None:
    from energyad.line.results_file import ResultsFile
    from energyad.line.store import LineStore
    from energyad.line.watch import Watcher
    from energyad.line.webhook import KIND, webhook

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def warn(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with Database(spec["database"]) as database:
        folder, out = Path(spec["folder"]), Path(spec["out"])
        store = LineStore(database, out=out, folder=folder, station="one")
        with ResultsFile(database, store.stream_id, store.out, warn=warn) as results:
            deliveries = None
            if spec["url"] is not None:
                output = store.add_output(KIND, spec["url"])
                deliveries = webhook(
                    *(spec["url"], database),
                    output=output,
                    watcher=store.watcher_id,
                    secret=None,
                    warn=warn,
                    longest_pause=0.02,
                )
                deliveries.start()
            move_to = None if spec["move_to"] is None else Path(spec["move_to"])
            watcher = Watcher(folder, store, score_files, move_to=move_to, settle=0.1, warn=warn)
            watcher.run(stop, noted=lambda _: results.tell(), interval=0.02)
            if deliveries is not None:
                deliveries.stop(seconds=1.0)


def score_files(paths: Sequence[Path], read: Callable[[Path], bytes]) -> Iterator[Any]:
    """Score a file by the sum of its bytes; one that begins with BROKEN cannot be read."""
    from energyad.detector.scored_image import ScoredImage, UnreadableImage
    from energyad.model.statistics import PartStatistics
    from energyad.scoring.calibration import Calibration
    from energyad.scoring.prediction import predict
    from energyad.scoring.results import ModelReference

    model = ModelReference(name="stub", sha256="0", calibrated=None)
    rule = Calibration(125.0, 0.01, "conformal", (1.0,))
    pixels = np.zeros((1, 1, 3), np.uint8)
    for path in paths:
        time.sleep(0.004)  # so that kills come while it scores
        try:
            data = read(path)
            if data.startswith(BROKEN) or len(data) < SIZE:
                raise ImageError(path, "it is broken")
        except ImageError as error:
            yield UnreadableImage(path, model, rule, error)
            continue
        prediction = predict(np.full((1, 1), _value(data), np.float32), rule, shape=(1, 1))
        yield ScoredImage(
            path, model, pixels, prediction, prediction.heatmap, PartStatistics(prediction.score)
        )


def _value(data: bytes) -> float:
    return float(sum(data) % 251)


# What happens around them


class Receiver:
    """Takes deliveries, and fails two times in five."""

    def __init__(self, seed: int) -> None:
        self.accepted: list[tuple[str, bytes]] = []
        generator, receiver = random.Random(seed), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = generator.choice(STATUSES)
                if status == 0:
                    self.close_connection = True
                    return
                if 200 <= status < 300:
                    receiver.accepted.append((self.headers["Idempotency-Key"], body))
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/results"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Arrivals:
    """Brings files, one after the other, and knows what was in each."""

    layout: Layout
    place: Place
    contents: list[bytes]
    seed: int
    is_scored: Callable[[bytes], bool]
    stop: threading.Event = field(default_factory=threading.Event)

    def path(self, index: int) -> Path:
        """Where a file arrives."""
        folder = self.place.incoming
        if self.layout.names == "same":
            return folder / f"part{index % 3}.png"
        if self.layout.names == "folders":
            folder = folder / f"{index % 4}"
        if self.layout.names == "linked":
            folder = folder / f"link{index % 2}"
        return folder / f"{index:04d}.png"

    def run(self) -> None:
        """Bring them, a little faster than they are scored."""
        generator = random.Random(self.seed)
        for index in range(len(self.contents)):
            while not self._is_free(index):
                if self.stop.wait(0.005):
                    return
            while not self._is_brought(index, generator):  # the disk is full
                if self.stop.wait(0.01):
                    return
            if self.stop.wait(0.004):
                return

    def _is_free(self, index: int) -> bool:
        """Whether no file of that name would be overwritten that was not scored yet, which no line can find again."""
        if self.layout.names != "same" or index < 3:
            return True
        if self.layout.move != "no":
            return not self.path(index).exists()
        return self.is_scored(self.contents[index - 3])

    def _is_brought(self, index: int, generator: random.Random) -> bool:
        path, data = self.path(index), self.contents[index]
        is_slow = self.layout.writing == "slow" or (self.layout.writing == "both" and index % 2 == 0)
        if is_slow:
            with path.open("wb") as file:
                file.write(data[: SIZE // 2])
                file.flush()
                time.sleep(generator.uniform(0.0, 0.06))
                file.write(data[SIZE // 2 :])
            return True
        temporary = path.with_name(f".{index:04d}.part")
        try:
            temporary.write_bytes(data)
            os.utime(temporary, ns=(10**18, 10**18))
            temporary.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            return False
        return True


def _fill_disk(root: Path, stop: threading.Event, seed: int) -> None:
    """Let the disk be full for a moment, again and again."""
    generator = random.Random(seed)
    filler = root / "filler"
    while not stop.wait(generator.uniform(0.1, 0.6)):
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        stop.wait(generator.uniform(0.05, 0.3))
        filler.unlink(missing_ok=True)
    filler.unlink(missing_ok=True)


def _remove_results(path: Path, stop: threading.Event, seed: int) -> None:
    generator = random.Random(seed)
    while not stop.wait(generator.uniform(0.2, 0.8)):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A file system of 8 MiB in a folder. Raises RuntimeError where this user may not mount one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise RuntimeError("a full disk needs a small file system, and so a user who may mount one (root)")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


# One run


def run_layout(
    layout: Layout, *, files: int, kills: int, seed: int, server: str | None = None, model: Path | None = None
) -> KillCounts:
    """Let files arrive, kill watchers at random moments until all are scored, and compare what is left.

    Args:
        layout: How.
        files: That arrive.
        kills: SIGKILLs.
        seed: Of contents and moments.
        server: URL of a PostgreSQL server, for layouts with one.
        model: Model folder, for layouts that run the program.

    Raises:
        TimeoutError: It never ends.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        place = _prepare(layout, stack, seed, server)
        generator = random.Random(f"{seed} {layout.name}")
        contents = _contents(layout, files, generator)
        run = _Run(layout, place, contents, generator, model)
        stack.callback(run.close)
        receiver = None
        if layout.webhook:
            receiver = Receiver(seed)
            stack.callback(receiver.close)
            place.url = receiver.url
        run.start_surroundings(seed)
        at_work = run.kill(kills)
        run.finish()
        counts = run.compare(receiver)
    return KillCounts(
        layout=layout.name,
        files=files,
        kills=kills,
        at_work=at_work,
        seconds=round(time.perf_counter() - started, 1),
        **counts,
    )


def _prepare(layout: Layout, stack: ExitStack, seed: int, server: str | None) -> Place:
    root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="energyad-kills-")))
    if layout.disk == "full":
        stack.enter_context(_small_disk(root))
    other = Path("/dev/shm") if layout.move == "other" else root
    if layout.move == "other":
        other = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="energyad-kills-", dir=other)))
    if layout.server and server is None:
        raise RuntimeError(f"layout '{layout.name}' needs a PostgreSQL server")
    database = new_database(server) if layout.server and server else str(root / "energyad.db")
    place = Place(root, database, other)
    place.incoming.mkdir()
    for number in range(4):
        (place.incoming / str(number)).mkdir()
    for number in range(2):
        (root / f"camera{number}").mkdir()
        (place.incoming / f"link{number}").symlink_to(root / f"camera{number}")
    (root / "behind").mkdir()
    if layout.results == "linked":
        (place.out(layout, 0)).symlink_to(root / "results.jsonl")
    return place


def _contents(layout: Layout, files: int, generator: random.Random) -> list[bytes]:
    if layout.program:
        rng = np.random.default_rng(generator.randrange(2**32))
        noise = rng.integers(0, 256, (files, 24, 24, 3)).astype(np.uint8)
        return [cv2.imencode(".png", pixels)[1].tobytes() for pixels in noise]
    contents = [generator.randbytes(SIZE) for _ in range(files)]
    return [BROKEN + data[len(BROKEN) :] if index % 11 == 5 else data for index, data in enumerate(contents)]


class _Run:
    """The watchers of one run, and what they leave."""

    def __init__(
        self,
        layout: Layout,
        place: Place,
        contents: list[bytes],
        generator: random.Random,
        model: Path | None,
    ) -> None:
        self.layout, self.place, self.contents, self.generator, self.model = (
            layout,
            place,
            contents,
            generator,
            model,
        )
        self.database = Database(place.database)
        self.launcher = Launcher(__name__)
        self.watchers: dict[int, int] = {}
        self.stop = threading.Event()
        self.threads: list[threading.Thread] = []
        self.arrivals = Arrivals(layout, place, contents, generator.randrange(2**32), self._is_scored)

    def close(self) -> None:
        """End everything that was started."""
        self.stop.set()
        self.arrivals.stop.set()
        self.launcher.close()
        for thread in self.threads:
            thread.join()
        self.database.close()

    def start_surroundings(self, seed: int) -> None:
        """Files begin to arrive, and the disk to be full."""
        self._start(self.arrivals.run)
        if self.layout.disk == "full":
            self._start(_fill_disk, self.place.root, self.stop, seed)
        if self.layout.results == "removed":
            self._start(_remove_results, self.place.out(self.layout, 0), self.stop, seed)

    def kill(self, kills: int) -> int:
        """Kill watchers when so many files are scored; some right after their start. Returns kills while at work."""
        files, at_work = len(self.contents), 0
        last = max(kills + 1, files - 40 * self.layout.watchers)
        marks = sorted(self.generator.sample(range(1, last), kills))
        for number in range(self.layout.watchers):
            self._start_watcher(number)
        for mark in marks:
            if self.generator.random() < 0.8:
                self._wait(lambda: self._num_results() >= mark)  # noqa: B023
            time.sleep(self.generator.uniform(0.0, 0.06))
            number = self.generator.randrange(self.layout.watchers)
            self.launcher.end(self.watchers[number], signal.SIGKILL)
            at_work += self._num_results() < files
            self._start_watcher(number)
        return at_work

    def finish(self) -> None:
        """Wait until all is done, and let the watchers end."""
        self._wait(lambda: self._num_results() >= len(self.contents))
        self.stop.set()
        self._wait(lambda: self._num_open() == 0)
        time.sleep(0.1)
        for process in list(self.launcher.alive):
            self.launcher.end(process, signal.SIGTERM)

    def compare(self, receiver: Receiver | None) -> dict[str, int]:
        """Count what is wrong."""
        with self.database.read() as session:
            rows = session.execute(
                select(
                    Arrival.sha256,
                    Result.verdict,
                    Result.score,
                    Result.stream_id,
                    Result.line,
                    Result.quarantined,
                )
                .join(Result, Result.arrival_id == Arrival.id)
                .order_by(Result.stream_id, Result.number)
            ).all()
            delivered = session.execute(
                select(Delivery.key, Result.line)
                .join(Result, Result.id == Delivery.result_id)
                .where(Delivery.state == DELIVERED)
                .order_by(Delivery.output_id, Delivery.number)
            ).all()
        found = Counter(row[0] or "" for row in rows)
        hashes = [hashlib.sha256(data).hexdigest() for data in self.contents]
        expected = dict(zip(hashes, self.contents, strict=True))
        places = {row[0] or "": place_of(row[1], quarantined=row[5]) for row in rows}
        wrong = (
            0 if self.layout.program else sum(not _is_right(expected.get(row[0] or ""), row) for row in rows)
        )
        return {
            "lost": sum(name not in found for name in hashes),
            "doubled": sum(count - 1 for count in found.values()),
            "wrong": wrong + sum(name not in expected for name in found),
            "unlike": self._num_unlike([(row[3], row[4]) for row in rows]),
            "quarantined": sum(row[5] for row in rows),
            **self._filed(places, hashes),
            **_delivered(receiver, [(row[0], row[1]) for row in delivered], len(rows)),
        }

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        self.threads.append(thread)

    def _start_watcher(self, number: int) -> None:
        move_to = self.place.sorted(self.layout)
        self.watchers[number] = self.launcher.start(
            {
                "folder": str(self.place.incoming),
                "out": str(self.place.out(self.layout, number)),
                "database": self.place.database,
                "move_to": None if move_to is None else str(move_to),
                "url": self.place.url,
                "program": self.layout.program,
                "model": str(self.model),
                "log": str(self.place.other / "watchers.log") if self.layout.disk == "ample" else os.devnull,
            }
        )

    def _wait(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TOO_LONG
        while not self._is_reached(reached):
            if time.monotonic() > deadline:
                raise TimeoutError(f"layout '{self.layout.name}' does not end: {self._num_results()} results")
            for number, process in list(self.watchers.items()):
                if not self.launcher.is_running(process):  # by itself, as where the disk is full at the start
                    self.launcher.alive.discard(process)
                    time.sleep(0.1)
                    self._start_watcher(number)
            time.sleep(0.004)

    def _is_reached(self, reached: Callable[[], bool]) -> bool:
        try:
            return reached()
        except DataError:  # the disk is full
            return False

    def _num_results(self) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count(Result.id))) or 0

    def _num_open(self) -> int:
        with self.database.read() as session:
            open_states = Arrival.state.in_((CLAIMED, SCORED))
            unfiled = session.scalar(select(func.count(Arrival.id)).where(open_states))
            pending = session.scalar(select(func.count(Delivery.id)).where(Delivery.state == PENDING))
        return (unfiled or 0) + (pending or 0)

    def _is_scored(self, content: bytes) -> bool:
        name = hashlib.sha256(content).hexdigest()
        try:
            with self.database.read() as session:
                return session.scalar(
                    select(Result.id).join(Arrival).where(Arrival.sha256 == name)
                ) is not None  # fmt: skip
        except DataError:
            return False

    def _num_unlike(self, rows: list[tuple[int, str]]) -> int:
        """Lines of the results files that are not those of the database, in its order."""
        outs = {self.place.out(self.layout, number) for number in range(self.layout.watchers)}
        present = [out.read_text().splitlines() for out in sorted(outs) if out.exists()]
        streams = dict.fromkeys(stream for stream, _ in rows)
        kept = [[line for stream, line in rows if stream == wanted] for wanted in streams]
        missing = [lines for lines in kept if lines not in present]
        return sum(map(len, missing))

    def _filed(self, wanted: dict[str, str], hashes: list[str]) -> dict[str, int]:
        target = self.place.sorted(self.layout)
        if target is None:
            return {"unfiled": 0, "without_row": 0}
        files = [path for path in target.rglob("*") if path.is_file()]
        places = Counter(
            (_hash(path), path.relative_to(target).parts[0])
            for path in files
            if not path.name.startswith(".")
        )
        expected = Counter((name, wanted[name]) for name in hashes if name in wanted)
        left = [path for path in self.place.incoming.rglob("*") if path.is_file()]
        return {
            "unfiled": sum(((expected - places) + (places - expected)).values()) + len(left),
            "without_row": sum(name not in wanted for name, _ in places),
        }


def _is_right(content: bytes | None, row: Any) -> bool:
    if content is None:
        return False
    if row[5] or content.startswith(BROKEN):
        return row[1] is None and row[2] is None
    return row[2] == _value(content)


def _delivered(receiver: Receiver | None, rows: list[tuple[str, str]], results: int) -> dict[str, int]:
    if receiver is None:
        return {"undelivered": 0, "disordered": 0, "repeated": 0}
    first: dict[str, int] = {}
    for position, (key, _) in enumerate(receiver.accepted):
        first.setdefault(key, position)
    bodies = dict(receiver.accepted)
    arrived = [key for key, line in rows if bodies.get(key) == line.encode()]
    order = [first[key] for key in arrived]
    return {
        "undelivered": results - len(arrived),
        "disordered": sum(later < earlier for earlier, later in itertools.pairwise(order)),
        "repeated": len(receiver.accepted) - len(first),
    }


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
