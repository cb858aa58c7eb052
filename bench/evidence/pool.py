"""The answers that the simulated annotators vote on: of the base, sampled once and kept."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from feedback_app.feedback.models import Project, Split
from feedback_app.feedback.projects.starter import starter_prompts
from feedback_app.feedback.prompts.completions import Answer
from feedback_app.feedback.prompts.services import Message, content_hash, split_of
from trainer.data.chat import prompt_ids
from trainer.engine.loading import load_served
from trainer.engine.sampling import Sampling
from trainer.evaluation.versions import Question, Versions
from trainer.models.loading import prepare

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "var" / "bench" / "evidence"
SYSTEM = "Answer in one short sentence."
#: Decides which prompts of a project are trained on: the same in every project of the studies.
SPLIT_KEY = "e" * 64
ANSWERS_PER_PROMPT = 4
MAX_TOKENS = 24
TEMPERATURE, TOP_P = 0.8, 0.95
#: Prompts that no project has: every version answers them.
UNSEEN = 64


@dataclass(frozen=True)
class PoolAnswer:
    """An answer of a version to a prompt of the user."""

    messages: tuple[Message, ...]
    answer: Answer


@cache
def base_model() -> Path:
    """Return the directory of SmolLM2-135M-Instruct."""
    return prepare(ROOT / "var" / "models")


@cache
def training_prompts() -> list[tuple[Message, ...]]:
    """Return the starter's prompts that a project with SPLIT_KEY trains on."""
    project = Project(split_key=SPLIT_KEY)
    return [
        tuple(messages)
        for _, messages in starter_prompts("prompts.jsonl")
        if split_of(content_hash(messages), project=project) == Split.TRAIN
    ]


@cache
def unseen_prompts() -> list[tuple[Message, ...]]:
    """Return the prompts that all versions are measured on."""
    return [tuple(messages) for _, messages in starter_prompts("unseen.jsonl")][:UNSEEN]


def answers_of(
    prompts: list[tuple[Message, ...]],
    *,
    seed: int,
    model: Path | None = None,
    adapter: Path | None = None,
    each: int = 1,
) -> list[PoolAnswer]:
    """Return `each` answers to every prompt, written by a base model with or without an adapter."""
    # a merged model in bfloat16 would lose its adapter's small changes
    merged = model not in (None, base_model())
    base = load_served(str(model or base_model()), dtype="float32" if merged else "auto")
    system: Message = {"role": "system", "content": SYSTEM}
    asked = [messages for messages in prompts for _ in range(each)]
    questions = [
        Question(
            "version",
            tuple(prompt_ids(base.tokenizer, [dict(m) for m in (system, *messages)])),
            Sampling(MAX_TOKENS, temperature=TEMPERATURE, top_p=TOP_P, seed=1_000_000 * seed + n),
        )
        for n, messages in enumerate(asked)
    ]
    found = Versions(base, {"version": adapter}).answers(questions)
    return [
        PoolAnswer(
            messages,
            Answer(
                text=answer.text,
                version="base",
                finish_reason=answer.finish_reason,
                prompt_token_ids=list(answer.prompt_ids),
                token_ids=list(answer.token_ids),
            ),
        )
        for messages, answer in zip(asked, found, strict=True)
    ]


def pool() -> list[PoolAnswer]:
    """Return the base's answers to all training prompts, neighbours with the same prompt."""
    return kept(
        WORK / "pool.json",
        lambda: answers_of(training_prompts(), seed=99, each=ANSWERS_PER_PROMPT),
    )


def kept(path: Path, make: Callable[[], list[PoolAnswer]]) -> list[PoolAnswer]:
    """Return the answers in a file, which is made if it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps([asdict(one) for one in make()]))
        partial.replace(path)
    return [
        PoolAnswer(tuple(raw["messages"]), Answer(**raw["answer"]))
        for raw in json.loads(path.read_text())
    ]
