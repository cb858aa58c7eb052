"""Streamed text is never retracted."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import tiny_tokenizer
from trainer.engine.text import TextStream

TOKENIZER: Any = tiny_tokenizer()
HARD = "Grüße 🙂👨‍👩‍👧 naïve 漢字 \n\n end"


def pieces(ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(TOKENIZER, stop)
    shown = []
    for token in ids:
        shown.append(stream.push(token))
        if stream.stopped:
            return shown, stream
    return [*shown, stream.finish()], stream


def test_emoji_of_several_tokens_is_streamed_whole() -> None:
    ids = TOKENIZER.encode("a🙂b", add_special_tokens=False)
    assert len(ids) > 3, "the test needs an emoji of several tokens"
    shown, _ = pieces(ids)
    assert [piece for piece in shown if piece] == ["a", "🙂", "b"]


def test_text_with_every_kind_of_character_arrives_unchanged() -> None:
    shown, stream = pieces(TOKENIZER.encode(HARD, add_special_tokens=False))
    assert "".join(shown) == stream.text == HARD
    assert not any("\ufffd" in piece for piece in shown)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=40))
def test_streamed_text_of_any_tokens_equals_decoding_at_once(ids: list[int]) -> None:
    shown, stream = pieces(ids)
    assert "".join(shown) == stream.text == TOKENIZER.decode(ids, skip_special_tokens=True)


def test_invalid_bytes_at_the_end_are_sent_at_the_end() -> None:
    half = TOKENIZER.encode("🙂", add_special_tokens=False)[:-1]
    shown, _ = pieces(half)
    assert "".join(shown[:-1]) == ""
    assert "\ufffd" in shown[-1]


def test_special_tokens_are_not_in_the_text() -> None:
    ids = TOKENIZER.encode("Paris", add_special_tokens=False)
    shown, _ = pieces([*ids, TOKENIZER.eos_token_id])
    assert "".join(shown) == "Paris"


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one two three", ("two",), "one "),
        ("one two three", ("three", " tw"), "one"),
        ("STOP", ("STOP",), ""),
        ("a\n\nUser: b", ("\n\nUser:",), "a"),
        ("no match here", ("zebra",), "no match here"),
    ],
)
def test_stop_strings_are_removed(text: str, stop: tuple[str, ...], expected: str) -> None:
    shown, stream = pieces(TOKENIZER.encode(text, add_special_tokens=False), stop)
    assert "".join(shown) == stream.text == expected
    assert stream.stopped == (expected != text)


@settings(max_examples=200, deadline=None)
@given(st.text("ab ", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_no_part_of_a_stop_string_is_streamed(text: str, stop: list[str]) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    shown, stream = pieces(ids, tuple(stop))
    cuts = [text.find(word) for word in stop if word in text]
    assert not any(word in stream.text for word in stop)
    assert "".join(shown) == stream.text
    if not cuts:
        assert stream.text == text
