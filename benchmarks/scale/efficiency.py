"""An archive scored by one process and by Ray on the same cores: seconds, processor time and memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.scale.images import write_archive
from benchmarks.scale.processes import SCORER, Sampler
from energyad.errors import EnergyadError
from energyad.integrations.scoring_job import SHARD_SIZE

DIFFERENT: Final = 200
"""Files of an archive that differ; the others are hard links to them."""
STATUSES: Final = (0, 1)
"""Of `energyad score` where all images were read."""

Engine = Literal["local", "ray"]

_RAY: Final = """
import sys
from pathlib import Path
from energyad.integrations.ray import score_archive
archive, model, output, cores, size = sys.argv[1:]
score_archive([archive], model=Path(model), output=output, workers=int(cores), shard_size=int(size))
"""


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """What one run took, from the start of its process to its end.

    Attributes:
        engine: One process, or Ray.
        images: Of the archive.
        cores: Threads of the one process, or workers of one thread each.
        shard_size: Images of a shard; 0 for one process.
        seconds: Wall clock.
        images_a_second: Over those.
        cpu_ms: Processor time of an image in milliseconds, that of all processes.
        driver_mb: The largest resident set of the process that the user started.
        worker_mb: The largest of any worker; 0 where there is none.
        all_mb: The sum of the largest resident sets of all processes, Ray's own among them.
    """

    engine: Engine
    images: int
    cores: int
    shard_size: int
    seconds: float
    images_a_second: float
    cpu_ms: float
    driver_mb: float
    worker_mb: float
    all_mb: float


def compare(
    model: Path, folder: Path, *, counts: list[int], cores: int, side: int, seed: int, repeat: int
) -> Iterator[RunFigures]:
    """Score archives of several sizes with both engines in turn.

    Args:
        model: The model folder.
        folder: For archives and results.
        counts: Numbers of images.
        cores: That both engines have.
        side: Pixels of a side of the files.
        seed: Of the images.
        repeat: Runs of each engine and number.
    """
    for count in counts:
        archive = folder / f"archive{count}"
        write_archive(archive, different=min(DIFFERENT, count), count=count, side=side, seed=seed)
        for turn in range(repeat):
            engines: list[Engine] = ["local", "ray"] if turn % 2 == 0 else ["ray", "local"]
            for engine in engines:
                output = folder / f"{engine}{count}-{turn}"
                yield run(engine, model, archive, output, images=count, cores=cores)


def memory(
    model: Path, folder: Path, *, counts: list[int], shard_size: int, cores: int, seed: int
) -> Iterator[RunFigures]:
    """Score archives of several sizes with Ray, in small shards: what grows with the number of images or of shards?

    Args:
        model: A small model's folder.
        folder: For archives and results.
        counts: Numbers of images.
        shard_size: Images of a shard.
        cores: Workers.
        seed: Of the images.
    """
    for count in counts:
        archive = folder / f"archive{count}"
        write_archive(archive, different=min(DIFFERENT, count), count=count, side=64, seed=seed)
        output = folder / f"memory{count}"
        yield run("ray", model, archive, output, images=count, cores=cores, shard_size=shard_size)


def run(
    engine: Engine,
    model: Path,
    archive: Path,
    output: Path,
    *,
    images: int,
    cores: int,
    shard_size: int = SHARD_SIZE,
) -> RunFigures:
    """Score an archive with one engine.

    Raises:
        EnergyadError: The program failed, or its results are of another number of images.
    """
    result = output.with_suffix(".csv") if engine == "local" else output
    if engine == "local":
        options = ["--model", str(model), "--threads", str(cores), "--quiet", "--csv", str(result)]
        command = [sys.executable, "-m", "energyad", "score", str(archive), *options]
    else:
        values = [archive, model, result, cores, shard_size]
        command = [sys.executable, "-c", _RAY, *map(str, values)]
    started = time.monotonic()
    with Sampler() as usage:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        _, errors = process.communicate()
    seconds = time.monotonic() - started
    number = _images_in(engine, result)
    if process.returncode not in STATUSES or number != images:
        raise EnergyadError(f"{engine}: status {process.returncode}, {number} images: {errors[-500:]}")
    cpu_seconds = sum(usage.cpu_seconds.values())
    return RunFigures(
        engine=engine,
        images=images,
        cores=cores,
        shard_size=shard_size if engine == "ray" else 0,
        seconds=round(seconds, 2),
        images_a_second=round(images / seconds, 2),
        cpu_ms=round(1000 * cpu_seconds / images, 3),
        driver_mb=round(usage.peak_mb.get(process.pid, 0.0), 1),
        worker_mb=round(usage.peak_of(SCORER), 1),
        all_mb=round(sum(usage.peak_mb.values()), 1),
    )


def _images_in(engine: Engine, result: Path) -> int:
    if engine == "ray":
        with contextlib.suppress(OSError):
            return int(json.loads((result / "summary.json").read_text(encoding="utf-8"))["num_images"])
        return 0
    with contextlib.suppress(OSError), result.open(encoding="utf-8") as lines:
        return sum(1 for _ in lines) - 1
    return 0
