"""The two files of an adapter, taken out of a ZIP archive or a directory that nobody trusts.

Nothing but these two names is read, no path of the archive is used, and no link is followed.
"""

import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

from feedback_app.web.errors import UserError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FILES = (CONFIG, WEIGHTS)
#: Files of PEFT and torch that may run code when they are read.
PICKLES = (".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")
ENTRIES_MOST = 1_000
CONFIG_BYTES = 1_000_000
BLOCK = 1024 * 1024
#: Most bytes of an archive's table of contents, which is read at once.
TABLE_BYTES = BLOCK
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
SAVE = "Save it with model.save_pretrained(DIRECTORY, safe_serialization=True) and import that."


def refuse(faults: Iterable[str]) -> None:
    """Raise UserError with every fault, if there is one."""
    found = list(faults)
    if found:
        raise UserError("; ".join(found).rstrip(".") + ".")


def archive_unpack(upload: IO[bytes], directory: Path, *, limit: int) -> None:
    """Write the adapter's two files from a ZIP archive, of at most `limit` bytes together.

    Raises UserError with every fault of the archive.
    """
    try:
        with zipfile.ZipFile(_Archive(upload)) as archive:
            members = members_of(archive.infolist(), limit=limit)
            for name, member in members.items():
                with archive.open(member) as source, (directory / name).open("xb") as target:
                    copy_bounded(source, target, limit=limit)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, UnicodeError, zlib.error) as error:
        raise UserError(f"The file is no readable ZIP archive: {error}.") from error


class _Archive:
    """The file of an archive, of which never more than TABLE_BYTES are read at once.

    A table of contents of the size that is allowed for weights would take gigabytes of memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size if 0 <= size <= TABLE_BYTES else TABLE_BYTES + 1)
        if len(data) > TABLE_BYTES:
            raise zipfile.BadZipFile("its table of contents is too long: pack one adapter")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and offset < 0:
            raise zipfile.BadZipFile("a file begins before the archive")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def members_of(entries: list[zipfile.ZipInfo], *, limit: int) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of the two files. Raises UserError with every fault."""
    if len(entries) > ENTRIES_MOST:
        raise UserError(f"The archive has more than {ENTRIES_MOST:,} entries: pack one adapter.")
    faults = [fault for entry in entries if (fault := entry_fault(entry))]
    found: dict[str, list[zipfile.ZipInfo]] = {name: [] for name in FILES}
    for entry in entries:
        name = PurePosixPath(entry.filename).name
        if name in found and not entry.is_dir():
            found[name].append(entry)
    faults += missing_faults(
        {name for name in FILES if found[name]}, (entry.filename for entry in entries)
    )
    faults += [
        f"{name} is in the archive {len(several)} times: pack one adapter"
        for name, several in found.items()
        if len(several) > 1
    ]
    size = sum(entry.file_size for several in found.values() for entry in several)
    if size > limit:
        faults.append(f"the adapter has {size / 1e6:,.0f} MB: {limit / 1e6:,.0f} MB are allowed")
    refuse(faults)
    return {name: entries[0] for name, entries in found.items()}


def entry_fault(entry: zipfile.ZipInfo) -> str:
    """Return why an entry makes the archive unacceptable; empty if it does not."""
    path = PurePosixPath(entry.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
        return f"{entry.filename!r} leaves the archive's directory"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return f"{entry.filename!r} is a symbolic link: pack the file itself"
    if entry.flag_bits & 1 and path.name in FILES:
        return f"{entry.filename!r} is encrypted: pack it without a password"
    if entry.compress_type not in METHODS and path.name in FILES:
        return f"{entry.filename!r} is compressed by an unusual method: use an ordinary ZIP"
    return ""


def directory_take(source: Path, directory: Path, *, limit: int) -> None:
    """Copy the adapter's two files from a directory. Raises UserError with every fault."""
    if source.is_symlink() or not source.is_dir():
        raise UserError(f"{source} is no directory.")
    entries = {entry.name: entry for entry in source.iterdir()}
    faults = []
    for name in FILES:
        if name in entries and not stat.S_ISREG(entries[name].lstat().st_mode):
            faults.append(f"{name} is no regular file: symbolic links are not followed")
    faults += missing_faults(entries.keys() & set(FILES), entries)
    refuse(faults)
    for name in FILES:
        with entries[name].open("rb") as read, (directory / name).open("xb") as target:
            copy_bounded(read, target, limit=limit)


def missing_faults(found: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return which of the two files are missing, and what to do about a pickle in their place."""
    missing = [name for name in FILES if name not in set(found)]
    faults = [f"{name} is missing" for name in missing]
    pickles = sorted(name for name in names if name.lower().endswith(PICKLES))
    if WEIGHTS in missing and pickles:
        faults.append(f"{pickles[0]!r} may hold a pickle and is not read. {SAVE}")
    return faults


def copy_bounded(source: IO[bytes], target: IO[bytes], *, limit: int) -> None:
    """Copy a file. Raises UserError if it is larger than `limit` bytes, whatever it announces."""
    left = limit
    while block := source.read(min(BLOCK, left + 1)):
        left -= len(block)
        if left < 0:
            raise UserError(f"A file of the adapter is larger than {limit / 1e6:,.0f} MB.")
        target.write(block)
