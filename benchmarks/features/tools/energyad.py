"""Probes of energyad: its command line, where there is a command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from benchmarks.features.probing import good, masks, tested

MODEL: Final = Path("models/part")
ABSENT: Final = {
    "methods": r"patchcore|padim|reverse_distillation|fastflow",
    "zero_shot": r"zero_?shot|winclip",
    "tables": r"time_?series|tabular|graph_?anomaly",
    "dicom": r"dicom|nifti",
    "statistics": r"wilcoxon|friedman|nemenyi|delong",
    "browse": r"data_?set_?(browser|app)|filter_?samples",
}
NOT_TRIED: Final[dict[str, str]] = {}
_QUICK: Final = (
    "input.image_size=64 augmentation.rotation=off energy.width=16 energy.latent_dim=8 energy.bottleneck=4 "
    "energy.pretrain_steps=20 memory_bank.size=16 memory_bank.rerank_bank_size=32 dxmi.iterations=2 "
    "dxmi.pretrain_iterations=2 synthetic_defects.per_image=1 synthetic_defects.discriminator_iterations=10"
)


def _run(*words: object, allowed: tuple[int, ...] = (0,), environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-m", "energyad", *map(str, words)]
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(environment or {})}, check=False
    )
    if ended.returncode not in allowed:
        raise RuntimeError(f"{' '.join(map(str, words))}: {ended.returncode} {ended.stderr[-500:]}")
    return ended.stdout


def fit() -> None:
    sets = [word for setting in _QUICK.split() for word in ("--set", setting)]
    _run("fit", "--images", "part/train/good", "--name", "part", "--threads", 1, *sets)
    assert (MODEL / "model.json").is_file()


def _fitted() -> None:
    if not MODEL.exists():
        fit()


def score() -> None:
    _fitted()
    lines = _run("score", *tested(), "--model", "part", "--json", "--no-csv", allowed=(0, 1)).splitlines()
    assert len({json.loads(line)["score"] for line in lines}) > 1


def heatmap() -> None:
    _fitted()
    _run("score", "part/test", "--model", "part", "--heatmaps", "--no-csv", allowed=(0, 1))
    assert len(list(Path("heatmaps").glob("*/*.png"))) == len(tested())


def _evaluated() -> dict[str, Any]:
    _fitted()
    words = ("--category", "part", "--data-root", ".", "--model", "part", "--json")
    values: dict[str, Any] = json.loads(_run("evaluate", *words))
    return values


def auroc() -> None:
    assert 0 <= _evaluated()["image_auroc"] <= 1


def aupro() -> None:
    assert 0 <= _evaluated()["aupro"] <= 1


def rate() -> None:
    _fitted()
    _run("calibrate", *tested("good"), "--model", "part", "--target-frr", 0.25, "--review-frr", 0.5)


def conformal() -> None:
    import energyad

    _fitted()
    print(energyad.load(MODEL).calibration.guarantee())


def rarity() -> None:
    _fitted()
    lines = _run("score", *tested(), "--model", "part", "--json", "--no-csv", allowed=(0, 1)).splitlines()
    assert all(0 < json.loads(line)["p_value"] <= 1 for line in lines)


def recalibrate() -> None:
    rate()


def learn() -> None:
    _fitted()
    rows = ["image,label,kind,mask"]
    defects = [path for path in tested() if path.parent.name != "good"]
    rows += [f"{path},defect,{path.parent.name},{mask}" for path, mask in zip(defects, masks(), strict=True)]
    Path("labels.csv").write_text("\n".join(rows))
    _run("teach", "--model", "part", "--labels", "labels.csv", "--good", "part/train/good")


def clone() -> None:
    import numpy as np
    from sklearn.base import clone as copy

    from energyad.integrations.scikit_learn import EnergyADEstimator

    settings: dict[str, Any] = dict(setting.split("=") for setting in _QUICK.split())
    settings = {name: value if value == "off" else int(value) for name, value in settings.items()}
    estimator = copy(EnergyADEstimator(settings=settings))
    images = np.array([str(path) for path in good()])
    assert set(estimator.fit(images).predict(images).tolist()) <= {-1, 1}


def coco() -> None:
    images = [
        {"id": number, "file_name": str(path), "height": 64, "width": 64}
        for number, path in enumerate(good())
    ]
    Path("coco.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    assert f"{len(good())} new" in _run_err("label", "coco.json")


def _run_err(*words: object) -> str:
    command = [sys.executable, "-m", "energyad", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def _run_code(code: str) -> None:
    """Run Python on a test image with the fitted model, in a process of its own."""
    _fitted()
    subprocess.run([sys.executable, "-c", code, str(tested()[0])], check=True)


def no_pickle() -> None:
    code = (
        "import pickle\n"
        "def refuse(*_, **__): raise AssertionError('pickle')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = refuse\n"
        "import sys, energyad\n"
        "energyad.load('models/part').score(sys.argv[1])"
    )
    _run_code(code)


def signed() -> None:
    _fitted()
    _run("models", "key", "line.pem")
    private, public = Path("line.pem"), Path("line.pem.pub")
    shutil.copytree(MODEL, "models/signed")
    _run("models", "sign", "signed", "--key", private)
    _run("score", tested()[0], "--model", "signed", "--trusted-key", public, "--no-csv", allowed=(0, 1))
    with Path("models/signed/scorer.onnx").open("ab") as file:
        file.write(b"x")
    _run("score", tested()[0], "--model", "signed", "--trusted-key", public, "--no-csv", allowed=(2,))


def light() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'torchvision', 'timm', 'anomalib', 'sklearn')))\n"
        "import energyad\n"
        "print(energyad.load('models/part').score(sys.argv[1]).score)"
    )
    _run_code(code)


def onnx() -> None:
    _fitted()
    _run("export", "--model", "part", "--format", "onnx", "--output", "exported.onnx")


def openvino() -> None:
    _fitted()
    _run("export", "--model", "part", "--format", "openvino", "--output", "exported.xml")


def service() -> None:
    _fitted()
    command = [sys.executable, "-m", "energyad", "serve", "--model", "part", "--port", "18473"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for("http://127.0.0.1:18473/healthz")
        request = urllib.request.Request(
            "http://127.0.0.1:18473/v1/score", tested()[0].read_bytes(), {"Content-Type": "image/png"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert "score" in json.loads(answer.read())
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def folder() -> None:
    _fitted()
    if not Path("incoming").exists():
        Path("incoming").mkdir()
        for number, path in enumerate(tested()):
            shutil.copyfile(path, f"incoming/{number}.png")
    for _ in range(2):
        _run("watch", "incoming", "--model", "part", "--out", "results.jsonl", "--once", "--settle", 0)
    assert len(Path("results.jsonl").read_text().splitlines()) == len(tested())


def camera() -> None:
    import cv2

    _fitted()
    video = cv2.VideoWriter("line.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for path in tested():
        video.write(cv2.imread(str(path)))
    video.release()
    Path("station.toml").write_text(
        'name = "line"\nmodel = "models/part"\n[[views]]\nfolder = "spool"\ncamera = {source = "line.avi"}\n'
        '[trigger]\nkind = "frame"\n[images]\nfolder = "kept"\n'
    )
    Path("spool").mkdir()
    _run("station", "check")


def machines() -> None:
    _fitted()
    Path("mqtt").mkdir()
    _run("station", "new", "mqtt/station.toml", "--name", "line", "--model", MODEL.absolute(), "--view",
         "front=incoming", "--modbus", 15020)  # fmt: skip
    _run("station", "check", "mqtt/station.toml")


def drift() -> None:
    _fitted()
    Path("scores.jsonl").write_text(
        _run("score", *tested(), "--model", "part", "--json", "--no-csv", allowed=(0, 1))
    )
    _run("drift", "scores.jsonl", "--model", "part", allowed=(0, 1))


def review() -> None:
    folder()
    command = [sys.executable, "-m", "energyad", "review", "--model", "part", "--port", "18474"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for("http://127.0.0.1:18474/review")
    finally:
        server.terminate()
        server.wait(30)


def ray() -> None:
    _fitted()
    _run("score", "part/test", "--model", "part", "--engine", "ray", "--output", "scores", allowed=(0, 1))
    assert json.loads(Path("scores/summary.json").read_text())["num_images"] == len(tested())
