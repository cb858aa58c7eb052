"""A disk that does not take what is written: told in one sentence, and worth another attempt once
that is mended."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from trainer.errors import NotWritten

#: What the system says when it is the disk.
_REFUSALS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
}


@contextmanager
def written_or_told(directory: Path) -> Iterator[None]:
    """Inside, what the disk refuses becomes NotWritten; it names `directory` where the system does
    not name a file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number, path = _refusal(error)
        if number not in _REFUSALS:
            raise
        raise NotWritten(
            f"{path or directory} cannot be written ({os.strerror(number)}): make room or allow "
            "it, and start again; what was written before is kept"
        ) from error


def _refusal(error: OSError | SafetensorError) -> tuple[int, str | None]:
    """The system's error number, 0 where there is none, and the file's name where it is known;
    safetensors has them in its text alone."""
    if isinstance(error, OSError):
        return error.errno or 0, error.filename
    found = re.search(r"\(os error (\d+)\)", str(error))
    return (int(found[1]) if found else 0), None
