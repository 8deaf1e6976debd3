"""The frozen backbone of a fit: its network, its graph, and the engine that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import onnx

from energyad import detector
from energyad.extraction import some_pixels
from energyad.features import FeatureExtractor, load_extractor
from energyad.runtimes.cache import extractor_graph
from energyad.runtimes.onnx import OnnxFeatures
from energyad.runtimes.quantisation import quantise
from energyad.settings import FitSettings


class Backbone(NamedTuple):
    """graph: of the extractor, in the precision of the settings; session: that runs it."""

    extractor: FeatureExtractor
    graph: onnx.ModelProto
    session: OnnxFeatures


def open_backbone(
    good_images: Sequence[detector.ImageLike],
    settings: FitSettings,
    *,
    weights_file: Path | None,
    threads: int | None,
    skip_bad: bool,
) -> Backbone:
    """The backbone of these settings. good_images: some of which tell an integer one the range of its numbers."""
    extractor = load_extractor(
        settings.backbone,
        image_size=settings.image_size,
        strides=settings.strides,
        half_strides=settings.half_strides,
        border=settings.border,
        weights_file=weights_file,
    )
    graph = extractor_graph(extractor)
    if settings.precision == "int8":
        pixels = some_pixels(good_images, settings=settings, skip_bad=skip_bad)
        graph = quantise(graph, pixels, name=settings.backbone)
    return Backbone(extractor, graph, OnnxFeatures(graph.SerializeToString(), threads=threads or 0))
