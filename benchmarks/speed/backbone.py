"""The bare backbone: RGB bytes to the feature maps that energyad uses, and nothing more. It is the limit."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from energyad.detector import AnomalyDetector
from energyad.features.extractor import FeatureExtractor, load_extractor
from energyad.graphs import export, layout
from energyad.images.prefetch import ordered_map
from energyad.runtimes.onnx import open_session
from energyad.runtimes.plan import Plan
from energyad.settings import FitSettings

Run = Callable[[UInt8[np.ndarray, "b h w 3"]], object]


class Stages(nn.Module):
    """Bytes to feature maps; the normalisation that every user of the backbone needs is inside."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> tuple[Float[Tensor, "b c gh gw"], ...]:
        """Feature maps of the chosen stages, of the image alone."""
        x = pixels.permute(0, 3, 1, 2).to(torch.float32) * self.extractor.scale - self.extractor.offset
        return tuple(self.extractor.maps_of(x))


def stages_of(detector: AnomalyDetector) -> Stages:
    """The detector's own backbone."""
    settings = FitSettings.from_dict(detector.manifest.settings)
    extractor = load_extractor(
        settings.features.backbone, image_size=settings.input.network_shape, strides=settings.features.strides
    )
    return Stages(extractor).eval().requires_grad_(False)


def graph_of(stages: Stages) -> onnx.ModelProto:
    """As energyad exports its own, folded input included."""
    size = stages.extractor.grid.image_size
    names = [f"stage_{index}" for index in range(3)]
    pixels = torch.zeros(2, *size, 3, dtype=torch.uint8)
    return layout.fold_scale(export._export(stages, pixels, "pixels", names))


def backbones(stages: Stages, plan: Plan) -> Mapping[str, Run]:
    """The backbone on each engine: in one call of the whole batch on all threads, and cut as energyad's plan says."""
    graph = graph_of(stages).SerializeToString()
    allowed = plan.allowed
    runs: dict[str, Run] = {
        "onnxruntime, one call": _onnx(graph, allowed),
        "onnxruntime, energyad's plan": _concurrently(_onnx(graph, plan.threads), plan),
        "torch, one call": _eager(stages),
    }
    if importlib.util.find_spec("openvino") is not None:
        runs["openvino, one call"] = _openvino(
            graph, Plan(1, concurrency=1, threads=allowed, allowed=allowed)
        )
        concurrency = Plan(plan.batch_size, concurrency=allowed, threads=1, allowed=allowed)
        runs["openvino, energyad's plan"] = _concurrently(_openvino(graph, concurrency), concurrency)
    return runs


def _onnx(graph: bytes, threads: int) -> Run:
    session = open_session(graph, threads=threads)
    return lambda pixels: session.run(None, {"pixels": pixels})


def _openvino(graph: bytes, plan: Plan) -> Run:
    from energyad.runtimes.openvino import compile_graph

    compiled: Any = compile_graph(graph, plan)
    return lambda pixels: compiled.create_infer_request().infer({"pixels": pixels}, share_inputs=True)


def _eager(stages: Stages) -> Run:
    module = stages.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(pixels: UInt8[np.ndarray, "b h w 3"]) -> object:
        return module(torch.from_numpy(pixels))

    return run


def _concurrently(run: Run, plan: Plan) -> Run:
    def cut(pixels: UInt8[np.ndarray, "b h w 3"]) -> object:
        size = plan.batch_size
        if len(pixels) <= size:
            return run(pixels)
        parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        return list(ordered_map(run, parts, workers=plan.concurrency))

    return cut
