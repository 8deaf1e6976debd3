"""A traced backbone with its constants folded, and its weights as the module has them.

The exporter's own optimiser multiplies batch normalisations into the convolutions before them, so that a graph's
weights are others than the module's and a model folder would have to hold both. Engines do that themselves when they
open a graph. Here everything else is folded: what timm computes from shapes, casts, and padding before convolutions.
"""

from __future__ import annotations

import onnx
import onnx_ir
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules.common import fuse_pad_into_conv_rule, normalize_pad_format_conv_rule


def simplify(traced: onnx.ModelProto) -> onnx.ModelProto:
    """Fold what is constant in a graph that was traced without optimisation.

    Args:
        traced: As `torch.onnx.export` gives it with `optimize=False`.

    Returns:
        The graph with the same results, and the same initialisers for the module's weights.
    """
    model = onnx_ir.serde.deserialize_model(traced)
    optimizer.fold_constants(model)
    common.RemoveUnusedNodesPass()(model)
    model = rewriter.rewrite(
        model, pattern_rewrite_rules=[normalize_pad_format_conv_rule, fuse_pad_into_conv_rule]
    )
    for finish in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        finish(model)
    return onnx_ir.serde.serialize_model(model)
