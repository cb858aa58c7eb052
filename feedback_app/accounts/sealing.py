"""Secrets that must be read again are kept encrypted, under keys that come from SECRET_KEY.

So a copy of the database alone gives nobody a second factor or a webhook's signature. With
`SECRET_KEY_FALLBACKS` an old key still opens what it has sealed.
"""

import base64
import hashlib

from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings


def box() -> MultiFernet:
    """Seals with the present key, opens with any."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    derived = [hashlib.sha256(b"prospect.sealing" + key.encode()).digest() for key in keys]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in derived])


def seal(text: str) -> str:
    """What may be stored."""
    return box().encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """What was sealed. Raises cryptography.fernet.InvalidToken if no key opens it."""
    return box().decrypt(sealed.encode()).decode()
