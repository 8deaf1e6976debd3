"""`python -m benchmarks.service --model DIR --images DIR`: 60 seconds at twice the capacity; append a row, print it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.provenance import append_row, stamp
from benchmarks.service.load import measure
from energyad.images.finding import find_images

RESULTS = Path(__file__).with_name("results.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="a folder of PNG files")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    images = [path for path in find_images([arguments.images]) if path.suffix == ".png"][:50]
    run = measure(
        arguments.model, images, seconds=arguments.seconds, queue=arguments.queue, threads=arguments.threads
    )
    described = {"queue": arguments.queue, "images": len(images)}
    packages = ("energyad", "fastapi", "uvicorn", "onnxruntime")
    row = {**described, **asdict(run), **asdict(stamp(threads=arguments.threads, packages=packages))}
    append_row(arguments.results, row)
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
