"""Every error survives a process pool, which pickles it."""

from __future__ import annotations

import concurrent.futures
import inspect
import multiprocessing
import pickle
from pathlib import Path

import pytest

from energyad import errors
from energyad.errors import EnergyadError, ImageError
from energyad.images.reading import read_image

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, EnergyadError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_unpickles_as_itself(kind: type[EnergyadError]) -> None:
    error = kind("a.png", "is damaged") if issubclass(kind, ImageError) else kind("is damaged")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_an_image_error_leaves_a_process_pool_as_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no image")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.raises(ImageError, match="not a PNG") as caught:
            pool.submit(read_image, path).result(timeout=60)
        assert caught.value.path == path
