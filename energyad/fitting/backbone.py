"""The frozen backbone of a fit: its graph, quantised where the settings say so, and a session that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from jaxtyping import UInt8

from energyad.features.extractor import FeatureExtractor, load_extractor
from energyad.fitting.extraction import image_reader, process_images, sample_tiles
from energyad.graphs.cache import extractor_graph
from energyad.graphs.quantisation import quantise
from energyad.images.reading import DEFAULT_MAX_PIXELS, ImageLike
from energyad.runtimes.onnx import OnnxFeatures
from energyad.settings import FitSettings

NUM_RANGE_IMAGES = 32
"""Images that set the ranges of quantised activations."""


class Backbone(NamedTuple):
    """A backbone that is ready to run.

    Attributes:
        extractor: The PyTorch module.
        graph: Its ONNX graph, in the precision of the settings.
        session: Runs the graph.
    """

    extractor: FeatureExtractor
    graph: onnx.ModelProto
    session: OnnxFeatures


def open_backbone(
    good_images: Sequence[ImageLike],
    settings: FitSettings,
    *,
    weights_file: Path | None,
    threads: int | None,
    skip_bad: bool,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Backbone:
    """Open the backbone that the settings name.

    Args:
        good_images: Some of them set the ranges of an int8 backbone's activations.
        settings: Backbone, strides, image size and precision.
        weights_file: Weights to use in place of timm's; None for timm's.
        threads: Threads of the session; None for all cores.
        skip_bad: Leave out images that cannot be read.
        max_pixels: Files with more pixels are not decoded.

    Raises:
        SettingsError: For a backbone or strides that do not exist.
        ImageError: For an image that cannot be read, unless `skip_bad`.
    """
    features = settings.features
    extractor = load_extractor(
        features.backbone,
        image_size=settings.input.network_shape,
        strides=features.strides,
        coarse_strides=features.coarse_strides,
        border=features.border_margin,
        weights_file=weights_file,
    )
    graph = extractor_graph(extractor)
    if features.precision == "int8":
        pixels = range_tiles(good_images, settings=settings, skip_bad=skip_bad, max_pixels=max_pixels)
        graph = quantise(graph, pixels, name=features.backbone)
    return Backbone(extractor, graph, OnnxFeatures(graph.SerializeToString(), threads=threads or 0))


def range_tiles(
    good_images: Sequence[ImageLike],
    *,
    settings: FitSettings,
    skip_bad: bool,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> list[UInt8[np.ndarray, "th tw 3"]]:
    """Return one tile of each of `NUM_RANGE_IMAGES` images, spread evenly over the sequence."""
    step = max(1, len(good_images) // NUM_RANGE_IMAGES)
    indices = range(0, len(good_images), step)[:NUM_RANGE_IMAGES]
    read = image_reader(good_images, settings, max_pixels=max_pixels)
    batches = process_images(read, list, indices, skip_bad=skip_bad, workers=1)
    images = [image for _, batch in batches for image in batch]
    return [tile for image in images for tile in sample_tiles(image, settings=settings, max_tiles=1)]
