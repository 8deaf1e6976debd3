"""A service of one small model, without a port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.service.app import create_app

from .serving import client_of


@pytest.fixture(scope="session")
def client(fitted_detector: AnomalyDetector) -> Iterator[TestClient]:
    """The service of `fitted_detector`."""
    with client_of(create_app([fitted_detector])) as client:
        yield client


@pytest.fixture(scope="session")
def defective(fitted_detector: AnomalyDetector, demo_category: Category) -> Path:
    """The test image of the highest score."""
    paths = [item.path for item in demo_category.test]
    return max(paths, key=lambda path: fitted_detector.score(path).score)
