"""`energyad import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from energyad.cli import console
from energyad.cli.calibrate import ReviewRate, TargetRate
from energyad.cli.fit import Output
from energyad.cli.options import Debug, Quiet, SkipBad


def import_model(
    export: Annotated[
        Path,
        typer.Argument(metavar="EXPORT", help="anomalib's model.xml (with its model.bin) or model.onnx."),
    ],
    images: Annotated[
        list[str],
        typer.Option("--images", metavar="GOOD", help="Good parts that the model was not trained on."),
    ],
    name: Annotated[str, typer.Option("--name", help="The model's name.")],
    output: Output = None,
    target_frr: TargetRate = None,
    review_frr: ReviewRate = None,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Take over a model that anomalib exported: its scores, with a threshold that keeps a stated rate.

    \b
      energyad import weights/openvino/model.xml --images good_of_today/ --name gasket
      energyad score new/ --model gasket

    Without rates, 1 % of good parts may be called ng, and there is no review. `score`, `serve`, `watch`, `calibrate`,
    `evaluate`, `drift` and `report` work as with a fitted model. OpenVINO runs it: pip install "energyad[openvino]".
    """
    from energyad.cli.progress import RichProgress
    from energyad.data.datasets import check_category_name
    from energyad.feedback.versions import save
    from energyad.images.finding import find_images
    from energyad.integrations.anomalib_export import import_export
    from energyad.model.folder import DEFAULT_FOLDER, require_place

    check_category_name(name)
    folder = output or DEFAULT_FOLDER / name
    require_place(folder)
    with RichProgress() as progress:
        detector = import_export(
            export,
            find_images(images),
            name=name,
            false_reject_rate=0.01 if target_frr is None else target_frr,
            review_rate=review_frr,
            skip_bad=skip_bad,
            progress=progress,
        )
    save(folder, detector.manifest, detector.contents, action="imported")
    calibration = detector.calibration
    console.say(f"\nmodel      {folder}, {detector.manifest.source}")
    console.say(f"threshold  {calibration.threshold:.4g} from {len(calibration.good_scores)} good images")
    console.say(f"           {calibration.guarantee()}")
    console.say(f"next       energyad score new/ --model {name}")
