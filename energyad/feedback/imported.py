"""A label as a file has it, before anybody is its reviewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from energyad.errors import DataError, os_reason
from energyad.feedback.labels import Label, LabelValue, Sampling
from energyad.feedback.marks import Polygon
from energyad.model.folder import file_hash

VALUES: Final[Mapping[str, LabelValue]] = {
    **dict.fromkeys(("fine", "good", "ok", "normal"), "fine"),
    **dict.fromkeys(("defect", "ng", "bad", "anomaly", "anomalous"), "defect"),
    "unsure": "unsure",
}
"""What a label may be called in a file, in any case. Any other name is the kind of a defect."""


@dataclass(frozen=True)
class ImportedLabel:
    """A label as a file has it, without its reviewer.

    Attributes:
        image: The image file.
        value: "fine", "defect" or "unsure".
        kind: Of the defect; None where it has no name.
        marks: Where the defects are.
        subset: Of a data set, such as "train" or "test"; None where the file names none.
    """

    image: Path
    value: LabelValue
    kind: str | None = None
    marks: tuple[Polygon, ...] = ()
    subset: str | None = None

    def by(self, reviewer: str, *, sampling: Sampling = "given") -> Label:
        """Return the label of this reviewer.

        Args:
            reviewer: Who says so.
            sampling: Why the image was looked at.

        Raises:
            DataError: The image cannot be read.
        """
        try:
            digest = file_hash(self.image)
        except OSError as error:
            raise DataError(
                f"{self.image}: cannot be read ({os_reason(error)}); put the image back, or leave out its label"
            ) from error
        return Label(
            image=self.image.absolute(),
            sha256=digest,
            value=self.value,
            kind=self.kind,
            marks=self.marks,
            reviewer=reviewer,
            sampling=sampling,
        )


def value_and_kind(text: str) -> tuple[LabelValue, str | None]:
    """Return what a word says of an image, and the kind of the defect where it names one."""
    value = VALUES.get(text.lower())
    return ("defect", text) if value is None else (value, None)


def label_of(image: Path, shapes: Sequence[tuple[str, Sequence[Polygon]]]) -> ImportedLabel:
    """Return the label of an image from what is drawn on it and said of it: nothing is a good part.

    Args:
        image: The image file.
        shapes: Names, each with the polygons that have it; none of a name of the whole image.
    """
    said = [(value_and_kind(name), polygons) for name, polygons in shapes]
    values = {value for (value, _), _ in said}
    if values <= {"fine"}:
        return ImportedLabel(image, "fine")
    if "defect" not in values:
        return ImportedLabel(image, "unsure")
    kinds = {kind for (_, kind), _ in said if kind is not None}
    marks = tuple(polygon for (value, _), polygons in said if value == "defect" for polygon in polygons)
    return ImportedLabel(image, "defect", kinds.pop() if len(kinds) == 1 else None, marks)
