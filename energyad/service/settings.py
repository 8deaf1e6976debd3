"""Limits of the service, and which addresses it may listen on."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field, fields

from energyad.errors import SettingsError

KEY_VARIABLE = "ENERGYAD_API_KEY"
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Limits of one service.

    Attributes:
        max_upload: Bytes of one request, whatever it holds.
        max_pixels: Pixels of one image, known from its header before it is decoded.
        max_batch: Images of one request.
        queue: Requests taken at a time, the one being scored among them; the next is answered 429. A request is
            taken when its body has arrived whole.
        max_connections: Open connections. Where there are more, those that wait longest for their client are closed.
        max_connections_per_peer: The same, of one address.
        max_bodies: Bodies that are arriving at a time. Where there are more, one that stalls is given up.
        max_bodies_per_peer: The same, of one address.
        max_body_bytes: Bytes of all bodies that are arriving, together.
        head_seconds: Time for the head of a request to arrive, from the opening of the connection or the end of the
            last answer.
        idle_seconds: Time between two pieces of a body, between an answer and the next request of a connection, and
            for a client to take up a piece of its answer.
        read_seconds: Time for a body to arrive whole.
        decode_seconds: Time for one image to be decoded, in a process that is then ended; None to decode in the
            service's own process, without a limit.
        drain_seconds: Time at the end to answer what was accepted.
        host: The address that the service listens on. Requests may name it as their host.
        allowed_hosts: Further names that requests may give as their host, beside localhost.
        api_key: What requests must bring; None where no key is asked for.
        start_key: What requests that change something must bring where there is no `api_key`; random by default.

    Raises:
        SettingsError: A limit is not above 0, the bodies have less room than one upload, or the key is shorter than
            16 characters.
    """

    max_upload: int = 32 * MIB
    max_pixels: int = 50_000_000
    max_batch: int = 64
    queue: int = 16
    max_connections: int = 1024
    max_connections_per_peer: int = 512
    max_bodies: int = 512
    max_bodies_per_peer: int = 256
    max_body_bytes: int = 256 * MIB
    head_seconds: float = 10.0
    idle_seconds: float = 5.0
    read_seconds: float = 30.0
    decode_seconds: float | None = 10.0
    drain_seconds: float = 30.0
    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()
    api_key: str | None = field(default=None, repr=False)
    start_key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if isinstance(value, int | float) and not value > 0:
                raise SettingsError(f"{limit.name} is {value}: it must be above 0")
        if self.max_body_bytes < self.max_upload:
            raise SettingsError(
                f"max_body_bytes is {self.max_body_bytes}: it must be at least max_upload, {self.max_upload}"
            )
        if self.api_key is not None and len(self.api_key) < 16:
            raise SettingsError(
                f"the API key has {len(self.api_key)} characters; give {KEY_VARIABLE} 16 or more"
            )


def is_local(host: str) -> bool:
    """Return whether only this machine can reach a service that listens on this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_safe(host: str, *, api_key: str | None, open_to_all: bool) -> None:
    """Refuse an address that other machines can reach where no key is asked for.

    Raises:
        SettingsError: The address is not local, there is no key, and `open_to_all` is not set.
    """
    if not (is_local(host) or api_key is not None or open_to_all):
        raise SettingsError(
            f"{host}: other machines could use the service without a key; set {KEY_VARIABLE}, or give --without-key"
        )
