"""Labels as CVAT ("CVAT for images 1.1", XML) and Label Studio (JSON) export them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from jaxtyping import Bool, UInt8

from energyad.errors import DataError
from energyad.extras import require
from energyad.feedback.imported import ImportedLabel, label_of
from energyad.feedback.marks import Polygon, box, polygons_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_PIXELS: Final = 1 << 28
"""Of a mask that a file announces."""
_UPLOAD: Final = re.compile(r"[0-9a-f]{8}-(.+)")


def read_cvat(path: Path) -> Iterator[ImportedLabel]:
    """Yield the label of each image of a CVAT file: an image without shapes and tags is a good part.

    Args:
        path: The XML file, without entities of its own. Images are below its folder.

    Raises:
        DataError: It is no such file.
    """
    require("supervision", "reading CVAT")
    from defusedxml import DefusedXmlException, ElementTree

    try:
        root = ElementTree.parse(path, forbid_dtd=True).getroot()
        for image in root.iter("image"):
            shapes = [(shape.get("label", ""), _cvat_polygons(shape, image)) for shape in image]
            yield label_of(path.parent / image.attrib["name"], shapes)
    except (ElementTree.ParseError, DefusedXmlException, KeyError, ValueError, OSError) as error:
        raise DataError(
            f"{path}: not as CVAT writes it ({type(error).__name__}); export it as CVAT for images 1.1"
        ) from error


def read_label_studio(path: Path, tasks: Sequence[Mapping[str, Any]]) -> Iterator[ImportedLabel]:
    """Yield the label of each task that somebody completed; of several annotations the last one counts.

    Args:
        path: The JSON file. Images are below its folder, or where their path says.
        tasks: Its content.
    """
    for task in tasks:
        done = [one for one in task.get("annotations", ()) if not one.get("was_cancelled")]
        if done:
            shapes = [shape for result in done[-1]["result"] for shape in _label_studio_shapes(result)]
            yield label_of(_label_studio_image(path, task["data"]), shapes)


def _cvat_polygons(shape: Element, image: Element) -> Sequence[Polygon]:
    """The polygons of a shape; none of a tag. Coordinates are edges of pixels."""
    values = shape.attrib
    if shape.tag == "box":
        left, top, right, bottom = (float(values[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
        return _turned(left, top, right - left, bottom - top, float(values.get("rotation", 0)), centred=True)
    if shape.tag == "mask":
        size = int(values["height"]), int(values["width"])
        counts = [int(count) for count in values["rle"].split(",")]
        return _moved(_of_run_lengths(counts, size), int(values["left"]), int(values["top"]))
    if shape.tag == "ellipse":
        angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        x = float(values["cx"]) + float(values["rx"]) * np.cos(angles)
        y = float(values["cy"]) + float(values["ry"]) * np.sin(angles)
        return [tuple((round(a), round(b)) for a, b in zip(x.tolist(), y.tolist(), strict=True))]
    if shape.tag in ("polygon", "polyline", "points"):
        corners = [corner.split(",") for corner in values["points"].split(";")]
        return [tuple((round(float(x)), round(float(y))) for x, y in corners)]
    return []


def _label_studio_image(path: Path, data: Mapping[str, Any]) -> Path:
    """Where an image lies: uploads have eight letters before their name, and local files a path behind ?d=."""
    text = str(data.get("image") or next(iter(data.values())))
    parts = urlsplit(text)
    local = parse_qs(parts.query).get("d")
    name = PurePosixPath(local[0] if local else unquote(parts.path))
    inside = Path(*[part for part in name.parts if part not in ("/", "..")])
    upload = _UPLOAD.fullmatch(name.name)
    candidates = [path.parent / inside, path.parent / name.name]
    candidates += [path.parent / upload[1]] if upload is not None else []
    return next((candidate for candidate in candidates if candidate.is_file()), candidates[-1])


def _label_studio_shapes(result: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Polygon]]]:
    """Yield name and polygons of each label of a region. Coordinates are percent of the image."""
    kind, value = result["type"], result["value"]
    names = value.get(kind) or ([] if kind != "choices" else value["choices"])
    if kind == "choices":
        yield from ((str(name), []) for name in names)
        return
    width, height = int(result["original_width"]), int(result["original_height"])
    polygons: Sequence[Polygon] = []
    if kind == "rectanglelabels":
        x, y, w, h = (float(value[name]) / 100 for name in ("x", "y", "width", "height"))
        polygons = _turned(x * width, y * height, w * width, h * height, float(value.get("rotation", 0)))
    elif kind == "polygonlabels":
        points = np.array(value["points"], dtype=float) / 100 * [width, height]
        polygons = [tuple((round(x), round(y)) for x, y in points.tolist())]
    elif kind == "brushlabels":
        polygons = polygons_of(_brush(bytes(value["rle"]), (height, width)))
    else:
        return
    yield from ((str(name), polygons) for name in names or ["defect"])


def _turned(
    left: float, top: float, width: float, height: float, degrees: float, *, centred: bool = False
) -> Sequence[Polygon]:
    """A rectangle, turned clockwise about its upper left corner, or about its centre."""
    if degrees % 360 == 0:
        return [box(left, top, width, height)]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    pivot = np.array([width / 2, height / 2]) if centred else np.zeros(2)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = (corners - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot + [left, top]
    return [tuple((round(x), round(y)) for x, y in turned.tolist())]


def _moved(polygons: Sequence[Polygon], left: int, top: int) -> Sequence[Polygon]:
    return [tuple((x + left, y + top) for x, y in polygon) for polygon in polygons]


def _of_run_lengths(counts: Sequence[int], shape: tuple[int, int]) -> Sequence[Polygon]:
    """A mask of runs in rows, background first. Raises ValueError where they are not the mask's size."""
    if min(counts) < 0 or sum(counts) != shape[0] * shape[1] or sum(counts) > MAX_PIXELS:
        raise ValueError("run lengths of another size")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return polygons_of(values.reshape(shape))


def _brush(data: bytes, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """A mask as Label Studio packs it: the transparency of an RGBA image, in runs of words of so many bits.

    The format is that of https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack.
    """
    count = 4 * shape[0] * shape[1]
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    position = 0

    def read(width: int) -> int:
        nonlocal position
        position += width
        if position > len(bits):
            raise ValueError("the brush ends too early")
        return int("".join(map(str, bits[position - width : position].tolist())), 2)

    if read(32) != count or count > MAX_PIXELS:
        raise ValueError("a brush of another size")
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: UInt8[np.ndarray, " n"] = np.zeros(count, np.uint8)
    start = 0
    while start < count:
        is_run, length = read(1), 1 + read(sizes[read(2)])
        stop = min(count, start + length)
        if is_run:
            values[start:stop] = min(255, read(word))
        else:
            values[start:stop] = list(itertools.islice(iter(lambda: min(255, read(word)), -1), stop - start))
        start = stop
    return values.reshape(*shape, 4)[..., 3] > 0
