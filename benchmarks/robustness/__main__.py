"""`python -m benchmarks.robustness --parts decoding`: decode damaged files. `--parts kills --model DIR --images DIR`:
kill `energyad watch` ten times on 500 files.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.provenance import append_row, read_rows, stamp
from benchmarks.robustness.decoding import compare_fills
from benchmarks.robustness.kills import compare_with_undisturbed, run_with_kills
from energyad.images.finding import find_images

RESULTS = Path(__file__).with_name("results.jsonl")
DECODING_RESULTS = Path(__file__).with_name("decoding.jsonl")
SHARE = 2500
# The journal is an option of the program, and the last argument of the benchmark.
_PROGRAM = "import sys; from energyad.cli import main; sys.argv[-1:-1] = ['--out']; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=("kills", "decoding"), default=["kills"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--count", type=int, default=12_000, help="of damaged files, with those that the rows hold"
    )
    parser.add_argument("--decoding-results", type=Path, default=DECODING_RESULTS)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if "decoding" in arguments.parts:
        run_decoding(arguments.seed, arguments.count, arguments.decoding_results)
    if "kills" in arguments.parts:
        if arguments.model is None or arguments.images is None:
            parser.error("the part kills needs --model and --images")
        _run_kills(arguments)


def run_decoding(seed: int, count: int, results: Path) -> None:
    """Append a row for each share of the damaged files of this seed, after those that the file holds."""
    rows = [row for row in read_rows(results) if row["seed"] == seed]
    done = max((row["first"] + row["count"] for row in rows), default=0)
    for first in range(done, count, SHARE):
        counts = compare_fills(seed, first, min(SHARE, count - first))
        packages = ("energyad", "numpy", "opencv-python-headless", "pillow")
        row = {**asdict(counts), **asdict(stamp(threads=1, packages=packages))}
        append_row(results, row)
        print(json.dumps(row), flush=True)


def _run_kills(arguments: argparse.Namespace) -> None:
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
