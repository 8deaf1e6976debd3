"""A watcher killed with SIGKILL at random moments while files arrive: is every file noted once, and rightly?"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from energyad.line.watch import CHUNK

# A watcher whose scores cost nothing: the sum of a file's bytes. For tests of everything but scoring.
STUB = [
    sys.executable,
    "-c",
    """
import sys, threading, time
from pathlib import Path
import numpy as np
from energyad.detector.scored_image import ScoredImage
from energyad.line.journal import Journal
from energyad.line.watch import Watcher
from energyad.model.statistics import PartStatistics
from energyad.scoring.calibration import Calibration
from energyad.scoring.prediction import predict
from energyad.scoring.results import ModelReference

model, rule = ModelReference(name="stub", sha256="0", calibrated=None), Calibration(1e9, 0.01, "conformal", (1.0,))
pixels = np.zeros((1, 1, 3), np.uint8)

def score(paths):
    for path in paths:
        time.sleep(0.005)  # so that kills come while it scores
        heatmap = np.full((1, 1), float(sum(path.read_bytes())), np.float32)
        prediction = predict(heatmap, rule, shape=(1, 1))
        yield ScoredImage(path, model, pixels, prediction, heatmap, PartStatistics(prediction.score))

with Journal(sys.argv[2]) as journal:
    Watcher(Path(sys.argv[1]), journal, score).run(threading.Event(), interval=0.02)
""",
]
TOO_LONG = 240.0  # seconds for one life of the watcher


@dataclass(frozen=True)
class KillRun:
    """What was left. lost: files without a line; twice: with several; wrong: whose score is not that of an undisturbed
    run. killed_at_work: kills that came when some files were noted and others were not. torn: kills that left half a
    line behind.
    """

    files: int
    kills: int
    killed_at_work: int
    torn: int
    lost: int
    twice: int
    wrong: int
    seconds: float


def run_with_kills(
    command: Sequence[str],
    folder: Path,
    *,
    files: int,
    kills: int,
    seed: int,
    sources: Sequence[Path] | None = None,
) -> KillRun:
    """Run `command FOLDER JOURNAL` until all files are noted, killing it at random moments on the way.

    folder: an empty one. sources: images to copy in turn; None for files of random bytes. Files arrive all the time:
    every other one is renamed into place, the others are written slowly. Raises TimeoutError where it never ends.
    """
    generator, started = random.Random(seed), time.perf_counter()
    incoming, journal = folder / "incoming", folder / "results.jsonl"
    incoming.mkdir(parents=True)
    # The last ones leave some files over, so that every kill comes while there is something to do.
    marks = sorted(generator.sample(range(1, files - 2 * CHUNK), kills))
    contents = _contents(files, sources, generator)
    arriving = threading.Thread(target=_arrive, args=(incoming, contents), daemon=True)
    arriving.start()
    at_work = torn = 0
    for mark in [*marks, files]:
        with _running([*command, str(incoming), str(journal)]) as process:
            _wait_for(journal, mark, process)
            if mark < files:
                time.sleep(generator.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
            process.wait()
        at_work += mark < files and _lines(journal) < files
        torn += mark < files and not journal.read_bytes().endswith(b"\n")
    arriving.join()
    counts, wrong = _compare(journal, contents if sources is None else None)
    return KillRun(
        files=files,
        kills=kills,
        killed_at_work=at_work,
        torn=torn,
        lost=sum(name not in counts for name in contents),
        twice=sum(count > 1 for count in counts.values()),
        wrong=wrong,
        seconds=round(time.perf_counter() - started, 1),
    )


def _contents(files: int, sources: Sequence[Path] | None, generator: random.Random) -> dict[str, bytes]:
    if sources is None:
        return {f"{index:04d}.png": generator.randbytes(200 + index) for index in range(files)}
    return {
        f"{index:04d}{sources[index % len(sources)].suffix}": sources[index % len(sources)].read_bytes()
        for index in range(files)
    }


def _arrive(incoming: Path, contents: dict[str, bytes]) -> None:
    """Bring the files, a little faster than they are taken away."""
    for index, (name, data) in enumerate(contents.items()):
        if index % 2:
            temporary = incoming / f".{name}.part"
            temporary.write_bytes(data)
            temporary.rename(incoming / name)
        else:
            with (incoming / name).open("wb") as file:
                file.write(data[: len(data) // 2])
                file.flush()
                time.sleep(0.01)
                file.write(data[len(data) // 2 :])
        time.sleep(0.01)


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _wait_for(journal: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.perf_counter() + TOO_LONG
    while _lines(journal) < lines:
        if process.poll() is not None:
            said = process.stderr.read().decode() if process.stderr is not None else ""
            raise RuntimeError(f"the watcher ended by itself (status {process.returncode}): {said[-500:]}")
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{_lines(journal)} of {lines} files were noted within {TOO_LONG:.0f} s")
        time.sleep(0.002)


def _lines(journal: Path) -> int:
    try:
        return journal.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _compare(journal: Path, contents: dict[str, bytes] | None) -> tuple[Counter[str], int]:
    """How often each file was noted, and how many scores differ from what their file's bytes say."""
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    counts = Counter(row["file"]["path"] for row in rows)
    if contents is None:
        return counts, 0
    return counts, sum(row["score"] != sum(contents[row["file"]["path"]]) for row in rows)


def compare_with_undisturbed(command: Sequence[str], folder: Path) -> int:
    """Run over the same files again, undisturbed, and count the results that differ."""
    first, second = folder / "results.jsonl", folder / "undisturbed.jsonl"
    with _running([*command, str(folder / "incoming"), str(second)]) as process:
        _wait_for(second, _lines(first), process)
    scores = [
        {row["file"]["path"]: (row["score"], row["verdict"]) for row in map(json.loads, path.open())}
        for path in (first, second)
    ]
    return sum(scores[1].get(name) != score for name, score in scores[0].items())
