"""Fits and saves killed with SIGKILL at random moments: is the model's folder whole, and does the next one work?"""

from __future__ import annotations

import functools
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.robustness.launching import Launcher, fork_lives
from benchmarks.robustness.small_model import fit_small, good_parts
from energyad.errors import ModelError
from energyad.model.folder import HEAD_FILE, MANIFEST, find_model, open_model, save_model

TOO_LONG: Final = 300.0
SAVE_SECONDS: Final = 0.6
"""In which a life that saves again and again is killed."""
NAMES: Final = ("one", "two")


@dataclass(frozen=True)
class Layout:
    """What is killed.

    Attributes:
        name: Of the layout.
        work: A fit, or one save after the other of two models in turn.
        exists: Whether there is a model at the start of each life; else what the last life left is removed.
        processes: That work at the same time.
    """

    name: str
    work: Literal["fit", "save"]
    exists: bool
    processes: int = 1


LAYOUTS: Final = (
    Layout("save", "save", exists=False),
    Layout("save, replacing", "save", exists=True),
    Layout("save, two at once", "save", exists=True, processes=2),
    Layout("fit", "fit", exists=False),
    Layout("fit, replacing", "fit", exists=True),
)


@dataclass(frozen=True, kw_only=True)
class SaveCounts:
    """What was found after each kill, and after a save that was not killed.

    damaged: folders that are not one of the whole models. lost: no model where there was one before. failed: lives that
    were not killed and did not end well. unlike: whole fits after a kill with other tensors or thresholds than a fit
    that was never killed. left_over: temporary folders, a minute old, that the next save left there; and features that
    the next whole fit left.
    before, after, absent: kills after which the folder held the model of before, another one, or none.
    """

    layout: str
    kills: int
    before: int
    after: int
    absent: int
    damaged: int
    lost: int
    failed: int
    unlike: int
    left_over: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether nothing that must not happen did."""
        return not any((self.damaged, self.lost, self.failed, self.unlike, self.left_over))


# The lives


def launch() -> None:
    """Fork a life for each line on standard input. See `launching.fork_lives`."""
    import energyad.fitting.extraction
    from energyad.fitting import feature_store

    on_disk = functools.partial(feature_store.open_feature_store, limit=0)  # as for thousands of images
    energyad.fitting.extraction.open_feature_store = on_disk
    fork_lives(_live)


def _live(spec: dict[str, Any]) -> None:
    place = Path(spec["place"])
    if spec["work"] == "fit":
        import torch

        torch.set_num_threads(1)
        fit_small([Path(image) for image in spec["images"]], name="new").save(place)
        return
    models = [open_model(Path(source)) for source in spec["sources"]]
    for index in range(spec["saves"]):
        manifest, contents = models[index % len(models)]
        save_model(place, manifest, contents)


# One run


@dataclass(frozen=True)
class Bench:
    """What all layouts share.

    Attributes:
        root: Of all files.
        images: Good parts that fits are made on.
        sources: Folders of the models that are saved.
        launcher: Starts lives.
        fit_seconds: Of a whole fit; 0 where none is killed.
        expected: The tensors and the threshold of a fit that was never killed; None where none is killed.
    """

    root: Path
    images: list[Path]
    sources: list[Path]
    launcher: Launcher
    fit_seconds: float
    expected: tuple[bytes, float] | None


def prepare(root: Path, launcher: Launcher, *, model: Path | None) -> Bench:
    """Make two models that are saved in turn: of the one that is given, or of one that is fitted here.

    Args:
        root: For all files.
        launcher: Starts lives.
        model: A model folder, for layouts without fits. None fits twice, and times the second, which finds the
            backbone's graph.
    """
    images: list[Path] = []
    seconds, expected = 0.0, None
    reference = model or root / "reference"
    if model is None:
        images = good_parts(root / "images")
        for _ in range(2):
            started = time.perf_counter()
            _require(_whole_life(launcher, _spec(root, "fit", reference, images=images)))
            seconds = time.perf_counter() - started
    manifest, contents = open_model(reference)
    if model is None:
        expected = contents[HEAD_FILE], manifest.calibration.threshold
    sources = [root / "sources" / name for name in NAMES]
    for name, source in zip(NAMES, sources, strict=True):
        save_model(source, manifest.replace(name=name), contents)
    return Bench(root, images, sources, launcher, seconds, expected)


def run_layout(bench: Bench, layout: Layout, *, kills: int, seed: int) -> SaveCounts:
    """Kill so many lives, and look at the folder after each.

    Args:
        bench: See `prepare`.
        layout: What is killed.
        kills: SIGKILLs.
        seed: Of the moments.
    """
    started = time.perf_counter()
    run = _Run(bench, layout, random.Random(f"{seed} {layout.name}"))
    for number in range(kills):
        run.kill_one()
        if layout.work == "save" or number % 5 == 4:
            run.whole_one()
    run.whole_one()
    return SaveCounts(
        layout=layout.name,
        kills=kills,
        left_over=run.num_left_over(),
        seconds=round(time.perf_counter() - started, 1),
        **run.counts,
    )


class _Run:
    def __init__(self, bench: Bench, layout: Layout, generator: random.Random) -> None:
        self.bench, self.layout, self.generator = bench, layout, generator
        self.place = bench.root / layout.name.replace(" ", "") / "model"
        self.counts = dict.fromkeys(("before", "after", "absent", "damaged", "lost", "failed", "unlike"), 0)

    def kill_one(self) -> None:
        """Start what the layout says, kill it, and look."""
        before = self._put_before()
        lives = [
            self.bench.launcher.start(self._spec(turned=bool(number), saves=1000))
            for number in range(self.layout.processes)
        ]
        longest = self.bench.fit_seconds if self.layout.work == "fit" else SAVE_SECONDS
        time.sleep(self.generator.uniform(0.0, longest))
        for life in lives:
            self.bench.launcher.end(life, signal.SIGKILL)
        self.counts[self._state(before)] += 1

    def whole_one(self) -> None:
        """What comes next, and is not killed."""
        self._age()
        if not _whole_life(self.bench.launcher, self._spec(saves=1)) or self._state(None) != "after":
            self.counts["failed"] += 1
        elif self.layout.work == "fit":
            manifest, contents = open_model(self.place)
            found = (contents[HEAD_FILE], manifest.calibration.threshold)
            self.counts["unlike"] += found != self.bench.expected

    def num_left_over(self) -> int:
        """Temporary folders, and features of fits."""
        temporary = [path for path in self.place.parent.iterdir() if path != self.place]
        features = self.bench.root / "cache" / "features"
        stored = [path for path in features.glob("*") if path.is_dir()] if self.layout.work == "fit" else []
        return len(temporary) + len(stored)

    def _put_before(self) -> str | None:
        """The model that is there at the start of a life; returns its name."""
        self.place.parent.mkdir(parents=True, exist_ok=True)
        if not self.layout.exists:
            if self.place.exists():
                self.place.rename(self.bench.root / f"taken-{time.monotonic_ns()}")
            return None
        if self.layout.work == "fit" or not self.place.exists():
            save_model(self.place, *open_model(self.bench.sources[0]))
        return open_model(self.place)[0].name

    def _state(self, before: str | None) -> str:
        """What the folder is now: the key of a count."""
        try:
            manifest, _ = open_model(find_model(self.place))
        except ModelError:
            is_there = (self.place / MANIFEST).exists() or self.place.exists()
            return "damaged" if is_there else "lost" if before is not None else "absent"
        if manifest.name not in {*NAMES, "new"}:
            return "damaged"
        return "before" if manifest.name == before else "after"

    def _age(self) -> None:
        """Let what was left behind be two minutes older: a younger one might be a living save's."""
        old = time.time() - 120
        for path in self.place.parent.glob(".*"):
            for entry in (path, *path.iterdir()):
                os.utime(entry, (old, old))

    def _spec(self, *, saves: int, turned: bool = False) -> dict[str, Any]:
        sources = self.bench.sources[::-1] if turned else self.bench.sources
        spec = _spec(self.bench.root, self.layout.work, self.place, images=self.bench.images)
        return {**spec, "sources": [str(source) for source in sources[::-1]], "saves": saves}


def _spec(root: Path, work: str, place: Path, *, images: list[Path]) -> dict[str, Any]:
    return {
        "work": work,
        "place": str(place),
        "images": [str(image) for image in images],
        "sources": [],
        "log": str(root / "lives.log"),
    }


def _whole_life(launcher: Launcher, spec: dict[str, Any]) -> bool:
    """Run a life to its end; whether the model's folder was written by it."""
    manifest = Path(spec["place"]) / MANIFEST
    before = _identity(manifest)
    life = launcher.start(spec)
    deadline = time.monotonic() + TOO_LONG
    while launcher.is_running(life):
        if time.monotonic() > deadline:
            raise TimeoutError("a life that is not killed does not end")
        time.sleep(0.005)
    launcher.alive.discard(life)
    return _identity(manifest) not in {None, before}


def _identity(manifest: Path) -> tuple[int, int] | None:
    try:
        status = manifest.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _require(ended_well: bool) -> None:
    if not ended_well:
        raise RuntimeError("the first fit failed; see what it printed")


def run_layouts(
    layouts: Sequence[Layout], *, kills: int, seed: int, model: Path | None = None
) -> Iterator[SaveCounts]:
    """Run layouts, with so many kills in each. model: saved where no layout is a fit."""
    if any(layout.work == "fit" for layout in layouts):
        model = None
    with tempfile.TemporaryDirectory(prefix="energyad-saves-") as folder:
        root = Path(folder)
        with Launcher(__name__, {"ENERGYAD_CACHE": str(root / "cache")}) as launcher:
            bench = prepare(root, launcher, model=model)
            for layout in layouts:
                yield run_layout(bench, layout, kills=kills, seed=seed)
