"""A stand-in for the Hugging Face Hub on this machine: repositories of small files, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Repository = dict[str, bytes]


class _Hub(BaseHTTPRequestHandler):
    repositories: dict[str, Repository]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, api, *words = self.path.split("?")[0].split("/")
        if (api, words) == ("api", ["repos", "create"]):
            given = json.loads(body)
            name = "/".join(filter(None, [given.get("organization"), given["name"]]))
            self.repositories.setdefault(name, {})
            self._answer({"url": f"{self._address}/{name}", "name": name})
        elif words == ["validate-yaml"]:
            self._answer({"errors": [], "warnings": []})
        elif words[0] == "models" and "preupload" in words:
            files = json.loads(body)["files"]
            kept = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self._answer({"files": [{"path": file["path"], **kept} for file in files]})
        elif words[0] == "models" and "commit" in words:
            name = "/".join(words[1 : words.index("commit")])
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    file = line["value"]
                    self.repositories[name][file["path"]] = base64.b64decode(file["content"])
            commit = _commit_of(self.repositories[name])
            self._answer({"commitUrl": f"{self._address}/{name}/commit/{commit}", "commitOid": commit})
        else:
            self._answer({"error": "not there"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        words = self.path.split("?")[0].split("/")[1:]
        if words[0] == "api" and words[1] == "models":
            name = "/".join(words[2:4])
            found = self.repositories.get(name)
            if found is None:
                self._missing("RepoNotFound")
            else:
                files = [{"rfilename": path} for path in found]
                self._answer({"id": name, "sha": _commit_of(found), "siblings": files, "tags": []})
        elif "resolve" in words:
            at = words.index("resolve")
            found = self.repositories.get("/".join(words[:at]))
            path = "/".join(words[at + 2 :])
            if found is None:
                self._missing("RepoNotFound")
            elif path not in found:
                self._missing("EntryNotFound", X_Repo_Commit=_commit_of(found))
            else:
                etag = f'"{hashlib.sha256(found[path]).hexdigest()}"'
                self._send(
                    found[path], "application/octet-stream", 200, ETag=etag, X_Repo_Commit=_commit_of(found)
                )
        else:
            self._answer({"error": "not there"}, 404)

    @property
    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def _missing(self, code: str, **headers: str) -> None:
        self._send(b"{}", "application/json", 404, X_Error_Code=code, **headers)

    def _answer(self, values: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(values).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _commit_of(files: Repository) -> str:
    text = repr(sorted((path, hashlib.sha256(content).hexdigest()) for path, content in files.items()))
    return hashlib.sha1(text.encode()).hexdigest()


@contextmanager
def local_hub() -> Iterator[tuple[str, dict[str, Repository]]]:
    """The address of a hub, and what it holds."""
    repositories: dict[str, Repository] = {}
    handler = type("Hub", (_Hub,), {"repositories": repositories})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", repositories
        server.shutdown()
