"""Decode damaged files twice, in processes whose fresh memory holds different bytes, and count what happens.

A pixel that no byte of the file determined differs between the two. The GNU C library fills what it hands out with a
byte of `MALLOC_PERTURB_`; allocations that would come straight from the system as zeros come from its heap too.
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.robustness.corpus import damaged_file, seeds
from energyad.errors import ImageError
from energyad.images.reading import decode_image

FILLS = (85, 170)
MAX_PIXELS = 50_000_000
MAX_CPU_SECONDS = 2.0
MAX_MEMORY = 1 << 30
HUNG = 60.0


@dataclass(frozen=True)
class Outcome:
    """What became of one file in one process. `kind` is decoded, refused, foreign or crashed."""

    kind: str
    digest: str = ""
    cpu_seconds: float = 0.0
    memory: int = 0


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of `count` damaged files from number `first` on.

    foreign: another exception than ImageError. crashed: the process ended or hung. differing: another outcome or
    other pixels under the other fill. slow and large: over 2 CPU seconds, over 1 GiB.
    """

    seed: int
    first: int
    count: int
    decoded: int
    refused: int
    foreign: int
    crashed: int
    differing: int
    slow: int
    large: int
    slowest_cpu_seconds: float
    largest_mib: int
    examples: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing that must not happen did."""
        return not any((self.foreign, self.crashed, self.differing, self.slow, self.large))


def compare_fills(seed: int, first: int, count: int) -> Counts:
    """Decode `count` damaged files under both fills."""
    outcomes = [_outcomes(fill, seed, first, count) for fill in FILLS]
    kinds = dict.fromkeys(("decoded", "refused", "foreign", "crashed"), 0)
    differing = slow = large = 0
    slowest, largest = 0.0, 0
    examples: list[str] = []
    for index, pair in enumerate(zip(*outcomes, strict=True), start=first):
        kind = next((one.kind for one in pair if one.kind in {"crashed", "foreign"}), pair[0].kind)
        kinds[kind] += 1
        cpu, memory = max(one.cpu_seconds for one in pair), max(one.memory for one in pair)
        differs = (pair[0].kind, pair[0].digest) != (pair[1].kind, pair[1].digest)
        differing += differs
        slow += cpu > MAX_CPU_SECONDS
        large += memory > MAX_MEMORY
        slowest, largest = max(slowest, cpu), max(largest, memory)
        if differs or kind in {"crashed", "foreign"} or cpu > MAX_CPU_SECONDS or memory > MAX_MEMORY:
            examples.append(f"{index}: {kind}, {cpu:.1f} s, {memory >> 20} MiB, {pair[0].digest[:60]}")
    return Counts(
        seed=seed,
        first=first,
        count=count,
        **kinds,
        differing=differing,
        slow=slow,
        large=large,
        slowest_cpu_seconds=round(slowest, 2),
        largest_mib=largest >> 20,
        examples=examples[:20],
    )


def _outcomes(fill: int, seed: int, first: int, count: int) -> Iterator[Outcome]:
    """One outcome for each file; a process that dies is a crash of its file, and the next one goes on."""
    environment = {
        **os.environ,
        "MALLOC_PERTURB_": str(fill),
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "OMP_NUM_THREADS": "1",
    }
    end = first + count
    while first < end:
        command = [sys.executable, "-m", "benchmarks.robustness.decoding", str(seed), str(first), str(end)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
        )
        if process.stdout is None:
            raise RuntimeError("the process has no output")
        with process.stdout:
            for line in process.stdout:
                kind, digest, cpu_seconds, memory = line.rstrip("\n").split("\t")
                yield Outcome(kind, digest, float(cpu_seconds), int(memory))
                first += 1
        process.wait()
        if first < end:
            yield Outcome("crashed", f"status {process.returncode}")
            first += 1


def _decode_all(seed: int, first: int, end: int) -> None:
    files = seeds()
    warnings.simplefilter("ignore")
    for index in range(first, end):
        data = damaged_file(files, seed, index)
        signal.setitimer(signal.ITIMER_REAL, HUNG)  # its default is to end the process, also inside a decoder
        before, started = _reset_peak(), time.process_time()
        kind, digest = _outcome_of(data)
        seconds = time.process_time() - started
        print(kind, digest, f"{seconds:.4f}", max(0, _peak() - before), sep="\t", flush=True)


def _outcome_of(data: bytes) -> tuple[str, str]:
    try:
        pixels = decode_image(data, max_pixels=MAX_PIXELS)
    except ImageError as error:
        return "refused", error.reason
    except Exception as error:
        return "foreign", repr(error).replace("\t", " ").replace("\n", " ")
    return "decoded", f"{pixels.shape} {hashlib.sha256(pixels.tobytes()).hexdigest()}"


def _reset_peak() -> int:
    """Forget the highest memory so far; what is held now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    _decode_all(*(int(argument) for argument in sys.argv[1:4]))
