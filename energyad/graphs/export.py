"""From the scorer module to an ONNX graph: any batch size, one fixed image size."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import onnx
import onnx.compose
import torch
from onnx import helper
from onnxscript import optimizer
from torch import Tensor, nn

from energyad.features.extractor import FeatureExtractor
from energyad.graphs import layout, traces
from energyad.graphs.simplification import simplify
from energyad.images.tiling import Tiles
from energyad.scoring.scorer import EnergyHead, cut


def export_extractor(extractor: FeatureExtractor) -> onnx.ModelProto:
    """Export the frozen backbone: pixels uint8 [batch h w 3] → features [batch c g1 g2].

    Args:
        extractor: With its weights. Images have the size of its grid.

    Returns:
        A graph that holds the weights as the module does, but for those of the first convolution.
    """
    for module in extractor.modules():
        if getattr(module, "inplace", False):  # what works in place takes tracing nearly twice as long
            module.inplace = False  # type: ignore[assignment]
    pixels = torch.zeros(2, *extractor.grid.image_size, 3, dtype=torch.uint8)
    traced = _export(extractor, pixels, "pixels", ["features"], optimize=False)
    with silence_logging():
        return layout.fold_scale(simplify(traced))


def export_head(head: EnergyHead, *, num_channels: int) -> onnx.ModelProto:
    """Export a fitted head: features [batch * tiles, c g1 g2] → score [batch], heatmap [batch h w].

    Args:
        head: With its weights. Of several categories the graph has a third output, category [batch].
        num_channels: c, of the features.

    Returns:
        A graph for any number of images, its channels second where `channels_second` can move them. Heads of one
        structure are traced once, see `energyad.graphs.traces`.
    """
    tiles = head.tiles.count
    features = torch.zeros(2 * tiles, num_channels, *head.grid.inner)
    names = ["score", "heatmap", *["category"] * head.patch_energy.classifies]
    outputs = _Outputs(head).eval()
    trace = partial(_export, outputs, features, "features", names, multiple=tiles, optimize=False)
    traced = traces.traced(outputs, features, trace)
    with silence_logging():
        exported = layout.channels_second(optimizer.optimize(traced))
    for output in exported.graph.output:  # the exporter knows no name for a tiles-th of the batch
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    return exported


class _Outputs(nn.Module):
    def __init__(self, head: EnergyHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return tuple(output for output in self.head(features) if output is not None)


class _Cut(nn.Module):
    def __init__(self, tiles: Tiles, tile_size: tuple[int, int]) -> None:
        super().__init__()
        self.tiles, self.tile_size = tiles, tile_size

    def forward(self, pixels: Tensor) -> Tensor:
        return cut(pixels, self.tiles, self.tile_size)


def with_tiles(extractor: onnx.ModelProto, tiles: Tiles, *, tile_size: tuple[int, int]) -> onnx.ModelProto:
    """Put the cut of each image into its tiles before an extractor: pixels uint8 [batch h w 3] → features.

    Args:
        extractor: Graph of a backbone that takes tiles.
        tiles: How an image is cut.
        tile_size: Height and width of a tile, pixels.

    Returns:
        The graph of both; the extractor itself for a single tile.
    """
    if tiles.count == 1:
        return extractor
    whole = torch.zeros(2, *tiles.shape(tile_size), 3, dtype=torch.uint8)
    behind = onnx.compose.add_prefix(extractor, "tile_", rename_outputs=False)
    for value in (*behind.graph.input, *behind.graph.output, *behind.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:  # there are more tiles than images
                dim.dim_param = f"tiles_{dim.dim_param}"
    front = _export(_Cut(tiles, tile_size), whole, "pixels", ["tiles"])
    return onnx.compose.merge_models(front, behind, io_map=[("tiles", "tile_pixels")])


def join(extractor: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    """Join the two halves of a scorer; the backbone takes seconds to trace and is the same for every fit.

    Args:
        extractor: pixels → features.
        head: features → score, heatmap, and category of several.

    Returns:
        A checked graph without traces of source lines and folders.
    """
    prefixed = onnx.compose.add_prefix(head, "head_", rename_inputs=False, rename_outputs=False)
    joined = onnx.compose.merge_models(
        extractor,
        prefixed,
        io_map=[("features", "features")],
        outputs=[output.name for output in head.graph.output],
    )
    versions = {opset.domain: opset.version for opset in joined.opset_import}
    del joined.opset_import[:]  # each half has brought its own, and tools refuse a domain named twice
    joined.opset_import.extend(helper.make_opsetid(*opset) for opset in versions.items())
    del joined.metadata_props[:]
    for holder in (joined, joined.graph, *joined.graph.node, *joined.graph.value_info):
        holder.doc_string = ""
        if not isinstance(holder, onnx.ModelProto):
            del holder.metadata_props[
                :
            ]  # traces of source lines and of the folder the package is installed in
    onnx.checker.check_model(joined)
    return joined


def _export(
    module: nn.Module,
    example: Tensor,
    input_name: str,
    output_names: list[str],
    *,
    multiple: int = 1,
    optimize: bool = True,
) -> onnx.ModelProto:
    batch = torch.export.Dim("batch")
    with silence_logging(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=[input_name],
            output_names=output_names,
            dynamic_shapes=({0: batch if multiple == 1 else multiple * batch},),
            dynamo=True,
            verbose=False,
            optimize=optimize,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model: Any = program.model_proto
    return model


@contextlib.contextmanager
def silence_logging() -> Iterator[None]:
    """Nothing below an error is logged; a user fitting a model can do nothing about what exporters note."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
