"""A file that comes as a request's body or as a form's part: written down, never held in memory."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.core.exceptions import SuspiciousOperation
from django.http.multipartparser import MultiPartParserError

from feedback_app.api.auth import ApiRequest
from feedback_app.api.errors import ApiFault
from feedback_app.feedback.imports.readers import Columns, cleaned
from feedback_app.feedback.imports.uploads import TooLarge, size_check, upload_keep

PIECE = 1 << 16
#: What a form adds around its file, at most.
FORM_BYTES = 100_000


@dataclass(frozen=True)
class Kept:
    """A file that was sent, where it lies, and the SHA-256 of its content."""

    name: str
    path: Path
    digest: str


def file_keep(request: ApiRequest, *, columns: Columns) -> Kept:
    """Writes the file down. Raises ApiFault, or UserError if nothing can be read from it."""
    hasher = hashlib.sha256()

    def hashed(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            hasher.update(piece)
            yield piece

    try:
        # said before anything is read
        size_check(int(request.META.get("CONTENT_LENGTH") or 0) - FORM_BYTES)
        name, pieces = file_of(request)
        path = upload_keep(hashed(pieces), columns=columns)
    except TooLarge as error:
        raise ApiFault(413, str(error), "body_too_large") from error
    return Kept(name, path, hasher.hexdigest())


def file_of(request: ApiRequest) -> tuple[str, Iterator[bytes]]:
    """The file's name, if it has one, and its content. Raises ApiFault."""
    if request.content_type != "multipart/form-data":
        return "", iter(lambda: request.read(PIECE), b"")
    try:
        files, fields = request.FILES, request.POST
    except (MultiPartParserError, SuspiciousOperation) as error:
        raise ApiFault(400, "The form cannot be read.", "invalid_form") from error
    strange = sorted({*fields, *files} - {"file"})
    if strange or "file" in fields or len(files.getlist("file")) != 1:
        raise ApiFault(
            400,
            "Send one part named 'file', and everything else in the address.",
            "unknown_parameter" if strange else "missing_required_parameter",
            param=strange[0] if strange else "file",
        )
    [upload] = files.getlist("file")
    return cleaned(upload.name or ""), upload.chunks()
