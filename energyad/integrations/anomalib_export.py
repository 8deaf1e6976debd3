"""anomalib's exported models with the thresholds, results and services of energyad. Needs the extra `openvino`."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from energyad.detector import AnomalyDetector
from energyad.detector.recalibration import recalibrate
from energyad.detector.scored_image import ScoredImage
from energyad.errors import ModelError
from energyad.extras import require
from energyad.images.reading import ImageLike
from energyad.model import provenance
from energyad.model.folder import IMPORTED_GRAPH_FILE, IMPORTED_WEIGHTS_FILE
from energyad.model.manifest import ImportedModel, InputSpec, Manifest, PartStatistics
from energyad.progress import Progress
from energyad.runtimes.openvino import IntermediateModel, OpenVinoRuntime, intermediate_of
from energyad.scoring.calibration import Calibration

SUFFIXES: Final = (".xml", ".onnx")


def import_export(
    path: str | Path,
    good_images: Sequence[ImageLike],
    *,
    name: str = "detector",
    false_reject_rate: float = 0.01,
    review_rate: float | None = 0.05,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> AnomalyDetector:
    """Make a detector of a model that anomalib exported; the model stays as it is.

    Its thresholds are conformal, from good images that anomalib did not train on. Scores and heatmaps are the model's
    own, without the clamp to [0, 1] that anomalib's post-processor ends in. Two things differ: the lowest value of the
    good images' anomaly maps becomes 0, and each heatmap is shifted so that its highest value is the score.

    Args:
        path: `model.xml`, with `model.bin` beside it, or `model.onnx`, as `Engine.export` writes them.
        good_images: Of good parts that the model was not trained on.
        name: The model's name.
        false_reject_rate: Share of good parts that may be ng.
        review_rate: Share of good parts that may be ng or for review; None for no review.
        skip_bad: Leave out images that cannot be read, with a warning.
        progress: Called at each image.

    Raises:
        ModelError: The file is no such export: it cannot be read, or gives no anomaly map of a known size.
        DataError: No good image can be used.
        ImageError: A good image cannot be read, unless `skip_bad`.
        MissingExtraError: OpenVINO is not installed.

    Example:
        >>> detector = import_export("weights/openvino/model.xml", good_of_today, name="gasket")
        >>> detector.save("models/gasket")
    """
    path = Path(path)
    model = _read(path)
    raw = _detector(path, _wrap(path, model, floor=None), name=name, floor=0.0)
    scored = (image for image in raw.score_images(good_images) if isinstance(image, ScoredImage))
    floor = float(min((image.network_heatmap.min() for image in scored), default=0.0))
    new = recalibrate(
        _detector(path, _wrap(path, _read(path), floor=floor), name=name, floor=floor),
        good_images,
        false_reject_rate=false_reject_rate,
        review_rate=review_rate,
        skip_bad=skip_bad,
        progress=progress,
    )
    return AnomalyDetector(new.manifest.replace(previous_calibrations=()), new.contents, new.runtime)


def _read(path: Path) -> Any:
    require("openvino", "an imported model")
    import openvino

    if path.suffix in (".pt", ".ckpt", ".pth"):
        raise ModelError(f"{path}: a pickle, which can run code; export the model as OpenVINO or ONNX")
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path}: no export of anomalib; give its model.xml or model.onnx")
    try:
        return openvino.Core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"{path}: OpenVINO cannot read it ({reason}); export it again") from error


def _wrap(path: Path, model: Any, *, floor: float | None) -> IntermediateModel:
    """Return the model from RGB bytes to score and heatmap, as files."""
    import openvino
    from openvino import opset13 as ops
    from openvino.preprocess import PrePostProcessor

    outputs = {output.any_name: _unclamped(output.node.input_value(0)) for output in model.outputs}
    anomaly_map: Any = outputs.get("anomaly_map")
    if anomaly_map is None or not all(side.is_static for side in list(anomaly_map.partial_shape)[-2:]):
        raise ModelError(
            f"{path}: no output anomaly_map of a known size; export a model that localises defects"
        )
    height, width = (side.get_length() for side in list(anomaly_map.partial_shape)[-2:])
    heatmap = ops.reshape(anomaly_map, np.array([-1, height, width]), special_zero=False)
    peak = ops.reduce_max(heatmap, np.array([1, 2]), keep_dims=True)
    if "pred_score" in outputs:
        score = ops.reshape(outputs["pred_score"], np.array([-1, 1, 1]), special_zero=False)
        heatmap = ops.add(heatmap, ops.subtract(score, peak))
    if floor is not None:
        heatmap = ops.relu(ops.subtract(heatmap, np.float32(floor)))
    score = ops.reduce_max(heatmap, np.array([1, 2]), keep_dims=False)
    for node, tensor in ((score, "score"), (heatmap, "heatmap")):
        node.output(0).tensor.set_names({tensor})
    batch = model.input(0).partial_shape[0]
    wrapped = openvino.Model([ops.result(score), ops.result(heatmap)], model.get_parameters(), path.stem)
    wrapped.reshape({0: openvino.PartialShape([batch, 3, height, width])})
    steps = PrePostProcessor(wrapped)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    wrapped = steps.build()
    wrapped.input(0).tensor.set_names({"pixels"})
    return _files(wrapped)


def _unclamped(output: Any) -> Any:
    """What an output is before a clamp to [0, 1], if it ends in one. Choices whose condition is constant are made."""
    node = output.get_node()
    kind, inputs = node.get_type_name(), node.input_values()
    if kind == "Clamp" and node.get_attributes() == {"min": 0.0, "max": 1.0}:
        return _unclamped(inputs[0])
    if kind in ("Minimum", "Maximum"):
        bound = 1.0 if kind == "Minimum" else 0.0
        for first, second in (inputs, inputs[::-1]):
            if _constant(first) == bound:
                return _unclamped(second)
    if kind == "Select" and (condition := _constant(inputs[0])) is not None:
        return _unclamped(inputs[1] if condition else inputs[2])
    return output


def _constant(output: Any) -> float | None:
    """A constant scalar's value; None of anything else."""
    node = output.get_node()
    if node.get_type_name() != "Constant" or node.get_data().size != 1:
        return None
    return float(node.get_data().item())


def _files(model: Any) -> IntermediateModel:
    """OpenVINO's files of a model. Its graph is named by the hash of the weights, so its own hash covers both."""
    model.set_friendly_name(hashlib.sha256(intermediate_of(model).weights).hexdigest())
    return intermediate_of(model)


def _detector(path: Path, files: IntermediateModel, *, name: str, floor: float) -> AnomalyDetector:
    """A detector whose thresholds are yet to be set."""
    runtime = OpenVinoRuntime(files)
    manifest = Manifest(
        name=name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        input=InputSpec(image_size=runtime.input_shape),
        imported=ImportedModel(
            library="anomalib",
            file=path.name,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            heatmap_floor=floor,
        ),
        calibration=Calibration(0.0, 0.5, "prediction limit", (0.0,)),
        good_parts=(PartStatistics(score=0.0),),
        settings={},
        provenance=provenance.collect(
            [], image_digests=(), num_held_out=0, num_rotated=0, seed=0, threads=None, fit_seconds=0.0
        ),
    )
    contents = {IMPORTED_GRAPH_FILE: files.graph, IMPORTED_WEIGHTS_FILE: files.weights}
    return AnomalyDetector(manifest, contents, runtime)
