"""The features, and what a probe finds."""

from __future__ import annotations

from typing import Final, Literal

Answer = Literal["yes", "no", "failed", "not tried"]

TOOLS: Final = {
    "energyad": "energyad",
    "anomalib_tool": "anomalib",
    "pyod_tool": "pyod",
    "imgad_tool": "imgad",
    "fiftyone_tool": "fiftyone",
}
"""Modules of `benchmarks.features.tools`, and the package that each is about."""

FEATURES: Final = {
    "fit": "fits on good images alone, on a CPU",
    "score": "scores images that it has not seen",
    "heatmap": "a heatmap for each image",
    "auroc": "AUROC on test images",
    "aupro": "AUPRO on test images with masks",
    "methods": "ten or more published detectors to choose from",
    "zero_shot": "scores without any good image",
    "rate": "threshold at a stated rate of false rejects, from held-out good images",
    "conformal": "that rate promised for any number of good images (conformal)",
    "rarity": "how rare a score is among good parts (p-value, percentile or probability)",
    "recalibrate": "threshold set anew without a fit",
    "learn": "learns from labelled defects",
    "clone": "scikit-learn's `clone` and `fit`/`predict`",
    "tables": "tables of numbers, time series or graphs too",
    "dicom": "DICOM images",
    "statistics": "statistical tests between methods",
    "coco": "reads labels in COCO",
    "no_pickle": "saves and loads a model without pickle",
    "signed": "models signed, and changed ones refused",
    "light": "scores where PyTorch cannot be imported",
    "onnx": "exports to ONNX",
    "openvino": "exports to OpenVINO",
    "service": "HTTP service that scores",
    "folder": "watches a folder, each image once, on after a kill",
    "camera": "scores frames of a camera or video",
    "machines": "verdicts to MQTT, Modbus or OPC UA",
    "drift": "says when images no longer look like those fitted on",
    "review": "a page on which people look at images and label them",
    "browse": "a page that filters a data set of images",
    "ray": "scores an archive on a Ray cluster",
}
"""Rows of the table."""
