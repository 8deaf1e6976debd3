"""Limits of the service, and which addresses it may listen on."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

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
        queue: Requests taken at a time, the one being scored among them; the next is answered 429.
        read_seconds: Time for a body to arrive whole.
        api_key: What requests must bring; None where no key is asked for.

    Raises:
        SettingsError: A limit is not above 0, or the key is shorter than 16 characters.
    """

    max_upload: int = 32 * MIB
    max_pixels: int = 50_000_000
    max_batch: int = 64
    queue: int = 16
    read_seconds: float = 30.0
    api_key: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_upload", "max_pixels", "max_batch", "queue", "read_seconds"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} is {getattr(self, name)}: it must be above 0")
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
