"""`python -m benchmarks.station throughput|faults --model DIR --images DIR`: run a station, append a row, print it.

`python -m benchmarks.station frames --data-root DIR`: frame checks on the categories there, rows of frames.jsonl.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.provenance import append_row, stamp
from benchmarks.station import frames
from benchmarks.station.trial import FAULTS, Trial
from energyad.images.finding import find_images

RESULTS = Path(__file__).with_name("results.jsonl")
FRAMES = Path(__file__).with_name("frames.jsonl")
PACKAGES = ("energyad", "onnxruntime", "paho-mqtt", "pymodbus", "asyncua")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("throughput", "faults", "frames"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--data-root", type=Path, default=Path("datasets/MVTecAD"))
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=5.0, help="parts a second")
    parser.add_argument("--faults", type=int, default=200, help="of the part faults: how many, of all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    if arguments.part == "frames":
        run_frames(arguments.data_root)
        return
    faults = []
    if arguments.part == "faults":
        faults = [FAULTS[number % len(FAULTS)] for number in range(arguments.faults)]
    images = list(find_images([arguments.images]))[:50]
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), arguments.model, images, threads=arguments.threads)
        counts = trial.run(parts=arguments.parts, rate=arguments.rate, faults=faults, seed=arguments.seed)
    described = {"part": arguments.part, "rate": arguments.rate, "seed": arguments.seed}
    row = {**described, **asdict(counts), **asdict(stamp(threads=arguments.threads, packages=PACKAGES))}
    append_row(arguments.results, row)
    print(json.dumps(row, indent=1))


def run_frames(data_root: Path) -> None:
    for root in sorted(path.parent for path in data_root.glob("*/test")):
        for called in frames.measure(root):
            append_row(FRAMES, {**asdict(called), **asdict(stamp(threads=1, packages=("energyad",)))})
            print(f"{called.category}  {called.disturbance}  {called.frames}  {called.called}")


if __name__ == "__main__":
    main()
