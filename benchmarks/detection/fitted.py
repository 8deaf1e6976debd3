"""Benchmarks of models that were fitted before: their options, and what their rows say of a fit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.detection.rows import settings_hash
from energyad.detector import AnomalyDetector


def parser_of_models(module: str, description: str | None, *, results: Path) -> argparse.ArgumentParser:
    """Return a parser of the options that all these commands have.

    Args:
        module: Of the command, below `benchmarks.detection`.
        description: Of the command.
        results: Where its rows go by default.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.detection.{module}", description=description)
    parser.add_argument(
        "--data-root", action="append", type=Path, help="folder of categories; may be given several times"
    )
    parser.add_argument(
        "--models", type=Path, required=True, help="folder of models, each named as its category"
    )
    parser.add_argument("--categories", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=results)
    return parser


def fit_of(detector: AnomalyDetector) -> tuple[int | None, str]:
    """Return the seed of a model's fit, and the hash of its other settings."""
    settings: dict[str, Any] = {**(detector.manifest.settings or {})}
    seed: int | None = settings.pop("seed", None)
    return seed, settings_hash(settings)
