"""Answers without their reasoning: what people read, vote on and are shown by default.

Every measure of an evaluation is made on these, so that none depends on how long a version
reasons. Only the distance to the base (KL) is measured on all tokens.
"""

from dataclasses import replace
from typing import Any

from trainer.data.reasoning import answer_index, unmarked
from trainer.evaluation.generate import Answer


def answer_alone(tokenizer: Any, answer: Answer) -> Answer:
    """Return an answer with the tokens and the text after its reasoning; `reasoning` keeps the
    text of that.

    An answer that is nothing but reasoning is empty and counts as cut off, however it ended: it
    never came to what was asked.
    """
    start = answer_index(tokenizer, answer.prompt_ids, answer.token_ids)
    if start == 0:
        return answer
    cut = len(answer.token_ids) if start is None else start
    reasoning = unmarked(_text(tokenizer, answer.token_ids[:cut]))
    if start is None:
        return replace(answer, token_ids=(), text="", finish_reason="length", reasoning=reasoning)
    said = answer.token_ids[cut:]
    return replace(answer, token_ids=said, text=_text(tokenizer, said), reasoning=reasoning)


def _text(tokenizer: Any, ids: tuple[int, ...]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )
