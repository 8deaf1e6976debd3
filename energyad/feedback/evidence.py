"""Labelled images as a model sees them: the features of their patches, and which patches the marks cover."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.utils
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from energyad.errors import ImageError
from energyad.features.grids import Grid
from energyad.feedback.labels import Label
from energyad.feedback.marks import mask_of
from energyad.images import reading
from energyad.images.identity import pixel_digest
from energyad.images.prefetch import ordered_map
from energyad.images.reading import ImageLike
from energyad.model.manifest import Manifest
from energyad.progress import Progress
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.coverage import patch_coverage


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image as a model's network sees it.

    Attributes:
        source: Where it was read from.
        digest: By which it is known again, see `energyad.images.identity`.
        shape: Height and width of the image itself, pixels.
        pixels: At the size of the network's input.
        features: Of its patches, in half precision; one grid for each tile.
    """

    source: ImageLike
    digest: str
    shape: tuple[int, int]
    pixels: UInt8[np.ndarray, "h w 3"]
    features: Float[Tensor, "tiles c g1 g2"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """A labelled image, and what it teaches.

    Attributes:
        label: What people say of it.
        image: The image.
        coverage: The fraction of each patch that marks cover; None where nothing is marked.
    """

    label: Label
    image: SeenImage
    coverage: Float[Tensor, "tiles g1 g2"] | None

    @property
    def is_defect(self) -> bool:
        """Whether it shows a defect."""
        return self.label.value == "defect"


def backbone_of(graph: bytes) -> onnx.ModelProto:
    """Return the part of a model's graph from pixels to features. Works in any precision, and traces nothing."""
    model = onnx.load_from_string(graph)
    return onnx.utils.Extractor(model).extract_model(["pixels"], ["features"])


def see_images(
    sources: Sequence[ImageLike],
    manifest: Manifest,
    session: OnnxFeatures,
    *,
    progress: Progress,
    stage: str,
    is_wanted: Callable[[str], bool] = lambda digest: True,
) -> list[SeenImage]:
    """Read images and run the backbone over them. One that cannot be read is left out, with a warning.

    Args:
        sources: The images.
        manifest: Of the model.
        session: Of its backbone, see `backbone_of`.
        progress: Called at each image.
        stage: What progress calls this.
        is_wanted: Whether to look at an image, by its digest.
    """
    progress.stage(stage, len(sources))

    def see(source: ImageLike) -> SeenImage | ImageError | None:
        try:
            pixels = reading.as_rgb(source, white_level=manifest.input.white_level)
        except ImageError as error:
            return error
        digest = pixel_digest(pixels)
        if not is_wanted(digest):
            return None
        resized = reading.resize(pixels, manifest.input.shape)
        features = torch.from_numpy(session.run(resized[None])).half()
        return SeenImage(source, digest, pixels.shape[:2], resized, features)

    seen = []
    for outcome in ordered_map(see, sources, workers=session.plan.workers):
        progress.advance()
        if isinstance(outcome, ImageError):
            warnings.warn(f"left out: {outcome}", stacklevel=2)
        elif outcome is not None:
            seen.append(outcome)
    return seen


def evidence_of(
    labels: Sequence[Label], images: Sequence[SeenImage], *, manifest: Manifest, grid: Grid
) -> list[Evidence]:
    """Put labels and images together.

    Args:
        labels: Of one image each.
        images: Of these; some may be missing.
        manifest: Of the model.
        grid: Of its patches.
    """
    by_source = {image.source: image for image in images}
    evidence = []
    for label in labels:
        image = by_source.get(label.image)
        if image is not None:
            coverage = None
            if label.value == "defect" and label.marks:
                coverage = coverage_of(mask_of(label.marks, image.shape), manifest, grid)
            evidence.append(Evidence(label, image, coverage))
    return evidence


def coverage_of(
    mask: Bool[np.ndarray, "h w"], manifest: Manifest, grid: Grid
) -> Float[Tensor, "tiles g1 g2"]:
    """Return the fraction of each patch that a mask covers.

    Args:
        mask: Of the image at its own size.
        manifest: Of the model, whose input the mask is resized to.
        grid: Of the patches of one tile.
    """
    rows, columns = grid.rows, grid.columns
    covered = patch_coverage(
        mask,
        tiles=manifest.input.tiles,
        tile_size=manifest.input.image_size,
        patches=(rows.patches, columns.patches),
        margins=(rows.margin, columns.margin),
    )
    return torch.from_numpy(covered)
