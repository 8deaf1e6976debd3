"""Limits of the service, and which addresses it may listen on."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

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
        keys: Names of people by the SHA-256 of their keys; requests must bring one of these, or `api_key`.
        identity_header: Where a proxy in front of the service says who asks; None to believe no such header.
        owners: Names of people who may promote models and go back; the others, if they are known, review.

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
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    identity_header: str | None = None
    owners: frozenset[str] = frozenset()

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

    @property
    def knows_people(self) -> bool:
        """Whether requests say who asks in a way that can be believed."""
        return bool(self.keys) or self.identity_header is not None


def read_keys(path: Path) -> dict[str, str]:
    """Read a file of people's keys: on each line a name, a space and the SHA-256 of the key, hexadecimal.

    Args:
        path: The file. Lines that begin with # are comments.

    Returns:
        The names by the hashes.

    Raises:
        SettingsError: It cannot be read, a line is something else, or there is no key in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: cannot be read ({type(error).__name__}); give a file of names and hashes"
        ) from error
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        name, _, digest = line.strip().rpartition(" ")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not name.strip() or not re.fullmatch("[0-9a-f]{64}", digest) or digest in keys:
            raise SettingsError(
                f"{path}, line {number}: give a name and the SHA-256 of a key of his or her own"
            )
        keys[digest] = name.strip()
    if not keys:
        raise SettingsError(f"{path}: no keys in it; give a name and the SHA-256 of a key on each line")
    return keys


def is_local(host: str) -> bool:
    """Return whether only this machine can reach a service that listens on this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_safe(host: str, *, asks_for_key: bool, open_to_all: bool) -> None:
    """Refuse an address that other machines can reach where no key is asked for.

    Raises:
        SettingsError: The address is not local, there is no key, and `open_to_all` is not set.
    """
    if not (is_local(host) or asks_for_key or open_to_all):
        raise SettingsError(
            f"{host}: other machines could use the service without a key; set {KEY_VARIABLE}, or give --without-key"
        )
