"""Exports as HTTP responses, for pages and API."""

from collections.abc import Iterator
from tempfile import TemporaryFile

from django.http import FileResponse, HttpResponseBase, StreamingHttpResponse

from feedback_app.feedback.exports.files import export_write
from feedback_app.feedback.exports.rows import CONTENT_TYPES, LINES, ExportRow


def download_of(
    rows: Iterator[ExportRow], *, name: str, as_format: str, votes: bool
) -> HttpResponseBase:
    """Return the rows as a streamed file."""
    filename, kind = f"{name}.{as_format}", CONTENT_TYPES[as_format]
    if as_format == "parquet":
        # Parquet's directory is at the end of the file, so it is written before it is sent
        file = TemporaryFile()  # noqa: SIM115 - the response closes it
        try:
            export_write(rows, file, as_format=as_format, votes=votes)
        except BaseException:  # a token that was revoked meanwhile
            file.close()
            raise
        file.seek(0)
        return FileResponse(file, as_attachment=True, filename=filename, content_type=kind)
    return StreamingHttpResponse(
        LINES[as_format](rows, votes=votes),
        content_type=kind,
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )


def export_target(as_format: str, *, votes: bool) -> str:
    """Return the audit trail's description of a download."""
    return f"{as_format}, with votes" if votes else as_format
