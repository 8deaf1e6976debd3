"""`python -m benchmarks.scale.table [--into README.md] [--check]`: the tables, and ten million images on paper."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.markdown import Place, table, tabulate
from benchmarks.provenance import read_rows
from energyad.integrations.scoring_job import SHARD_SIZE

FOLDER: Final = Path(__file__).parent
PLACE: Final = Place.of("scale tables")
MANY: Final = 10_000_000
CORES: Final = (2, 16, 64)

Row = dict[str, Any]


def tables(folder: Path) -> str:
    """All tables of the rows in a folder."""
    kills, efficiency, memory = (
        read_rows(folder / f"{part}.jsonl") for part in ("kills", "efficiency", "memory")
    )
    made = [
        kills_table(kills) if kills else "",
        efficiency_table(efficiency) if efficiency else "",
        memory_table(memory) if memory else "",
        projection_table(efficiency, memory) if efficiency and memory else "",
    ]
    return "\n\n".join(text for text in made if text)


def kills_table(rows: Sequence[Row]) -> str:
    """What came of the jobs that were killed, a line for each seed."""
    head = ["seed", "jobs", "images each", "drivers killed", "workers killed", "at start, scoring, finish"]
    head += ["rows missing", "doubled", "unlike", "drivers that failed alone"]
    lines = []
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed]
        phases = [
            str(sum(row["by_phase"].get(name, 0) for row in own)) for name in ("start", "scoring", "finish")
        ]
        sums = [str(sum(row[name] for row in own)) for name in ("missing", "doubled", "unlike", "failed")]
        killed = [str(sum(row[name] for row in own)) for name in ("drivers", "workers")]
        sizes = ", ".join(str(size) for size in sorted({row["images"] for row in own}))
        lines.append([str(seed), str(len(own)), sizes, *killed, ", ".join(phases), *sums])
    return f"**kills** ({_described(rows[-1])})\n\n{table(head, lines)}"


def efficiency_table(rows: Sequence[Row]) -> str:
    """Ray beside one process on the same cores: the quickest run of each, since other work only adds; else medians."""
    head = ["images", "cores", "engine", "runs", "seconds", "images a second", "of one process"]
    head += ["CPU ms an image", "of one process", "load", "driver MB", "worker MB", "all processes MB"]
    lines = []
    for images, cores in sorted({(row["images"], row["cores"]) for row in rows}):
        for engine in ("local", "ray"):
            own = _of(rows, images=images, cores=cores, engine=engine)
            one = _of(rows, images=images, cores=cores, engine="local")
            if not own or not one:
                continue
            seconds, seconds_of_one = (min(row["seconds"] for row in runs) for runs in (own, one))
            cells = [
                str(len(own)),
                f"{seconds:.0f}",
                f"{images / seconds:.1f}",
                f"{seconds_of_one / seconds:.0%}",
            ]
            cells += [
                f"{_median(own, 'cpu_ms'):.1f}",
                f"{_median(one, 'cpu_ms') / _median(own, 'cpu_ms'):.0%}",
                " to ".join(f"{bound(row['load'] for row in own):.0f}" for bound in (min, max)),
            ]
            cells += [f"{_median(own, name):.0f}" for name in ("driver_mb", "worker_mb", "all_mb")]
            name = "one process" if engine == "local" else "Ray"
            lines.append([f"{images:,}", str(cores), name, *cells])
    return f"**efficiency** ({_described(rows[-1])})\n\n{table(head, lines)}"


def memory_table(rows: Sequence[Row]) -> str:
    """Peaks of the driver and of a worker by the number of images."""
    head = ["images", "shards", "workers", "driver MB", "worker MB", "all processes MB"]
    lines = [
        [f"{images:,}", f"{_shards(own[0]):,}", str(own[0]["cores"])]
        + [f"{_median(own, name):.0f}" for name in ("driver_mb", "worker_mb", "all_mb")]
        for images in sorted({row["images"] for row in rows})
        if (own := _of(rows, images=images))
    ]
    return f"**memory** ({_described(rows[-1])})\n\n{table(head, lines)}"


def projection_table(efficiency: Sequence[Row], memory: Sequence[Row]) -> str:
    """Ten million images: the rate of the largest run times the cores, the driver's growth times the shards."""
    images = max(row["images"] for row in efficiency)
    ray = _of(efficiency, images=images, engine="ray")
    rate = images / min(row["seconds"] for row in ray) / ray[0]["cores"]
    few, many = (_of(memory, images=bound(row["images"] for row in memory)) for bound in (min, max))
    growth = (_median(many, "driver_mb") - _median(few, "driver_mb")) / max(
        1, _shards(many[0]) - _shards(few[0])
    )
    shards = -(-MANY // SHARD_SIZE)
    driver = _median(many, "driver_mb") + max(0.0, growth) * max(0, shards - _shards(many[0]))
    head = ["cores", "images a second", "hours for 10 million", "driver MB"]
    lines = [
        [str(cores), f"{rate * cores:.0f}", f"{MANY / (rate * cores) / 3600:.1f}", f"{driver:.0f}"]
        for cores in CORES
    ]
    return f"**ten million images, on paper** ({shards:,} shards)\n\n{table(head, lines)}"


def _of(rows: Sequence[Row], **values: object) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def _median(rows: Sequence[Row], name: str) -> float:
    return statistics.median(row[name] for row in rows)


def _shards(row: Row) -> int:
    return -(-int(row["images"]) // int(row["shard_size"]))


def _described(row: Row) -> str:
    commit = str(row["commit"])[:9] + "+" * row["modified"]
    return f"{row['processor']}, load {row['load']}, commit {commit}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a file. Returns the exit status."""
    return tabulate(
        tables, PLACE, results=FOLDER, program="benchmarks.scale.table", what=__doc__, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
