"""Reason chips as an admin writes them: one a line, `key: label`."""

import re
from collections.abc import Iterable, Mapping

from django.utils.text import slugify

#: As many as there are digits to toggle them with.
MOST = 9
LABEL_LIMIT = 40
KEY = re.compile(r"[a-z0-9_]{1,30}")


def chips_text(chips: Iterable[Mapping[str, str]]) -> str:
    """The lines that make these chips."""
    return "\n".join(f"{chip['key']}: {chip['label']}" for chip in chips)


def chips_read(text: str) -> list[dict[str, str]]:
    """The chips that these lines make; a line without a key gets one from its label.

    Raises ValueError with every fault.
    """
    chips, faults, keys = [], [], set()
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), 1):
        key, colon, label = (part.strip() for part in line.partition(":"))
        if not colon:
            key, label = slugify(line).replace("-", "_")[:30], line
        if not KEY.fullmatch(key):
            faults.append(f"Line {number}: a key has small letters, digits and _, 30 at most.")
        elif key in keys:
            faults.append(f"Line {number}: the key {key} is there already.")
        if not 0 < len(label) <= LABEL_LIMIT:
            faults.append(f"Line {number}: a label has 1 to {LABEL_LIMIT} characters.")
        keys.add(key)
        chips.append({"key": key, "label": label})
    if len(chips) > MOST:
        faults.append(f"At most {MOST} reasons, as there are {MOST} digits to give them with.")
    if faults:
        raise ValueError(" ".join(faults))
    return chips
