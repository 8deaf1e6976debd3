"""Tests, in one folder for each room of `energyad`; what many share lies in `conftest.py`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
