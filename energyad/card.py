"""The model card that lies beside each model's files."""

from __future__ import annotations

from energyad.manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """Markdown for people: what the model is, what it was fitted on, what its threshold rests on."""
    made, input_, calibration = manifest.provenance, manifest.input, manifest.calibration
    return f"""# {manifest.name}

An energyad anomaly detector: a frozen backbone, whitened patch features, and an energy trained with DxMI.
High energy = abnormal.

| | |
|---|---|
| fitted | {manifest.created}, {made.fit_seconds:.0f} s, seed {made.seed} |
| data | {made.num_images} good images, {made.num_held_out} of them held out for the threshold; no defects were seen |
| backbone | {manifest.backbone.name} ({manifest.backbone.source}) |
| input | {input_.image_size} × {input_.image_size} px, {input_.colour_order}; {input_.resize} |
| threshold | {calibration.threshold:.6g} ({calibration.method}) |
| false rejects | {calibration.false_reject_rate:.1%} of good parts aimed at, judged by the held-out ones |

Use it for parts and camera settings like those it was fitted on. Scores have no unit and compare within this model
only. Fit again when the part, the lighting or the camera changes.

`model.json` holds the settings, the provenance and the SHA-256 of every file; `*.safetensors` the weights;
`scorer.onnx` the same weights as one graph from pixels to score and heatmap.
"""
