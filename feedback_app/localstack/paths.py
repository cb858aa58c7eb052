"""Where Prospect's files are: in a checkout, or in a wheel that was installed.

A wheel carries templates, static files, Procfile, manage.py and the tools that the Procfile calls
in feedback_app/bundled (setup.py puts them there).
"""

import contextlib
import os
import stat
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parent

IS_CHECKOUT = (_CHECKOUT / "manage.py").exists()
#: Holds templates/, static/, Procfile and manage.py; processes run in it.
FILES = _CHECKOUT if IS_CHECKOUT else _PACKAGE / "bundled"
#: Holds .env, and var/ unless PROSPECT_VAR names another directory.
HOME = _CHECKOUT if IS_CHECKOUT else Path.cwd()


def private_directory(path: Path) -> None:
    """Create a directory that only its owner may enter, or make an existing one so.

    What is in it then needs no modes of its own. A directory of somebody else, or one that all may
    write to, as /tmp, keeps its mode. An error is left to the process that writes there.
    """
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        is_open = found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        if is_open and found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
            path.chmod(0o700)
