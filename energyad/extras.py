"""Packages that only some commands need, and the extra of energyad that installs each.

Scoring needs none of them. What does asks with `require` before it imports one.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final, Literal, TypeAlias

from energyad.errors import MissingExtraError

Extra: TypeAlias = Literal[
    "fit",
    "serve",
    "openvino",
    "anomalib",
    "hub",
    "mlflow",
    "pandas",
    "postgres",
    "pyod",
    "ray",
    "signing",
    "station",
    "storage",
    "supervision",
]

PACKAGES: Final[dict[Extra, dict[str, str]]] = {
    "fit": {
        "torch": "PyTorch",
        "timm": "timm",
        "onnx": "onnx",
        "onnxscript": "onnxscript",
        "sklearn": "scikit-learn",
        "tomlkit": "TOML Kit",
    },
    "serve": {
        "fastapi": "FastAPI",
        "uvicorn": "uvicorn",
        "python_multipart": "python-multipart",
        "prometheus_client": "prometheus-client",
    },
    "openvino": {"openvino": "OpenVINO"},
    "anomalib": {"anomalib": "anomalib"},
    "hub": {"huggingface_hub": "huggingface_hub"},
    "mlflow": {"mlflow": "MLflow", "fsspec": "fsspec"},
    "pandas": {"pandas": "pandas"},
    "pyod": {"pyod": "PyOD"},
    "ray": {"ray": "Ray", "pyarrow": "pyarrow", "pandas": "pandas", "fsspec": "fsspec"},
    "signing": {"cryptography": "cryptography"},
    "station": {"paho": "Eclipse Paho", "pymodbus": "pymodbus", "asyncua": "asyncua"},
    "storage": {"fsspec": "fsspec"},
    "supervision": {"supervision": "supervision", "defusedxml": "defusedxml"},
    "postgres": {"psycopg": "Psycopg"},
}
"""Of each extra, the modules that are imported and what people call them."""


def require(extra: Extra, user: str) -> None:
    """Check that an extra's packages are installed; none of them is imported.

    Args:
        extra: The extra.
        what: What needs it, the subject of the error's sentence: "energyad fit".

    Raises:
        MissingExtraError: One is missing; the message has the command that installs it.
    """
    for module, name in PACKAGES[extra].items():
        if not is_installed(module):
            raise MissingExtraError(f'{user} needs {name}: pip install "energyad[{extra}]"')


def is_installed(module: str) -> bool:
    """Whether a module of the top level can be imported; it is not."""
    return sys.modules[module] is not None if module in sys.modules else find_spec(module) is not None
