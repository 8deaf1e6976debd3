"""The file that describes a station, `station.toml`: checked as a whole before anything starts.

Paths are relative to the file. A name that does not exist is an error with the names that come near.
"""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, get_args, get_origin
from urllib.parse import urlsplit

from annotated_types import Len
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from energyad.errors import SettingsError, os_reason
from energyad.images.alignment import AlignmentMethod

Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Word: TypeAlias = Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
LOOPBACK: Final = "127.0.0.1"


def _web_address(url: str) -> str:
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise ValueError("must be an http or https address")
    return url


def _topic(topic: str) -> str:
    if any(character in topic for character in "#+\0") or topic.startswith("/") or topic.endswith("/"):
        raise ValueError("must be a topic without #, + and outer slashes")
    return topic


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CameraConfig(_Table):
    """A camera whose frames are written into the folder of its view, and scored from there."""

    source: str = Field(
        min_length=1, description="a number or device of a USB camera, a URL, or a video file"
    )
    timeout: Seconds = Field(
        default=5.0, description="seconds without a frame after which the camera is lost"
    )
    width: int | None = Field(default=None, ge=1, description="pixels; of a USB camera")
    height: int | None = Field(default=None, ge=1, description="pixels; of a USB camera")
    fps: Positive | None = Field(default=None, description="frames a second; of a USB camera")
    pixel_format: str | None = Field(
        default=None,
        min_length=1,
        description="of a camera by Aravis: Mono8, Mono12Packed, BayerRG8 and so on",
    )
    features: dict[str, str | int | float | bool] = Field(
        default={}, description="of a camera by Aravis: GenICam features such as ExposureTime"
    )
    loop: bool = Field(default=False, description="whether a video file begins anew at its end")

    @property
    def is_device(self) -> bool:
        """Whether it is a USB camera."""
        return self.source.isdecimal() or self.source.startswith("/dev/")

    @property
    def is_file(self) -> bool:
        """Whether it is a video file."""
        return not self.is_device and not self.is_genicam and "://" not in self.source

    @property
    def is_genicam(self) -> bool:
        """Whether it is a GigE Vision or USB3 Vision camera."""
        return self.source.startswith("aravis:")


class MotionConfig(_Table):
    """A part that comes into view: an area that differs from the empty place."""

    area: tuple[Share, Share, Share, Share] = Field(
        default=(0.0, 0.0, 1.0, 1.0),
        strict=False,
        description="left, top, right and bottom edge, as shares of the first camera's frame",
    )
    change: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="mean change of its grey values that is a part, as a share of white"
    )

    @model_validator(mode="after")
    def _area_is_one(self) -> Self:
        left, top, right, bottom = self.area
        if left >= right or top >= bottom:
            raise ValueError("area: give left, top, right, bottom, the first two smaller than the others")
        return self


class TriggerConfig(_Table):
    """When cameras take a part."""

    kind: Literal["frame", "time", "motion", "mqtt", "modbus", "opcua"] = Field(
        default="frame",
        description="each frame of the only camera; every so many seconds; a part that comes into view; a message; "
        "coil 0 of [modbus]; the node Trigger of [opcua]",
    )
    motion: MotionConfig = MotionConfig()
    every: Seconds | None = Field(default=None, description="seconds between two parts, of kind time")
    topic: Annotated[str, AfterValidator(_topic)] | None = Field(
        default=None,
        description="of the broker of [mqtt], of kind mqtt; a message's text, if there is one, names the part",
    )
    debounce: float = Field(
        default=0.0, ge=0, description="seconds after a trigger in which others do not count"
    )


class ChecksConfig(_Table):
    """Frames that no model can judge: each is its own verdict. `station new --samples` learns the limits."""

    min_brightness: float | None = Field(default=None, ge=0, description="mean grey value; below it: `dark`")
    max_saturated: Share | None = Field(
        default=None, description="share of white pixels; above it: `saturated`"
    )
    min_structure: float | None = Field(
        default=None, ge=0, description="spread of the coarse grey values; below it: `no_part`"
    )
    min_sharpness: float | None = Field(
        default=None, ge=0, description="spread of the Laplacian; below it: `blurred`"
    )


class AlignConfig(_Table):
    """Parts that come shifted and turned: each frame is moved onto a reference before it is scored."""

    reference: Path = Field(strict=False, description="an image of a good part that lies as all are to lie")
    method: AlignmentMethod = Field(
        default="contours",
        description="contours: a part before a plain background, turned by any angle; orb: a structured one; ecc: "
        "small shifts and turns",
    )
    min_correlation: float = Field(
        default=0.5, gt=0, lt=1, description="with the reference; below it the frame is `no_part`"
    )


class ViewConfig(_Table):
    """One view of a part: where its images arrive and the model that scores them."""

    name: Word = Field(default="front", description="of the view")
    model: str | None = Field(default=None, min_length=1, description="its model; the station's by default")
    folder: Path = Field(strict=False, description="where its images arrive")
    camera: CameraConfig | None = None
    checks: ChecksConfig = ChecksConfig()
    align: AlignConfig | None = None
    interval: Seconds = Field(default=0.05, description="seconds between two looks into the folder")
    settle: float = Field(
        default=2.0, ge=0, description="seconds after which a file that cannot be read is noted"
    )


class PartConfig(_Table):
    """What makes several images one part. Images with the same path below the folders of their views are one part."""

    deadline: Seconds = Field(
        default=5.0, description="seconds from a part's first image after which a view is missing"
    )


class LatencyConfig(_Table):
    """The longest time from an image's arrival to the verdict."""

    budget: Seconds | None = Field(default=None, description="seconds; without it no part is late")
    missed: Literal["review", "ng"] = Field(default="review", description="verdict of a part that was late")

    def is_missed(self, seconds: float | None) -> bool:
        """Whether a verdict that took so long is late; one of which that is not known is not."""
        return self.budget is not None and seconds is not None and seconds > self.budget


class ImagesConfig(_Table):
    """Which images are kept. Scored images are moved to the folder, into one folder for each verdict."""

    folder: Path = Field(strict=False, description="where scored images go")
    ok_share: Share = Field(default=1.0, description="of the images that are ok; the others are deleted")
    quota_gib: Positive | None = Field(
        default=None,
        description="of all images there; beyond it the oldest are deleted, those that are ok first",
    )


class MetricsConfig(_Table):
    """The address that Prometheus reads."""

    host: str = Field(default=LOOPBACK, description="where to listen")
    port: Port = Field(default=9108, description="0: any free one")


class PushConfig(_Table):
    """The address that images are POSTed to; ENERGYAD_API_KEY is the key, which other machines need."""

    host: str = Field(default=LOOPBACK, description="where to listen")
    port: Port = Field(default=8100, description="0: any free one")
    max_upload_mib: Annotated[float, Field(gt=0, le=1024)] = Field(
        default=32.0, description="largest image file, MiB"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), strict=False, description="further names that requests may give as their host"
    )


class MqttConfig(_Table):
    """A broker that is told each part, MQTT 5."""

    host: str = Field(min_length=1, description="of the broker")
    port: Port = Field(default=1883, description="of the broker")
    topic: Annotated[str, AfterValidator(_topic)] = Field(
        default="", description="what all topics begin with; energyad/NAME by default"
    )
    username: str | None = Field(default=None, description="its password is in ENERGYAD_MQTT_PASSWORD")
    tls: bool = Field(default=False, description="whether the connection is encrypted")
    ca_file: Path | None = Field(
        default=None, strict=False, description="certificates to trust; the system's by default"
    )
    heartbeat: Seconds = Field(default=5.0, description="seconds between two messages of the station's state")


class ModbusConfig(_Table):
    """A Modbus TCP server that a PLC reads."""

    host: str = Field(
        default=LOOPBACK, description="where to listen; 0.0.0.0 for all of this machine's addresses"
    )
    port: Port = Field(default=5020, description="502 needs privileges")
    acknowledge: bool = Field(
        default=True, description="a part stays until the PLC has written its sequence number back"
    )


class OpcUaConfig(_Table):
    """An OPC UA server that a PLC or a control room reads."""

    host: str = Field(
        default=LOOPBACK, description="where to listen; 0.0.0.0 for all of this machine's addresses"
    )
    port: Port = Field(default=4840, description="where to listen")
    acknowledge: bool = Field(
        default=True, description="a part stays until a client has written its sequence number back"
    )


class WebhookConfig(_Table):
    """An address that each part is posted to; signed where ENERGYAD_WEBHOOK_SECRET is set."""

    url: Annotated[str, AfterValidator(_web_address)] = Field(description="the receiver's")


class ArchiveConfig(_Table):
    """Tables of all parts, one file a day."""

    folder: Path = Field(strict=False, description="where they lie")
    days: int | None = Field(default=None, ge=1, description="how many days are kept; all by default")
    format: Literal["csv", "parquet"] = Field(
        default="csv", description="parquet: of days that are over; the present day is always CSV"
    )


class StationConfig(_Table):
    """All of `station.toml`."""

    name: Word = Field(description="of the station")
    model: str | None = Field(default=None, min_length=1, description="of all views that name none")
    database: str = Field(default="energyad.db", min_length=1, description="a file, or a postgresql:// URL")
    results: Path = Field(
        default=Path("results.jsonl"), strict=False, description="the result of each image, one a line"
    )
    threads: int | None = Field(default=None, ge=1, description="of the processor; all cores by default")
    max_megapixels: Positive = Field(default=200.0, description="largest image that is decoded")
    decode_seconds: Seconds = Field(default=10.0, description="longest time to decode one image")
    views: Annotated[tuple[ViewConfig, ...], Len(1)] = Field(strict=False, description="at least one")
    trigger: TriggerConfig = TriggerConfig()
    part: PartConfig = PartConfig()
    latency: LatencyConfig = LatencyConfig()
    images: ImagesConfig | None = None
    metrics: MetricsConfig | None = None
    push: PushConfig | None = None
    mqtt: MqttConfig | None = None
    modbus: ModbusConfig | None = None
    opcua: OpcUaConfig | None = None
    webhook: WebhookConfig | None = None
    archive: ArchiveConfig | None = None

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        for field in ("name", "folder"):
            value, count = Counter(getattr(view, field) for view in self.views).most_common(1)[0]
            if count > 1:
                raise ValueError(f"views: {count} have the {field} {str(value)!r}; give each its own")
        for view in self.views:
            if view.model is None and self.model is None:
                raise ValueError(
                    f"views: {view.name} has no model; give `model` for all views, or one for each"
                )
        return self

    @model_validator(mode="after")
    def _trigger_fits(self) -> Self:
        cameras = [view for view in self.views if view.camera is not None]
        trigger = self.trigger
        if not cameras:
            if trigger != TriggerConfig():
                raise ValueError("trigger: no view has a camera; remove [trigger], or give a view one")
            return self
        if self.images is None:
            raise ValueError("images: is missing; frames of cameras are moved there when they are scored")
        if trigger.kind == "frame" and len(self.views) > 1:
            raise ValueError("trigger.kind = 'frame': is for one view; give another for several")
        needed = {
            "time": ("trigger.every", trigger.every),
            "mqtt": ("trigger.topic", trigger.topic),
        }.get(trigger.kind)
        if needed is not None and needed[1] is None:
            raise ValueError(f"{needed[0]}: is missing; trigger.kind = {trigger.kind!r} needs it")
        if trigger.kind in ("mqtt", "modbus", "opcua") and getattr(self, trigger.kind) is None:
            raise ValueError(
                f"{trigger.kind}: is missing; trigger.kind = {trigger.kind!r} needs [{trigger.kind}]"
            )
        return self

    def model_of(self, view: ViewConfig) -> str:
        """Return the name or the folder of a view's model."""
        return view.model or self.model or ""


def read_station(path: Path) -> StationConfig:
    """Read a station's file; its paths become absolute.

    Args:
        path: The file.

    Raises:
        SettingsError: It cannot be read, or something in it is wrong: the first fault.
    """
    config, faults = examine_station(path)
    if config is None:
        raise SettingsError(faults[0])
    return config


def examine_station(path: Path) -> tuple[StationConfig | None, list[str]]:
    """Read a station's file, and say everything that is wrong with it.

    Args:
        path: The file.

    Returns:
        The station, None where something is wrong, and one line for each fault.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return None, [f"{path}: cannot be read: {os_reason(error)}; make one with `energyad station new`"]
    except ValueError as error:  # of the encoding, or of TOML
        return None, [f"{path}: is not TOML: {error}; correct it"]
    try:
        config = StationConfig.model_validate(values)
    except ValidationError as error:
        return None, [f"{path}: {_fault(values, detail)}" for detail in error.errors()]
    return _absolute(config, path.resolve().parent), []


def _fault(values: Any, detail: Any) -> str:
    """One fault of the file in words."""
    place = _place(detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = near_names(detail["loc"])
        hint = (
            f"; did you mean {' or '.join(near)}?"
            if near
            else f"; known here: {', '.join(_known(detail['loc']))}"
        )
        return f"{place}: there is no such setting{hint}"
    if detail["type"] == "missing":
        return f"{place}: is missing; it says: {_description(detail['loc'])}"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return message if not place else f"{place} = {_shown(detail['input'])}: {message}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _place(steps: Sequence[int | str]) -> str:
    """Where a fault is, as TOML names it; views are counted from 1."""
    place = ""
    for step in steps:
        place += f" {step + 1}" if isinstance(step, int) else f"{'.' if place else ''}{step}"
    return place


def near_names(steps: Sequence[int | str]) -> list[str]:
    """Return the settings' full names that come near an unknown one: of its table first, then of others."""
    *table, name = steps
    prefix = f"{_place(table)}." if table else ""
    close = difflib.get_close_matches(str(name), _known(steps), n=3, cutoff=0.6)
    if close:
        return [prefix + found for found in close]
    everywhere = dict(_all_names(StationConfig, ""))
    return [full for full, bare in everywhere.items() if bare == name][:3]


def _known(steps: Sequence[int | str]) -> list[str]:
    return list(_table_of(steps[:-1]).model_fields)


def _description(steps: Sequence[int | str]) -> str:
    field = _table_of(steps[:-1]).model_fields.get(str(steps[-1]))
    return (field.description if field is not None else None) or "see the documentation of stations"


def _table_of(steps: Sequence[int | str]) -> type[BaseModel]:
    table: type[BaseModel] = StationConfig
    for step in steps:
        if isinstance(step, str) and step in table.model_fields:
            table = _model_in(table.model_fields[step].annotation) or table
    return table


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The table that a field holds, one or several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is None:
        return None
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _all_names(table: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in table.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is None:
            yield f"{prefix}{name}", name
        else:
            yield from _all_names(inner, f"{prefix}{name}.")


def _absolute(config: StationConfig, base: Path) -> StationConfig:
    """The same station, its paths absolute and models that are folders beside the file found there."""
    views = tuple(
        view.model_copy(
            update={
                "folder": base / view.folder,
                "model": _model_place(view.model, base),
                "camera": _camera_place(view.camera, base),
                "align": _align_place(view.align, base),
            }
        )
        for view in config.views
    )
    changes: dict[str, Any] = {
        "views": views,
        "results": base / config.results,
        "model": _model_place(config.model, base),
    }
    if "://" not in config.database:
        changes["database"] = str(base / config.database)
    for name in ("images", "archive"):
        table = getattr(config, name)
        if table is not None:
            changes[name] = table.model_copy(update={"folder": base / table.folder})
    if config.mqtt is not None:
        ca_file = None if config.mqtt.ca_file is None else base / config.mqtt.ca_file
        topic = config.mqtt.topic or f"energyad/{config.name}"
        changes["mqtt"] = config.mqtt.model_copy(update={"topic": topic, "ca_file": ca_file})
    return config.model_copy(update=changes)


def _model_place(model: str | None, base: Path) -> str | None:
    """A model's folder: as it is named, or under `models/`, beside the file."""
    if model is None:
        return None
    return str(base / model if (base / model).exists() else base / "models" / model)


def _align_place(align: AlignConfig | None, base: Path) -> AlignConfig | None:
    return None if align is None else align.model_copy(update={"reference": base / align.reference})


def _camera_place(camera: CameraConfig | None, base: Path) -> CameraConfig | None:
    if camera is None or not camera.is_file:
        return camera
    return camera.model_copy(update={"source": str(base / camera.source)})
