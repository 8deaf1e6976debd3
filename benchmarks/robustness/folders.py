"""Model folders that were tampered with: is each refused in one clear line, or scored as the whole one is?

Damage of three kinds. Without new digests: bytes flipped, files cut, missing, swapped, linked, or no files at all. With
a new digest of `model.json`: each of its fields in turn made NaN, negative, huge, of another type or absent. With new
digests of everything, as who can write a folder can write them: graphs that read other files, loop, grow or give no
numbers, and bytes of all files flipped. Flipped weights are another model, which a signature alone finds: of this kind,
`other`, changed scores are no fault.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from energyad.errors import EnergyadError
from energyad.model.folder import (
    BACKBONE_FILE,
    CARD_FILE,
    GRAPH_FILE,
    HEAD_FILE,
    MANIFEST,
    with_digest,
)

MAX_CPU_SECONDS: Final = 20.0
MAX_MEMORY: Final = 2 << 30
HUNG: Final = 60.0
WRONG_VALUES: Final[tuple[Any, ...]] = (
    *(
        float("nan"),
        float("inf"),
        -1,
        -1.5,
        0,
        1e308,
        2**63,
        10**400,
        "x",
        "",
        "\x1b[31m",
        "../../etc/passwd",
    ),
    *(4096, 65_536, 10**6, 2**31, None, True, [], [[]], {}, {"a": 1}, [1, 2, 3], 1, 0.5, "2026"),
)
FILES: Final = (MANIFEST, HEAD_FILE, GRAPH_FILE, BACKBONE_FILE, CARD_FILE)


@dataclass(frozen=True, kw_only=True)
class FolderCounts:
    """Of tampered folders.

    refused: with one line. alike: with the scores of the whole model. changed: with others. unclear: refused in several
    lines or without a reason. foreign: another exception than EnergyadError. crashed: the process ended or hung. slow
    and large: over 20 CPU seconds, over 2 GiB.
    """

    seed: int
    runtime: str
    kind: str
    count: int
    refused: int
    alike: int
    changed: int
    unclear: int
    foreign: int
    crashed: int
    slow: int
    large: int
    examples: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing that must not happen did."""
        changed = 0 if self.kind == "other" else self.changed
        return not any((changed, self.unclear, self.foreign, self.crashed, self.slow, self.large))


@dataclass(frozen=True)
class Case:
    """One way to tamper with a folder."""

    kind: str
    name: str
    apply: Callable[[Path], None]


def cases(seed: int, whole: Path, *, count: int) -> list[Case]:
    """About so many ways to tamper: all that are not drawn, and drawn ones for the rest."""
    rng = random.Random(seed)
    fixed = [*_file_cases(), *_graph_cases()]
    values = json.loads((whole / MANIFEST).read_text(encoding="utf-8"))
    places = list(_places(values))
    drawn: list[Case] = []
    while len(fixed) + len(drawn) < count:
        share = rng.random()
        if share < 0.5:
            drawn.append(_flip_case(rng, mended=share < 0.25))
        else:
            drawn.append(_field_case(rng, places))
    return [*fixed, *drawn]


# Files


def _flip_case(rng: random.Random, *, mended: bool) -> Case:
    """Bytes anywhere, or near the start, where sizes and names are."""
    name = rng.choice(FILES[1:] if mended else FILES)
    near = rng.choice((1.0, 2000.0))
    draws = [(rng.random(), rng.randrange(1, 256)) for _ in range(rng.choice((1, 1, 4, 50)))]

    def flip(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        size = len(data) if near == 1.0 else min(len(data), int(near))
        for place, change in draws:
            data[int(place * size)] ^= change
        (folder / name).write_bytes(data)
        if mended:
            _mend(folder, name)

    return Case("other" if mended else "file", f"{len(draws)} bytes of {name} changed", flip)


def _mend(folder: Path, name: str) -> None:
    values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    values["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    _write_manifest(folder, values)


def _file_cases() -> Iterator[Case]:
    for name in FILES:
        for what, change in _FILE_CHANGES.items():
            yield Case("file", f"{name} {what}", functools.partial(_change_file, name, change))
    yield Case("file", "an extra file", lambda folder: _write(folder / "extra.py", b"raise SystemExit(9)"))
    yield Case("file", "an extra pipe", lambda folder: os.mkfifo(folder / "extra.bin"))
    yield Case(
        "file", "weights and graph exchanged", lambda folder: _exchange(folder, GRAPH_FILE, BACKBONE_FILE)
    )
    yield Case("file", "head and card exchanged", lambda folder: _exchange(folder, HEAD_FILE, CARD_FILE))
    yield Case("other", "names of weights that are a list", _list_of_names)
    yield Case("file", "the folder is a file", _folder_is_file)
    yield Case("file", "the folder links to itself", _folder_is_loop)


def _change_file(name: str, change: Callable[[Path], None], folder: Path) -> None:
    change(folder / name)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _removed(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 100)


def _endless(path: Path) -> None:
    os.truncate(path, 64 << 30)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _outside(path: Path) -> None:
    elsewhere = path.parent.with_name(f"{path.parent.name}-{path.name}")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


_FILE_CHANGES: Final[dict[str, Callable[[Path], None]]] = {
    "removed": _removed,
    "empty": _empty,
    "cut": _cut,
    "longer": _longer,
    "of 64 GiB of nothing": _endless,
    "a pipe": _pipe,
    "a link to itself": _loop,
    "a link to a device": _device,
    "a link out of the folder": _outside,
    "a folder": _directory,
}


def _exchange(folder: Path, one: str, other: str) -> None:
    first, second = (folder / one).read_bytes(), (folder / other).read_bytes()
    (folder / one).write_bytes(second)
    (folder / other).write_bytes(first)


def _list_of_names(folder: Path) -> None:
    data = (folder / BACKBONE_FILE).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = {"initialisers": '{"plain": ["a"]}'}
    text = json.dumps(header).encode()
    (folder / BACKBONE_FILE).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    _mend(folder, BACKBONE_FILE)


def _folder_is_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


def _folder_is_loop(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder)


# Fields of model.json


def _places(values: Any, before: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where values are, of lists the first and the last one alone."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(values, dict):
        items = list(values.items())
    elif isinstance(values, list) and values:
        items = list({0: values[0], len(values) - 1: values[-1]}.items())
    for key, value in items:
        yield (*before, key)
        yield from _places(value, (*before, key))


def _field_case(rng: random.Random, places: list[tuple[str | int, ...]]) -> Case:
    place = rng.choice(places)
    value = rng.choice((*WRONG_VALUES, "removed", "added"))

    def change(folder: Path) -> None:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        *path, last = place
        parent = values
        for key in path:
            parent = parent[key]
        if value == "removed":
            del parent[last]
        elif value == "added" and isinstance(parent, dict):
            parent["added"] = 1
        else:
            parent[last] = copy.deepcopy(value)
        _write_manifest(folder, values)

    is_number = isinstance(
        value, int | float
    )  # in range it is another model, for PyTorch, which assembles one
    in_range = is_number and place[0] in ("backbone", "architecture") and 0 < value <= 10**6
    return Case(
        "other" if in_range else "field", f"{'.'.join(map(str, place))} = {str(value)[:20]!r}", change
    )


def _write_manifest(folder: Path, values: dict[str, Any]) -> None:
    """With its digest where it can have one."""
    try:
        values = with_digest(values)
    except ValueError:
        text = json.dumps({name: value for name, value in values.items() if name != "sha256"}, sort_keys=True)
        values = {**values, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(values), encoding="utf-8")


# Graphs with new digests


def _graph_cases() -> Iterator[Case]:
    for change in _GRAPH_CHANGES:
        name = (change.__doc__ or "").split(".")[0].lower()
        yield Case("graph", f"a graph that {name}", functools.partial(_change_graph, change))


def _change_graph(change: Callable[[onnx.ModelProto], None], folder: Path) -> None:
    model = onnx.load(str(folder / GRAPH_FILE))
    change(model)
    (folder / GRAPH_FILE).write_bytes(model.SerializeToString())
    _mend(folder, GRAPH_FILE)


def _external_tensor(model: onnx.ModelProto) -> None:
    """Keeps a tensor in another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"


def _not_numbers(model: onnx.ModelProto) -> None:
    """Holds weights that are no numbers."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            array = np.full_like(numpy_helper.to_array(tensor), np.nan)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _grows(model: onnx.ModelProto) -> None:
    """Makes a tensor of a million million numbers."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([10**6, 10**6], np.int64), "huge"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["grown"]))


def _loops(model: onnx.ModelProto) -> None:
    """Loops for ever."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["condition"], ["again"])],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62, np.int64), "trips"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "start"))
    model.graph.node.append(helper.make_node("Loop", ["trips", "start"], [], body=body))


def _own_input(model: onnx.ModelProto) -> None:
    """Takes its own output."""
    node = model.graph.node[0]
    node.input[0] = model.graph.node[-1].output[0]


def _other_input(model: onnx.ModelProto) -> None:
    """Calls its input otherwise."""
    model.graph.input[0].name = "elsewhere"


def _other_output(model: onnx.ModelProto) -> None:
    """Calls its outputs otherwise."""
    for index, output in enumerate(model.graph.output):
        model.graph.node.append(helper.make_node("Identity", [output.name], [f"out{index}"]))
        output.name = f"out{index}"


def _no_output(model: onnx.ModelProto) -> None:
    """Has one output less."""
    del model.graph.output[-1]


def _unknown_operator(model: onnx.ModelProto) -> None:
    """Has an operator of nobody."""
    model.graph.node[1].op_type = "Nonsense"


def _unknown_domain(model: onnx.ModelProto) -> None:
    """Has an operator of another library."""
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _later_opset(model: onnx.ModelProto) -> None:
    """Is of an operator set to come."""
    model.opset_import[0].version = 9_999


def _two_inputs(model: onnx.ModelProto) -> None:
    """Asks for a second input."""
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1]))
    model.graph.node.append(helper.make_node("Identity", ["second"], ["third"]))


def _nothing(model: onnx.ModelProto) -> None:
    """Is empty."""
    model.ClearField("graph")


def _other_input_shape(model: onnx.ModelProto) -> None:
    """Takes images of another shape."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim in list(dims)[1:3]:
        dim.dim_value = 96


_GRAPH_CHANGES: Final = (
    *(_external_tensor, _not_numbers, _grows, _loops, _own_input, _other_input, _other_output, _no_output),
    *(_unknown_operator, _unknown_domain, _later_opset, _two_inputs, _nothing, _other_input_shape),
)


# Trying them


def try_folders(
    whole: Path, images: list[Path], *, seed: int, count: int, runtime: str = "onnxruntime"
) -> list[FolderCounts]:
    """Tamper with copies of a whole model, and load and score each, in a process that may die of it.

    Args:
        whole: The model.
        images: That are scored.
        seed: Of what is drawn.
        count: Of folders.
        runtime: That loads and scores them.

    Returns:
        The counts of each kind.
    """
    every = cases(seed, whole, count=count)
    with tempfile.TemporaryDirectory(prefix="energyad-folders-") as root:
        folders = []
        for index, case in enumerate(every):
            folder = Path(root) / f"{index:04d}" / "model"
            shutil.copytree(whole, folder)
            case.apply(folder)
            folders.append(folder)
        (expected,) = _outcomes([whole], images, runtime)
        if expected.kind != "scored":
            raise RuntimeError(f"the whole model is not scored: {expected.text}")
        outcomes = list(_outcomes(folders, images, runtime))
    kinds = dict.fromkeys(case.kind for case in every)
    return [
        _count(
            seed,
            runtime,
            kind,
            [(c, o) for c, o in zip(every, outcomes, strict=True) if c.kind == kind],
            expected,
        )
        for kind in kinds
    ]


@dataclass(frozen=True)
class _Outcome:
    kind: str
    text: str
    cpu_seconds: float = 0.0
    memory: int = 0


def _count(
    seed: int, runtime: str, kind: str, tried: list[tuple[Case, _Outcome]], expected: _Outcome
) -> FolderCounts:
    counts = dict.fromkeys(
        ("refused", "alike", "changed", "unclear", "foreign", "crashed", "slow", "large"), 0
    )
    examples = []
    for case, outcome in tried:
        result = outcome.kind
        if result == "scored":
            result = "alike" if outcome.text == expected.text else "changed"
        elif result == "refused" and (len(outcome.text) < 20 or "\n" in outcome.text):
            result = "unclear"
        slow, large = outcome.cpu_seconds > MAX_CPU_SECONDS, outcome.memory > MAX_MEMORY
        counts[result] += 1
        counts["slow"] += slow
        counts["large"] += large
        if result not in {"alike", "refused"} or slow or large:
            examples.append(f"{case.name}: {result}, {outcome.cpu_seconds:.1f} s: {outcome.text[:120]}")
    return FolderCounts(
        seed=seed, runtime=runtime, kind=kind, count=len(tried), **counts, examples=examples[:20]
    )


def _outcomes(folders: list[Path], images: list[Path], runtime: str) -> Iterator[_Outcome]:
    """One outcome for each folder; a process that dies is a crash of its folder, and the next one goes on."""
    done = 0
    while done < len(folders):
        request = {
            "folders": [str(folder) for folder in folders[done:]],
            "images": [str(image) for image in images],
            "runtime": [runtime],
        }
        command = [sys.executable, "-m", "benchmarks.robustness.folders", json.dumps(request)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if process.stdout is None:
            raise RuntimeError("the process has no output")
        with process.stdout:
            for line in process.stdout:
                if not line.startswith("{"):
                    continue  # a library's own
                yield _Outcome(**json.loads(line))
                done += 1
        process.wait()
        if done < len(folders):
            yield _Outcome("crashed", f"status {process.returncode}")
            done += 1


def _try_all(request: dict[str, list[str]]) -> None:
    warnings.simplefilter("ignore")
    images = [Path(image) for image in request["images"]]
    for name in request["folders"]:
        signal.setitimer(signal.ITIMER_REAL, HUNG)  # its default is to end the process
        Path("/proc/self/clear_refs").write_text("5")
        started = time.process_time()
        kind, text = _outcome_of(Path(name), images, request["runtime"][0])
        outcome = {
            "kind": kind,
            "text": text,
            "cpu_seconds": time.process_time() - started,
            "memory": _peak(),
        }
        print(json.dumps(outcome), flush=True)


def _outcome_of(folder: Path, images: list[Path], runtime: str) -> tuple[str, str]:
    from energyad.detector import AnomalyDetector

    try:
        detector = AnomalyDetector.load(folder, threads=1, runtime=runtime)
        predictions = [detector.score(image) for image in images]
    except EnergyadError as error:
        return "refused", str(error)
    except Exception as error:
        return "foreign", repr(error)
    digest = hashlib.sha256()
    for prediction in predictions:
        digest.update(np.float64(prediction.score).tobytes() + prediction.heatmap.tobytes())
    return "scored", digest.hexdigest()


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


if __name__ == "__main__":
    _try_all(json.loads(sys.argv[1]))
