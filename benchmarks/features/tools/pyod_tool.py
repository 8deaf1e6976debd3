"""Probes of PyOD: detectors on embeddings of images, here small grey copies of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.features.probing import forbid, good, tested

ABSENT: Final = {
    "heatmap": r"heat_?map|anomaly_?map|pixel_?score",
    "aupro": r"aupro|per_?region",
    "zero_shot": r"zero_?shot",
    "rate": r"false_?(reject|positive|alarm)|target_?(fpr|frr)",
    "conformal": r"conformal",
    "dicom": r"dicom|nifti",
    "statistics": r"wilcoxon|friedman|nemenyi|delong",
    "coco": r"coco(?!_)",
    "no_pickle": r"safetensors|to_onnx|export_model",
    "signed": r"signature|signing|verify_model",
    "onnx": r"onnx",
    "openvino": r"openvino",
    "service": r"fastapi|http_?server|rest_?api|flask",
    "folder": r"watch_?(folder|dir)|folder_?watch",
    "camera": r"camera|video_?capture|rtsp",
    "machines": r"mqtt|modbus|opc_?ua",
    "drift": r"data_?drift|drift_?detect|population_?stability",
    "review": r"review|annotation_?page|label_?page",
    "browse": r"browser|web_?app|gradio|streamlit",
    "ray": r"(^|[^a-z])ray([^a-z]|$)",
}
NOT_TRIED: Final[dict[str, str]] = {}


def _embed(paths: Sequence[str]) -> Any:
    import cv2

    return np.stack([cv2.resize(cv2.imread(str(path), 0), (8, 8)).ravel() for path in paths]).astype(float)


def _fitted() -> Any:
    from pyod.models.embedding import EmbeddingOD

    return EmbeddingOD(encoder=_embed, detector="KNN").fit([str(path) for path in good()])


def fit() -> None:
    _fitted()


def score() -> None:
    scores = _fitted().decision_function([str(path) for path in tested()])
    assert len(set(scores.tolist())) > 1


def auroc() -> None:
    from pyod.utils.data import evaluate_print

    scores = _fitted().decision_function([str(path) for path in tested()])
    evaluate_print("KNN", [int(path.parent.name != "good") for path in tested()], scores)


def methods() -> None:
    from pyod.models import abod, cblof, copod, ecod, hbos, iforest, knn, lof, mcd, ocsvm

    assert len({abod, cblof, copod, ecod, hbos, iforest, knn, lof, mcd, ocsvm}) == 10


def rarity() -> None:
    probabilities = _fitted().predict_proba([str(path) for path in tested()])
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def recalibrate() -> None:
    detector = _fitted()
    detector.contamination = 0.3
    detector._process_decision_scores()
    print(detector.threshold_)


def learn() -> None:
    from pyod.models.devnet import DevNet

    features = _embed([str(path) for path in good() + tested()])
    labels = np.array([0] * len(good()) + [int(path.parent.name != "good") for path in tested()])
    DevNet(known_outliers=int(labels.sum()), epochs=2).fit(features, labels)


def clone() -> None:
    from pyod.models.iforest import IForest
    from sklearn.base import clone as copy

    features = _embed([str(path) for path in good()])
    assert len(copy(IForest(n_estimators=5)).fit(features).predict(features)) == len(features)


def tables() -> None:
    from pyod.models.iforest import IForest

    IForest(n_estimators=5).fit(np.random.default_rng(0).normal(size=(20, 3)))


def light() -> None:
    forbid("torch", "torchvision")
    Path("model").mkdir(exist_ok=True)
    score()
