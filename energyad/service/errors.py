"""Errors of requests: a status, a reason that says what to do, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response


class RequestError(Exception):
    """An error of one request; it becomes the response `{"error": reason}`.

    Args:
        status: HTTP status.
        reason: What is wrong and what to do, one line.
        headers: Further headers of the response.
    """

    def __init__(self, status: int, reason: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the response."""
        return error_response(self.status, self.reason, headers=self.headers)


def error_response(status: int, reason: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with an error: `{"error": reason}`."""
    return JSONResponse({"error": reason}, status_code=status, headers=headers)
