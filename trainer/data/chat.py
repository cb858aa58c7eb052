"""Messages to token ids, and how an answer ends: one place, so that the context of training is
the context of serving.

Chat templates differ in what they support. For a template that refuses or drops a system message
its text is put at the head of the next user turn, as the templates of Llama 2 and Gemma 3 do;
calls of tools that a template does not know, and anything else that it refuses, are refused here,
with the template's message where there is one.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.data.messages import Tools
from trainer.errors import Refused

# Words that no template contains, trims or rewrites.
_RULE, _QUESTION, _ANSWER, _NEXT = "RULEPROBE", "QUESTIONPROBE", "ANSWERPROBE", "NEXTPROBE"
_TOOL, _VALUE, _RESULT = "TOOLPROBE", "VALUEPROBE", "RESULTPROBE"


def prompt_ids(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    template_kwargs: Mapping[str, Any] | None = None,
    tools: Tools = (),
) -> list[int]:
    """Return token ids of the conversation up to where the assistant begins to write.

    `template_kwargs` are variables of the chat template, such as enable_thinking, `tools` the
    definitions of functions that the answer could call. The template runs in transformers' sandbox,
    and it alone writes BOS. Raises Refused, with the template's message, when it is missing, broken
    or cannot express the conversation.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise Refused("The base model has no chat template: choose an instruction-tuned model.")
    given = dict(template_kwargs or {})
    chat = [_for_template(message) for message in messages]
    if any(message["role"] == "system" for message in chat) and not _takes_system(tokenizer, given):
        chat = _folded(chat)
    _check_tools(tokenizer, chat, given)
    if tools:
        _check_definitions(tokenizer, given)
        given["tools"] = list(tools)
    try:
        ids = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=False, **given
        )
    except Exception as error:  # templates raise whatever their authors chose
        raise Refused(f"The base model's chat template refused the messages: {error}") from error
    if not ids:
        raise Refused("The base model's chat template writes nothing for these messages.")
    return [int(token) for token in ids]


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return every token that ends an answer: the generation config may name several, and what the
    chat template writes after an answer is one of them even if it is not named."""
    named = _named_ends(model, tokenizer)
    turn = _end_of_turn(tokenizer, named)
    return named if turn is None else named | {turn}


def answer_end(model: Any, tokenizer: Any) -> int:
    """Return the token that a finished answer is trained to end with: of all in `eos_ids` the one
    that the chat template writes there, because it is what the base model itself was trained on.

    That is often not `tokenizer.eos_token`: Llama 3 ends turns with <|eot_id|>, Gemma with
    <end_of_turn>, Phi-3 with <|end|>. Raises Refused when no token could ever end an answer.
    """
    named = _named_ends(model, tokenizer)
    turn = _end_of_turn(tokenizer, named)
    if turn is not None:
        return turn
    if not named:
        raise Refused("The base model names no end-of-sequence token: no answer could ever end.")
    own = tokenizer.eos_token_id
    return int(own) if own in named else min(named)


def _named_ends(model: Any, tokenizer: Any) -> frozenset[int]:
    found: set[int] = set()
    for value in (
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        if isinstance(value, int):
            found.add(value)
        elif value is not None:
            found.update(int(token) for token in value)
    return frozenset(found)


def _end_of_turn(tokenizer: Any, named: frozenset[int]) -> int | None:
    """Return the token that the chat template writes after an answer, None where it writes none.

    At the end of a conversation that is the first named end or added token: a template may write
    an end that no config names, and more after it (Phi-3 closes the text with EOS). A template
    that writes nothing there may end a turn by opening the next one (GLM), with a named end.
    """
    chat = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    added = {
        token
        for token, content in getattr(tokenizer, "added_tokens_decoder", {}).items()
        if str(content).strip().strip("▁")  # some vocabularies add runs of blanks
    }
    closing = _written_after_answer(tokenizer, chat, before="")
    opening = _written_after_answer(
        tokenizer, [*chat, {"role": "user", "content": _NEXT}], before=_NEXT
    )
    found = [token for token in closing if token in named | added]
    found += [token for token in opening if token in named]
    return found[0] if found else None


def _written_after_answer(
    tokenizer: Any, chat: Sequence[dict[str, str]], *, before: str
) -> list[int]:
    """Return token ids of what the template writes between the answer and a later text, or the
    end."""
    rest = _rendered(tokenizer, chat, prompt=False).partition(_ANSWER)[2]
    if before:
        rest = rest.partition(before)[0]
    return list(tokenizer.encode(rest, add_special_tokens=False)) if rest else []


def _for_template(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as chat templates and vLLM have it: without empty fields, and the arguments
    of a call as an object."""
    found = {name: value for name, value in message.items() if value is not None and value != []}
    found.setdefault("content", "")
    if calls := found.get("tool_calls"):
        found["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _arguments(call["function"])}}
            for call in calls
        ]
    return found


def _arguments(function: Mapping[str, Any]) -> Any:
    """Return a call's arguments as an object; text that is none stays as the model wrote it."""
    given = function["arguments"]
    try:
        parsed = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        return given
    return parsed if isinstance(parsed, dict) else given


def _check_tools(
    tokenizer: Any, chat: Sequence[Mapping[str, Any]], given: Mapping[str, Any]
) -> None:
    """Raise Refused where the template would leave out calls of tools, or their results."""
    calls = any(message.get("tool_calls") for message in chat)
    results = any(message["role"] == "tool" for message in chat)
    if not calls and not results:
        return
    asked: dict[str, Any] = {"role": "assistant", "content": "" if calls else _ANSWER}
    if calls:
        function = {"name": _TOOL, "arguments": {"value": _VALUE}}
        asked["tool_calls"] = [{"id": "probe0000", "type": "function", "function": function}]
    result = {"role": "tool", "tool_call_id": "probe0000", "content": _RESULT}
    probe = [{"role": "user", "content": _QUESTION}, asked, result]
    needed = (_TOOL, _VALUE, _RESULT) if calls else (_RESULT,)
    text = _rendered(tokenizer, probe, prompt=True, given=given)
    if not all(word in text for word in needed):
        raise Refused(
            "The base model's chat template has no calls of tools, and this conversation has some: "
            "choose a base model that was trained with tools, or leave such conversations out."
        )


def _check_definitions(tokenizer: Any, given: Mapping[str, Any]) -> None:
    """Raise Refused where the template would leave out definitions of tools."""
    schema = {"type": "object", "properties": {_VALUE: {"type": "string", "description": _RULE}}}
    function = {"name": _TOOL, "description": _RESULT, "parameters": schema}
    text = _rendered(
        tokenizer,
        [{"role": "user", "content": _QUESTION}],
        prompt=True,
        given={**given, "tools": [{"type": "function", "function": function}]},
    )
    if not all(word in text for word in (_TOOL, _VALUE, _QUESTION)):
        raise Refused(
            "The base model's chat template has no definitions of tools, and this conversation has "
            "some: choose a base model that was trained with tools, or leave them out."
        )


def _takes_system(tokenizer: Any, given: Mapping[str, Any]) -> bool:
    chat = [{"role": "system", "content": _RULE}, {"role": "user", "content": _QUESTION}]
    return _RULE in _rendered(tokenizer, chat, prompt=True, given=given)


def _rendered(
    tokenizer: Any,
    chat: Sequence[Mapping[str, Any]],
    *,
    prompt: bool,
    given: Mapping[str, Any] | None = None,
) -> str:
    """Return what the template makes of the messages; nothing where it refuses them or is
    missing."""
    try:
        return str(
            tokenizer.apply_chat_template(
                list(chat), add_generation_prompt=prompt, tokenize=False, **(given or {})
            )
        )
    except Exception:  # whatever their authors chose; who asks for ids hears of it
        return ""


def _folded(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each system message at the head of the user turn that follows it, a blank line
    between.

    A system message that no user turn follows has no place: then all stay as they are, and the
    template has the last word.
    """
    folded: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            texts = [text for text in waiting if text.strip()]
            folded.append({**message, "content": "\n\n".join([*texts, message["content"]])})
            waiting = []
        else:
            folded.append(message)
    return list(messages) if waiting else folded
