"""anomalib's data modules, batches and `Engine` with an energyad detector. Needs the extras `fit` and `anomalib`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from anomalib import LearningType
from anomalib.data import AnomalibDataModule, Batch, ImageBatch
from anomalib.models.components import AnomalibModule
from jaxtyping import Float

from energyad.data.datasets import GOOD, Category, TestItem
from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage
from energyad.errors import DataError, ModelError
from energyad.images import reading
from energyad.settings import FitSettings

CHECKPOINT_KEY: Final = "energyad_model"


def category_of(datamodule: AnomalibDataModule, *, name: str | None = None) -> Category:
    """Return the images of a data module, to fit on and to evaluate on; nothing is copied.

    Its splits stay as they are: with `val_split_mode="from_test"`, half of the test images are no longer test images.

    Args:
        datamodule: Any of anomalib's image data modules. It is set up, and its data must be there already.
        name: Of the category; the data module's own where None.

    Raises:
        DataError: There are no good images to fit on, or the data module has no files.

    Example:
        >>> from anomalib.data import MVTecAD
        >>> screw = category_of(MVTecAD(root="datasets/MVTecAD", category="screw"))
        >>> detector = AnomalyDetector.fit(screw.train_good, name=screw.name)
        >>> evaluate(detector, screw).image_auroc
    """
    try:
        datamodule.setup()
        train, test = datamodule.train_data.samples, datamodule.test_data.samples
    except (AttributeError, RuntimeError, OSError) as error:
        raise DataError(
            f"{datamodule.name}: the data module has no images ({error}); check its paths"
        ) from error
    good = tuple(Path(row.image_path) for row in train.itertuples() if row.label_index == 0)
    if not good:
        raise DataError(f"{datamodule.name}: no good images among {len(train)} to fit on")
    items = [_test_item(row) for row in test.itertuples()]
    several = sum(item.mask is not None and item.mask.is_dir() for item in items)
    if several:
        warnings.warn(
            f"{datamodule.name}: {several} images have a folder of masks each, which is not read: no pixel figures",
            stacklevel=2,
        )
        items = [TestItem(item.path, item.defect_type, None) for item in items]
    root = Path(getattr(datamodule, "root", None) or good[0].parent)
    name = name or str(getattr(datamodule, "category", None) or datamodule.name).replace("/", "_")
    return Category(name, root, good, tuple(items))


def image_batch(images: Sequence[ScoredImage]) -> ImageBatch:
    """Return scored images as anomalib's batch, for its metrics and its visualiser.

    Images and maps are at the network's input size. Scores are energies as they are, neither normalised nor clamped.

    Args:
        images: Of one detector, see `AnomalyDetector.score_images`.

    Raises:
        DataError: There are none.
    """
    if not images:
        raise DataError("no images were scored; give one or more")
    shape = images[0].network_heatmap.shape
    pixels = np.stack([reading.resize(image.pixels, shape) for image in images])
    maps = np.stack([image.network_heatmap for image in images])
    return ImageBatch(
        image=torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255,
        image_path=[str(image.source) if isinstance(image.source, str | Path) else "" for image in images],
        **_predicted(images, maps),
    )


def _predicted(
    images: Sequence[ScoredImage], maps: Float[np.ndarray, "b h w"], device: torch.device | None = None
) -> dict[str, torch.Tensor]:
    """What anomalib's batches hold of predictions, by its names. maps: the heatmaps, at the size of the batch."""
    predictions = [image.prediction for image in images]
    anomaly_map = torch.from_numpy(maps).to(device)[:, None]
    thresholds = torch.tensor([prediction.threshold for prediction in predictions], device=device)
    return {
        "anomaly_map": anomaly_map,
        "pred_mask": anomaly_map > thresholds[:, None, None, None],
        "pred_score": torch.tensor([prediction.score for prediction in predictions], device=device),
        "pred_label": torch.tensor([prediction.is_anomalous for prediction in predictions], device=device),
    }


class EnergyAD(AnomalibModule):
    """A detector as a model of anomalib: for `Engine.fit`, `Engine.test` and `Engine.predict`.

    Images are read from their paths, as `AnomalyDetector` reads them. Scores are energies: there is no post-processor
    that normalises or clamps them, and `pred_label` is the detector's own verdict.

    Args:
        detector: A fitted one, to test or to predict with; None to fit.
        settings: Settings of the fit.
        **components: `evaluator` and `visualizer` of anomalib's models.

    Example:
        >>> from anomalib.engine import Engine
        >>> model = EnergyAD()
        >>> Engine().fit(model, datamodule=datamodule)
        >>> model.detector.save("models/screw")
    """

    def __init__(
        self,
        detector: AnomalyDetector | None = None,
        *,
        settings: FitSettings | None = None,
        **components: Any,
    ) -> None:
        super().__init__(pre_processor=False, post_processor=False, **components)
        self.hparams.clear()  # a detector is no hyperparameter; the checkpoint holds its files
        self._detector, self._settings = detector, settings
        self._paths: list[str] = []

    @property
    def detector(self) -> AnomalyDetector:
        """The fitted detector. Raises ModelError where there is none yet."""
        if self._detector is None:
            raise ModelError("the model is not fitted; call Engine.fit, or give a detector")
        return self._detector

    @property
    def learning_type(self) -> LearningType:
        """One class: good images alone are fitted on."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One pass through the good images, without sanity checks."""
        return {"max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1}

    def configure_optimizers(self) -> None:
        """Return none: the fit has its own."""

    def training_step(self, batch: Batch, *args: object, **kwargs: object) -> torch.Tensor:
        """Note the paths of good images."""
        self._paths += list(batch.image_path)
        return torch.zeros((), requires_grad=True)

    def on_validation_start(self) -> None:
        """Fit on the images of all batches: Lightning validates before the training's epoch ends."""
        self.on_train_epoch_end()

    def on_train_epoch_end(self) -> None:
        """Fit on the images of all batches, unless that is done."""
        if not self._paths:
            return
        paths, self._paths = sorted(self._paths), []
        name = str(getattr(self.trainer.datamodule, "category", None) or "detector").replace("/", "_")
        with torch.inference_mode(False), torch.enable_grad():  # validation forbids gradients
            self._detector = AnomalyDetector.fit(paths, name=name, settings=self._settings)

    def validation_step(self, batch: Batch, *args: object, **kwargs: object) -> Batch:
        """Score a batch."""
        return self._score(batch)

    def test_step(self, batch: Batch, *args: object, **kwargs: object) -> Batch:
        """Score a batch."""
        return self._score(batch)

    def predict_step(self, batch: Batch, *args: object, **kwargs: object) -> Batch:
        """Score a batch."""
        return self._score(batch)

    def forward(self, batch: Float[torch.Tensor, "b 3 h w"], *args: object, **kwargs: object) -> ImageBatch:
        """Score RGB images whose values are from 0 to 1."""
        pixels = (batch.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return image_batch([image.require() for image in self.detector.score_images(list(pixels))])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the files of the model folder into the checkpoint, as bytes."""
        super().on_save_checkpoint(checkpoint)
        if self._detector is None:
            return
        with tempfile.TemporaryDirectory() as temporary:
            self._detector.save(folder := Path(temporary, "model"))
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
        checkpoint[CHECKPOINT_KEY] = {
            name: torch.from_numpy(np.frombuffer(content, np.uint8).copy()) for name, content in files.items()
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the model folder that the checkpoint holds, checked against its hashes. Raises ModelError."""
        super().on_load_checkpoint(checkpoint)
        files = checkpoint.get(CHECKPOINT_KEY)
        if files is None:
            return
        with tempfile.TemporaryDirectory() as temporary:
            for name, content in files.items():
                if Path(name).name != name:
                    raise ModelError(f"the checkpoint holds '{name}', which is no plain file name; fit again")
                Path(temporary, name).write_bytes(content.cpu().numpy().tobytes())
            self._detector = AnomalyDetector.load(temporary)

    def _score(self, batch: Batch) -> Batch:
        outcomes = [image.require() for image in self.detector.score_images(list(batch.image_path))]
        height, width = batch.image.shape[-2:]
        maps = np.stack([reading.resize_map(image.prediction.heatmap, height, width) for image in outcomes])
        return batch.update(**_predicted(outcomes, maps, batch.image.device))


def _test_item(row: Any) -> TestItem:
    path, mask = Path(row.image_path), str(getattr(row, "mask_path", "") or "")
    if row.label_index == 0:
        return TestItem(path, GOOD, None)
    label = str(getattr(row, "label", "") or "defect")
    return TestItem(path, label, Path(mask) if mask else None)
