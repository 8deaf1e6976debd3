"""Signatures of model folders: Ed25519 over the digest of `model.json`, which holds the hashes of all other files.

A signature lies in the folder as `model.sig`: a line for each key that signed, with the key's number and the signature
in base64. Keys are PEM files, as `openssl genpkey -algorithm ed25519` writes them. Needs the extra `signing`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from energyad.errors import ModelError, SettingsError, os_reason
from energyad.extras import require

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_FILE: Final = "model.sig"
MAX_SIGNATURE_BYTES: Final = 64 << 10
TRUSTED_KEYS_VARIABLE: Final = "ENERGYAD_TRUSTED_KEYS"
"""Names the public keys of which a model must have a signature: files, separated as in PATH."""
_PURPOSE: Final = b"energyad model 1\n"
"""Before what is signed, so that a signature made for something else is none of a model."""


def trusted_keys() -> tuple[Path, ...]:
    """The public keys that `ENERGYAD_TRUSTED_KEYS` names; none where it is not set."""
    return tuple(Path(name) for name in os.environ.get(TRUSTED_KEYS_VARIABLE, "").split(os.pathsep) if name)


def make_keys(path: Path) -> Path:
    """Make a private key, which its owner alone may read, and its public key beside it.

    Args:
        path: Of the private key.

    Returns:
        The path of the public key, `path` with `.pub` behind it.

    Raises:
        SettingsError: One of the files exists, or cannot be written.
    """
    require("signing", "a key")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    public_path = path.with_name(f"{path.name}.pub")
    for file_path, text, mode in ((path, secret, 0o600), (public_path, public, 0o644)):
        try:
            with os.fdopen(os.open(file_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(text)
        except OSError as error:
            raise SettingsError(
                f"{file_path}: cannot be written: {os_reason(error)}; give another name"
            ) from error
    return public_path


def sign(digest: str, key: Path) -> str:
    """Sign a model's digest.

    Args:
        digest: Of its `model.json`, hexadecimal.
        key: PEM file with a private key of Ed25519, without a password.

    Returns:
        A line of `model.sig`.

    Raises:
        SettingsError: The file holds no such key.
    """
    private = _private_key(key)
    signature = private.sign(_PURPOSE + digest.encode())
    return f"{_number_of(private.public_key())} {base64.b64encode(signature).decode()}\n"


def verify(digest: str, lines: str | None, keys: Sequence[Path], *, folder: Path) -> None:
    """Check that a model is signed by one of these keys.

    Args:
        digest: Of its `model.json`, hexadecimal.
        lines: Of its `model.sig`; None where there is none.
        keys: PEM files with public keys of Ed25519.
        folder: The model's, for the message.

    Raises:
        ModelError: None of the keys signed it, or a file holds no such key.
    """
    try:
        trusted = {_number_of(key): key for key in map(_public_key, keys)}
    except SettingsError as error:  # also while a line runs, whose old model then stays
        raise ModelError(f"{folder}: refused: trusted key {error}") from error
    from cryptography.exceptions import InvalidSignature

    if lines is None:
        raise ModelError(
            f"{folder}: refused: not signed ({SIGNATURE_FILE} is missing); "
            "sign it with `energyad models sign`, or take another model"
        )
    signers = []
    for line in lines.splitlines():
        number, _, signature = line.partition(" ")
        signers.append(number[:16])
        if number not in trusted:
            continue
        try:
            trusted[number].verify(base64.b64decode(signature, validate=True), _PURPOSE + digest.encode())
        except (InvalidSignature, binascii.Error, ValueError):
            continue
        return
    if set(signers) & set(trusted):
        reason = "its signature is not of this model: it was changed since, or is another one"
    else:
        reason = (
            f"signed by {', '.join(signers[:3]) or 'nobody'}, not by a trusted key ({', '.join(trusted)})"
        )
    raise ModelError(f"{folder}: refused: {ascii(reason)[1:-1]}; sign it with `energyad models sign`")


def number_of(key: Path) -> str:
    """The number by which a public key is named: the first 16 digits of its SHA-256. Raises SettingsError."""
    return _number_of(_public_key(key))


def _number_of(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _private_key(path: Path) -> Ed25519PrivateKey:
    text = _read(path, "signing a model")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(text, password=None)
    except Exception as error:  # cryptography raises four kinds, one of them for a password
        reason = "it has a password" if "assword" in str(error) else "no private key in PEM"
        raise SettingsError(f"{path}: {reason}; make one with `energyad models key FILE`") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{path}: no key of Ed25519; make one with `energyad models key FILE`")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    text = _read(path, "a trusted key")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text)
    except Exception as error:  # cryptography raises several kinds
        raise SettingsError(f"{path}: no public key in PEM; give the .pub file of the key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(f"{path}: no key of Ed25519; give the .pub file of `energyad models key`")
    return key


def _read(path: Path, what: str) -> bytes:
    require("signing", what)
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIGNATURE_BYTES)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {os_reason(error)}; give the file of a key") from error
