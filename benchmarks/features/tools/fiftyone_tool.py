"""Probes of FiftyOne: data sets and their pages; its data base is MongoDB at FIFTYONE_DATABASE_URI."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Final

from benchmarks.features.probing import good, tested

_DETECTOR: Final = r"anomal|one_?class|outlier_?detect|novelty"
ABSENT: Final = {
    "fit": _DETECTOR,
    "score": _DETECTOR,
    "methods": _DETECTOR,
    "heatmap": _DETECTOR,
    "service": _DETECTOR,
    "aupro": r"aupro|per_?region_?overlap",
    "zero_shot": _DETECTOR,
    "rate": r"false_?reject|target_?(fpr|frr)",
    "conformal": r"conformal",
    "rarity": r"p_?value(?!s)",
    "recalibrate": r"recalibrat|calibrate_?threshold",
    "learn": _DETECTOR,
    "clone": r"baseestimator|sklearn_?estimator",
    "tables": r"tabular|time_?series",
    "dicom": r"nifti_?anomaly|score_?dicom",
    "statistics": r"wilcoxon|friedman|nemenyi|delong",
    "no_pickle": _DETECTOR,
    "signed": r"sign_?model|verify_?model_?signature",
    "light": _DETECTOR,
    "onnx": r"(to|export)_?onnx",
    "openvino": r"openvino",
    "folder": r"watch_?(folder|dir)|folder_?watch",
    "camera": r"video_?capture|rtsp_|gige",
    "machines": r"mqtt|modbus|opc_?ua",
    "drift": r"data_?drift|drift_?detect",
    "ray": r"(^|[^a-z])ray([^a-z]|$)",
}
NOT_TRIED: Final[dict[str, str]] = {}


def auroc() -> None:
    import fiftyone
    from fiftyone import Classification, Sample

    dataset = fiftyone.Dataset()
    for number, path in enumerate(tested()):
        sample = Sample(filepath=str(path.absolute()))
        sample["truth"] = Classification(label="good" if path.parent.name == "good" else "defect")
        sample["score"] = Classification(label="defect", confidence=number / 10)
        dataset.add_sample(sample)
    results = dataset.evaluate_classifications(
        "score", gt_field="truth", method="binary", classes=["good", "defect"]
    )
    print(results.plot_roc_curve(backend="matplotlib"))
    dataset.delete()


def coco() -> None:
    import fiftyone

    images = [
        {"id": number, "file_name": path.name, "height": 64, "width": 64}
        for number, path in enumerate(good())
    ]
    Path("coco.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    dataset = fiftyone.Dataset.from_dir(
        data_path="part/train/good", labels_path="coco.json", dataset_type=fiftyone.types.COCODetectionDataset,
        include_id=True,
    )  # fmt: skip
    assert len(dataset) == len(good())
    dataset.delete()


def review() -> None:
    import fiftyone

    dataset = fiftyone.Dataset.from_images([str(path.absolute()) for path in good()])
    for sample in dataset:
        sample.tags.append("fine")
        sample.save()
    assert dataset.count_sample_tags() == {"fine": len(good())}
    dataset.delete()
    browse()


def browse() -> None:
    command = [
        str(Path(sys.executable).with_name("fiftyone")),
        "app",
        "launch",
        "--port",
        "15151",
        "--remote",
    ]
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen("http://127.0.0.1:15151/", timeout=5) as page:
                    assert b"FiftyOne" in page.read()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
    finally:
        server.terminate()
        server.wait(30)
