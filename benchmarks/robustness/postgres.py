"""A private PostgreSQL server, as long as a benchmark or the tests run."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path


class NoServer(Exception):
    """PostgreSQL's server is not installed."""


def _program(name: str) -> str:
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(places[-1]) if places else None)
    if found is None:
        raise NoServer(f"no {name}: install PostgreSQL's server")
    return found


def _as_user() -> list[str]:
    """The server refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@contextlib.contextmanager
def private_server() -> Iterator[str]:
    """Start a server that listens on a socket alone; gives its URL, with {} for the name of a database.

    Raises:
        NoServer: It is not installed.
    """
    initdb, postgres = _program("initdb"), _program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="energyad-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    data, started = folder / "data", None
    try:
        command = [
            *_as_user(),
            initdb,
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        started = subprocess.Popen(
            [*_as_user(), postgres, "-D", str(data), *options], stderr=subprocess.DEVNULL, cwd=folder
        )
        url = f"postgresql://postgres@/postgres?host={folder}"
        _wait_until_it_answers(url)
        yield f"postgresql://postgres@/{{}}?host={folder}"
    finally:
        if started is not None:
            number = int((data / "postmaster.pid").read_text().split()[0])
            os.kill(number, 3)  # SIGQUIT: at once
            started.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_answers(url: str) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def new_database(server: str) -> str:
    """An empty database; gives its URL."""
    import psycopg

    name = f"line_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.format(name)
