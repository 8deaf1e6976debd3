"""Regions as `Detections` of supervision, for its annotators, trackers and zones. Needs the extra `supervision`."""

from __future__ import annotations

import cv2
import numpy as np
import supervision

from energyad.scoring.prediction import Prediction

CLASS_NAME = "anomaly"


def detections_of(prediction: Prediction) -> supervision.Detections:
    """Return the regions of a prediction, highest peak first; none of an image that is ok.

    Args:
        prediction: What `AnomalyDetector.score` gives.

    Returns:
        Detections with boxes, masks and `confidence`, which is 1 minus the region's p-value. `data` holds
        `class_name`, `peak` (energy), `p_value` and `area_percent`.

    Example:
        >>> detections = detections_of(detector.score("part.png"))
        >>> supervision.PolygonAnnotator().annotate(image, detections)
    """
    regions = prediction.regions
    if not regions:
        return supervision.Detections.empty()
    boxes = np.array([region.box for region in regions])
    masks = np.zeros((len(regions), *prediction.heatmap.shape), np.uint8)
    for mask, region in zip(masks, regions, strict=True):
        cv2.fillPoly(mask, [np.array(region.polygon, np.int32)], 1)
    return supervision.Detections(
        xyxy=np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]).astype(float),
        mask=masks.astype(bool),
        confidence=np.array([1 - region.p_value for region in regions]),
        class_id=np.zeros(len(regions), int),
        data={
            "class_name": np.full(len(regions), CLASS_NAME),
            **{
                name: np.array([getattr(region, name) for region in regions])
                for name in ("peak", "p_value", "area_percent")
            },
        },
    )
