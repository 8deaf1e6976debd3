"""Laws of alignment: a part that was moved is moved back, to the pixel; where there is none, none is found."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from energyad.images.alignment import METHODS, Aligner, AlignmentMethod, try_methods


def part(height: int, width: int) -> np.ndarray:
    """An elongated part with a head and marks, on a plain background with a camera's noise."""
    generator = np.random.default_rng(0)
    image = np.full((height, width, 3), 200, np.uint8)
    unit = min(height, width) / 100
    x, y = width / 2, height / 2

    def point(dx: float, dy: float) -> tuple[int, int]:
        return (round(x + dx * unit), round(y + dy * unit))

    cv2.rectangle(image, point(-30, -6), point(25, 6), (60, 70, 80), -1)
    cv2.circle(image, point(25, 0), round(12 * unit), (40, 50, 60), -1)
    for number in range(8):
        end = (round(2 * unit), round(4 * unit))
        cv2.ellipse(image, point(-26 + 6 * number, 0), end, 20 * number, 0, 360, (220, 90, 30 * number), -1)
    return np.clip(image + generator.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def moved(image: np.ndarray, degrees: float, dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
    """The image with its part moved, and the matrix of that."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 1.0)
    matrix[:, 2] += (dx, dy)
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), matrix


@pytest.mark.parametrize("shape", [(200, 200), (240, 400), (700, 500)])
@pytest.mark.parametrize(
    ("method", "degrees"), [("contours", 0), ("contours", 100), ("contours", 190), ("orb", 35), ("ecc", 3)]
)
def test_a_part_that_was_moved_is_found_to_the_pixel_and_its_points_go_back(
    method: AlignmentMethod, degrees: float, shape: tuple[int, int]
) -> None:
    reference = part(*shape)
    frame, matrix = moved(reference, degrees, 0.04 * shape[1], -0.05 * shape[0])
    placement = Aligner(reference, method).place(frame)
    assert placement is not None and placement.correlation > 0.9
    whole = placement.matrix @ np.vstack([matrix, [0, 0, 1]])  # to the frame and back: nothing moves
    assert abs(math.degrees(math.atan2(whole[1, 0], whole[0, 0]))) < 0.5
    centre = np.array([shape[1] / 2, shape[0] / 2, 1.0])
    assert whole @ centre == pytest.approx(centre[:2], abs=1.0)
    (back,) = placement.to_frame([(shape[1] / 2, shape[0] / 2)])
    assert back == pytest.approx(tuple(matrix @ centre), abs=1.5)
    assert placement.warp(frame).shape == reference.shape


def test_a_heatmap_goes_back_to_where_the_frame_shows_what_it_is_of() -> None:
    reference = part(300, 300)
    frame, matrix = moved(reference, 140, 12, -9)
    placement = Aligner(reference).place(frame)
    assert placement is not None
    heatmap = np.zeros((300, 300), np.float32)
    heatmap[120:125, 80:85] = 1.0
    peak = np.unravel_index(placement.unwarp(heatmap).argmax(), (300, 300))
    assert (peak[1], peak[0]) == pytest.approx(tuple(matrix @ [82, 122, 1]), abs=4)


@pytest.mark.parametrize("method", METHODS)
def test_where_there_is_no_part_none_is_found(method: AlignmentMethod) -> None:
    aligner = Aligner(part(160, 160), method)
    generator = np.random.default_rng(1)
    empty = np.clip(200 + generator.normal(0, 3, (160, 160, 3)), 0, 255).astype(np.uint8)
    assert aligner.place(empty) is None
    assert aligner.place(np.full((160, 160, 3), 255, np.uint8)) is None
    assert aligner.align(np.zeros((40, 60, 3), np.uint8)) is None


def test_the_method_that_finds_the_parts_of_the_samples_best_is_first() -> None:
    reference = part(160, 160)
    turned = [moved(reference, degrees, 5, 5)[0] for degrees in (30, 290)]
    best, *others = try_methods(reference, turned)
    assert (best.method, best.found, best.samples) == ("contours", 2, 2)
    assert best.correlation > 0.9 > max(trial.correlation for trial in others if trial.method == "ecc")
