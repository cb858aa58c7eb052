"""Reason chips as text: one per line, `key: label`."""

import re
from collections.abc import Iterable, Mapping

from django.utils.text import slugify

#: One for each digit key.
MOST = 9
LABEL_LIMIT = 40
KEY = re.compile(r"[a-z0-9_]{1,30}")


def chips_text(chips: Iterable[Mapping[str, str]]) -> str:
    """Return the chips as lines of text."""
    return "\n".join(f"{chip['key']}: {chip['label']}" for chip in chips)


def chips_read(text: str) -> list[dict[str, str]]:
    """Parse lines of text into chips; a line without a key gets one from its label.

    Raise ValueError with every error.
    """
    chips, faults, keys = [], [], set()
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), 1):
        key, colon, label = (part.strip() for part in line.partition(":"))
        if not colon:
            key, label = slugify(line).replace("-", "_")[:30], line
        if not KEY.fullmatch(key):
            faults.append(f"Line {number}: use 1 to 30 lower-case letters, digits and _ for a key.")
        elif key in keys:
            faults.append(f"Line {number}: the key {key} is used twice.")
        if not 0 < len(label) <= LABEL_LIMIT:
            faults.append(f"Line {number}: a label has 1 to {LABEL_LIMIT} characters.")
        keys.add(key)
        chips.append({"key": key, "label": label})
    if len(chips) > MOST:
        faults.append(f"At most {MOST} reasons, one for each digit key.")
    if faults:
        raise ValueError(" ".join(faults))
    return chips
