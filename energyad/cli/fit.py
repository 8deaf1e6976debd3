"""`energyad fit`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from energyad.cli import console
from energyad.cli.calibrate import ReviewRate, TargetRate
from energyad.cli.options import (
    DataRoot,
    Debug,
    Download,
    Field,
    MaxMegapixels,
    Quiet,
    SkipBad,
    Threads,
    fields_of,
)
from energyad.cli.settings_options import (
    Backbone,
    Config,
    Energies,
    ImageSize,
    Iterations,
    Overrides,
    Precision,
    Rotation,
    Seed,
    Tiling,
    WhiteLevel,
    print_settings,
    settings_from,
)
from energyad.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from energyad.data.datasets import Category
    from energyad.detector import AnomalyDetector
    from energyad.settings import FitSettings

Categories: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--category",
        "-c",
        metavar="NAME",
        help="A category in the MVTec layout; several, or all, for one model of them all.",
    ),
]
Images: TypeAlias = Annotated[
    Path | None, typer.Option("--images", metavar="DIR", help="A folder of images of good parts.")
]
Labels: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--labels", metavar="PLACE", help="A labelled data set, as `energyad label` reads it: its good parts."
    ),
]
Name: TypeAlias = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="The model's name; default: the category's or the folder's."),
]
Output: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="The model's folder; default models/NAME."),
]
BackboneWeights: TypeAlias = Annotated[
    Path | None, typer.Option("--backbone-weights", metavar="FILE", help="Its weights, as timm saves them.")
]
Roi: TypeAlias = Annotated[
    Path | None,
    typer.Option("--roi", metavar="FILE", help="Learn and score this area only: polygons or a mask."),
]
Ignore: TypeAlias = Annotated[
    Path | None, typer.Option("--ignore", metavar="FILE", help="Leave this area out; as --roi.")
]
Engine: TypeAlias = Annotated[
    str,
    typer.Option(
        "--engine", metavar="NAME", help="local, or ray for a model of each category, fitted side by side."
    ),
]
Address: TypeAlias = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDRESS", help="Ray's cluster; default this machine alone."),
]
Budget: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--budget-ms",
        min=1,
        metavar="MS",
        help="Choose the largest --image-size whose images take no longer on this machine, from file to verdict.",
    ),
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Print the settings, as `energyad config` does, and stop.")
]


def fit(
    context: typer.Context,
    category: Categories = None,
    images: Images = None,
    labels: Labels = None,
    field: Field = None,
    name: Name = None,
    output: Output = None,
    data_root: DataRoot = None,
    download: Download = False,
    config: Config = None,
    overrides: Overrides = None,
    seed: Seed = None,
    backbone: Backbone = None,
    backbone_weights: BackboneWeights = None,
    image_size: ImageSize = None,
    budget_ms: Budget = None,
    precision: Precision = None,
    white_level: WhiteLevel = None,
    iterations: Iterations = None,
    energies: Energies = None,
    target_frr: TargetRate = None,
    review_frr: ReviewRate = None,
    tiles: Tiling = None,
    rotation: Rotation = None,
    roi: Roi = None,
    ignore: Ignore = None,
    dry_run: DryRun = False,
    threads: Threads = None,
    skip_bad: SkipBad = False,
    max_megapixels: MaxMegapixels = 200.0,
    engine: Engine = "local",
    address: Address = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fit a detector on images of good parts.

    \b
      energyad fit --category bottle
      energyad fit --images good_parts/ --name gasket
      energyad fit --images good_parts/ --name gasket --roi part.json --target-frr 0.005
      energyad fit --labels annotations.json --name gasket   the good parts of a labelled data set
      energyad fit --images sheets/ --tiles 8x1 --set features.border_margin=8
      energyad fit --images good_parts/ --budget-ms 40   as many pixels as an image's time allows
      energyad fit --images good_parts/ --config part.toml      settings that `energyad config` printed
      energyad fit --category all                one model of every category, scored without being told which
      energyad fit --category all --engine ray   a model of each category, as many fits at a time as there are cores

    The model lands in models/NAME/. An earlier one of that name is replaced only when the new one is whole.
    """
    from energyad.extras import require

    require("fit", "energyad fit")
    settings = settings_from(context.params)
    if dry_run:
        print_settings(settings)
        return
    max_pixels, fields = round(max_megapixels * 1e6), fields_of(labels, field)
    if engine != "local":
        from energyad.cli.fit_ray import fit_with_ray

        if budget_ms is not None:
            raise SettingsError(f"--engine {engine}: --budget-ms measures this machine; give --image-size")
        names = _categories_alone(engine, category, images, labels, name)
        fit_with_ray(
            _open_categories(names, data_root=data_root, download=download),
            output or Path("models"),
            engine=engine,
            address=address,
            threads=threads,
            settings=settings,
            roi=roi,
            ignore=ignore,
            backbone_weights=backbone_weights,
            skip_bad=skip_bad,
            max_pixels=max_pixels,
        )
        return
    data = _open_data(category, images, labels, fields, name, data_root=data_root, download=download)
    label = name or data.name
    folder = output or Path("models") / label
    started = time.perf_counter()
    if budget_ms is not None:
        settings = _within(
            *(budget_ms, data, settings, backbone_weights),
            threads=threads,
            skip_bad=skip_bad,
            max_pixels=max_pixels,
        )
    detector = _fit(
        *(data, label, folder, settings, roi, ignore, backbone_weights),
        threads=threads,
        skip_bad=skip_bad,
        max_pixels=max_pixels,
    )
    _print_next_steps(detector, data, folder, seconds=time.perf_counter() - started, data_root=data_root)


def _categories_alone(engine: str, category: list[str] | None, *others: object) -> list[str]:
    """Return the categories for an engine of many fits, which takes no other source of images."""
    if not category or any(other is not None for other in others):
        raise SettingsError(
            f"--engine {engine}: give --category NAME or all, without --images, --labels and --name"
        )
    return category


def _open_data(
    names: list[str] | None,
    images: Path | None,
    labels: Path | None,
    fields: Sequence[str],
    name: str | None,
    *,
    data_root: Path | None,
    download: bool,
) -> Category:
    from energyad.data import datasets

    if sum((bool(names), images is not None, labels is not None)) != 1:
        raise SettingsError(
            "give one of --category NAME, --images DIR and --labels PLACE; see `energyad fit --help`"
        )
    if name is not None:
        datasets.check_category_name(name)
    if labels is not None:
        return _open_labels(labels, fields, name)
    if images is not None:
        return datasets.open_folder(images, name=name or images.absolute().name)
    categories = _open_categories(names or [], data_root=data_root, download=download)
    if len(categories) == 1 and names != ["all"]:
        return categories[0]
    return datasets.unite(categories, name=name or "unified")


def _open_labels(source: Path, fields: Sequence[str], name: str | None) -> Category:
    """The good parts of a labelled data set."""
    from energyad.data.datasets import Category, check_category_name
    from energyad.errors import DataError
    from energyad.feedback.importing import read_labels
    from energyad.feedback.labelled_parts import good_parts

    label = name or source.absolute().stem
    check_category_name(label)
    good = good_parts(read_labels(source, fields=fields))
    if not good:
        raise DataError(f"{source}: no image is labelled good, so there is nothing to fit on")
    return Category(label, source, good, ())


def _open_categories(names: list[str], *, data_root: Path | None, download: bool) -> list[Category]:
    """The categories of these names; each one there is, for the name all."""
    from energyad.data import datasets
    from energyad.errors import DataError

    find = datasets.download_category if download else datasets.open_category
    requested = list(names)
    if requested == ["all"]:
        requested = list(datasets.MVTEC_CATEGORIES if download else datasets.present_categories(data_root))
        if not requested:
            raise DataError(f"{datasets.find_data_root(data_root)}: no category there; give --data-root DIR")
    return [find(category, data_root=data_root) for category in dict.fromkeys(requested)]


def _fit(
    data: Category,
    name: str,
    folder: Path,
    settings: FitSettings,
    roi: Path | None,
    ignore: Path | None,
    backbone_weights: Path | None,
    *,
    threads: int | None,
    skip_bad: bool,
    max_pixels: int,
) -> AnomalyDetector:
    from energyad.feedback.versions import read_history, save
    from energyad.model.folder import require_place

    require_place(folder)  # before minutes are spent
    read_history(folder)
    from energyad.cli.progress import RichProgress
    from energyad.detector import AnomalyDetector

    console.say(f"fitting '{name}' on {len(data.train_good)} good images from {data.root}")
    with RichProgress() as bar:
        detector = AnomalyDetector.fit(
            data.train_good,
            name=name,
            categories=data.united,
            settings=settings,
            roi=roi,
            ignore=ignore,
            backbone_weights=backbone_weights,
            threads=threads,
            skip_bad=skip_bad,
            max_pixels=max_pixels,
            progress=bar,
        )
    save(folder, detector.manifest, detector.contents, action="fitted")
    return detector


def _within(
    budget_ms: float,
    data: Category,
    settings: FitSettings,
    backbone_weights: Path | None,
    *,
    threads: int | None,
    skip_bad: bool,
    max_pixels: int,
) -> FitSettings:
    """Settings with the largest size within the budget; says what each size takes."""
    from energyad.detector.budget import sizes_down_to

    for size in sizes_down_to(
        budget_ms,
        data.train_good,
        settings,
        backbone_weights=backbone_weights,
        threads=threads,
        skip_bad=skip_bad,
        max_pixels=max_pixels,
    ):
        verdict = "within the budget" if size.milliseconds <= budget_ms else "too long"
        console.say(f"size  {size.described}: {size.milliseconds:.1f} ms an image, {verdict}")
        settings_of_size = size.chosen(settings)
    return settings_of_size


def _print_next_steps(
    detector: AnomalyDetector, data: Category, folder: Path, *, seconds: float, data_root: Path | None
) -> None:
    minutes, remainder = divmod(round(seconds), 60)
    took = f"{minutes} min {remainder} s" if minutes else f"{remainder} s"
    size = sum(map(len, detector.contents.values())) / 1e6
    model = folder.name if folder.parent == Path("models") else str(folder)
    console.say(
        f"\nmodel      {folder}  ({size:.0f} MB, {detector.manifest.provenance.num_images} images, {took})"
    )
    console.say(f"input      {detector.manifest.input.described}")
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
