"""Laws of the Hub: what is pushed comes back with the same scores, and nothing that was altered is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import ModelError

from .hub import local_hub

huggingface = pytest.importorskip("energyad.integrations.huggingface")
ROUND = """
import json, sys
from energyad.detector import AnomalyDetector
from energyad.errors import ModelError
from energyad.integrations.huggingface import HubDetector
action, name, *words = sys.argv[1:]
if action == "push":
    HubDetector(AnomalyDetector.load(words[0], threads=1)).push_to_hub(name, model_card_kwargs={"license": "mit"})
else:
    try:
        detector = HubDetector.from_pretrained(name, threads=1).detector
        print(json.dumps([detector.score(word).score for word in words]))
    except ModelError as error:
        sys.exit(str(error))
"""


def run(address: str, cache: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Push or pull in a process of its own, which takes the stand-in for the Hub."""
    hub = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_none"}
    environment = {**os.environ, **hub, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-c", ROUND, *map(str, words)], capture_output=True, text=True, env=environment
    )


@pytest.mark.slow
def test_a_pushed_model_comes_back_with_the_same_scores_and_an_altered_one_is_refused(
    fitted_detector: AnomalyDetector, model_folder: Path, demo_category: Category, tmp_path: Path
) -> None:
    paths = [item.path for item in demo_category.test[:3]]
    with local_hub() as (address, repositories):
        pushed = run(address, tmp_path / "a", "push", "plant/gasket", model_folder)
        assert pushed.returncode == 0, pushed.stderr
        stored = repositories["plant/gasket"]
        card = stored["README.md"].decode()
        assert card.startswith("---\n") and "library_name: energyad" in card and "license: mit" in card
        assert f"# {fitted_detector.name}" in card
        pulled = run(address, tmp_path / "b", "pull", "plant/gasket", *paths)
        assert json.loads(pulled.stdout) == [fitted_detector.score(path).score for path in paths]
        missing = run(address, tmp_path / "b", "pull", "plant/nothing", *paths)
        assert missing.returncode == 1 and "plant/nothing: cannot be fetched" in missing.stderr
        stored["detector.safetensors"] += b"\0"
        altered = run(address, tmp_path / "c", "pull", "plant/gasket", *paths)
        assert altered.returncode == 1 and "plant/gasket" in altered.stderr
        assert "Traceback" not in missing.stderr + altered.stderr


def test_a_folder_is_a_model_too(fitted_detector: AnomalyDetector, tmp_path: Path) -> None:
    huggingface.HubDetector(fitted_detector).save_pretrained(tmp_path / "model")
    loaded = huggingface.HubDetector.from_pretrained(str(tmp_path / "model"), threads=1).detector
    assert loaded.reference == fitted_detector.reference
    (tmp_path / "model" / "model.json").write_text("{}")
    with pytest.raises(ModelError):
        huggingface.HubDetector.from_pretrained(str(tmp_path / "model"))
