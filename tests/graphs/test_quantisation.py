from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from energyad import AnomalyDetector, FitSettings
from energyad.data.demo import render_flawed, render_good
from energyad.detector.export import export_model, open_exported, verify
from energyad.errors import BackboneError, ImageError, ModelError, SettingsError
from energyad.evaluation.metrics import image_auroc
from energyad.features.extractor import load_extractor
from energyad.graphs.cache import extractor_graph
from energyad.graphs.quantisation import quantise
from energyad.images.reading import write_png
from energyad.model.assembly import assemble_scorer
from energyad.model.folder import BACKBONE_FILE, GRAPH_FILE
from tests.quick import QUICK

pytestmark = pytest.mark.slow

SIZE = 128
SETTINGS = QUICK.with_values({"features.precision": "int8"})
GOOD = [render_good(0, "train", index, size=SIZE) for index in range(16)]
UNSEEN = [render_good(0, "test", index, size=SIZE) for index in range(8)]
FLAWED = [
    render_flawed(0, flaw, index, severity=1.0, size=SIZE)[0]
    for flaw in ("chip", "contamination", "missing_segment")
    for index in range(3)
]


@pytest.fixture(scope="module")
def quantised() -> AnomalyDetector:
    return AnomalyDetector.fit(GOOD, name="part", settings=SETTINGS, threads=1)


def test_the_backbones_convolutions_are_in_integers_and_the_heads_in_floats(
    quantised: AnomalyDetector,
) -> None:
    graph = onnx.load_from_string(quantised.contents[GRAPH_FILE]).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    of_head = [node for node in convolutions if node.input[1].startswith("head_")]
    inputs = {makers.get(node.input[1]) for node in convolutions if node not in of_head}
    assert of_head
    assert inputs == {"DequantizeLinear"}
    assert "DequantizeLinear" not in {makers.get(node.input[1]) for node in of_head}


def test_a_fit_on_quantised_features_still_tells_flaws_from_good_parts(quantised: AnomalyDetector) -> None:
    scores = [prediction.score for prediction in quantised.score_batch([*UNSEEN, *FLAWED])]
    auroc = image_auroc([False] * len(UNSEEN) + [True] * len(FLAWED), scores)
    assert auroc is not None
    assert auroc > 0.9


def test_the_backbone_is_much_smaller_than_in_floats(
    quantised: AnomalyDetector, fitted_detector: AnomalyDetector
) -> None:
    small, large = (
        sum(
            len(each.raw_data)
            for each in onnx.load_from_string(model.contents[GRAPH_FILE]).graph.initializer
            if not each.name.startswith("head_")
        )
        for model in (quantised, fitted_detector)
    )
    assert 5 * small < 2 * large


def test_a_quantised_model_scores_the_same_after_a_trip_through_its_folder(
    quantised: AnomalyDetector, tmp_path: Path
) -> None:
    quantised.save(tmp_path / "model")
    loaded = AnomalyDetector.load(tmp_path / "model", threads=1)
    assert loaded.score(FLAWED[0]).score == quantised.score(FLAWED[0]).score
    assert BACKBONE_FILE not in loaded.contents  # its graph alone holds the integers


def test_what_rounds_otherwise_is_refused_and_the_message_says_what_runs(
    quantised: AnomalyDetector, tmp_path: Path
) -> None:
    quantised.save(tmp_path / "model")
    with pytest.raises(ModelError, match="8-bit integers"):
        assemble_scorer(quantised.manifest, quantised.contents)
    for runtime in ("torch", "openvino"):
        with pytest.raises(SettingsError, match=r"8-bit integers.*onnxruntime"):
            AnomalyDetector.load(tmp_path / "model", runtime=runtime)
    for kind, name in (("pt2", "part.pt2"), ("openvino", "part.xml")):
        with pytest.raises(SettingsError, match=r"8-bit integers.*onnx"):
            export_model(quantised, kind, tmp_path / name)


def test_auto_never_chooses_pytorch_for_it(
    quantised: AnomalyDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantised.save(tmp_path / "model")
    monkeypatch.setattr("energyad.runtimes.has_cuda", lambda: True)
    assert AnomalyDetector.load(tmp_path / "model", threads=1).runtime.name == "onnxruntime"


def test_its_export_is_verified_against_its_own_graph(quantised: AnomalyDetector, tmp_path: Path) -> None:
    paths = [
        write_png(tmp_path / f"{index}.png", image) for index, image in enumerate([*UNSEEN[:2], *FLAWED[:2]])
    ]
    exported = export_model(quantised, "onnx", tmp_path / "part.onnx")
    assert verify(quantised, exported, paths).score == 0
    score = open_exported(exported.graph)(np.stack(FLAWED[:2])).score
    assert score.tolist() == [each.score for each in quantised.score_batch(FLAWED[:2])]


def test_a_bad_image_is_named_and_not_blamed_on_the_backbone(tmp_path: Path) -> None:
    paths = [write_png(tmp_path / f"{index}.png", image) for index, image in enumerate(GOOD[:4])]
    paths[1].write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"1\.png"):
        AnomalyDetector.fit(paths, settings=SETTINGS, threads=1)


def test_an_unknown_precision_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"precision = 'int4'.*float32 or int8"):
        FitSettings().with_values({"features.precision": "int4"})


def test_a_graph_that_cannot_be_quantised_is_one_clear_error() -> None:
    with pytest.raises(BackboneError, match="backbone 'broken': cannot be quantised"):
        quantise(onnx.ModelProto(), [], name="broken")


def test_the_same_images_give_the_same_quantised_backbone() -> None:
    features = QUICK.features
    graph = extractor_graph(
        load_extractor(features.backbone, image_size=(SIZE, SIZE), strides=features.strides)
    )
    first, second = (quantise(graph, GOOD[:4], name="same").SerializeToString() for _ in range(2))
    assert first == second
