"""Probes of anomalib: PaDiM with a small backbone and drawn weights, since no weights can be fetched here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.features.probing import forbid, tested

ABSENT: Final = {
    "rate": r"false_?reject|target_?(fpr|frr)|quantile_?threshold",
    "conformal": r"conformal",
    "dicom": r"dicom|nifti",
    "statistics": r"wilcoxon|friedman|nemenyi|delong|significan",
    "coco": r"coco(?!.*ckpt)",
    "signed": r"signature|signing|verify_model",
    "service": r"fastapi|http_?server|serve_?model|rest_?api",
    "folder": r"watch_?(folder|dir)|folder_?watch",
    "camera": r"camera|video_?capture|rtsp|frame_?grab",
    "machines": r"mqtt|modbus|opc_?ua",
    "drift": r"drift",
    "review": r"review|annotation_?(page|app)|label_?page",
    "browse": r"browser|web_?app|gradio|studio",
    "ray": r"(^|[^a-z])ray([^a-z]|$)",
    "clone": r"sklearn|baseestimator|get_params",
    "tables": r"tabular_?(model|detector)|time_?series|graph_?anomaly",
}
NOT_TRIED: Final = {
    "zero_shot": "WinCLIP needs weights that cannot be fetched here",
    "learn": "SuperSimpleNet can, but needs weights that cannot be fetched here",
}
_SIZE: Final = (64, 64)


def _data() -> Any:
    from anomalib.data import Folder
    from torchvision.transforms.v2 import Resize

    kinds = sorted(path.name for path in Path("part/test").iterdir() if path.name != "good")
    return Folder(
        name="part",
        root="part",
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{kind}" for kind in kinds],
        mask_dir=[f"ground_truth/{kind}" for kind in kinds],
        augmentations=Resize(_SIZE),
        num_workers=0,
        train_batch_size=4,
        eval_batch_size=4,
    )


def _model(**values: Any) -> Any:
    from anomalib.models import Padim

    return Padim(backbone="resnet18", layers=["layer1"], n_features=16, pre_trained=False, **values)


def _engine() -> Any:
    from anomalib.engine import Engine

    return Engine(accelerator="cpu", devices=1, logger=False, default_root_dir="results")


def _fitted(**values: Any) -> tuple[Any, Any]:
    model, engine = _model(**values), _engine()
    engine.fit(model=model, datamodule=_data())
    return model, engine


def fit() -> None:
    _fitted()


def score() -> None:
    model, engine = _fitted()
    batches = engine.predict(model=model, data_path="part/test")
    assert len({float(score) for batch in batches for score in batch.pred_score}) > 1


def heatmap() -> None:
    model, engine = _fitted()
    batches = engine.predict(model=model, data_path="part/test")
    assert sum(len(batch.anomaly_map) for batch in batches) == len(tested())


def _measured(metric: Any) -> None:
    from anomalib.metrics import Evaluator

    model, engine = _fitted(evaluator=Evaluator(test_metrics=[metric]))
    (values,) = engine.test(model=model, datamodule=_data())
    assert len(values) == 1


def auroc() -> None:
    from anomalib.metrics import AUROC

    _measured(AUROC(fields=["pred_score", "gt_label"]))


def aupro() -> None:
    from anomalib.metrics import AUPRO

    _measured(AUPRO(fields=["anomaly_map", "gt_mask"]))


def methods() -> None:
    import anomalib.models
    from anomalib.models import AnomalibModule

    classes = [value for value in vars(anomalib.models).values() if isinstance(value, type)]
    assert len([one for one in classes if issubclass(one, AnomalibModule)]) > 10


def rarity() -> None:
    from anomalib.models import Dfkde

    model, engine = (
        Dfkde(backbone="resnet18", layers=["layer4"], pre_trained=False, n_pca_components=4),
        _engine(),
    )
    engine.fit(model=model, datamodule=_data())
    batches = engine.predict(model=model, data_path="part/test")
    assert all(0 <= float(score) <= 1 for batch in batches for score in batch.pred_score)


def recalibrate() -> None:
    model, engine = _fitted()
    before = model.post_processor.image_threshold.clone()
    engine.validate(model=model, datamodule=_data())
    print(before, model.post_processor.image_threshold)


def no_pickle() -> None:
    openvino()
    files = {path.suffix for path in Path("results").rglob("*") if path.is_file() and "openvino" in str(path)}
    assert files <= {".xml", ".bin", ".json"}


def light() -> None:
    if not list(Path("results").rglob("*.xml")):
        openvino()
    forbid("torch", "torchvision", "timm")
    for name in [name for name in sys.modules if name.startswith("anomalib")]:
        del sys.modules[name]
    from anomalib.deploy import OpenVINOInferencer

    OpenVINOInferencer(next(Path("results").rglob("*.xml")), device="CPU").predict(tested()[0])


def onnx() -> None:
    from anomalib.deploy import ExportType

    model, engine = _fitted()
    print(engine.export(model, ExportType.ONNX, export_root="results", input_size=_SIZE))


def openvino() -> None:
    from anomalib.deploy import ExportType

    model, engine = _fitted()
    print(engine.export(model, ExportType.OPENVINO, export_root="results", input_size=_SIZE))
