"""Processes that are killed: a launcher that has imported everything forks each, so that a life begins at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def fork_lives(run: Callable[[dict[str, Any]], object]) -> None:
    """Fork a process for each line of JSON on standard input, run it there, and print its process number.

    Args:
        run: Takes the line's values, of which `log` is the file for what is printed.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that end leave nothing behind
    for text in sys.stdin:
        process = os.fork()
        if process == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            status = 1
            try:
                spec = json.loads(text)
                with open(spec["log"], "a") as log:  # noqa: PTH123
                    os.dup2(log.fileno(), 2)
                    os.dup2(log.fileno(), 1)
                run(spec)
                status = 0
            except SystemExit as stopped:
                status = int(stopped.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(process, flush=True)


class Launcher:
    """Starts processes and ends them.

    Args:
        module: Whose `launch` calls `fork_lives`.
        environment: Of the processes.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        command = f"from {module} import launch; launch()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=None if environment is None else {**os.environ, **environment},
        )
        self.alive: set[int] = set()

    def start(self, spec: dict[str, Any]) -> int:
        """Start a life; returns its process number."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the launcher has no pipes")
        self._process.stdin.write(json.dumps(spec) + "\n")
        self._process.stdin.flush()
        process = int(self._process.stdout.readline())
        self.alive.add(process)
        return process

    def end(self, process: int, how: int) -> None:
        """Send a signal, and wait until the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, how)
        deadline = time.monotonic() + 60
        while self.is_running(process):
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {process} did not end")
            time.sleep(0.002)
        self.alive.discard(process)

    def is_running(self, process: int) -> bool:
        """Whether it has not ended."""
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """End everything."""
        for process in list(self.alive):
            self.end(process, signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
