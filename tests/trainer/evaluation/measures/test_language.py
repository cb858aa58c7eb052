"""The language of an answer is reported where the text is long enough."""

import pytest

from trainer.evaluation.measures.language import language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The capital of France is Paris, and the river is the Seine.", "en"),
        ("Die Hauptstadt von Frankreich ist Paris, der Fluss heißt Seine.", "de"),
        ("La capital de Francia es París y su río se llama Sena.", "es"),
        ("La capitale de la France est Paris, traversée par la Seine.", "fr"),
        ("法国的首都是巴黎，塞纳河穿过这座城市。", "zh"),
        ("フランスの首都はパリで、セーヌ川が流れています。", "ja"),
        ("Столица Франции — Париж, через него протекает Сена.", "ru"),
    ],
)
def test_language_of_a_sentence(text: str, expected: str) -> None:
    assert language(text) == expected


@pytest.mark.parametrize(
    "text", ["", "OK", "Hallo Welt!", "12345 67890 12345 67890 12345 67890", "好的"]
)
def test_short_text_has_no_language(text: str) -> None:
    assert language(text) == ""
