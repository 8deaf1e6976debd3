"""The key that requests bring, the hosts that they may name, and what browsers may do."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from energyad.service.errors import RequestError
from energyad.service.settings import ServiceSettings

# The page's own files and pictures made in it; no other host, no inline script, no frame around it.
CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MAX_NAME: Final = 100
"""Letters of a person's name."""
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
    given = _given_key(header, bearer)
    if settings.api_key is None and not settings.keys:
        return
    if _owner_of(given, settings) is None and not _is_equal(given, settings.api_key or secrets.token_hex()):
        whose = "your key, or the service's," if settings.keys else "the service's key"
        raise _unauthorised(f"give {whose} as X-API-Key")


def person_of(
    request: Request,
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str | None:
    """Return who asks, as the proxy or the key says; None where the service does not ask that.

    Raises:
        RequestError: 401 where the service must know who asks, and does not.
    """
    settings: ServiceSettings = request.app.state.service.settings
    if not settings.knows_people:
        return None
    name = None
    if settings.identity_header is not None:
        given = request.headers.getlist(settings.identity_header)
        name = given[0].strip() if len(given) == 1 and len(given[0]) <= MAX_NAME else None
    if not name:
        name = _owner_of(_given_key(header, bearer), settings)
    if not name:
        raise _unauthorised("this service must know who asks: give your own key, or come by its proxy")
    return name


Person = Annotated[str | None, Depends(person_of)]


def require_owner(
    request: Request,
    person: Person,
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Let owners alone change which model is in charge; where nobody is known, whoever has the key to change.

    Raises:
        RequestError: 403 where somebody else asks, 401 where a key is missing.
    """
    settings: ServiceSettings = request.app.state.service.settings
    if person is None:
        require_key_to_change(request, header, bearer)
    elif person not in settings.owners:
        raise RequestError(403, "owners alone may do this; the service names them with --owner")


def require_key_to_change(
    request: Request,
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Check the key of a request that changes something: the service's, or the one that it made at its start.

    Raises:
        RequestError: 401 where the request brings none or another.
    """
    settings: ServiceSettings = request.app.state.service.settings
    key = settings.start_key if settings.api_key is None else settings.api_key
    if not _is_equal(_given_key(header, bearer), key):
        raise _unauthorised("give the key that the service printed at its start as X-API-Key")


def _owner_of(key: str, settings: ServiceSettings) -> str | None:
    """Whose key this is. Found by its hash, so that the time taken reveals nothing of the keys."""
    return settings.keys.get(hashlib.sha256(key.encode()).hexdigest())


def _given_key(header: str | None, bearer: HTTPAuthorizationCredentials | None) -> str:
    return header if header is not None else bearer.credentials if bearer is not None else ""


def _is_equal(given: str, key: str) -> bool:
    # In constant time: the time taken must not reveal how much of the key was right.
    return hmac.compare_digest(given.encode(), key.encode())


def _unauthorised(reason: str) -> RequestError:
    return RequestError(401, reason, headers={"WWW-Authenticate": "Bearer"})


class BrowserGuard:
    """Refuses what only another site's page would send.

    A page of another site can reach a service on this machine through the browser of whoever looks at it. It is known
    by `Sec-Fetch-Site`, or `Origin` where a browser does not send that. A site that lets its own name resolve to this
    machine (DNS rebinding) is known by the `Host` of its requests. Programs send none of the first two headers.

    Args:
        app: The application.
        settings: The address that the service listens on, and the names that are allowed.
    """

    def __init__(self, app: ASGIApp, *, settings: ServiceSettings) -> None:
        self.app = app
        self._names = {"localhost", "127.0.0.1", "::1", settings.host.lower()}
        self._names |= {name.lower() for name in settings.allowed_hosts}
        self._takes_any_address = _is_unspecified(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event, as ASGI has it."""
        if scope["type"] == "http":
            refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
            if refusal is not None:
                await refusal.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refusal(self, method: str, path: str, headers: Headers) -> RequestError | None:
        hosts = headers.getlist("host")  # absent in HTTP/1.0 alone, which no browser speaks
        if len(hosts) > 1 or not all(self._is_allowed(host) for host in hosts):
            reason = (
                f"this service has no host {hosts[0][:100]!r}; start it with --allow-host NAME to allow one"
            )
            return RequestError(421, reason)
        if _is_cross_site(headers, hosts) and not _is_visit(method, path, headers):
            return RequestError(403, "pages of other sites cannot use this service")
        return None

    def _is_allowed(self, host: str) -> bool:
        name = _split(f"//{host}").hostname or ""
        return name in self._names or (self._takes_any_address and _is_address(name))


def _is_cross_site(headers: Headers, hosts: list[str]) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:  # "same-site" is another port of this machine: another program
        return site not in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is not None and _split(origin).netloc.lower() not in {host.lower() for host in hosts}


def _is_visit(method: str, path: str, headers: Headers) -> bool:
    """Whether somebody follows a link of another site to one of the pages."""
    return (
        method == "GET"
        and path in ("/", "/review")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_unspecified(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified
