"""The model card that lies beside each model's files."""

from __future__ import annotations

from energyad.manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """Markdown for people: what the model is, what it was fitted on, what its threshold rests on."""
    made, input_, calibration = manifest.provenance, manifest.input, manifest.calibration
    review = ""
    if calibration.review_threshold is not None:
        review = f"; review from {calibration.review_threshold:.6g}, for {calibration.review_rate:.2%}"
    return f"""# {manifest.name}

An energyad anomaly detector: a frozen backbone, whitened patch features, and an energy trained with DxMI.
High energy = abnormal.

| | |
|---|---|
| fitted | {manifest.created}, {made.fit_seconds:.0f} s, seed {made.seed} |
| data | {made.num_images} good images, {made.num_held_out} of them held out for the threshold; no defects were seen |
| backbone | {manifest.backbone.name} ({manifest.backbone.source}) |
| input | {input_.image_size} × {input_.image_size} px, {input_.colour_order}; {input_.resize} |
| threshold | {calibration.threshold:.6g} for {calibration.false_reject_rate:.2%} false rejects{review} |
| false rejects | {calibration.rule().promise()} |
| calibrated | {calibration.created or manifest.created} on {len(calibration.good_scores)} good images |

Use it for parts and camera settings like those it was fitted on. Scores have no unit and compare within this model
only. Fit again when the part, the lighting or the camera changes.

`model.json` holds the settings, the provenance and the SHA-256 of every file; `*.safetensors` the weights;
`scorer.onnx` the same weights as one graph from pixels to score and heatmap.
"""
