"""`python -m benchmarks.robustness --model DIR --images DIR`: kill `energyad watch` ten times on 500 files."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.provenance import append_row, stamp
from benchmarks.robustness.kills import compare_with_undisturbed, run_with_kills
from energyad.images.finding import find_images

RESULTS = Path(__file__).with_name("results.jsonl")
# The journal is an option of the program, and the last argument of the benchmark.
_PROGRAM = "import sys; from energyad.cli import main; sys.argv[-1:-1] = ['--out']; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    options = ["watch", "--quiet", "--interval", "0.05", "--threads", "1", "--model", str(arguments.model)]
    command = [sys.executable, "-c", _PROGRAM, *options]
    with tempfile.TemporaryDirectory() as folder:
        run = run_with_kills(
            command,
            Path(folder),
            files=arguments.files,
            kills=arguments.kills,
            seed=arguments.seed,
            sources=find_images([arguments.images]),
        )
        run = replace(run, wrong=compare_with_undisturbed(command, Path(folder)))
    row = {
        "seed": arguments.seed,
        **asdict(run),
        **asdict(stamp(threads=1, packages=("energyad", "onnxruntime"))),
    }
    append_row(arguments.results, row)
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
