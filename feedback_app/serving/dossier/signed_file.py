"""The signed file of a dossier: written and verified byte by byte, without database or network.

The file is JSON in one exact form (sorted keys, one space of indentation, UTF-8, a final newline):

    dossier     what is said of the version
    format      FORMAT
    markdown    the same as text
    public_key  Ed25519 key of the installation, 64 hex digits
    signature   over the file in the same form without this entry, 128 hex digits

A verifier writes what it has read in that form again: a byte that differs there, or that the
signature does not cover, is a fault. Ed25519: RFC 8032.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

FORMAT = "prospect-dossier-1"
ENTRIES = {"dossier", "format", "markdown", "public_key", "signature"}
_KEY = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


class BadDossier(Exception):
    """The file is no dossier, or is not as it was signed."""


@dataclass(frozen=True)
class VerifiedDossier:
    """A dossier whose bytes are those that were signed, with the key that signed them."""

    dossier: dict[str, Any]
    markdown: str
    public_key: str

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.public_key)


def signing_key(secret: str) -> Ed25519PrivateKey:
    """Return the key that an installation with this SECRET_KEY signs with."""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"prospect.dossier")
    return Ed25519PrivateKey.from_private_bytes(derived.derive(secret.encode()))


def public_key_of(key: Ed25519PrivateKey) -> str:
    """Return the public key as 64 hex digits."""
    return key.public_key().public_bytes_raw().hex()


def fingerprint_of(public_key: str) -> str:
    """Return the SHA-256 of a public key, as 64 hex digits."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()


def fingerprints() -> list[str]:
    """Return the fingerprints of this installation's keys: the present one, then earlier ones."""
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return [fingerprint_of(public_key_of(signing_key(secret))) for secret in secrets]


def dossier_sign(dossier: dict[str, Any], markdown: str, *, secret: str = "") -> bytes:
    """Return the signed file. Raises ValueError for numbers that JSON does not have."""
    key = signing_key(secret or settings.SECRET_KEY)
    content = {
        "dossier": dossier,
        "format": FORMAT,
        "markdown": markdown,
        "public_key": public_key_of(key),
    }
    return _written(content | {"signature": key.sign(_written(content)).hex()})


def dossier_verify(data: bytes, *, key: str = "") -> VerifiedDossier:
    """Return the dossier of a file. `key` is the public key, or its fingerprint, that must have
    signed it; without one, the person who changed the file may have signed it again.

    Raises BadDossier for any other bytes than the signed ones.
    """
    content = _read(data)
    public_key, signature = content["public_key"], content.pop("signature")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(
            bytes.fromhex(signature), _written(content)
        )
    except (InvalidSignature, ValueError) as error:
        raise BadDossier("The signature does not fit: the file was changed.") from error
    if key and key.strip().lower() not in (public_key, fingerprint_of(public_key)):
        raise BadDossier(
            f"The file was signed with another key, {fingerprint_of(public_key)} (fingerprint)."
        )
    return VerifiedDossier(content["dossier"], content["markdown"], public_key)


def _read(data: bytes) -> dict[str, Any]:
    """Return the entries of a file in the exact form. Raises BadDossier."""
    try:
        content = json.loads(data)
        exact = isinstance(content, dict) and _written(content) == data
    except (ValueError, RecursionError) as error:
        raise BadDossier(f"The file cannot be read: {error}.") from error
    if (
        not isinstance(content, dict)
        or content.get("format") != FORMAT
        or content.keys() != ENTRIES
    ):
        raise BadDossier("This is no dossier of a version.")
    if not exact:
        raise BadDossier("The file was written again by another program: its bytes differ.")
    formed = (
        isinstance(content["dossier"], dict)
        and all(isinstance(content[name], str) for name in ("markdown", "public_key", "signature"))
        and _KEY.fullmatch(content["public_key"])
        and _SIGNATURE.fullmatch(content["signature"])
    )
    if not formed:
        raise BadDossier("The key or the signature is damaged.")
    return content


def _written(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
    return text.encode() + b"\n"
