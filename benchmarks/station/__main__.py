"""`python -m benchmarks.station throughput|faults --model DIR --images DIR`: run a station, append a row, print it."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.provenance import append_row, stamp
from benchmarks.station.trial import FAULTS, Trial
from energyad.images.finding import find_images

RESULTS = Path(__file__).with_name("results.jsonl")
PACKAGES = ("energyad", "onnxruntime", "paho-mqtt", "pymodbus", "asyncua")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("throughput", "faults"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=5.0, help="parts a second")
    parser.add_argument("--faults", type=int, default=200, help="of the part faults: how many, of all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
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


if __name__ == "__main__":
    main()
