"""`python -m benchmarks.station throughput|faults --model DIR`: run a station with its machines, append a row.

`python -m benchmarks.station frames --data-root DIR`: frame checks on the categories there, rows of frames.jsonl.

`python -m benchmarks.station alignment --data-root DIR`: with and without alignment, rows of alignment.jsonl.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path

from benchmarks.provenance import append_row, stamp
from benchmarks.station import alignment, frames
from benchmarks.station.faults import EXPECTED, run_faults
from benchmarks.station.throughput import run_throughput
from energyad.settings import FitSettings
from energyad.settings.text import overridden

RESULTS = Path(__file__).with_name("results.jsonl")
FRAMES = Path(__file__).with_name("frames.jsonl")
ALIGNMENT = Path(__file__).with_name("alignment.jsonl")
COPIES = ("screw=as they are", "bottle=as they are", "bottle=shifted")
PACKAGES = ("energyad", "onnxruntime", "paho-mqtt", "pymodbus", "asyncua")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("throughput", "faults", "frames", "alignment"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data-root", type=Path, default=Path("datasets/MVTecAD"))
    parser.add_argument(
        "--copies", nargs="+", default=list(COPIES), help="of the part alignment: CATEGORY=COPIES"
    )
    parser.add_argument("--train", type=int, default=1_000, help="of the part alignment: images of each fit")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="GROUP.NAME=VALUE", help="settings of the fits"
    )
    parser.add_argument("--parts", type=int, default=10_000, help="of the part throughput")
    parser.add_argument("--rate", type=float, default=5.0, help="parts a second")
    parser.add_argument("--faults", type=int, default=200, help="of the part faults: how many, of all kinds")
    parser.add_argument("--kinds", nargs="+", choices=sorted(EXPECTED), default=list(EXPECTED))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    for library in ("asyncua", "pymodbus"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if arguments.part == "frames":
        run_frames(arguments.data_root)
        return
    if arguments.part == "alignment":
        run_alignment(arguments)
        return
    threads = arguments.threads
    if arguments.part == "faults":
        row = run_faults(
            arguments.model,
            count=arguments.faults,
            seed=arguments.seed,
            threads=threads,
            kinds=arguments.kinds,
        )
    else:
        row = run_throughput(arguments.model, parts=arguments.parts, rate=arguments.rate, threads=threads)
    row = {"part": arguments.part, **row, **asdict(stamp(threads=threads, packages=PACKAGES))}
    append_row(arguments.results, row)
    print(json.dumps(row, indent=1))


def run_frames(data_root: Path) -> None:
    for root in sorted(path.parent for path in data_root.glob("*/test")):
        for called in frames.measure(root):
            append_row(FRAMES, {**asdict(called), **asdict(stamp(threads=1, packages=("energyad",)))})
            print(f"{called.category}  {called.disturbance}  {called.frames}  {called.called}")


def run_alignment(arguments: argparse.Namespace) -> None:
    settings = overridden(FitSettings(), arguments.set)
    for pair in arguments.copies:
        name, _, copies = pair.partition("=")
        rows = alignment.measure(
            arguments.data_root / name, copies=copies, num_train=arguments.train, settings=settings,
            threads=arguments.threads, seed=arguments.seed,
        )  # fmt: skip
        for row in rows:
            described = {"seed": arguments.seed, "settings": arguments.set}
            stamped = asdict(
                stamp(threads=arguments.threads, packages=("energyad", "opencv-python-headless"))
            )
            append_row(ALIGNMENT, {**asdict(row), **described, **stamped})
            print(json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    main()
