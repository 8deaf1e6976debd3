"""Views whose parts come shifted and turned: each frame is moved onto the reference, and results are moved back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8

from energyad.detector.scored_image import ScoredImage
from energyad.errors import DataError
from energyad.images.alignment import Aligner, MethodTrial, Placement, try_methods
from energyad.images.reading import read_image, write_png
from energyad.scoring.regions import Region
from energyad.station.config import AlignConfig

LIMIT_SHARE: Final = 0.5
"""Of the lowest correlation of good parts: below it, there is no part."""
Pixels = UInt8[np.ndarray, "h w 3"]


def open_aligner(config: AlignConfig, *, white_level: int | None = None) -> Aligner:
    """Read the reference of a view.

    Args:
        config: Of the view.
        white_level: Of the model, for files of 16 bits.

    Raises:
        ImageError: The reference cannot be read.
    """
    reference = read_image(config.reference, white_level=white_level)
    return Aligner(reference, config.method, min_correlation=config.min_correlation)


class FrameAligner:
    """Moves the frames of a view onto its reference before they are scored, and their results back.

    Args:
        aligner: Finds the part.
    """

    def __init__(self, aligner: Aligner) -> None:
        self._aligner = aligner
        self._frames: dict[Path, tuple[Pixels, Placement | None]] = {}

    def before(self, path: Path, frame: Pixels) -> Pixels:
        """Return the frame as it is to be scored; as it came where there is no part in it. For any thread."""
        placement = self._aligner.place(frame)
        self._frames[path] = (frame, placement)
        return frame if placement is None else placement.warp(frame)

    def after(self, path: Path, image: ScoredImage) -> tuple[ScoredImage, bool]:
        """Return the image with its result in the camera's pixels, and whether there is a part in it."""
        frame, placement = self._frames.pop(path)
        return (image, False) if placement is None else (in_frame(image, frame, placement), True)

    def forget(self, path: Path) -> None:
        """A file was not scored."""
        self._frames.pop(path, None)


def in_frame(image: ScoredImage, frame: Pixels, placement: Placement) -> ScoredImage:
    """Return an image that was scored after its alignment with its result in the frame's pixels.

    The score and what follows from it stay as they are: energies that the map back averages do not count anew.

    Args:
        image: Scored at the reference's pixels.
        frame: As it came.
        placement: Of the part in it.
    """
    prediction = replace(
        image.prediction,
        heatmap=placement.unwarp(image.prediction.heatmap),
        regions=tuple(_region_in_frame(region, placement) for region in image.prediction.regions),
    )
    return replace(image, pixels=frame, prediction=prediction)


def _region_in_frame(region: Region, placement: Placement) -> Region:
    """The same region in the frame: its area stays, since nothing is enlarged."""
    x, y, width, height = region.box
    corners = [(x, y), (x + width - 1, y), (x, y + height - 1), (x + width - 1, y + height - 1)]
    polygon, peak_at = placement.to_frame(region.polygon), placement.to_frame([region.peak_at])[0]
    around = np.array([*(polygon if len(polygon) > 2 else placement.to_frame(corners)), peak_at])
    low, high = around.min(axis=0), around.max(axis=0)
    height_of_frame, width_of_frame = placement.frame_shape
    return replace(
        region,
        polygon=tuple(polygon),
        box=(int(low[0]), int(low[1]), int(high[0] - low[0] + 1), int(high[1] - low[1] + 1)),
        area_percent=min(100.0, 100 * region.area / (height_of_frame * width_of_frame)),
        peak_at=peak_at,
    )


def choose_method(reference: Path, samples: Sequence[Path]) -> tuple[MethodTrial, list[MethodTrial]]:
    """Try every method on images of good parts.

    Args:
        reference: The image that parts are moved onto.
        samples: Image files.

    Returns:
        The best one, and all of them.

    Raises:
        DataError: None finds all of the parts.
        ImageError: An image cannot be read.
    """
    trials = try_methods(read_image(reference), [read_image(path) for path in samples])
    whole = [trial for trial in trials if trial.found == trial.samples and trial.lowest > 0]
    if not whole:
        best = trials[0]
        raise DataError(
            f"{reference}: no method finds all {best.samples} sample parts; {best.method} finds {best.found}: give a "
            "reference of a whole part before a plain background, and samples of good parts alone"
        )
    return whole[0], trials


def limit_of(trial: MethodTrial) -> float:
    """Return the correlation below which there is no part."""
    return float(f"{LIMIT_SHARE * trial.lowest:.3g}")


def write_aligned(
    aligner: Aligner,
    paths: Sequence[Path],
    out: Path,
    *,
    white_level: int | None,
    warn: Callable[[str], None],
) -> int:
    """Write images moved onto the reference, as a view moves them, as PNG of 8 bits.

    Args:
        aligner: Of the view.
        paths: Image files of different names.
        out: The folder.
        white_level: Of the model, for files of 16 bits.
        warn: Called with each image that holds no part; it is left out.

    Returns:
        How many were written.

    Raises:
        DataError: Two have the same name, or one cannot be written.
        ImageError: An image cannot be read.
    """
    names = [path.stem for path in paths]
    doubled = next((name for name, count in Counter(names).items() if count > 1), None)
    if doubled is not None:
        raise DataError(f"{doubled}: two images have this name; align one folder at a time")
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for path in paths:
        pixels = aligner.align(read_image(path, white_level=white_level))
        if pixels is None:
            warn(f"{path}: no part; left out")
            continue
        write_png(out / f"{path.stem}.png", pixels)
        written += 1
    return written
