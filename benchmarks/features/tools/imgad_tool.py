"""Probes of imgad: timm features with drawn weights, since no weights can be fetched here, and its anomalib backend."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from benchmarks.features.probing import forbid, good, masks, tested

ABSENT: Final = {
    "conformal": r"conformal",
    "learn": r"supervised|from_?defects|few_?shot_?defect",
    "coco": r"coco",
    "no_pickle": r"safetensors|export",
    "signed": r"signature|signing|verify_model",
    "onnx": r"onnx",
    "openvino": r"openvino",
    "service": r"fastapi|http_?server|rest_?api|flask",
    "folder": r"watch_?(folder|dir)|folder_?watch",
    "camera": r"camera|video_?capture|rtsp",
    "machines": r"mqtt|modbus|opc_?ua",
    "drift": r"drift",
    "review": r"review|annotat",
    "browse": r"browser|web_?app|gradio|streamlit",
    "ray": r"(^|[^a-z])ray([^a-z]|$)",
    "tables": r"tabular|time_?series|graph_?anomaly",
}
NOT_TRIED: Final = {
    "zero_shot": "its prompts need weights of CLIP that cannot be fetched here",
    "dicom": "it reads them with pydicom, which was not installed beside it here",
}


def _pipeline() -> Any:
    from imgad import AnomalyDetectionPipeline, TimmFeatureExtractor

    extractor = TimmFeatureExtractor("resnet18", pretrained=False, device="cpu", batch_size=4)
    return AnomalyDetectionPipeline(extractor=extractor, detector="knn", preprocessing=["l2"])


def _fitted() -> Any:
    return _pipeline().fit([str(path) for path in good()])


def _with_maps() -> Any:
    from imgad import AnomalibPipeline

    keywords: dict[str, Any] = {"layers": ["layer1"], "n_features": 16, "pre_trained": False}
    pipeline = AnomalibPipeline("padim", backbone="resnet18", image_size=64, device="cpu", **keywords)
    return pipeline.fit([str(path) for path in good()])


def fit() -> None:
    _fitted()


def score() -> None:
    assert len(set(_fitted().score([str(path) for path in tested()]).tolist())) > 1


def heatmap() -> None:
    _, maps = _with_maps().score_and_maps([str(path) for path in tested()])
    assert len(maps) == len(tested())


def auroc() -> None:
    from imgad import evaluate_scores

    scores = _fitted().score([str(path) for path in tested()])
    print(evaluate_scores([int(path.parent.name != "good") for path in tested()], scores))


def aupro() -> None:
    from imgad import evaluate_maps

    _, maps = _with_maps().score_and_maps([str(path) for path in tested()])
    bad = [path.parent.name != "good" for path in tested()]
    by_image = iter(masks())
    blank = np.zeros((64, 64), bool)
    print(evaluate_maps([str(next(by_image)) if one else blank for one in bad], maps))


def methods() -> None:
    from imgad import list_anomalib_models, list_detectors

    assert len(list_detectors()) + len(list_anomalib_models()) > 10


def rate() -> None:
    print(_fitted().calibrate_threshold([str(path) for path in tested("good")], method="fpr", target_fpr=0.1))


def rarity() -> None:
    pipeline = _fitted()
    print(pipeline.normal_percentile(pipeline.score([str(path) for path in tested()])))


def recalibrate() -> None:
    rate()


def clone() -> None:
    from sklearn.base import clone as copy

    copy(_pipeline())


def statistics() -> None:
    from imgad.stats import delong_test

    print(delong_test(np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.4, 0.3, 0.8, 0.9]), np.arange(5) / 5))


def light() -> None:
    forbid("torch", "torchvision", "timm")
    score()
