"""Configuration of an evaluation: evaluate.json and prompts.jsonl, all faults reported at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from trainer.chats.settings import REASONING, TRAINED, ChatSettings, template_kwargs_fault
from trainer.config import (
    choice_fault,
    device_fault,
    number_fault,
    quantisation_fault,
    read_json,
)
from trainer.data.examples import numbered_objects, refuse_if_faulty
from trainer.data.messages import Message, Tools, message_faults, messages_of, tools_fault
from trainer.errors import Refused
from trainer.evaluation.measures.neutral_text import LANGUAGES


@dataclass(frozen=True)
class Candidate:
    """An adapter directory, or the base itself where `path` is None."""

    name: str
    path: str | None


@dataclass(frozen=True)
class EvalPrompt:
    """A conversation that every candidate answers."""

    id: str
    messages: tuple[Message, ...]
    tools: Tools = ()

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the messages in the form that chat templates and JSON take."""
        return [message.as_dict() for message in self.messages]


@dataclass(frozen=True)
class EvalConfig:
    """`evaluate.json`. The first of `candidates` is the one that is to be judged.

    `kl_prompts` is the number of prompts KL is estimated on (at most all), `languages` are those of
    the neutral passages (measures/neutral_text.py: LANGUAGES). `quantisation` is that of the run
    whose adapter is judged: all candidates and the base are measured on the base that it was
    trained on. `score_cache` is a directory that evaluations share, relative to theirs: what a
    version's weights alone decide is computed once (fixed_texts.py). `chat_template_kwargs` and
    `reasoning` are as in a run's configuration (trainer/config.py). An evaluation is continued by
    a call with more `answers_per_prompt` or prompts.
    """

    base_model: str
    candidates: tuple[Candidate, ...]
    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.95
    answers_per_prompt: int = 2
    kl_prompts: int = 16
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    quantisation: str | None = None
    beta: float | None = None
    languages: tuple[str, ...] = LANGUAGES
    score_cache: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    reasoning: str = TRAINED

    @property
    def chat(self) -> ChatSettings:
        return ChatSettings(self.chat_template_kwargs, self.reasoning)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check `evaluate.json`. Raises Refused with every fault."""
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise Refused("evaluate.json must hold a JSON object")
        known = {each.name for each in fields(cls)}
        faults = [f"unknown field {name!r}" for name in raw if name not in known]
        if not isinstance(raw.get("base_model"), str) or not raw["base_model"]:
            faults.append("base_model must name a directory or a hub id")
        faults += _candidate_faults(raw.get("candidates"))
        found = [
            number_fault("max_tokens", raw.get("max_tokens", 256), low=1, whole=True),
            number_fault("temperature", raw.get("temperature", 0.7), low=0, high=10),
            number_fault("top_p", raw.get("top_p", 0.95), low=0, high=1, above=True),
            number_fault("answers_per_prompt", raw.get("answers_per_prompt", 2), low=1, whole=True),
            number_fault("kl_prompts", raw.get("kl_prompts", 16), low=0, whole=True),
            number_fault("seed", raw.get("seed", 0), low=0, high=2**31 - 1, whole=True),
            choice_fault(
                "dtype", raw.get("dtype", "auto"), ("auto", "float32", "bfloat16", "float16")
            ),
            device_fault(raw.get("device", "auto")),
            quantisation_fault(raw.get("quantisation")),
            template_kwargs_fault(raw.get("chat_template_kwargs", {})),
            choice_fault("reasoning", raw.get("reasoning", TRAINED), REASONING),
            _language_fault(raw.get("languages", [*LANGUAGES])),
            None
            if isinstance(raw.get("score_cache"), str | None)
            else "score_cache must name a directory",
        ]
        if raw.get("beta") is not None:
            found.append(number_fault("beta", raw["beta"], low=0, above=True))
        refuse_if_faulty([*faults, *(fault for fault in found if fault is not None)])
        candidates = tuple(Candidate(**candidate) for candidate in raw["candidates"])
        languages = tuple(raw.get("languages", LANGUAGES))
        return cls(**{**raw, "candidates": candidates, "languages": languages})


def read_prompts(path: Path) -> list[EvalPrompt]:
    """Read prompts.jsonl; fields beside id, messages and tools are left alone. Raises Refused."""
    prompts, faults = [], []
    seen: set[str] = set()
    for number, raw in numbered_objects(path):
        found = [raw] if isinstance(raw, str) else message_faults(raw.get("messages"), "messages")
        if not isinstance(raw, str) and not isinstance(raw.get("id"), str):
            found.append("id must be a text")
        elif not isinstance(raw, str) and raw["id"] in seen:
            found.append(f"id {raw['id']!r} occurs twice")  # answers are stored under it
        if not isinstance(raw, str) and (fault := tools_fault(raw.get("tools"))):
            found.append(fault)
        faults += [f"{path.name} line {number}: {fault}" for fault in found]
        if not found:
            seen.add(raw["id"])
            tools = tuple(raw.get("tools") or ())
            prompts.append(EvalPrompt(raw["id"], messages_of(raw["messages"]), tools))
    if not prompts and not faults:
        faults.append(f"{path.name} holds no prompt: an evaluation needs at least one")
    refuse_if_faulty(faults)
    return prompts


def _language_fault(raw: object) -> str | None:
    if isinstance(raw, list) and raw and all(language in LANGUAGES for language in raw):
        return None
    return f"languages must be a list of at least one of {', '.join(LANGUAGES)}, not {raw!r}"


def _candidate_faults(raw: object) -> list[str]:
    if not isinstance(raw, list) or not raw:
        return ["candidates must be a list of at least one {name, path}"]
    faults = [
        f"candidate {number} needs a name and a path (null for the base), nothing else"
        for number, candidate in enumerate(raw, start=1)
        if not _is_candidate(candidate)
    ]
    if not faults and len({candidate["name"] for candidate in raw}) < len(raw):
        faults.append("two candidates have the same name")
    return faults


def _is_candidate(raw: Any) -> bool:
    return (
        isinstance(raw, dict)
        and set(raw) == {"name", "path"}
        and isinstance(raw["name"], str)
        and raw["name"] != ""
        and (raw["path"] is None or isinstance(raw["path"], str))
    )
