"""Fits without a traced head: tracing takes longer than the rest of a small fit, and few laws are of its graph."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from energyad.detector import AnomalyDetector
from energyad.graphs import export
from energyad.images.reading import ImageLike
from energyad.scoring.scorer import EnergyHead


def fit_untraced(images: Sequence[ImageLike], **options: Any) -> AnomalyDetector:
    """Fit a detector that scores in PyTorch. The head in its graph is a stand-in, all else is as of any fit."""
    with untraced_heads():
        return AnomalyDetector.fit(images, runtime="torch", threads=1, **options)


@contextlib.contextmanager
def untraced_heads() -> Iterator[None]:
    """Models that are fitted meanwhile give the mean of an image's features as its score and at every pixel."""
    join = export.join

    def stand_in_for(head: EnergyHead, *, num_channels: int) -> tuple[EnergyHead, int]:
        return head, num_channels

    def join_stand_in(extractor: onnx.ModelProto, head: tuple[EnergyHead, int]) -> onnx.ModelProto:
        return join(extractor, stand_in(*head, like=extractor))

    with mock.patch.multiple(export, export_head=stand_in_for, join=join_stand_in):
        yield


def stand_in(head: EnergyHead, num_channels: int, *, like: onnx.ModelProto) -> onnx.ModelProto:
    """A graph with a head's outputs, in the versions of another graph."""
    shape, count = head.tiles.shape(head.grid.image_size), head.tiles.count
    constants = {
        "by_image": np.array([-1, count * num_channels * head.grid.num_patches]),
        "by_pixel": np.array([-1, 1, 1]),
        "axis": np.array([1]),
        "ones": np.ones((1, *shape), np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["features", "by_image"], ["image"]),
        helper.make_node("ReduceMean", ["image", "axis"], ["score"], keepdims=0),
        helper.make_node("Reshape", ["score", "by_pixel"], ["pixel"]),
        helper.make_node("Mul", ["pixel", "ones"], ["heatmap"]),
    ]
    outputs = [
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["batch", *shape]),
    ]
    if head.patch_energy.classifies:
        nodes.append(helper.make_node("Cast", ["score"], ["category"], to=TensorProto.INT64))
        outputs.append(helper.make_tensor_value_info("category", TensorProto.INT64, ["batch"]))
    features = helper.make_tensor_value_info(
        "features", TensorProto.FLOAT, ["parts", num_channels, *head.grid.inner]
    )
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "stand_in", [features], outputs, initializers)
    return helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)
