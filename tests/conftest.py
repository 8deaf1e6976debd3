"""What many tests share: a small rendered category and a detector quickly fitted on it."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from filelock import FileLock
from torch.onnx._internal.exporter._registration import ONNXRegistry

from energyad.data.datasets import Category
from energyad.data.demo import render_demo
from energyad.detector import AnomalyDetector
from energyad.evaluation.evaluate import Evaluation, evaluate
from energyad.features import backbones
from energyad.settings import FitSettings
from tests.drawn_backbones import drawn_weights
from tests.quick import QUICK

# The same examples in every run: a test that fails fails for everybody.
hypothesis.settings.register_profile("seeded", derandomize=True)
hypothesis.settings.load_profile("seeded")

# Scores of the processor are the same to the last digit in any batch, and many tests say so; a card's are not. Before
# torch asks, and for the programs that tests start.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the modules that use the shared detector first: one process fits it while the other runs the rest."""
    waiting = {item.path for item in items if "fitted_detector" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in waiting)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks of this size are fastest on one thread, and many times slower on two where a core is busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def small_network() -> Iterator[None]:
    """`five_convolutions` has weights from a seed, as if timm had them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "_from_timm", drawn_weights)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_registry() -> Iterator[None]:
    """PyTorch lists all operators of ONNX at each export, which takes a third of a second: here once a process."""
    with pytest.MonkeyPatch.context() as patch:
        listed = functools.cache(ONNXRegistry.from_torchlib)
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(listed))
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all of a run's processes have."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def graph_cache(pytestconfig: pytest.Config) -> Iterator[None]:
    """Graphs are traced once for all processes, and again once what shapes them changes; the user's own cache is left.

    `pytest --cache-clear` traces them all again.
    """
    assert pytestconfig.cache is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENERGYAD_CACHE", str(pytestconfig.cache.mkdir("energyad_graphs")))
        yield


@pytest.fixture(scope="session")
def quick_settings() -> FitSettings:
    """`QUICK`, for tests that take settings as a fixture."""
    return QUICK


@pytest.fixture(scope="session")
def demo_category(tmp_path_factory: pytest.TempPathFactory) -> Category:
    """16 good parts to fit on, 4 good and 2 of each of six flaws to test, 128 pixels."""
    return render_demo(tmp_path_factory.mktemp("datasets"), train=16, good=4, per_flaw=2, size=128)


@pytest.fixture(scope="session")
def fitted_detector(demo_category: Category, quick_settings: FitSettings, shared: Path) -> AnomalyDetector:
    """Fitted on `demo_category`, by the first process that asks; not to be changed."""
    folder = shared / "fitted"
    with FileLock(shared / "fitted.lock"):
        if not folder.exists():
            AnomalyDetector.fit(
                demo_category.train_good,
                name=demo_category.name,
                settings=quick_settings,
                threads=1,
            ).save(folder)
    return AnomalyDetector.load(folder, threads=1)


@pytest.fixture(scope="session")
def evaluation(fitted_detector: AnomalyDetector, demo_category: Category) -> Evaluation:
    """`fitted_detector` on the test images of `demo_category`."""
    return evaluate(fitted_detector, demo_category)


@pytest.fixture(scope="session")
def model_folder(
    fitted_detector: AnomalyDetector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """`fitted_detector`, saved as `models/<name>`; copy it before changing it, all tests of a worker share it."""
    folder = tmp_path_factory.mktemp("shared_model") / "models" / fitted_detector.name
    fitted_detector.save(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    yield folder
    assert {path: path.read_bytes() for path in folder.iterdir()} == before, "a test changed the shared model"
