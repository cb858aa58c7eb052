"""Recognising rows: KTO examples, pairs or prompts alone. Pure functions over plain values."""

import os.path
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from feedback_app.feedback.imports.bridges.openai_log import NAME as OPENAI_LOG
from feedback_app.feedback.imports.bridges.registry import bridged
from feedback_app.feedback.imports.bridges.thumbs import NotImportable, Thumb, word_of
from feedback_app.feedback.imports.readers import Record
from feedback_app.feedback.imports.turns import NoText, texts_of, turns_read
from feedback_app.feedback.models import Verdict
from feedback_app.feedback.prompts.services import Message, messages_check
from feedback_app.feedback.prompts.tools import tools_text, with_tools
from feedback_app.web.errors import UserError

MAX_TEXT = 1_000_000  # characters of one message
MAX_TURNS = 500  # messages of one conversation
TOPIC_LIMIT = 60

UNPAIRED, PAIRS, PROMPTS = "Examples with labels", "Pairs", "Prompts only"

#: Labels of a verdict. Gold items need one of them: 'true' would mean 'it is gold'.
_WORDS = {
    "up": Verdict.UP,
    "desirable": Verdict.UP,
    "good": Verdict.UP,
    "down": Verdict.DOWN,
    "undesirable": Verdict.DOWN,
    "bad": Verdict.DOWN,
}
_UP = {"true", "yes", "y", "1", "1.0", "+1"}
_DOWN = {"false", "no", "n", "0", "0.0", "-1"}
_HH_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class RowRefused(Exception):
    """The row cannot be imported; the message is the reason."""


@dataclass(frozen=True)
class Candidate:
    """A future prompt and, with a text, a completion with a vote."""

    messages: tuple[Message, ...]
    system: str = ""
    text: str | None = None
    verdict: Verdict | None = None
    topic: str = ""
    # the right verdict, for a gold item
    gold: Verdict | None = None

    @property
    def characters(self) -> int:
        texts = [text for message in self.messages for text in texts_of(message)]
        return sum(map(len, texts)) + len(self.text or "")


@dataclass(frozen=True)
class Labels:
    """A file's own labels, in lower case.

    They take precedence over ours, so that a file may call bad answers 1.
    """

    up: frozenset[str] = frozenset()
    down: frozenset[str] = frozenset()

    def own(self, said: str) -> Verdict | None:
        """Return the verdict of one of the file's own labels."""
        if said in self.up:
            return Verdict.UP
        return Verdict.DOWN if said in self.down else None

    def meaning(self, said: str) -> Verdict | None:
        """Return the verdict of a label in lower case, if it is one."""
        known = Verdict.UP if said in _UP else Verdict.DOWN if said in _DOWN else None
        return self.own(said) or _WORDS.get(said) or known

    def verdict_of(self, label: object) -> Verdict:
        """Return the verdict of true, 1, 'yes' and similar. Raise RowRefused for anything else."""
        if verdict := self.meaning(label_text(label)):
            return verdict
        raise RowRefused(f"the label {str(label)[:40]!r} is neither true nor false")

    def gold_of(self, value: object) -> Verdict:
        """Return the right verdict. Raise RowRefused."""
        said = label_text(value)
        if verdict := self.own(said) or _WORDS.get(said):
            return verdict
        raise RowRefused(f"gold is {str(value)[:40]!r}, not the right verdict, up or down")


AS_KNOWN = Labels()


def label_text(label: object) -> str:
    """Return a label as text in lower case; a whole number without a decimal point."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip().lower() if isinstance(label, str | int | float) else ""


@dataclass(frozen=True)
class Recognised:
    """A row's shape and its candidates: one, or two for a pair."""

    shape: str
    candidates: tuple[Candidate, ...]


def recognise(record: Record, labels: Labels = AS_KNOWN) -> Recognised:
    """Return what a row contains. Raise RowRefused with the reason."""
    if record.fault:
        raise RowRefused(record.fault)
    row = {name: value for name, value in record.value.items() if value is not None}
    if row.get("gold") == "":
        del row["gold"]  # empty in most rows
    shape: str
    found: tuple[Candidate, ...]
    if (other := from_product(row, labels)) is not None:
        shape, found = other
    elif "chosen" in row or "rejected" in row:
        shape, found = PAIRS, pair(row)
    elif "completion" in row or "output" in row:
        shape, found = UNPAIRED, (example(row, labels),)
    elif "messages" in row and ("label" in row or "gold" in row):
        shape, found = UNPAIRED, (example({**row, "completion": row["messages"]}, labels),)
    elif "prompt" in row or "messages" in row:
        system, messages = conversation(row.get("prompt", row.get("messages")), "prompt")
        topic = row.get("topic", "")
        known = topic[:TOPIC_LIMIT] if isinstance(topic, str) else ""
        shape, found = PROMPTS, (Candidate(messages, system, topic=known),)
    elif "label" in row:
        raise RowRefused("there is a label but neither completion nor output")
    else:
        raise RowRefused("none of prompt, completion, chosen, rejected or messages is there")
    if "gold" in row and shape != UNPAIRED:
        raise RowRefused("gold needs a single answer, and this row has a pair or none")
    if tools := tools_given(row, shape):
        found = tuple(
            replace(each, messages=tuple(with_tools(each.messages, tools))) for each in found
        )
    for candidate in found:
        check(candidate)
    return Recognised(shape, found)


def tools_given(row: Mapping[str, Any], shape: str) -> str:
    """Return the definitions of tools of a row, in our own forms and in logs of OpenAI's API.
    Raise RowRefused."""
    given = row.get("tools")
    if shape == OPENAI_LOG and isinstance(request := row.get("request"), dict):
        given = request.get("tools", given)
    if shape not in (UNPAIRED, PAIRS, PROMPTS, OPENAI_LOG):
        return ""
    try:
        return tools_text(given)
    except UserError as error:
        raise RowRefused(str(error)) from error


def from_product(
    row: Mapping[str, Any], labels: Labels
) -> tuple[str, tuple[Candidate, ...]] | None:
    """Return (format, candidates) of a row of another product's export, or None."""
    try:
        found = bridged(row)
    except NotImportable as error:
        raise RowRefused(str(error)) from error
    if found is None:
        return None
    name, thumbs = found
    return name, tuple(thumb_candidate(thumb, labels) for thumb in thumbs)


def thumb_candidate(thumb: Thumb, labels: Labels) -> Candidate:
    """Return the vote as a candidate. Raise RowRefused."""
    verdict = labels.own(label_text(thumb.verdict)) or labels.meaning(word_of(thumb.verdict))
    if verdict is None:
        raise RowRefused(
            f"the rating {str(thumb.verdict)[:40]!r} is neither up nor down: say under 'Labels "
            "that mean' which it is"
        )
    system, messages, text = completed(thumb.prompt, thumb.answer, "answer")
    return Candidate(messages, system, text, verdict)


def check(candidate: Candidate) -> None:
    """Raise RowRefused if the database or the trainer cannot store or use it."""
    if len(candidate.messages) > MAX_TURNS:
        raise RowRefused(f"{len(candidate.messages):,} messages: at most {MAX_TURNS} can be used")
    try:
        messages_check(candidate.messages)
    except UserError as error:
        raise RowRefused(str(error)) from error
    if candidate.text is not None and not candidate.text.strip():
        raise RowRefused("the answer is empty")
    contents = [text for message in candidate.messages for text in texts_of(message)]
    for text in (candidate.system, candidate.text or "", candidate.topic, *contents):
        if len(text) > MAX_TEXT:
            raise RowRefused(f"a text of {len(text):,} characters: at most {MAX_TEXT:,} are taken")
        if "\x00" in text:
            raise RowRefused("a text has a NUL character, which cannot be stored")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RowRefused("a text is not valid UTF-8") from error


# -- the shapes


def example(row: Mapping[str, Any], labels: Labels) -> Candidate:
    """TRL's unpaired form, and HALOs' with `output` for `completion`.

    A gold answer needs no label; then it has no votes.
    """
    gold = labels.gold_of(row["gold"]) if "gold" in row else None
    if "label" not in row and gold is None:
        raise RowRefused("the label is missing")
    verdict = labels.verdict_of(row["label"]) if "label" in row else None
    if gold and verdict and gold != verdict:
        raise RowRefused("label and gold contradict each other")
    answer = row["completion"] if "completion" in row else row["output"]
    name = "completion" if "completion" in row else "output"
    system, messages, text = completed(row.get("prompt"), answer, name)
    return Candidate(messages, system, text, verdict, gold=gold)


def pair(row: Mapping[str, Any]) -> tuple[Candidate, Candidate]:
    """A chosen and a rejected answer to the same prompt: one up, one down."""
    if "chosen" not in row or "rejected" not in row:
        raise RowRefused("a pair needs both chosen and rejected")
    chosen, rejected, prompt = row["chosen"], row["rejected"], row.get("prompt")
    if isinstance(chosen, str) and isinstance(rejected, str) and is_hh(chosen):
        prompt, chosen, rejected = split_at_common_prefix(chosen, rejected)
    up = completed(prompt, chosen, "chosen")
    down = completed(prompt, rejected, "rejected")
    if up[:2] != down[:2]:
        raise RowRefused("chosen and rejected answer different prompts")
    if up[2] == down[2]:
        raise RowRefused("chosen and rejected are the same")
    return Candidate(up[1], up[0], up[2], Verdict.UP), Candidate(
        down[1], down[0], down[2], Verdict.DOWN
    )


# -- conversations


Conversation = tuple[str, tuple[Message, ...]]


def conversation(value: object, name: str) -> Conversation:
    """Return (system prompt, messages) of a text or a list of messages."""
    if isinstance(value, str):
        turns = hh_turns(value) if is_hh(value) else [Message(role="user", content=value)]
    else:
        turns = turns_of(value, name)
    if turns and turns[0]["role"] == "system":
        return turns[0]["content"], tuple(turns[1:])
    return "", tuple(turns)


def turns_of(value: object, name: str) -> list[Message]:
    """Return the messages reduced to what prompts store. Raise RowRefused."""
    if not isinstance(value, list):
        raise RowRefused(f"{name} is neither text nor a list of messages")
    if len(value) > MAX_TURNS + 2:
        raise RowRefused(f"{len(value):,} messages: at most {MAX_TURNS} can be used")
    try:
        return turns_read(value)
    except NoText as error:
        raise RowRefused(f"{name}: {error}") from error


def completed(prompt: object, answer: object, name: str) -> tuple[str, tuple[Message, ...], str]:
    """Return (system prompt, messages, answer).

    The answer may contain the whole conversation. Raise RowRefused.
    """
    stated = None if prompt is None else conversation(prompt, "prompt")
    if isinstance(answer, str):
        if stated is None:
            raise RowRefused(f"{name} is text, and there is no prompt")
        return (*stated, answer)
    turns = turns_of(answer, name)
    if not turns or turns[-1]["role"] != "assistant":
        raise RowRefused(f"{name} does not end with a message of the assistant")
    if turns[-1].get("tool_calls"):
        raise RowRefused(f"{name} ends with a call of a tool: only answers in text can be judged")
    text = turns[-1]["content"]
    system, messages = conversation(list(turns[:-1]), name)
    if stated is None:
        return system, messages, text
    if messages and messages != stated[1] and messages[-1:] != stated[1]:
        raise RowRefused(f"{name} has several messages but does not begin with the prompt")
    return (system or stated[0], messages or stated[1], text)


# -- HH-RLHF's text form: "\n\nHuman: …\n\nAssistant: …"


def is_hh(text: str) -> bool:
    return text.lstrip().startswith("Human:")


def hh_turns(text: str) -> list[Message]:
    """Return the turns of a text, without an empty last one where the answer begins."""
    _, *parts = _HH_TURN.split(text.lstrip())
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        Message(role=roles[role], content=content.strip())
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    if turns and turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    return turns


def split_at_common_prefix(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Return (prompt, chosen answer, rejected answer), split at the last shared `Assistant:`."""
    mark = "\n\nAssistant:"
    shared = os.path.commonprefix([chosen, rejected])  # noqa: RUF071 - texts, not paths
    cut = shared.rfind(mark)
    if cut < 0:
        raise RowRefused("chosen and rejected share no turn of the assistant to begin with")
    answers = [text[cut + len(mark) :].strip() for text in (chosen, rejected)]
    if any("\n\nHuman:" in answer for answer in answers):
        raise RowRefused("chosen and rejected part before the last turn")
    return chosen[:cut], answers[0], answers[1]
