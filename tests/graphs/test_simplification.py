"""Laws of simplified backbones: the same features, few nodes, and the weights that the module has."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from energyad.features.backbone_spec import BackboneSpec
from energyad.features.extractor import FeatureExtractor, empty_extractor
from energyad.graphs import export
from energyad.graphs.weights import load_beside, save_beside


def drawn_extractor(name: str, size: int, strides: tuple[int, ...]) -> FeatureExtractor:
    """A backbone of random weights, whose normalisations have seen some data."""
    torch.manual_seed(0)
    spec = BackboneSpec(name, (0.5,) * 3, (0.25,) * 3, "random", "0" * 64)
    extractor = empty_extractor(spec, image_size=(size, size), strides=strides)
    for module in extractor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return extractor


def features(graph: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    (found,) = session.run(None, {"pixels": pixels})
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "strides", "remaining", "dynamic"),
    [
        ("tf_efficientnet_lite0", (8, 16, 32), 0.02, set()),
        ("test_resnet", (8, 16), 0.1, set()),
        ("test_convnext", (8, 16), 0.1, set()),
        (
            "test_vit",
            (8, 16),
            0.5,
            {"Shape", "Expand", "CastLike"},
        ),  # a class token for each image
    ],
)
def test_a_backbone_keeps_its_features_and_its_weights(
    name: str, strides: tuple[int, ...], remaining: float, dynamic: set[str]
) -> None:
    size = 64
    extractor = drawn_extractor(name, size, strides)
    graph = export.export_extractor(extractor)
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = extractor(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(features(graph, pixels), expected, rtol=1e-3, atol=1e-4 * abs(expected).max())
    assert not {"Pad", "Shape", "CastLike", "Expand"} - dynamic & {node.op_type for node in graph.graph.node}
    tensors = extractor.backbone.state_dict()
    content = save_beside(graph, tensors)
    assert len(content) < remaining * sum(tensor.nbytes for tensor in tensors.values())
    restored = load_beside(graph, content)
    assert restored.keys() == tensors.keys()
    assert all(torch.equal(restored[key], tensor) for key, tensor in tensors.items())
