"""The key that requests bring, and what browsers may do with the page."""

from __future__ import annotations

import hmac
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from energyad.service.errors import RequestError
from energyad.service.settings import ServiceSettings

# The page's own files and pictures made in it; no other host, no inline script, no frame around it.
CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="Where the service asks for a key.")
_bearer = HTTPBearer(auto_error=False, description="The same key, for clients that only know bearer tokens.")


def require_key(
    request: Request,
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Check the key of a request.

    Raises:
        RequestError: 401 where the service asks for a key and the request brings none or another.
    """
    settings: ServiceSettings = request.app.state.service.settings
    if settings.api_key is None:
        return
    given = header if header is not None else bearer.credentials if bearer is not None else ""
    # In constant time: the time taken must not reveal how much of the key was right.
    if not hmac.compare_digest(given.encode(), settings.api_key.encode()):
        raise RequestError(401, "give the service's key as X-API-Key", headers={"WWW-Authenticate": "Bearer"})
