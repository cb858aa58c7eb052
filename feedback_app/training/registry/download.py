"""A version's files as one ZIP archive, made while it is sent."""

import json
import zipfile
from collections.abc import Iterator

from artifact_store.errors import StoreError
from feedback_app.artifacts import artifact_store
from feedback_app.training.models import Adapter
from feedback_app.training.registry.services import expired_text, locked_text
from feedback_app.web.errors import UserError

#: The gate's verdict, which follows the files that the manifest lists.
VERDICT = "gate.json"
#: Bytes that are read at a time.
CHUNK = 1024 * 1024


class _Sink:
    """A file that can only be written to; `taken` returns what was written since the last time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def taken(self) -> bytes:
        found, self._parts = b"".join(self._parts), []
        return found


def adapter_files(adapter: Adapter) -> list[str]:
    """Return the names of a version's files: those of its manifest, and the manifest.

    Raises UserError if one is missing, or if the version is locked.
    """
    if adapter.locked_at is not None:
        raise UserError(locked_text(adapter))
    if adapter.deleted_at is not None:
        raise UserError(expired_text(adapter))
    try:
        directory = artifact_store().fetch(adapter.path)
    except StoreError as error:
        raise UserError(f"The files of {adapter.name} cannot be read now. {error}.") from error
    try:
        names = ["manifest.json", *json.loads((directory / "manifest.json").read_text())["files"]]
    except (OSError, ValueError, KeyError):
        names = []
    # a manifest names files of its own directory only
    present = [name for name in names if (directory / name).resolve().parent == directory.resolve()]
    if not names or not all((directory / name).is_file() for name in present):
        raise UserError(
            f"The files of {adapter.name} are not all there: restore them from a backup."
        )
    return present


def verdict_file(adapter: Adapter) -> bytes:
    """Return a JSON file that says what the version is and how the gate judged it.

    It has no prompts and no answers.
    """
    verdict = {
        "version": adapter.name,
        "base_model": adapter.project.base_model,
        "sha256": adapter.sha256,
        "gate": adapter.gate_outcome,
        "sentence": adapter.gate.get("sentence", ""),
        "compared_with": adapter.gate.get("opponent", "base"),
    }
    return json.dumps(verdict, indent=1, ensure_ascii=False).encode() + b"\n"


def adapter_zip(adapter: Adapter, names: list[str]) -> Iterator[bytes]:
    """Yield a ZIP archive of these files and the gate's verdict. Nothing is compressed: weights do
    not get smaller."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in names:
            info = zipfile.ZipInfo.from_file(adapter.directory / name, name)
            with (adapter.directory / name).open("rb") as source, archive.open(info, "w") as target:
                while data := source.read(CHUNK):
                    target.write(data)
                    yield sink.taken()
        archive.writestr(VERDICT, verdict_file(adapter))
    yield sink.taken()
