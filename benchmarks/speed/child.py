"""One subject in a process of its own; prints a JSON line. Run by the benchmark, not by hand."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.speed.memory import flat, peak_mb
from energyad.detector import AnomalyDetector
from energyad.images.finding import find_images
from energyad.model.folder import HEAD_FILE


def score(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak of scoring all files once."""
    if arguments.subject == "energyad":
        detector = AnomalyDetector.load(arguments.model, threads=arguments.threads, runtime=arguments.runtime)
        done = sum(1 for _ in detector.score_images(find_images([arguments.images])))
        size = len(detector.contents[HEAD_FILE])
        return {"images": done, "peak_mb": round(peak_mb(), 1), "fitted_bytes": size}
    from benchmarks.detection.method import read_batches
    from benchmarks.speed.peers import fit_peer

    good = find_images([arguments.good])
    size, _ = AnomalyDetector.load(arguments.model).image_size  # of square images
    fitted = fit_peer(arguments.subject, good, image_size=size, few=arguments.few, threads=arguments.threads)
    for pixels in read_batches(find_images([arguments.images]), fitted.shape):
        fitted.score(pixels)
    return {"peak_mb": round(peak_mb(), 1), "fitted_bytes": fitted.num_bytes}


def endless(arguments: argparse.Namespace) -> dict[str, Any]:
    """Memory over many images."""
    detector = AnomalyDetector.load(arguments.model, threads=arguments.threads)
    return flat(detector, find_images([arguments.images]), count=arguments.count)


def fit(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time and peak of a fit on the first `few` good images."""
    started, cpu = time.perf_counter(), time.process_time()
    AnomalyDetector.fit(find_images([arguments.good])[: arguments.few], threads=arguments.threads)
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mb": round(peak_mb(), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("score", "endless", "fit"))
    parser.add_argument("--subject", default="energyad")
    parser.add_argument("--runtime", default="onnxruntime")
    for name in ("--model", "--images", "--good"):
        parser.add_argument(name, type=Path)
    for name in ("--few", "--count", "--threads"):
        parser.add_argument(name, type=int)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(json.dumps({"score": score, "endless": endless, "fit": fit}[arguments.what](arguments)))


if __name__ == "__main__":
    main()
