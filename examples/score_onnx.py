"""Score images with an exported model and ONNX Runtime, numpy and Pillow: `score_onnx.py gasket.onnx *.png`."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def averages(old: int, new: int) -> np.ndarray:
    """One axis of a resize as a matrix: the mean over each new pixel's area, or linear interpolation to more pixels."""
    if new <= old:
        edges, pixel = np.arange(new + 1) * old / new, np.arange(old)
        shared = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
        return shared.clip(0) * new / old
    centres = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    return (1 - abs(centres[:, None] - np.arange(old))).clip(0)


graph, *paths = sys.argv[1:]
facts = json.loads(Path(f"{graph}.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
for path in paths:
    image = np.asarray(Image.open(path).convert("RGB"), float)
    rows, columns = map(averages, image.shape, facts["input"]["shape"][1:3])
    pixels = np.einsum("ij,jkc,lk->ilc", rows, image, columns, optimize=True).round().astype(np.uint8)
    score, heatmap = session.run(["score", "heatmap"], {"pixels": pixels[None]})
    print(f"{score[0]:.6g} {'ng' if score[0] > facts['threshold'] else 'ok'} {path}")
