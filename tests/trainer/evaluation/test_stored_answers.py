"""answers.jsonl survives a kill at any byte, and never gives an answer of other settings."""

from pathlib import Path

import pytest

from trainer.evaluation.generate import Answer
from trainer.evaluation.stored_answers import Place, StoredAnswers

FIRST = Place("bot@1", "answer", "p1", 0)
SECOND = Place("bot@1", "answer", "p1", 1)
ONE = Answer((1, 2), (5, 6), "Ja – \u2028 \x00 好", "stop")
TWO = Answer((1, 2), (7,), "", "length")


def test_answer_is_found_under_its_place_and_key_only(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with StoredAnswers(path) as stored:
        stored.add(FIRST, "key", ONE)
        assert stored.find(FIRST, "key") == ONE
    with StoredAnswers(path) as again:
        assert again.find(FIRST, "key") == ONE
        assert again.find(FIRST, "other settings") is None
        assert again.find(SECOND, "key") is None
        assert again.find(Place("bot@1", "kl", "p1", 0), "key") is None


def test_later_answer_to_a_place_counts(tmp_path: Path) -> None:
    with StoredAnswers(tmp_path / "answers.jsonl") as stored:
        stored.add(FIRST, "old", ONE)
        stored.add(FIRST, "new", TWO)
    with StoredAnswers(tmp_path / "answers.jsonl") as again:
        assert again.find(FIRST, "new") == TWO
        assert again.find(FIRST, "old") is None


def test_file_cut_off_at_any_byte_keeps_the_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with StoredAnswers(path) as stored:
        stored.add(FIRST, "key", ONE)
        whole = path.stat().st_size
        stored.add(SECOND, "key", TWO)
    content = path.read_bytes()
    for size in range(whole, len(content)):
        path.write_bytes(content[:size])
        with StoredAnswers(path) as cut:
            assert cut.find(FIRST, "key") == ONE
            assert cut.find(SECOND, "key") is None
            cut.add(SECOND, "key", TWO)
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\x00\x00\n",
        b"[]\n",
        b'{"version": "bot@1"}\n',
        b'{"version": [], "kind": "answer", "id": "p1", "index": 0, "key": "key", '
        b'"prompt_ids": [1], "token_ids": [1], "text": "x", "finish_reason": "stop"}\n',
        b'{"version": "bot@1", "kind": "answer", "id": "p1", "index": 1, "key": "key", '
        b'"prompt_ids": [1], "token_ids": [true], "text": "x", "finish_reason": "stop"}\n',
        b'{"version": "bot@1", "kind": "answer", "id": "p1", "index": 1, "key": "key", '
        b'"prompt_ids": [1], "token_ids": [1], "text": "x", "finish_reason": "error"}\n',
        b"\xff\xfe\n",
    ],
)
def test_damaged_line_is_ignored(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(line)
    with StoredAnswers(path) as stored:
        assert stored.find(SECOND, "key") is None
        stored.add(FIRST, "key", ONE)
    with StoredAnswers(path) as again:
        assert again.find(FIRST, "key") == ONE
