"""What 8-bit integers in the backbone would gain, and what they cost in AUROC: a reason why `energyad export` has none.

The likely reason: whitening divides features by their deviations over good parts, and in directions in which good parts
hardly differ a step of an 8-bit activation is larger than such a deviation.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from jaxtyping import UInt8
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.speed.timing import interleave
from energyad import images, metrics
from energyad.datasets import Category
from energyad.detector import GRAPH_FILE, AnomalyDetector
from energyad.runtimes.onnx import OnnxRuntime

CALIBRATION, TIMED = 32, 16
OP_TYPES = ("Conv", "Clip", "Add", "Relu")
HEAD = "head_"
"""Names of the head's nodes begin with it. The head stays in floats: energies are differences of near equals."""


class _Pixels(quantization.CalibrationDataReader):
    def __init__(self, images: Iterable[UInt8[np.ndarray, "h w 3"]]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, UInt8[np.ndarray, "1 h w 3"]] | None:
        image = next(self._images, None)
        return None if image is None else {"pixels": image[None]}


def quantise(graph: bytes, good_images: Iterable[UInt8[np.ndarray, "h w 3"]]) -> bytes:
    """The scorer's graph with its backbone in 8 bits; ranges are those that the images' activations reach."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, ready, target = (Path(folder) / name for name in ("source.onnx", "ready.onnx", "int8.onnx"))
        source.write_bytes(graph)
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        nodes = [
            node.name
            for node in onnx.load(ready).graph.node
            if node.op_type in OP_TYPES and not node.name.startswith(HEAD)
        ]
        quantization.quantize_static(
            ready,
            target,
            _Pixels(good_images),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=nodes,
        )
        return target.read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """It advises, through the root logger, what is done here already."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


def rows(detector: AnomalyDetector, category: Category, *, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for floats and one for integers, whose ranges come from training images."""

    def read(paths: Any) -> list[np.ndarray]:
        return [images.resize(detector.read(path), detector.input_shape) for path in paths]

    graph = detector.contents[GRAPH_FILE]
    graphs = {"float32": graph, "int8": quantise(graph, read(category.train_good[:CALIBRATION]))}
    plan = detector.runtime.plan
    runtimes = {name: OnnxRuntime(each, plan=plan) for name, each in graphs.items()}
    pixels = np.stack(read(item.path for item in category.test))

    def timed(runtime: OnnxRuntime) -> int:
        runtime.run(pixels[:TIMED])
        return len(pixels[:TIMED])

    works = {name: lambda runtime=runtime: timed(runtime) for name, runtime in runtimes.items()}
    rates = interleave(works, rounds=rounds)
    defective = [item.is_defective for item in category.test]
    for name, runtime in runtimes.items():
        scores = np.concatenate([runtime.run(part).score for part in np.array_split(pixels, 16)]).tolist()
        auroc = metrics.image_auroc(defective, scores)
        yield {
            "part": "int8",
            "subject": name,
            "image_auroc": None if auroc is None else round(auroc, 5),
            "graph_bytes": len(graphs[name]),
            **asdict(rates[name]),
        }
