"""`python -m benchmarks.footprint.install --model DIR --image FILE`: install into fresh environments, append rows.

A row for each extra. wheel_mb: energyad's own wheel. installed_mb: what the environment grew by. install: pip from its
start to its end, without its cache; packages that have to be downloaded come on top. first_verdict: the program from
its start to the verdict on one image, the median of `--repeat` runs after a first one that is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.footprint.__main__ import Footprint, measure
from benchmarks.provenance import ROOT, append_row, stamp

RESULTS = Path(__file__).with_name("install.jsonl")
EXTRAS = ("", "serve", "fit")
HEAVY = ("torch", "timm", "anomalib", "scikit-learn", "scipy", "onnx")


def build_wheel(folder: Path) -> Path:
    """energyad's wheel, built from this checkout as it is committed."""
    tree = folder / "tree"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(tree)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("energyad-*.whl")
    return wheel


def megabytes(folder: Path) -> float:
    """What the files under a folder hold together."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def first_verdict(program: Path, model: Path, image: Path, *, repeat: int) -> Footprint:
    """The median of several runs that score one image; the first reads everything from the disk and is left out."""
    command = [str(program), "score", str(image), "--model", str(model), "--no-csv", "--quiet"]
    runs = [measure(command, legal=(0, 1)) for _ in range(repeat + 1)][1:]
    return Footprint(
        **{name: round(statistics.median(asdict(run)[name] for run in runs), 2) for name in asdict(runs[0])}
    )


def install(
    wheel: Path, extra: str, folder: Path, *, model: Path, image: Path, repeat: int
) -> dict[str, Any]:
    """One fresh environment with the wheel and an extra in it."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    before, python = megabytes(folder), str(folder / "bin" / "python")
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    took = measure([python, "-m", "pip", "install", "--quiet", "--no-cache-dir", wanted])
    after = megabytes(folder)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    packages = {row["name"].lower().replace("_", "-") for row in json.loads(listed.stdout)}
    verdict = first_verdict(folder / "bin" / "energyad", model, image, repeat=repeat)
    return {
        "extra": extra or "none",
        "wheel_mb": round(wheel.stat().st_size / 1e6, 2),
        "installed_mb": round(after - before, 1),
        "packages": len(packages) - 2,  # pip and setuptools were there before
        "has": [name for name in HEAVY if name in packages],
        "install": asdict(took),
        "first_verdict": asdict(verdict),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="a fitted model's folder")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--extras", nargs="*", default=EXTRAS, help='of the package; "" for none')
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    os.environ.pop("PYTHONPATH", None)  # the installed package is measured, not the checkout
    model, image = options.model.resolve(), options.image.resolve()
    with tempfile.TemporaryDirectory() as folder:
        wheel, origin = build_wheel(Path(folder)), stamp(threads=1, packages=())
        for extra in options.extras:
            place = Path(folder) / (extra or "none")
            row = install(wheel, extra, place, model=model, image=image, repeat=options.repeat)
            row |= asdict(stamp(threads=os.cpu_count() or 1, packages=("energyad", "numpy")))
            row |= {
                "commit": origin.commit,
                "modified": origin.modified,
            }  # the checkout may have moved on meanwhile
            append_row(options.results, row)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
