"""The cache directory of trainer and engine, for measurements and compiled code."""

import os
from pathlib import Path


def cache_dir(name: str) -> Path:
    """Return the directory of one kind of cached files; it need not exist, nor be writable.

    `PROSPECT_CACHE_DIR` names the parent; otherwise it is `cache` under `PROSPECT_VAR`, which
    the web app sets, or `prospect` in the user's cache directory.
    """
    given = os.environ.get("PROSPECT_CACHE_DIR")
    if given:
        return Path(given) / name
    var = os.environ.get("PROSPECT_VAR")
    if var:
        return Path(var) / "cache" / name
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user) / "prospect" / name
