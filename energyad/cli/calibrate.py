"""`energyad calibrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Model, Quiet, SkipBad, Threads

if TYPE_CHECKING:
    from energyad.scoring.calibration import Calibration

TargetRate: TypeAlias = Annotated[
    float | None,
    typer.Option("--target-frr", metavar="RATE", help="Share of good parts that may be called ng."),
]
ReviewRate: TypeAlias = Annotated[
    float | None,
    typer.Option("--review-frr", metavar="RATE", help="Share of good parts that may be called ng or review."),
]


def calibrate(
    sources: Annotated[
        list[str], typer.Argument(metavar="IMAGES", help="Good parts: files, folders, globs.")
    ],
    model: Model = None,
    target_frr: TargetRate = None,
    review_frr: ReviewRate = None,
    skip_bad: SkipBad = False,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Set a model's thresholds anew from images of good parts; nothing is fitted.

    \b
      energyad calibrate good_of_today/ --model gasket
      energyad calibrate good_of_today/ --model gasket --target-frr 0.005 --review-frr 0.05

    The images must be of parts that the model was not fitted on. Rates that are not given stay as they are (a new
    model's: 0.01 and 0.05). The old calibration stays in the model's history; the model is replaced at once or not
    at all, and running services keep the old one until they load it again.
    """
    from energyad.cli.progress import RichProgress
    from energyad.detector import AnomalyDetector
    from energyad.detector.recalibration import recalibrate
    from energyad.feedback.versions import save
    from energyad.images.finding import find_images
    from energyad.model.folder import find_model

    folder = find_model(model)
    paths = find_images(sources)
    detector = AnomalyDetector.load(folder, threads=threads)
    with RichProgress() as progress:
        new = recalibrate(
            detector,
            paths,
            false_reject_rate=target_frr,
            review_rate=review_frr,
            skip_bad=skip_bad,
            progress=progress,
        )
    save(folder, new.manifest, new.contents, action="calibrated")
    console.say(f"\nmodel      {folder}, thresholds from {len(new.calibration.good_scores)} good images")
    console.say(f"before     {_thresholds(detector.calibration)}")
    console.say(f"threshold  {_thresholds(new.calibration)}")
    console.say(f"           {new.calibration.guarantee()}")


def _thresholds(calibration: Calibration) -> str:
    text = f"{calibration.threshold:.4g} for {calibration.false_reject_rate:.2%} false rejects"
    if calibration.review_threshold is None:
        return text
    return f"{text}, review from {calibration.review_threshold:.4g} for {calibration.review_rate:.2%}"
