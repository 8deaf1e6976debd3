"""Models on the Hugging Face Hub, by the mixin of huggingface_hub. Needs the extra `hub`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from energyad.detector import AnomalyDetector
from energyad.errors import ModelError, first_line
from energyad.integrations.model_files import install_model
from energyad.model.card import model_card
from energyad.model.folder import MANIFEST

TAGS = ["anomaly-detection", "energy-based-model", "visual-inspection"]
CARD_FILE = "README.md"
METADATA_END = b"\n---\n"


class HubDetector(ModelHubMixin):
    """A detector that can be pushed to the Hub and pulled from there.

    What is stored there is a model folder, and its model card with the Hub's metadata. Whoever pulls it checks every
    file against the manifest, and a signature where keys are given.

    Args:
        detector: The detector.

    Example:
        >>> HubDetector(energyad.load("models/gasket")).push_to_hub("plant/gasket")
        >>> detector = HubDetector.from_pretrained("plant/gasket").detector
    """

    def __init__(self, detector: AnomalyDetector) -> None:
        self.detector = detector

    def generate_model_card(self, *args: Any, **options: Any) -> ModelCard:
        """Return the model card with the Hub's metadata; `options` are further metadata, such as license="mit"."""
        data = ModelCardData(library_name="energyad", tags=TAGS, pipeline_tag="image-segmentation", **options)
        return ModelCard(f"---\n{data.to_yaml()}\n---\n{model_card(self.detector.manifest)}")

    def _save_pretrained(self, save_directory: Path) -> None:
        self.detector.save(save_directory)
        (save_directory / CARD_FILE).unlink(missing_ok=True)  # the mixin writes it, with metadata

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        threads: int | None = None,
        runtime: str | None = None,
        trusted_keys: Sequence[Path] | None = None,
        **others: Any,
    ) -> Self:
        """Load a model from the Hub or from a folder; see `AnomalyDetector.load` for the last three options.

        Raises:
            ModelError: There is no such model, it cannot be fetched, or it is not whole.
        """
        options: dict[str, Any] = {"threads": threads, "trusted_keys": trusted_keys}
        if runtime is not None:
            options["runtime"] = runtime

        def locate(name: str) -> Path:
            if Path(model_id).is_dir():
                return Path(model_id) / name
            fetched = hf_hub_download(
                model_id,
                name,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
            return Path(fetched)

        def read(name: str, limit: int) -> bytes:
            try:
                place = locate(name)
            except LocalEntryNotFoundError as error:
                if name != MANIFEST:  # such as a signature that no model without one has
                    raise FileNotFoundError(name) from error
                raise ModelError(f"{model_id}: cannot be fetched ({first_line(error)})") from error
            except EntryNotFoundError as error:
                raise FileNotFoundError(name) from error
            except (HfHubHTTPError, OSError, ValueError) as error:
                raise ModelError(f"{model_id}: cannot be fetched ({first_line(error)})") from error
            with place.open("rb") as file:
                content = file.read(limit + 1)
            if len(content) > limit:
                raise ModelError(f"{model_id}/{name}: larger than any file of a model; push it again")
            return _without_metadata(content) if name == CARD_FILE else content

        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            install_model(read, model, source=model_id)
            return cls(AnomalyDetector.load(model, **options))


def _without_metadata(card: bytes) -> bytes:
    """A model card as its manifest knows it: without what the Hub's metadata put before it."""
    return card.split(METADATA_END, 1)[1] if card.startswith(b"---\n") and METADATA_END in card else card
