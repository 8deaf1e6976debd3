"""The model card that lies beside each model's files."""

from __future__ import annotations

from energyad.model.manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """Write the model card: what the model is, what it was fitted on, what its threshold rests on.

    Args:
        manifest: Of the model.

    Returns:
        Markdown.
    """
    provenance, calibration = manifest.provenance, manifest.calibration
    review = ""
    if calibration.review_threshold is not None:
        review = f"; review from {calibration.review_threshold:.6g}, for {calibration.review_rate:.2%}"
    data = (
        f"{provenance.num_images} good images, {provenance.num_held_out} of them held out for the threshold"
    )
    if provenance.num_rotated:
        data += f", and {provenance.num_rotated} rotated copies"
    return f"""# {manifest.name}

An energyad anomaly detector: a frozen backbone, whitened patch features, and an energy trained with DxMI.
High energy = abnormal.

| | |
|---|---|
| fitted | {manifest.created}, {provenance.fit_seconds:.0f} s, seed {provenance.seed} |
| data | {data}; {_learned(manifest)} |
{_categories(manifest)}| backbone | {_backbone(manifest)} |
| input | {_input(manifest)} |
| threshold | {calibration.threshold:.6g} for {calibration.false_reject_rate:.2%} false rejects{review} |
| false rejects | {calibration.guarantee()} |
| calibrated | {calibration.created or manifest.created} on {len(calibration.good_scores)} good images |

Use it for parts and camera settings like those it was fitted on. Scores have no unit and compare within this model
only. Fit again when the part, the lighting or the camera changes.

`model.json` holds the settings, the provenance and the SHA-256 of every file; `scorer.onnx` is one graph from pixels to
score and heatmap; `detector.safetensors` holds the fitted tensors, `backbone.safetensors` those of the backbone that
the graph does not hold.
"""


def _learned(manifest: Manifest) -> str:
    """What it learned since its fit."""
    extended = sum(extension.num_images for extension in manifest.extensions)
    more = f"{extended} new good parts were added; " if extended else ""
    taught = manifest.teaching
    if taught is None:
        return f"{more}no defects were seen"
    return (
        f"{more}learned from labels of {taught.num_defects} defects and of {taught.num_false_alarms} good parts "
        f"({taught.created})"
    )


def _backbone(manifest: Manifest) -> str:
    if manifest.backbone is None:
        return f"in the imported graph: {manifest.source}"
    return f"{manifest.backbone.name} ({manifest.backbone.source})"


def _categories(manifest: Manifest) -> str:
    """A row for a model of several."""
    if not manifest.categories:
        return ""
    return f"| categories | {', '.join(manifest.categories)}: each has an energy of its own; which, the image shows |\n"


def _input(manifest: Manifest) -> str:
    taken, (height, width) = manifest.input, manifest.input.shape
    text = f"{width} × {height} px, {taken.colour_order}; the whole image, resized to that"
    if taken.tiles.count > 1:
        text += f" and cut into {taken.described}"
    if (roi := manifest.roi) is not None:
        sources = {"inside": roi.inside, "not in": roi.ignored}
        where = ", ".join(f"{side} {source[0]}" for side, source in sources.items() if source is not None)
        text += f"; {roi.coverage:.0%} of it is scored ({where})"
    return text
