"""Fuzzing: each row of a file is imported or refused, and no other error occurs."""

import contextlib
import io
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_app.feedback.imports import parquet, parquet_child
from feedback_app.feedback.imports.chunks import REASON_LIMIT, in_chunks
from feedback_app.feedback.imports.opening import open_rows
from feedback_app.feedback.imports.readers import KNOWN, Record, Unreadable
from feedback_app.feedback.imports.recognition import Recognised, RowRefused, recognise
from feedback_app.feedback.prompts.services import messages_check

pytestmark = pytest.mark.slow

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=[]), max_size=12),
    st.sampled_from(["", "\x00", "\ud800", "\n\nHuman: a\n\nAssistant: b", "Human:", "[{"]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.binary(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3),
        st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXTS}
            ),
            max_size=4,
        ),
    ),
    max_leaves=6,
)


class InProcess:
    """The reader of Parquet files without its process, whose start takes longer than a test."""

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        self.requests: list[bytes] = []
        self.answers = parquet_child.answers(file, iter(lambda: self.requests.pop(), b""))

    def ask(self, request: bytes) -> None:
        self.requests.append(request)

    def lines(self) -> Iterator[bytes]:
        yield from self.answers

    def close(self) -> None:
        self.answers.close()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True, scope="module")
def _no_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "Child", InProcess)
        yield


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), VALUES, max_size=5))
def test_any_row_is_parsed_or_refused(value: dict[str, Any]) -> None:
    record = Record(1, value)
    record.excerpt.encode()
    try:
        found = recognise(record)
    except RowRefused as refused:
        assert str(refused)
        return
    assert isinstance(found, Recognised)
    for candidate in found.candidates:
        messages_check(candidate.messages)
        texts = [
            candidate.system,
            candidate.text or "-",
            *(m["content"] for m in candidate.messages),
        ]
        assert all("\x00" not in text for text in texts)
        "".join(texts).encode()
        assert (candidate.text is None) == (candidate.verdict is None)


@given(
    st.sampled_from([b"", b"{", b'{"prompt": "x"}\n', b"prompt,completion,label\r\n", b"PAR1"]),
    st.one_of(st.binary(max_size=200), TEXTS.map(lambda text: text.encode("utf-8", "replace"))),
)
def test_any_bytes_are_read_to_the_end(start: bytes, rest: bytes) -> None:
    with contextlib.suppress(Unreadable):
        for chunk in in_chunks(open_rows(io.BytesIO(start + rest)).records()):
            for refusal in chunk.refusals:
                assert 0 < len(refusal.reason) <= REASON_LIMIT
                f"{refusal.reason}{refusal.excerpt}".encode()
                assert "\x00" not in refusal.reason + refusal.excerpt


@given(st.data())
def test_damaged_parquet_is_read_or_refused(data: st.DataObject) -> None:
    file = io.BytesIO()
    rows = [{"prompt": f"Q{n}", "completion": "A", "label": True} for n in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=5)
    body = bytearray(file.getvalue())
    magic = len(b"PAR1")  # kept: without it the bytes are read as JSONL or CSV
    for _ in range(3):
        body[data.draw(st.integers(magic, len(body) - 1))] = data.draw(st.integers(0, 255))

    read = 0
    with contextlib.suppress(Unreadable):
        for chunk in in_chunks(open_rows(io.BytesIO(bytes(body))).records()):
            read += len(chunk.items) + len(chunk.refusals)
            for refusal in chunk.refusals:
                assert 0 < len(refusal.reason) <= REASON_LIMIT
                assert "\x00" not in refusal.reason + refusal.excerpt
    assert read <= len(rows), "more rows than were written"
