"""`energyad fit`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energyad.cli import console
from energyad.cli.calibrate import ReviewRate, TargetRate
from energyad.cli.options import AnyDirection, DataRoot, Debug, Download, Overrides, Quiet, SkipBad, Threads

if TYPE_CHECKING:
    from energyad.data.datasets import Category
    from energyad.detector import AnomalyDetector
    from energyad.settings import FitSettings


def fit(
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category",
            "-c",
            metavar="NAME",
            help="A category in the MVTec layout; several, or all, for one model of them all.",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="A folder of images of good parts.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="The model's name; default: the category's or the folder's."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="The model's folder; default models/NAME."),
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="N", help="Of everything random.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", metavar="NAME", help="Any timm model; default tf_efficientnet_lite0."),
    ] = None,
    backbone_weights: Annotated[
        Path | None,
        typer.Option("--backbone-weights", metavar="FILE", help="Its weights, a safetensors file."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", metavar="N", help="Pixels a side, a multiple of 32; default 256."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="NAME", help="float32, or int8: faster, ONNX Runtime alone."),
    ] = None,
    white_level: Annotated[
        int | None,
        typer.Option(
            "--white-level",
            min=1,
            max=65535,
            metavar="N",
            help="White of 16-bit images: 4095 for 12-bit cameras.",
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option("--iterations", min=0, metavar="N", help="DxMI iterations; fewer is a quick trial."),
    ] = None,
    energies: Annotated[
        int | None,
        typer.Option(
            "--energies", min=1, metavar="N", help="Averaged; of little gain, at as many times the training."
        ),
    ] = None,
    overrides: Overrides = None,
    target_frr: TargetRate = None,
    review_frr: ReviewRate = None,
    tiles: Annotated[
        str | None,
        typer.Option(
            "--tiles", metavar="N", help="Cut large images into N x N tiles, or COLUMNSxROWS (8x1)."
        ),
    ] = None,
    roi: Annotated[
        Path | None,
        typer.Option("--roi", metavar="FILE", help="Learn and judge this area only: polygons or a mask."),
    ] = None,
    ignore: Annotated[
        Path | None, typer.Option("--ignore", metavar="FILE", help="Leave this area out; as --roi.")
    ] = None,
    any_direction: AnyDirection = None,
    threads: Threads = None,
    skip_bad: SkipBad = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fit a detector on images of good parts.

    \b
      energyad fit --category bottle
      energyad fit --images good_parts/ --name gasket
      energyad fit --images good_parts/ --name gasket --roi part.json --target-frr 0.005
      energyad fit --images sheets/ --tiles 8x1 --set border=8
      energyad fit --category all                one model of every category, scored without being told which

    The model lands in models/NAME/. An earlier one of that name is replaced only when the new one is whole.
    """
    from energyad.extras import require
    from energyad.images.tiling import parse_tiles

    require("fit", "energyad fit")
    data = _open_data(category, images, name, data_root=data_root, download=download)
    label = name or data.name
    folder = output or Path("models") / label
    options = {
        "seed": seed,
        "features.backbone": backbone,
        "input.image_size": image_size,
        "features.precision": precision,
        "input.white_level": white_level,
        "dxmi.iterations": iterations,
        "energy.ensemble_size": energies,
        "threshold.false_reject_rate": target_frr,
        "threshold.review_rate": review_frr,
        "input.tiles": None if tiles is None else parse_tiles(tiles),
    }
    started = time.perf_counter()
    detector = _fit(
        data,
        label,
        folder,
        options=options,
        overrides=overrides or (),
        roi=roi,
        ignore=ignore,
        any_direction=any_direction,
        backbone_weights=backbone_weights,
        threads=threads,
        skip_bad=skip_bad,
    )
    _say_what_next(detector, data, folder, seconds=time.perf_counter() - started, data_root=data_root)


def _open_data(
    names: list[str] | None, images: Path | None, name: str | None, *, data_root: Path | None, download: bool
) -> Category:
    from energyad.data import datasets
    from energyad.errors import DataError, SettingsError

    if (not names) == (images is None):
        raise SettingsError(
            "give either --category NAME or --images DIR (with --name); see `energyad fit --help`"
        )
    if name is not None:
        datasets.check_category_name(name)
    if images is not None:
        return datasets.open_folder(images, name=name or images.absolute().name)
    find = datasets.download_category if download else datasets.open_category
    wanted = names or []
    if wanted == ["all"]:
        wanted = list(datasets.MVTEC_CATEGORIES if download else datasets.present_categories(data_root))
        if not wanted:
            raise DataError(f"{datasets.find_data_root(data_root)}: no category there; give --data-root DIR")
    found = [find(each, data_root=data_root) for each in dict.fromkeys(wanted)]
    if len(found) == 1 and names != ["all"]:
        return found[0]
    return datasets.unite(found, name=name or "unified")


def _fit(
    data: Category,
    name: str,
    folder: Path,
    *,
    options: dict[str, Any],
    overrides: Sequence[str],
    roi: Path | None,
    ignore: Path | None,
    any_direction: bool | None,
    backbone_weights: Path | None,
    threads: int | None,
    skip_bad: bool,
) -> AnomalyDetector:
    from energyad.model.folder import require_place

    require_place(folder)  # before minutes are spent
    from energyad.cli.progress import RichProgress
    from energyad.detector import AnomalyDetector

    settings = _settings({key: value for key, value in options.items() if value is not None}, overrides)
    console.say(f"fitting '{name}' on {len(data.train_good)} good images from {data.root}")
    with RichProgress() as bar:
        detector = AnomalyDetector.fit(
            data.train_good,
            name=name,
            categories=data.united,
            settings=settings,
            roi=roi,
            ignore=ignore,
            any_direction=any_direction,
            backbone_weights=backbone_weights,
            threads=threads,
            skip_bad=skip_bad,
            progress=bar,
        )
    detector.save(folder)
    return detector


def _settings(given: dict[str, Any], overrides: Sequence[str]) -> FitSettings:
    from energyad.settings import FitSettings
    from energyad.settings.text import overridden

    review = FitSettings().threshold.review_rate
    if review is not None and given.get("threshold.false_reject_rate", 0) > review:  # no room for a review
        given = {"threshold.review_rate": None, **given}
    return overridden(FitSettings().with_values(given), overrides)


def _say_what_next(
    detector: AnomalyDetector, data: Category, folder: Path, *, seconds: float, data_root: Path | None
) -> None:
    minutes, rest = divmod(round(seconds), 60)
    took = f"{minutes} min {rest} s" if minutes else f"{rest} s"
    size = sum(map(len, detector.contents.values())) / 1e6
    model = folder.name if folder.parent == Path("models") else str(folder)
    console.say(
        f"\nmodel      {folder}  ({size:.0f} MB, {detector.manifest.provenance.num_images} images, {took})"
    )
    rule = detector.calibration
    review = "" if rule.review_threshold is None else f", review from {rule.review_threshold:.4g}"
    console.say(f"threshold  {rule.threshold:.4g}{review}")
    console.say(f"           {rule.guarantee()}")
    console.say(f"next       energyad score IMAGES --model {shlex.quote(model)} --heatmaps")
    words = ["energyad", "evaluate", "--synthetic", "OTHER_GOOD_PARTS", "--model", model]
    if data.test:
        words = ["energyad", "evaluate", "--category", data.name]
        words += ["--model", model] if model != data.name else []
        words += ["--data-root", str(data_root)] if data_root is not None else []
    console.say(f"           {shlex.join(words)}")
