"""`energyad score`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Json, MaxMegapixels, Model, Quiet, Runtime, Threads, TrustedKeys
from energyad.cli.score_ray import score_with_ray

if TYPE_CHECKING:
    from energyad.detector import AnomalyDetector
    from energyad.scoring.results import ImageResult


def score(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES", help="Files, folders, globs; - reads paths from standard input."),
    ],
    model: Model = None,
    csv: Annotated[Path, typer.Option("--csv", metavar="FILE", help="Where the scores go as CSV.")] = Path(
        "scores.csv"
    ),
    no_csv: Annotated[bool, typer.Option("--no-csv", help="Write no CSV.")] = False,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Write an overlay for each image.")] = False,
    heatmaps_dir: Annotated[
        Path | None,
        typer.Option("--heatmaps-dir", metavar="DIR", help="Where overlays go; default heatmaps/."),
    ] = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            "--fdr",
            metavar="RATE",
            help="Of the batch, also name the parts among which at most this share is good.",
        ),
    ] = None,
    as_json: Json = False,
    max_megapixels: MaxMegapixels = 200.0,
    threads: Threads = None,
    runtime: Runtime = "auto",
    trusted_key: TrustedKeys = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="local, or ray for archives and many machines.")
    ] = "local",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where ray's results go, a path or URL."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="ADDRESS", help="Ray's cluster; default this machine alone."),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score images: the higher, the more abnormal.

    \b
      energyad score new/ --heatmaps
      energyad score 'line3/*.png' --model gasket --json | jq .verdict
      find . -name '*.bmp' | energyad score - --quiet || echo look at it
      energyad score s3://archive/2026 --engine ray --output scores/

    Verdicts: ng above the threshold, review above the review threshold, else ok; the p-value says how rarely a good
    part scores as high. An image that cannot be read gets a row with the reason, and the others are scored.

    \b
    Exit status: 0  no part is ng (some may be for review)
                 1  a part is ng
                 2  an error, also where one image could not be read
    """
    from energyad.detector import AnomalyDetector
    from energyad.files import atomic_write
    from energyad.model.folder import find_model, read_manifest
    from energyad.scoring.results import by_score, results_csv, with_q_values

    check_fdr(fdr)
    folder, max_pixels = find_model(model), round(max_megapixels * 1e6)
    draws_heatmaps = heatmaps or heatmaps_dir is not None
    if engine != "local":
        read_manifest(folder, trusted_keys=trusted_key)
        status = score_with_ray(
            sources,
            engine=engine,
            unfit=["--json"] * as_json + ["--heatmaps"] * draws_heatmaps,
            model=folder,
            output=output,
            address=address,
            workers=threads,
            fdr=fdr,
            max_pixels=max_pixels,
        )
        raise typer.Exit(status)
    check_csv(None if no_csv else csv)
    overlays = heatmaps_dir or Path("heatmaps")
    drawn = overlays if draws_heatmaps else None
    paths = _find(sources, overlays)
    detector = AnomalyDetector.load(folder, threads=threads, runtime=runtime, trusted_keys=trusted_key)
    prints_at_once = as_json and fdr is None  # a q-value needs the whole batch
    results = _score_all(
        detector,
        paths,
        drawn,
        as_json=prints_at_once,
        keeps_outlines=as_json and not prints_at_once,
        max_pixels=max_pixels,
    )
    if fdr is not None:
        results = with_q_values(results)
    if not prints_at_once:
        _print_results(results, as_json=as_json)
    if not no_csv:
        atomic_write(csv, results_csv(by_score(results)))
    written = [str(csv)] * (not no_csv) + [f"{overlays}/"] * draws_heatmaps
    _say_verdicts(results, written, detector, fdr=fdr)
    raise typer.Exit(_status(results))


def check_csv(path: Path | None) -> None:
    """Check that scores do not overwrite an image.

    Raises:
        SettingsError: The path has the ending of an image.
    """
    from energyad.errors import SettingsError
    from energyad.images.finding import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES

    if path is not None and path.suffix.lower() in IMAGE_SUFFIXES | OTHER_IMAGE_SUFFIXES:
        raise SettingsError(f"--csv {path}: has the ending of an image; give a name such as scores.csv")


def check_fdr(fdr: float | None) -> None:
    """Check a false discovery rate.

    Raises:
        SettingsError: It is not between 0 and 1.
    """
    from energyad.errors import SettingsError

    if fdr is not None and not 0 < fdr < 1:
        raise SettingsError(f"--fdr {fdr:g}: must lie between 0 and 1")


def _find(sources: Iterable[str], overlays: Path) -> list[Path]:
    """Find the images of all sources; overlays that were written earlier are left out."""
    from energyad.errors import DataError
    from energyad.images.finding import find_images

    images: dict[Path, None] = {}
    for source in sources:
        if source == "-":
            lines = [line.rstrip("\r\n") for line in sys.stdin]
            # A file that has gone since it was listed costs its row alone, so files are not looked up here.
            for line in filter(None, lines):
                images.update(dict.fromkeys(find_images([line]) if Path(line).is_dir() else [Path(line)]))
        else:
            images.update(dict.fromkeys(find_images([source])))
    overlays_root = overlays.resolve()
    paths = [path for path in images if not path.resolve().is_relative_to(overlays_root)]
    if len(paths) < len(images):
        console.warn(f"{len(images) - len(paths)} overlays in {overlays}/ left out")
    if not paths:
        raise DataError(
            "no image was named: give an image, a folder, a glob or - with paths on standard input"
        )
    return paths


def _score_all(
    detector: AnomalyDetector,
    paths: Sequence[Path],
    overlays: Path | None,
    *,
    as_json: bool,
    keeps_outlines: bool,
    max_pixels: int,
) -> list[ImageResult]:
    """Score images, drawing and printing each as it comes; outlines of regions are dropped where nobody needs them."""
    from energyad.cli.progress import RichProgress
    from energyad.detector.scored_image import ScoredImage, name_of
    from energyad.images.reading import write_png
    from energyad.report.overlays import ColourScale, overlay_of, overlay_places
    from energyad.report.sheet import legend

    results: list[ImageResult] = []
    places = {} if overlays is None else overlay_places(paths, overlays)
    if overlays is not None:
        write_png(overlays / "colour-scale.png", legend(ColourScale(detector.threshold)))
    with RichProgress(drawn=not (as_json and sys.stdout.isatty())) as progress:
        progress.stage("scoring", len(paths))
        outcomes = detector.score_images(paths, max_pixels=max_pixels)
        for path, image in zip(paths, outcomes, strict=True):
            heatmap_path = places.get(path)
            if heatmap_path is not None and isinstance(image, ScoredImage):
                write_png(heatmap_path, overlay_of(image.pixels, image.prediction))
            result = image.result(heatmap=None if heatmap_path is None else name_of(heatmap_path))
            if as_json:
                console.echo_json(result.json_line())
            results.append(result if keeps_outlines else _without_outlines(result))
            progress.advance()
    return results


def _without_outlines(result: ImageResult) -> ImageResult:
    """The same without the corners of its regions, which take most of the memory."""
    regions = [region.model_copy(update={"polygon": region.polygon[:1]}) for region in result.regions]
    return result.model_copy(update={"regions": regions})


def _print_results(results: Sequence[ImageResult], *, as_json: bool) -> None:
    """Print a line of JSON for each result in their order, or a table in the order of their scores."""
    from energyad.scoring.results import by_score

    if not as_json:
        _print_rows(by_score(results))
        return
    for result in results:
        console.echo_json(result.json_line())


def _kind_of(result: ImageResult) -> str:
    """The kind of the region with the highest peak."""
    from energyad.scoring.results import named_kind

    return named_kind(result.regions[0]) if result.regions else ""


def _print_rows(results: Sequence[ImageResult]) -> None:
    names_category = any(result.category is not None for result in results)
    names_kind = any(_kind_of(result) for result in results)

    def cells(result: ImageResult) -> tuple[str, ...]:
        kind = [*[result.category or ""] * names_category, *[_kind_of(result)] * names_kind]
        if result.score is None or result.p_value is None:
            return "", "", "unreadable", *kind, f"{result.image}: {result.error}"
        return f"{result.score:#.4g}", f"{result.p_value:.3f}", str(result.verdict), *kind, str(result.image)

    columns = ("score", "p-value", "verdict", *["category"] * names_category, *["kind"] * names_kind, "image")
    console.print_table(columns, [cells(result) for result in results], right=columns[:2])


def _say_discoveries(results: Sequence[ImageResult], fdr: float, *, smallest: float) -> None:
    discoveries = [result for result in results if result.q_value is not None and result.q_value <= fdr]
    console.say(f"{len(discoveries)} of them stand out of the batch at a false discovery rate of {fdr:g}")
    scored = sum(result.q_value is not None for result in results)
    fewest = math.ceil(scored * smallest / fdr - 1e-9)
    if len(discoveries) < fewest:
        can = f"only {fewest} or more together" if fewest <= scored else "none"
        text = f"no p-value is below {smallest:.3g}, so of {scored} images {can} can stand out"
        console.say(f"{text}; calibrate with more good parts")


def _say_verdicts(
    results: Sequence[ImageResult], written: Sequence[str], detector: AnomalyDetector, *, fdr: float | None
) -> None:
    rejected, unsure = (sum(result.verdict == verdict for result in results) for verdict in ("ng", "review"))
    unread = sum(result.error is not None for result in results)
    where = f"; see {' and '.join(written)}" if written else ""
    review = f", {unsure} for review" if unsure else ""
    threshold = f"the threshold {detector.threshold:.4g}"
    console.say(f"{rejected} of {len(results)} images above {threshold}{review}{where}")
    if unread:
        console.fail(f"{unread} of {len(results)} images could not be read; their rows say why")
    if fdr is not None:
        _say_discoveries(results, fdr, smallest=detector.calibration.smallest_p_value)


def _status(results: Sequence[ImageResult]) -> int:
    if any(result.error is not None for result in results):
        return console.ERROR_STATUS
    return int(any(result.verdict == "ng" for result in results))
