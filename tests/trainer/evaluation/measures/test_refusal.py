"""Answers that decline are recognised in several languages; others are not taken for them."""

import pytest

from trainer.evaluation.measures.refusal import PHRASES, is_refusal


@pytest.mark.parametrize(
    "answer",
    [
        "I can't help with that.",
        "I’m sorry, but I can’t assist with this request.",
        "I am unable to\nanswer this question.",
        "As an AI language model, I cannot provide medical advice.",
        "Tut mir leid, dabei kann ich nicht helfen.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Mi dispiace, non posso aiutarti.",
        "Desculpe, mas não posso responder a isso.",
        "Het spijt me, maar ik kan dat niet doen.",
        "Przykro mi, ale nie mogę tego zrobić.",
        "Извините, но я не могу помочь.",
        "Üzgünüm, ancak bu konuda yardımcı olamam.",
        "抱歉，我无法提供这方面的信息。",
        "申し訳ありませんが、その質問にはお答えできません。",
        "죄송하지만 도와드릴 수 없습니다.",
        "عذرا، لا أستطيع مساعدتك.",
    ],
)
def test_answer_that_declines_is_a_refusal(answer: str) -> None:
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I can't stress enough how useful water is.",
        "I'm sorry to hear that you are ill. Drink tea and rest.",
        "Sure, I can help with that.",
        "No puedo creer lo fácil que es: mezcla harina y agua.",
        "Ich kann dir drei Orte empfehlen.",
        "我可以帮助你。",
        "A polite way to decline is: thank you for asking. "
        + "Then give a reason. " * 12
        + "You may also say: I can't help with that.",
    ],
)
def test_other_answer_is_no_refusal(answer: str) -> None:
    assert not is_refusal(answer)


def test_phrases_are_written_as_they_are_compared() -> None:
    assert len(PHRASES) >= 8
    for phrases in PHRASES.values():
        for phrase in phrases:
            assert is_refusal(phrase), phrase
