"""What must never happen, tried again and again: a command for each part, and all of them in short with `--quick`.

Rows of a part go to its own file, and those that are there are not made again for the same seed. The command's status
is 1 where a row breaks what must hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.provenance import append_row, read_rows, stamp
from benchmarks.robustness import decoding, folders, formats, saving, service, watching
from benchmarks.robustness.postgres import private_server
from benchmarks.robustness.small_model import fit_small, good_parts
from benchmarks.robustness.start import PRESENT, measure_start

SHARE: Final = 2500
QUICK_LAYOUTS: Final = ("stay, slow writers", "move, two watchers, same names", "move, webhook")


@dataclass(frozen=True)
class Sizes:
    """How much of each part.

    Attributes:
        files: That arrive in each layout of watchers.
        kills: Of watchers in each layout.
        saves: Kills of saves in each layout.
        fits: Kills of fits in each layout; 0 leaves these layouts out.
        folders: Tampered model folders, of each runtime.
        results: In the database that a watcher starts with.
        share: Of the table of formats: one file in so many.
        examples: Requests for each operation of the service, good and bad ones each.
        hostile: Clients beside honest ones.
        seconds: Of that.
    """

    files: int = 160
    kills: int = 18
    saves: int = 50
    fits: int = 25
    folders: int = 300
    results: int = 1_000_000
    share: int = 1
    examples: int = 200
    hostile: int = 300
    seconds: float = 600.0


QUICK: Final = Sizes(
    files=40,
    kills=3,
    saves=4,
    fits=0,
    folders=140,
    results=2_000,
    share=12,
    examples=3,
    hostile=100,
    seconds=3.0,
)


class Campaign:
    """The parts, with what they share.

    Args:
        seed: Of everything that is drawn.
        count: Of damaged images, with those that the rows hold.
        sizes: Of the other parts.
        model: For what runs the program or tampers with a model; a small one is fitted where none is given.
        rows: Where the rows go: a folder.
        quick: Leave layouts out.
    """

    def __init__(
        self, *, seed: int, count: int, sizes: Sizes, model: Path | None, rows: Path, quick: bool
    ) -> None:
        self.seed, self.count, self.sizes, self.rows, self.quick = seed, count, sizes, rows, quick
        self._given, self._folder = model, tempfile.TemporaryDirectory(prefix="energyad-campaign-")
        self.is_clean = True

    def close(self) -> None:
        """Remove what was fitted."""
        self._folder.cleanup()

    def images(self) -> list[Path]:
        """Good parts."""
        return good_parts(Path(self._folder.name) / "images")

    def model(self) -> Path:
        """A model's folder."""
        if self._given is None:
            self._given = Path(self._folder.name) / "model"
            fit_small(self.images()).save(self._given)
        return self._given

    def run(self, part: str) -> None:
        """Make the rows of a part."""
        started = time.perf_counter()
        for row in PARTS[part](self):
            self.is_clean = self.is_clean and getattr(row, "is_clean", True)
            self._add(part, asdict(row))
        print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)

    def decoding(self) -> Iterator[decoding.Counts]:
        """Shares of damaged images, after those that the file holds."""
        done = max((row["first"] + row["count"] for row in self._present("decoding")), default=0)
        for first in range(done, self.count, SHARE):
            yield decoding.compare_fills(self.seed, first, min(SHARE, self.count - first))

    def formats(self) -> Iterator[formats.FormatCounts]:
        """The table of formats."""
        yield from formats.count_formats(self.sizes.share)

    def folders(self) -> Iterator[folders.FolderCounts]:
        """Tampered model folders, under each runtime."""
        for runtime in ("onnxruntime",) if self.quick else ("onnxruntime", "openvino", "torch"):
            yield from folders.try_folders(
                self.model(), self.images()[:2], seed=self.seed, count=self.sizes.folders, runtime=runtime
            )

    def saving(self) -> Iterator[saving.SaveCounts]:
        """Killed saves and fits."""
        present = {row["layout"] for row in self._present("saving")}
        for work, kills in (("save", self.sizes.saves), ("fit", self.sizes.fits)):
            layouts = [one for one in saving.LAYOUTS if one.work == work and one.name not in present]
            if kills and layouts:
                model = self.model() if work == "save" else None
                yield from saving.run_layouts(layouts, kills=kills, seed=self.seed, model=model)

    def watching(self) -> Iterator[watching.KillCounts]:
        """Killed watchers; the layouts of the program only with a model that was given."""
        present = {row["layout"] for row in self._present("watching")}
        layouts = [one for one in watching.LAYOUTS if one.name not in present]
        if self.quick:
            layouts = [one for one in layouts if one.name in QUICK_LAYOUTS]
        elif self._given is None:
            layouts = [one for one in layouts if not one.program]
        options: dict[str, Any] = {"files": self.sizes.files, "kills": self.sizes.kills, "seed": self.seed}
        if not any(layout.server for layout in layouts):
            for layout in layouts:
                yield watching.run_layout(layout, model=self._given, **options)
            return
        with private_server() as server:
            for layout in layouts:
                yield watching.run_layout(layout, server=server, model=self._given, **options)

    def start(self) -> Iterator[Any]:
        """Starts of a watcher on an empty database, and on one with many results."""
        for count in (PRESENT, self.sizes.results):
            yield measure_start(count, model=None if self.quick else self._given)

    def service(self) -> Iterator[Any]:
        """Requests of all kinds, and honest clients beside hostile ones."""
        model, image = self.model(), self.images()[0]
        yield service.try_protocol(model, image, examples=self.sizes.examples, seed=self.seed)
        counts = service.try_flood(
            model, image, hostile=self.sizes.hostile, seconds=self.sizes.seconds, seed=self.seed
        )
        yield replace(counts, ratio=0.0) if self.quick else counts  # a ratio of seconds is noise

    def _present(self, part: str) -> list[dict[str, Any]]:
        return [row for row in read_rows(self._file(part)) if row["seed"] == self.seed]

    def _file(self, part: str) -> Path:
        return self.rows / f"{part}.jsonl"

    def _add(self, part: str, values: dict[str, Any]) -> None:
        row = {"seed": self.seed, **values, **asdict(stamp(threads=1, packages=PACKAGES[part]))}
        append_row(self._file(part), row)
        print(json.dumps(row), flush=True)


PARTS: Final[Mapping[str, Callable[[Campaign], Iterator[Any]]]] = {
    "formats": Campaign.formats,
    "decoding": Campaign.decoding,
    "folders": Campaign.folders,
    "saving": Campaign.saving,
    "watching": Campaign.watching,
    "start": Campaign.start,
    "service": Campaign.service,
}
PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "formats": ("energyad", "numpy", "pillow", "tifffile", "imagecodecs"),
    "decoding": ("energyad", "numpy", "opencv-python-headless", "pillow"),
    "folders": ("energyad", "numpy", "onnx", "onnxruntime"),
    "saving": ("energyad", "torch"),
    "watching": ("energyad", "sqlalchemy"),
    "start": ("energyad", "sqlalchemy"),
    "service": ("energyad", "fastapi", "uvicorn", "schemathesis"),
}


def main() -> int:
    """Run parts; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument(
        "--quick", action="store_true", help="every part in short; its rows are printed alone"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="of damaged images, with those that the rows hold")
    parser.add_argument("--rows", type=Path, default=Path(__file__).parent, help="folder for the rows")
    parser.add_argument("--model", type=Path, help="for the layouts that run the program, and for the starts")
    for field, help_text in (
        ("files", "that arrive in each layout of watchers"),
        ("kills", "of watchers in each layout"),
        ("saves", "kills of saves in each layout"),
        ("fits", "kills of fits in each layout"),
        ("folders", "tampered model folders of each runtime"),
        ("results", "in the database that a watcher starts with"),
        ("examples", "requests for each operation of the service"),
        ("hostile", "clients of the service beside honest ones"),
        ("seconds", "of that"),
    ):
        parser.add_argument(f"--{field}", type=int, help=help_text)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    sizes = QUICK if arguments.quick else Sizes()
    given = {
        name: getattr(arguments, name) for name in asdict(sizes) if getattr(arguments, name, None) is not None
    }
    with tempfile.TemporaryDirectory() as nowhere:
        campaign = Campaign(
            seed=arguments.seed,
            count=arguments.count or (1_000 if arguments.quick else 12_000),
            sizes=replace(sizes, **given),
            model=arguments.model,
            rows=Path(nowhere) if arguments.quick else arguments.rows,
            quick=arguments.quick,
        )
        try:
            for part in arguments.parts:
                campaign.run(part)
        finally:
            campaign.close()
    return 0 if campaign.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
