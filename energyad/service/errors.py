"""Every way a request is turned down: a status, a reason that says what to do, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response


class RequestError(Exception):
    """Becomes the answer `{"error": reason}` with this status."""

    def __init__(self, status: int, reason: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The answer."""
        return error_response(self.status, self.reason, headers=self.headers)


def error_response(status: int, reason: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says no."""
    return JSONResponse({"error": reason}, status_code=status, headers=headers)
