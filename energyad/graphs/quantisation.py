"""The backbone in 8-bit integers: a smaller graph that newer processors run faster.

Rounding to 8 bits moves features by a few percent of their spread, and by more than their spread in the directions in
which good parts hardly differ. A head fitted on the exact features takes that for defects (image AUROC near one half on
screws); a head fitted on the quantised ones has seen it in every good part and loses next to nothing. So a model is
quantised when it is fitted, never afterwards; and only ONNX Runtime scores it, since OpenVINO rounds otherwise and its
scores differ by percents.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from energyad.errors import BackboneError
from energyad.graphs.export import silence_logging

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

OP_TYPES = ("Conv", "Clip", "Add", "Relu")
"""What is quantised. The matrix products that resample the stages stay in floats, as does the head."""


def quantise(
    backbone: onnx.ModelProto, pixels: Sequence[UInt8[np.ndarray, "h w 3"]], *, name: str
) -> onnx.ModelProto:
    """Write static quantisation into a backbone's graph, weights per channel.

    Args:
        backbone: pixels uint8 [batch h w 3] → features.
        pixels: Some images at the network's size, whose activations set the ranges.
        name: Of the backbone, for the message.

    Returns:
        The graph with quantisation and dequantisation nodes (QDQ).

    Raises:
        BackboneError: ONNX Runtime cannot quantise it.
    """
    with tempfile.TemporaryDirectory() as folder, silence_logging():
        source, ready, target = (Path(folder) / f"{stage}.onnx" for stage in ("float32", "ready", "int8"))
        try:
            # Of a graph in memory it would take constants out that shapes depend on.
            onnx.save(backbone, source)
            quant_pre_process(source, ready, skip_symbolic_shape=True)
            quantization.quantize_static(
                ready,
                target,
                _Pixels(pixels),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,  # 7 bits: older processors add two 8-bit products in 16 bits, and these overflow
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=list(OP_TYPES),
            )
            return onnx.load(target)
        except Exception as error:  # the tool raises whatever its parts raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BackboneError(
                f"backbone '{name}': cannot be quantised ({reason}); fit it in float32"
            ) from error


class _Pixels(quantization.CalibrationDataReader):
    def __init__(self, pixels: Sequence[UInt8[np.ndarray, "h w 3"]]) -> None:
        self._pixels = iter(pixels)

    def get_next(self) -> dict[str, UInt8[np.ndarray, "1 h w 3"]] | None:
        image = next(self._pixels, None)
        return None if image is None else {"pixels": image[None]}
