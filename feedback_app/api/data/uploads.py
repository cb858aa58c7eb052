"""Files uploaded as a request's body or a form's part: streamed to disk, never held in memory."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.core.exceptions import SuspiciousOperation
from django.http.multipartparser import MultiPartParserError

from feedback_app.api.auth import ApiRequest
from feedback_app.api.errors import ApiError
from feedback_app.feedback.imports.readers import Columns, cleaned
from feedback_app.feedback.imports.uploads import TooLarge, request_check, upload_keep

PIECE = 1 << 16


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file, its path, and the SHA-256 of its content."""

    name: str
    path: Path
    digest: str


def file_store(request: ApiRequest, *, columns: Columns) -> StoredFile:
    """Store the file. Raises ApiError, or UserError if it cannot be read."""
    hasher = hashlib.sha256()

    def hashed(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            hasher.update(piece)
            yield piece

    try:
        # checked before anything is read
        request_check(request)
        name, pieces = file_of(request)
        path = upload_keep(hashed(pieces), columns=columns)
    except TooLarge as error:
        raise ApiError(413, str(error), "body_too_large") from error
    return StoredFile(name, path, hasher.hexdigest())


def file_of(request: ApiRequest) -> tuple[str, Iterator[bytes]]:
    """Return the file's name, or "", and its content. Raises ApiError."""
    if request.content_type != "multipart/form-data":
        return "", iter(lambda: request.read(PIECE), b"")
    try:
        files, fields = request.FILES, request.POST
    except (MultiPartParserError, SuspiciousOperation) as error:
        raise ApiError(400, "The form cannot be read.", "invalid_form") from error
    unexpected = sorted({*fields, *files} - {"file"})
    if unexpected or "file" in fields or len(files.getlist("file")) != 1:
        raise ApiError(
            400,
            "Send one part named 'file', and everything else in the URL.",
            "unknown_parameter" if unexpected else "missing_required_parameter",
            param=unexpected[0] if unexpected else "file",
        )
    [upload] = files.getlist("file")
    return cleaned(upload.name or ""), upload.chunks()
