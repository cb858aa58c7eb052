"""Report a full or read-only disk in one sentence, as an error that may be retried later."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from trainer.errors import NotWritten

#: Error numbers of a disk that is full, read-only or broken.
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
def disk_errors_reported(directory: Path) -> Iterator[None]:
    """Raise NotWritten instead of disk errors inside the context; it names `directory` where the
    system names no file."""
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
    """Return the system's error number, 0 where there is none, and the file's name where it is
    known; safetensors has them only in its message."""
    if isinstance(error, OSError):
        return error.errno or 0, error.filename
    found = re.search(r"\(os error (\d+)\)", str(error))
    return (int(found[1]) if found else 0), None
