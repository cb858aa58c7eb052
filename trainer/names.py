"""Names of adapters."""

import re

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*@[1-9][0-9]*")


def is_adapter_name(name: str) -> bool:
    """Return whether `name` has the form `<project slug>@<n>`, n ≥ 1."""
    return _NAME.fullmatch(name) is not None
