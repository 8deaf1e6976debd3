"""The class that an inspection pipeline embeds. Loading and scoring import no torch."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from energyad.detector.scored_image import ScoredImage, ScoringOutcome, UnreadableImage, name_of
from energyad.errors import EnergyadError, ImageError, ModelError, SettingsError, first_line
from energyad.extras import require
from energyad.images import reading
from energyad.images.prefetch import batches, ordered_map
from energyad.images.reading import DEFAULT_MAX_PIXELS, ImageLike
from energyad.model.folder import (
    GRAPH_FILE,
    IMPORTED_GRAPH_FILE,
    IMPORTED_WEIGHTS_FILE,
    graph_file,
    open_model,
    save_model,
)
from energyad.model.manifest import Manifest
from energyad.model.statistics import measure_batch
from energyad.runtimes import RUNTIMES, Runtime, open_runtime, tuning
from energyad.runtimes.onnx import OnnxFeatures
from energyad.runtimes.plan import Plan, available_threads
from energyad.scoring.kinds import KINDS_FILE, KindClassifier
from energyad.scoring.prediction import NOT_FINITE, Prediction, predict
from energyad.scoring.results import ModelReference

if TYPE_CHECKING:
    from energyad.fitting.roi import RoiSource
    from energyad.progress import Progress
    from energyad.scoring.scorer import Scorer
    from energyad.settings import FitSettings

ReadImage: TypeAlias = Callable[[Any], UInt8[np.ndarray, "h w 3"]]
"""Reads an image as 8-bit RGB. Raises ImageError."""


class AnomalyDetector:
    """A fitted detector: `AnomalyDetector.load("models/bottle").score("part.png").is_anomalous`.

    Safe to call from several threads, and from several processes: it can be pickled, and after a fork it opens its
    runtime anew, as the threads of an engine stay behind in the parent.

    Example:
        >>> with ProcessPoolExecutor() as pool:
        ...     predictions = list(pool.map(detector.score, paths))
    """

    def __init__(self, manifest: Manifest, contents: Mapping[str, bytes], runtime: Runtime) -> None:
        self.manifest = manifest
        self.contents = dict(contents)
        self.runtime = runtime
        self.calibration = manifest.calibration
        self.kinds = KindClassifier.from_bytes(self.contents[KINDS_FILE]) if KINDS_FILE in contents else None
        self._features: tuple[int, OnnxFeatures] | None = None

    @property
    def runtime(self) -> Runtime:
        """The engine that scores, with the model loaded; each process has its own."""
        if self._runtime_process != os.getpid():
            runtime = self._runtime
            self.runtime = _reopen(runtime.name, runtime.plan, self.manifest, self.contents)
        return self._runtime

    @runtime.setter
    def runtime(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._runtime_process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the manifest, the contents and the choice of an engine: sessions cannot leave their process."""
        runtime = self._runtime
        if runtime.name not in RUNTIMES:
            raise TypeError(
                f"a detector on runtime '{runtime.name}' cannot be pickled; use one that `load` opens"
            )
        return {
            "manifest": self.manifest,
            "contents": self.contents,
            "runtime": (runtime.name, runtime.plan),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the same engine under the same plan."""
        manifest, contents = state["manifest"], state["contents"]
        runtime, plan = state["runtime"]
        AnomalyDetector.__init__(self, manifest, contents, _reopen(runtime, plan, manifest, contents))

    @classmethod
    def fit(
        cls,
        good_images: Sequence[ImageLike],
        *,
        name: str = "detector",
        categories: Sequence[str] | None = None,
        settings: FitSettings | None = None,
        backbone_weights: Path | None = None,
        threads: int | None = None,
        runtime: str = "auto",
        roi: RoiSource | None = None,
        ignore: RoiSource | None = None,
        skip_bad: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        progress: Progress | None = None,
    ) -> Self:
        """Fit on images of good parts alone.

        Args:
            good_images: Paths, bytes of image files, Pillow images or RGB arrays.
            name: The model's name.
            categories: The category of each image, where one model is for several kinds of parts; each gets its own
                energy, and scoring classifies images by itself.
            settings: The defaults where None.
            backbone_weights: A file for `settings.features.backbone`, instead of the package's own: safetensors or
                PyTorch's, as timm saves its models.
            threads: For the backbone, all cores by default; the small networks always train on one.
            runtime: The engine that the fitted detector scores on.
            roi: The only area that counts: polygons or a mask, see `energyad.fitting.roi`.
            ignore: An area that does not count.
            skip_bad: Leave out images that cannot be read, with a warning.
            max_pixels: Width times height of the largest image file that is decoded.
            progress: Called at each stage and step.

        Raises:
            DataError: Fewer than two images of a category.
            ImageError: An image cannot be read, unless `skip_bad`.
            TrainingDiverged: A loss is no finite number any more.
            MissingExtraError: The extra `fit` is not installed.

        Example:
            >>> detector = AnomalyDetector.fit(sorted(Path("good").glob("*.png")), name="gasket")
            >>> detector.save("models/gasket")
        """
        require("fit", "fitting")
        from energyad.fitting.fit import fit_model  # torch and timm, which scoring does without

        manifest, contents = fit_model(
            good_images,
            name=name,
            categories=categories,
            settings=settings,
            backbone_weights=backbone_weights,
            threads=threads,
            roi=roi,
            ignore=ignore,
            skip_bad=skip_bad,
            max_pixels=max_pixels,
            progress=progress,
        )
        return cls.from_contents(manifest, contents, threads=threads, runtime=runtime)

    @classmethod
    def from_contents(
        cls,
        manifest: Manifest,
        contents: Mapping[str, bytes],
        *,
        threads: int | None = None,
        runtime: str = "auto",
    ) -> Self:
        """Return a detector of a model that is in memory.

        Args:
            manifest: Of the model.
            contents: Of the folder's files, by name.
            threads: All cores by default.
            runtime: The engine; see `load`.
        """
        return cls(manifest, contents, _open(runtime, manifest, contents, threads=threads))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        threads: int | None = None,
        runtime: str = "auto",
        trusted_keys: Sequence[Path] | None = None,
    ) -> Self:
        """Load a model folder, checking every file against its hash. No code in it is run.

        Args:
            folder: The model folder.
            threads: All cores by default.
            runtime: The engine, of `energyad.runtimes.RUNTIMES`; auto is PyTorch on a CUDA device, else ONNX Runtime.
            trusted_keys: Public keys, of which one must have signed the model; see `energyad.model.signing`. None for
                those that the variable `ENERGYAD_TRUSTED_KEYS` names.

        Raises:
            ModelError: A file is missing, damaged or not the one that was saved, or no trusted key signed the model.
            SettingsError: A trusted key cannot be read.
        """
        manifest, contents = open_model(Path(folder), trusted_keys=trusted_keys)
        if graph_file(manifest) not in contents:
            raise ModelError(
                f"{Path(folder) / graph_file(manifest)}: not in the manifest; fit the model again"
            )
        return cls.from_contents(manifest, contents, threads=threads, runtime=runtime)

    def save(self, folder: str | Path) -> None:
        """Write the model folder; a model that exists there is replaced as a whole or not at all."""
        save_model(Path(folder), self.manifest, self.contents)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @cached_property
    def reference(self) -> ModelReference:
        """How results name the model."""
        name = graph_file(self.manifest)
        graph = self.manifest.files.get(name) or hashlib.sha256(self.contents[name]).hexdigest()
        calibrated = self.manifest.calibration.created or self.manifest.created
        return ModelReference(name=self.name, sha256=graph, calibrated=calibrated)

    @property
    def threshold(self) -> float:
        """Scores above it are anomalous."""
        return self.manifest.calibration.threshold

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the network's input."""
        return self.manifest.input.image_size

    @property
    def input_shape(self) -> tuple[int, int]:
        """Height and width that images are resized to: the network's input, or what its tiles cover together."""
        return self.manifest.input.shape

    def check(self) -> None:
        """Score one made-up image, which proves that manifest and graph belong together.

        For whatever replaces a model that works.

        Raises:
            ModelError: The image cannot be scored, or the result has another shape or is not finite.
        """
        height, width = self.input_shape
        pixels = (np.arange(height * width * 3) % 256).astype(np.uint8).reshape(1, height, width, 3)
        try:
            raw = self.runtime.run(pixels)
            if self.kinds is not None:
                self._patch_features()
        except EnergyadError:
            raise
        except Exception as error:  # engines derive theirs from nothing more precise
            raise ModelError(
                f"model '{self.name}': cannot score an image ({first_line(error)}); {_REMEDY}"
            ) from error
        if raw.score.shape != (1,) or raw.heatmap.shape != (1, height, width):
            raise ModelError(
                f"model '{self.name}': gives a heatmap of {raw.heatmap.shape} for {height}x{width} pixels; {_REMEDY}"
            )
        if not (np.isfinite(raw.score).all() and np.isfinite(raw.heatmap).all()):
            raise ModelError(f"model '{self.name}': gives scores that are not finite; {_REMEDY}")
        if (raw.category is None) != (not self.manifest.categories):
            raise ModelError(
                f"model '{self.name}': its graph and its manifest differ in categories; {_REMEDY}"
            )

    def _patch_features(self) -> OnnxFeatures:
        """What kinds of regions are named by; each process has its own."""
        process = os.getpid()
        if self._features is None or self._features[0] != process:
            graph, threads = self.contents[GRAPH_FILE], self.runtime.plan.allowed
            self._features = process, OnnxFeatures(graph, threads=threads, is_scorer=True)
        return self._features[1]

    def _with_kinds(self, prediction: Prediction, pixels: UInt8[np.ndarray, "h w 3"]) -> Prediction:
        """Name the kinds of an image's regions.

        Args:
            prediction: Of the image.
            pixels: Of the image, at the network's input size.
        """
        if self.kinds is None or not prediction.regions:
            return prediction
        spec = self.manifest.input
        regions = self.kinds.name_regions(
            prediction.regions,
            self._patch_features().run(pixels[None]),
            shape=prediction.heatmap.shape,
            tiles=spec.tiles,
            tile_size=spec.image_size,
        )
        return replace(prediction, regions=regions)

    def prepare(self, count: int | None = None) -> None:
        """Measure, in about a second, which batch size and threads score fastest here, and keep that for next time.

        Scores stay the same.

        Args:
            count: Number of images to score; nothing is measured where they are too few to save that second.
        """
        if self.manifest.input.tiles.count == 1 and (count is None or count >= tuning.MIN_IMAGES_TO_TUNE):
            graph = self.contents[graph_file(self.manifest)]
            self.runtime = tuning.tuned(self.runtime, graph, shape=self.input_shape)

    def score(self, image: ImageLike) -> Prediction:
        """Score one image.

        Args:
            image: A path, the bytes of an image file, a Pillow image or an RGB array.

        Raises:
            ImageError: It cannot be read.
        """
        return self.score_image(image).require().prediction

    def score_batch(self, batch: Sequence[ImageLike]) -> list[Prediction]:
        """Score several images of any sizes.

        Raises:
            ImageError: At the first one that cannot be read.
        """
        return list(self.stream(batch))

    def stream(self, source: Iterable[ImageLike]) -> Iterator[Prediction]:
        """Score images as they come, in order, reading ahead by a few batches only.

        Raises:
            ImageError: At the first one that cannot be read, after the predictions before it.
        """
        for image in self.score_images(source):
            yield image.require().prediction

    def score_pixels(self, batch: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Prediction]:
        """Score RGB bytes of any sizes, which are not checked again."""
        return [image.require().prediction for image in self._score_pixels(batch, batch)]

    def score_images(
        self,
        sources: Iterable[ImageLike],
        *,
        batch_size: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        read: ReadImage | None = None,
    ) -> Iterator[ScoringOutcome]:
        """Score images in their order; one that cannot be read costs its own result and no other.

        Reading, scoring and what the caller does with the results overlap. Memory is that of a few batches, however
        many images there are.

        Args:
            sources: Paths, bytes of image files, Pillow images or RGB arrays.
            batch_size: Images that are read and scored together; the runtime's own by default.
            max_pixels: Files with more pixels are not decoded.
            read: Reads a source instead of `AnomalyDetector.read`, in any thread; it raises ImageError.

        Raises:
            TypeError: One image was given, not several.

        Example:
            >>> for image in detector.score_images(paths):
            ...     print(image.result().json_line())
        """
        if isinstance(sources, str | bytes | Path | np.ndarray | Image.Image):
            kind = type(sources).__name__
            raise TypeError(
                f"one {kind} where several images are expected: give a list, or call score() for one"
            )
        self.prepare(length_hint(sources))
        plan = self.runtime.plan
        groups = batches(sources, batch_size or plan.batch_size)
        read = read or functools.partial(self.read, max_pixels=max_pixels)
        score_batch = functools.partial(self._score_batch, read=read)
        for images in ordered_map(score_batch, groups, workers=plan.workers):
            yield from images

    def score_image(self, source: ImageLike, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> ScoringOutcome:
        """Score one image, by the same way as `score_images`.

        Args:
            source: A path, the bytes of an image file, a Pillow image or an RGB array.
            max_pixels: Files with more pixels are not decoded.
        """
        read = functools.partial(self.read, max_pixels=max_pixels)
        (image,) = self._score_batch([source], read=read)
        return image

    def read(self, image: ImageLike, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> UInt8[np.ndarray, "h w 3"]:
        """Read an image as the model was fitted to see it, at its own size.

        Raises:
            ImageError: It cannot be read.
        """
        return reading.as_rgb(image, max_pixels=max_pixels, white_level=self.manifest.input.white_level)

    def _score_batch(self, sources: Sequence[ImageLike], *, read: ReadImage) -> list[ScoringOutcome]:
        pixels: list[UInt8[np.ndarray, "h w 3"]] = []
        errors: dict[int, ImageError] = {}
        for position, source in enumerate(sources):
            try:
                pixels.append(read(source))
            except ImageError as error:
                errors[position] = error
        readable = [source for position, source in enumerate(sources) if position not in errors]
        scored = iter(self._score_pixels(readable, pixels) if readable else ())
        return [
            UnreadableImage(source, self.reference, self.calibration, errors[position])
            if position in errors
            else next(scored)
            for position, source in enumerate(sources)
        ]

    def _score_pixels(
        self, sources: Sequence[ImageLike], batch: Sequence[UInt8[np.ndarray, "h w 3"]]
    ) -> list[ScoringOutcome]:
        resized = np.stack([reading.resize(pixels, self.input_shape) for pixels in batch])
        raw = self.runtime.run(resized)
        statistics = measure_batch(resized, raw, self.manifest.categories)
        outcomes: list[ScoringOutcome] = []
        for source, image, network_pixels, heatmap, part in zip(
            sources, batch, resized, raw.heatmap, statistics, strict=True
        ):
            try:
                if not np.isfinite(part.score):
                    raise ImageError("image", NOT_FINITE)
                prediction = predict(heatmap, self.calibration, shape=image.shape[:2], category=part.category)
                prediction = self._with_kinds(prediction, network_pixels)
            except ImageError as error:
                named = ImageError(name_of(source) or "image", error.reason)
                outcomes.append(UnreadableImage(source, self.reference, self.calibration, named))
            else:
                outcomes.append(ScoredImage(source, self.reference, image, prediction, heatmap, part))
        return outcomes


_REMEDY = "fit the model again or restore it"


def _runtime_of_quantised(runtime: str, name: str) -> str:
    """ONNX Runtime, which fitted it.

    Raises SettingsError for another: PyTorch has not this backbone, and OpenVINO rounds it otherwise.
    """
    if runtime not in ("auto", "onnxruntime"):
        raise SettingsError(
            f"runtime '{runtime}': model '{name}' has its backbone in 8-bit integers; use onnxruntime, "
            "or fit it in float32"
        )
    return "onnxruntime"


def _reopen(runtime: str, plan: Plan, manifest: Manifest, contents: Mapping[str, bytes]) -> Runtime:
    """Open in this process what another one had open."""
    threads = plan.allowed if plan.allowed != available_threads() else None
    return _open(runtime, manifest, contents, threads=threads, plan=plan)


def _open(
    runtime: str,
    manifest: Manifest,
    contents: Mapping[str, bytes],
    *,
    threads: int | None,
    plan: Plan | None = None,
) -> Runtime:
    def assemble() -> Scorer:
        from energyad.model.assembly import assemble_scorer  # torch and timm, which other runtimes do without

        return assemble_scorer(manifest, contents)

    if manifest.imported is not None:
        return _open_imported(runtime, manifest, contents, threads=threads, plan=plan)
    if manifest.is_quantised:
        runtime = _runtime_of_quantised(runtime, manifest.name)
    tiles = manifest.input.tiles.count
    return open_runtime(runtime, contents[GRAPH_FILE], assemble, threads=threads, tiles=tiles, plan=plan)


def _open_imported(
    runtime: str,
    manifest: Manifest,
    contents: Mapping[str, bytes],
    *,
    threads: int | None,
    plan: Plan | None,
) -> Runtime:
    from energyad.runtimes.openvino import IntermediateModel, OpenVinoRuntime

    if runtime not in ("auto", "openvino"):
        manifest.networks()  # says why not
    graph = contents[IMPORTED_GRAPH_FILE]
    return OpenVinoRuntime(
        IntermediateModel(graph, contents.get(IMPORTED_WEIGHTS_FILE, b"")),
        plan=plan or tuning.plan_for("openvino", graph, threads=threads),
    )
