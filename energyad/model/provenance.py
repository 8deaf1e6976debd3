"""Where a model comes from: data, seed, versions, commit, machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from energyad.images import reading
from energyad.images.reading import ImageLike
from energyad.model.folder import file_hash
from energyad.model.manifest import Provenance

PACKAGES = ("energyad", "torch", "timm", "onnx", "onnxruntime", "numpy", "opencv-python-headless")


def collect(
    good_images: Sequence[ImageLike],
    *,
    image_digests: Sequence[str],
    num_held_out: int,
    held_out_digests: Sequence[str] = (),
    held_out_points: Sequence[int] = (),
    num_rotated: int,
    seed: int,
    threads: int | None,
    fit_seconds: float,
    white_level: int | None = None,
) -> Provenance:
    """Describe a fit, here and now.

    Args:
        good_images: What it was fitted on.
        image_digests: Of these images, by which they are known again.
        num_held_out: How many of them set the threshold.
        num_rotated: Rotated copies that were fitted on beside them.
        seed: Of the fit.
        threads: Of the backbone; None for all cores.
        fit_seconds: Wall time.
    """
    return Provenance(
        seed=seed,
        threads=threads or os.cpu_count() or 1,
        fit_seconds=round(fit_seconds, 2),
        num_images=len(good_images),
        image_digests=tuple(image_digests),
        num_held_out=num_held_out,
        held_out_digests=tuple(held_out_digests),
        held_out_points=tuple(held_out_points),
        num_rotated=num_rotated,
        data_sha256=data_hash(good_images, white_level=white_level),
        commit=source_commit(),
        versions={"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    )


def data_hash(good_images: Iterable[ImageLike], *, white_level: int | None = None) -> str:
    """SHA-256 over the images' bytes (of files) or pixels (of arrays), whatever their order."""
    digests = []
    for image in good_images:
        if isinstance(image, str | Path):
            digests.append(file_hash(Path(image)))
        elif isinstance(image, bytes):
            digests.append(hashlib.sha256(image).hexdigest())
        else:
            digests.append(
                hashlib.sha256(reading.as_rgb(image, white_level=white_level).tobytes()).hexdigest()
            )
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def source_commit() -> str | None:
    """Return the commit of the checkout that energyad runs from, None for an installed package."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return None
