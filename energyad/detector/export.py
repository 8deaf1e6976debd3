"""A model as one file for other programs, with what they must know of it beside it as JSON."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from energyad.detector import AnomalyDetector
from energyad.errors import ModelError, SettingsError
from energyad.files import atomic_write
from energyad.images import reading
from energyad.images.prefetch import prefetch_map
from energyad.model.assembly import assemble_scorer
from energyad.model.folder import GRAPH_FILE
from energyad.runtimes import RawScores, Runtime
from energyad.runtimes.eager import EagerRuntime
from energyad.runtimes.onnx import OnnxRuntime
from energyad.scoring.scorer import Scorer

SUFFIXES: Final = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}
TOLERANCE = 1e-4
"""Largest relative difference from PyTorch that `verify` lets pass."""

Score: TypeAlias = Callable[[UInt8[np.ndarray, "b h w 3"]], RawScores]


@dataclass(frozen=True)
class Exported:
    """The files that were written: the graph, what else it needs, and the metadata, a JSON file."""

    graph: Path
    others: tuple[Path, ...]
    metadata: Path


@dataclass(frozen=True)
class Agreement:
    """An export beside the model's reference, over `num_images` images.

    score: largest difference, relative to the score. heatmap: likewise, of any pixel, relative to the image's score.
    verdicts_changed: images on the other side of the threshold.
    """

    num_images: int
    score: float
    heatmap: float
    verdicts_changed: int

    def within(self, tolerance: float) -> bool:
        """Whether the export may be used in the model's place."""
        return max(self.score, self.heatmap) <= tolerance and self.verdicts_changed == 0


def export_model(detector: AnomalyDetector, kind: str, path: Path) -> Exported:
    """Write the scorer, pixels uint8 [batch h w 3] → score, heatmap, in a format of `SUFFIXES` or for Triton.

    Raises SettingsError for an unknown format and for one that cannot hold a quantised model, MissingExtraError,
    DataError where a file cannot be written.
    """
    if kind == "triton":
        return export_triton(detector, path)
    if kind not in SUFFIXES:
        raise SettingsError(f"format '{kind}': choose among {', '.join(SUFFIXES)}, triton")
    if path.suffix != SUFFIXES[kind]:
        raise SettingsError(f"{path}: a file of format {kind} ends in {SUFFIXES[kind]}")
    detector.manifest.networks()  # of an imported model there are none
    if detector.manifest.is_quantised and kind != "onnx":
        raise SettingsError(
            f"format '{kind}': model '{detector.name}' has its backbone in 8-bit integers; export it as onnx"
        )
    content, others = {"onnx": _onnx, "openvino": _openvino, "pt2": _pt2}[kind](detector, path)
    atomic_write(path, content)
    for other, more in others.items():
        atomic_write(other, more)
    beside = path.with_name(path.name + ".json")
    facts = describe(detector, kind, path, content)
    atomic_write(beside, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return Exported(path, tuple(others), beside)


def export_triton(detector: AnomalyDetector, path: Path, *, max_batch: int = 16) -> Exported:
    """Write a folder for the model repository of NVIDIA Triton: `config.pbtxt`, `1/model.onnx`, and the metadata.

    Triton gathers requests of single images into batches. The configuration comes last, so that a server that watches
    the repository sees a whole model.

    Args:
        detector: The model.
        path: The folder, whose name is the model's name on the server.
        max_batch: Images of a batch.

    Raises:
        DataError: A file cannot be written.
    """
    content = detector.contents[GRAPH_FILE]
    graph, config = path / "1" / "model.onnx", path / "config.pbtxt"
    atomic_write(graph, content)
    facts = describe(detector, "triton", graph, content)
    beside = atomic_write(path / "energyad.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    atomic_write(config, _triton_config(path.name, facts, max_batch=max_batch))
    return Exported(graph, (config,), beside)


def _triton_config(name: str, facts: dict[str, Any], *, max_batch: int) -> str:
    """Triton's configuration; shapes leave the batch out."""
    kinds = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "int64": "TYPE_INT64"}

    def tensor(name: str, spec: dict[str, Any]) -> str:
        shape = spec["shape"][1:]
        dims = f"dims: {shape}" if shape else "dims: [1] reshape: { shape: [] }"
        return f'  {{ name: "{name}" data_type: {kinds[spec["dtype"]]} {dims} }}'

    outputs = ",\n".join(tensor(output, spec) for output, spec in facts["outputs"].items())
    return f"""name: {json.dumps(name)}
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
{tensor(facts["input"]["name"], facts["input"])}
]
output [
{outputs}
]
dynamic_batching {{ max_queue_delay_microseconds: 2000 }}
"""


def describe(detector: AnomalyDetector, kind: str, path: Path, content: bytes) -> dict[str, Any]:
    """What a program must know to use the file: input, outputs, threshold, origin."""
    spec, (height, width) = detector.manifest.input, detector.input_shape
    return {
        "model": detector.name,
        "format": kind,
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "energyad": metadata.version("energyad"),
        "fitted": detector.manifest.created,
        "input": {
            "name": "pixels",
            "shape": ["batch", height, width, 3],
            "dtype": spec.dtype,
            "colour_order": spec.colour_order,
            "range": [0, 255],
            "resize": f"{spec.resize}; averaged over area where it shrinks, linear where it grows",
        },
        "outputs": {
            "score": {"shape": ["batch"], "dtype": "float32", "meaning": "energy; higher is more abnormal"},
            "heatmap": {
                "shape": ["batch", height, width],
                "dtype": "float32",
                "meaning": "energy of each pixel",
            },
            **_of_several(detector.manifest.categories),
        },
        "threshold": detector.threshold,
        "review_threshold": detector.calibration.review_threshold,
        "good_scores": list(detector.calibration.good_scores),
        "p_value": "(1 + number of good_scores >= score) / (number of good_scores + 1)",
        "verdict": "ng where score > threshold, else review where score > review_threshold, else ok",
    }


def _of_several(categories: Sequence[str]) -> dict[str, Any]:
    """The output that only a model for several categories has."""
    if not categories:
        return {}
    spec = {
        "shape": ["batch"],
        "dtype": "int64",
        "meaning": "what the image was taken for",
        "names": [*categories],
    }
    return {"category": spec}


def verify(
    detector: AnomalyDetector, exported: Exported, paths: Sequence[Path], *, tolerance: float = TOLERANCE
) -> Agreement:
    """Run the exported file and the model's reference on images.

    Raises ModelError where they differ by more than `tolerance`.
    """
    agreement = compare(detector, open_exported(exported.graph), paths)
    if not agreement.within(tolerance):
        text = f"score differs by {agreement.score:.1e}, heatmap by {agreement.heatmap:.1e}"
        raise ModelError(
            f"{exported.graph}: not the same as the model: {text}, {agreement.verdicts_changed} of "
            f"{agreement.num_images} verdicts (tolerance {tolerance:.0e}); do not use it"
        )
    return agreement


def compare(detector: AnomalyDetector, score: Score, paths: Sequence[Path]) -> Agreement:
    """Compare another way of scoring with `reference_runtime` on images.

    Raises:
        ImageError: At the first image that cannot be read.
    """
    reference = reference_runtime(detector)
    scores, heatmaps, changed = [0.0], [0.0], 0

    def both(batch: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[tuple[float, float, bool]]:
        pixels = np.stack([reading.resize(image, detector.input_shape) for image in batch])
        expected, exported = reference.run(pixels), score(pixels)
        scale = np.abs(expected.score)
        score_error = np.abs(expected.score - exported.score) / scale
        map_error = np.abs(expected.heatmap - exported.heatmap).max(axis=(1, 2)) / scale
        other = (expected.score > detector.threshold) != (exported.score > detector.threshold)
        return list(zip(score_error.tolist(), map_error.tolist(), other.tolist(), strict=True))

    for done in prefetch_map(paths, detector.read, both, batch_size=4, workers=1):
        score_error, map_error, other = done.require()
        scores.append(score_error)
        heatmaps.append(map_error)
        changed += other
    return Agreement(len(paths), max(scores), max(heatmaps), changed)


def reference_runtime(detector: AnomalyDetector) -> Runtime:
    """Return what exports are compared with: PyTorch, or ONNX Runtime where the backbone is quantised."""
    if detector.manifest.is_quantised:
        return OnnxRuntime(detector.contents[GRAPH_FILE])
    return EagerRuntime(assemble_scorer(detector.manifest, detector.contents), device="cpu")


def open_exported(graph: Path) -> Score:
    """A file that `export_model` wrote, ready to score."""
    if graph.suffix == SUFFIXES["onnx"]:
        return OnnxRuntime(graph).run
    if graph.suffix == SUFFIXES["openvino"]:
        from energyad.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime(graph).run
    return _run_pt2(graph)


def _onnx(detector: AnomalyDetector, path: Path) -> tuple[bytes, dict[Path, bytes]]:
    return detector.contents[GRAPH_FILE], {}


def _openvino(detector: AnomalyDetector, path: Path) -> tuple[bytes, dict[Path, bytes]]:
    """OpenVINO's text of the graph, and its weights in a file of the same name."""
    from energyad.runtimes.openvino import as_intermediate

    text, weights = as_intermediate(detector.contents[GRAPH_FILE])
    return text, {path.with_suffix(".bin"): weights}


def _pt2(detector: AnomalyDetector, path: Path) -> tuple[bytes, dict[Path, bytes]]:
    scorer = _Plain(assemble_scorer(detector.manifest, detector.contents))
    example = torch.zeros(2, *detector.input_shape, 3, dtype=torch.uint8)
    with torch.no_grad():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(scorer, (example,), dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue(), {}


class _Plain(nn.Module):
    """A scorer whose result needs no class of this package to be read back."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> tuple[Tensor, ...]:
        return tuple(output for output in self.scorer(pixels) if output is not None)


def _run_pt2(graph: Path) -> Score:
    module = torch.export.load(graph).module()

    def score(pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        with torch.no_grad():
            outputs = module(torch.from_numpy(pixels))
        return RawScores(*(output.numpy() for output in outputs))

    return score
