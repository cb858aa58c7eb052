"""Encryption of stored secrets, with keys derived from SECRET_KEY.

A copy of the database alone thus reveals no second factor, no webhook secret and no API key of a
judge model. Keys in `SECRET_KEY_FALLBACKS` still decrypt.
"""

import base64
import hashlib

from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings


def box() -> MultiFernet:
    """Return a cipher that encrypts with the present key and decrypts with any."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    derived = [hashlib.sha256(b"prospect.sealing" + key.encode()).digest() for key in keys]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in derived])


def seal(text: str) -> str:
    """Return the encrypted text."""
    return box().encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """Return the decrypted text. Raise cryptography.fernet.InvalidToken if no key fits."""
    return box().decrypt(sealed.encode()).decode()
