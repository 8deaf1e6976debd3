"""A real Ray cluster of two nodes, whose workers and driver are killed: every image stands once in the results."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")
import pyarrow.parquet as pq  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from energyad.data.datasets import Category  # noqa: E402
from energyad.detector import AnomalyDetector  # noqa: E402
from energyad.integrations.ray import score_archive  # noqa: E402
from energyad.integrations.ray_fitting import fit_categories  # noqa: E402
from energyad.model.folder import HEAD_FILE  # noqa: E402
from energyad.settings import FitSettings  # noqa: E402

pytestmark = pytest.mark.slow
NODES, IMAGES = 2, 40


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes of one core each."""
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=small)
    for _ in range(NODES - 1):
        nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def archive(tmp_path: Path, demo_category: Category) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    paths = [item.path for item in demo_category.test]
    for number in range(IMAGES - 1):
        (folder / f"{number:03d}.png").write_bytes(paths[number % len(paths)].read_bytes())
    (folder / "damaged.png").write_bytes(b"\x89PNG")
    return folder


def scorers() -> list[int]:
    """Actors that score, of nodes that this process started."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal():
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_text()
        except OSError:  # it has ended
            continue

    def is_ours(process: int) -> bool:
        while process > 1 and process != os.getpid():
            process = parents.get(process, 0)
        return process == os.getpid()

    return [
        process for process, name in names.items() if name.startswith("ray::MapWorker") and is_ours(process)
    ]


def images_in(output: Path) -> Counter[str]:
    files = sorted((output / "results").glob("*.parquet"))
    return Counter(image for file in files for image in pq.read_table(file).column("image").to_pylist())


def test_workers_killed_at_random_cost_no_image(
    cluster: str, archive: Path, model_folder: Path, tmp_path: Path
) -> None:
    output, ended, killed = tmp_path / "out", threading.Event(), []
    dice = random.Random(0)

    def kill() -> None:
        done = 0
        while not ended.is_set() and len(killed) < 4:
            now = len(list((output / "shards").glob("0*.parquet"))) if output.exists() else 0
            running = scorers()
            if now > done and running:
                done, victim = now, dice.choice(running)
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        summary = score_archive(
            [str(archive)], model=model_folder, output=str(output), address=cluster, shard_size=2
        )
    finally:
        ended.set()
        killer.join()
    found = images_in(output)
    assert killed
    assert len(found) == IMAGES and set(found.values()) == {1}
    assert summary.verdicts["unreadable"] == 1 and sum(summary.verdicts.values()) == IMAGES


def test_a_killed_driver_goes_on_where_it_was(
    cluster: str, archive: Path, model_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    program = (
        "import sys; from pathlib import Path; from energyad.integrations.ray import score_archive; "
        "score_archive([sys.argv[1]], model=Path(sys.argv[2]), output=sys.argv[3], address=sys.argv[4], shard_size=2)"
    )
    arguments = [sys.executable, "-c", program, str(archive), str(model_folder), str(output), cluster]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        while driver.poll() is None and len(list(output.glob("shards/0*.parquet"))) < 3:
            time.sleep(0.02)
        driver.kill()
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("shards/0*.parquet")}
    assert len(before) >= 3
    score_archive([str(archive)], model=model_folder, output=str(output), address=cluster, shard_size=2)
    found = images_in(output)
    assert len(found) == IMAGES and set(found.values()) == {1}
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("shards/0*.parquet")}
    assert before.items() <= after.items()  # nothing that was done is done again


def test_a_fit_on_the_cluster_is_that_of_this_process_and_a_failed_one_costs_no_other(
    cluster: str,
    demo_category: Category,
    fitted_detector: AnomalyDetector,
    quick_settings: FitSettings,
    tmp_path: Path,
) -> None:
    missing = Category("missing", tmp_path, (tmp_path / "1.png", tmp_path / "2.png"), ())
    fits = fit_categories([missing, demo_category], address=cluster, settings=quick_settings)
    by_name = {fit.category.name: fit for fit in fits}
    failed, whole = by_name["missing"], by_name[demo_category.name]
    assert failed.manifest is None and failed.error is not None and "1.png" in failed.error
    assert whole.manifest is not None and whole.contents is not None and whole.error is None
    assert whole.manifest.calibration == fitted_detector.calibration
    assert whole.contents[HEAD_FILE] == fitted_detector.contents[HEAD_FILE]
