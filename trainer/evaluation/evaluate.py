"""`python -m trainer evaluate EVAL_DIR`: compare adapters for a gate.

Every candidate answers the same prompts with the same seeds and is scored on the same held-out
examples; the base model is measured like any other.
"""

import gc
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from time import monotonic
from typing import Any

from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import fsync, verify_adapter
from trainer.config import MAX_RANK
from trainer.data.chat import prompt_ids
from trainer.data.examples import Example, Message, read_examples
from trainer.data.tokenise import Tokenised, tokenise_for
from trainer.directory_lock import locked
from trainer.disk import disk_errors_reported
from trainer.engine.loading import load_served
from trainer.engine.sampling import Sampling, derived_seed
from trainer.errors import Cancelled, RunFailed, TrainerError
from trainer.evaluation.config import EvalConfig, EvalPrompt, read_prompts
from trainer.evaluation.generate import Answer
from trainer.evaluation.kl_probe import kl_of, kl_sampling
from trainer.evaluation.neutral_text import PASSAGES
from trainer.evaluation.text_metrics import (
    Metric,
    distinct_bigrams,
    is_relevant,
    mean,
    ranking,
    repeats,
    share,
    words,
)
from trainer.evaluation.up_rate import Ratings, rate_answers
from trainer.evaluation.versions import Question, Versions
from trainer.events import EventLog
from trainer.forward.logprobs import Row, sequence_logprobs
from trainer.models.loading import LoadedBase, load_base
from trainer.models.lora import Lora
from trainer.signals import StopRequest, stop_on_signal

_TOKEN_BUDGET = 2048
_MAX_LENGTH = 4096
_KL_ANSWER_TOKENS = 64

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Findings:
    """One candidate's answers (one list a prompt), held-out rewards in nats, and metrics."""

    answers: tuple[tuple[Answer, ...], ...]
    rewards: tuple[float, ...]
    measures: dict[str, Metric]


def evaluate(eval_dir: Path) -> None:
    """Measure all candidates of `eval_dir` and write report.json.

    Raises Refused (config, prompts, examples), BadArtifact, RunFailed (a candidate gives NaN) or
    Cancelled, which are written to events.jsonl first; or NotWritten.
    """
    config = EvalConfig.read(eval_dir / "evaluate.json")
    with (
        disk_errors_reported(eval_dir),
        locked(eval_dir),
        EventLog(eval_dir / "events.jsonl") as events,
    ):
        try:
            with stop_on_signal() as stop:
                _evaluate(eval_dir, config, events, stop)
        except Cancelled as error:
            events.write("cancelled", step=error.step)
            raise
        except TrainerError as error:
            events.write(
                "failed",
                step=None,
                reason=str(error),
                advice="fix the errors above and start again",
            )
            raise


def _evaluate(eval_dir: Path, config: EvalConfig, events: EventLog, stop: StopRequest) -> None:
    started = monotonic()
    prompts = read_prompts(eval_dir / "prompts.jsonl")
    heldout = read_examples(eval_dir / "heldout.jsonl")
    paths = {
        candidate.name: None if candidate.path is None else eval_dir / candidate.path
        for candidate in config.candidates
    }
    for path in paths.values():  # checked before the base is loaded
        if path is not None:
            verify_adapter(path, base_fingerprint=None, max_rank=MAX_RANK)

    def check() -> None:
        if stop.asked:
            raise Cancelled(0)

    def report(phase: str, done: int, total: int) -> None:
        events.write("phase", phase=phase, done=done, total=total)
        check()

    report("loading", 0, 2)
    sampled = _sampled(config, paths, prompts, report=report, check=check)
    gc.collect()  # free the serving model before the scoring model is loaded
    report("loading", 1, 2)
    base = load_base(config.base_model, dtype=config.dtype, device=config.device)
    report("loading", 2, 2)
    found = {name: version.answers for name, version in sampled.items()}
    rated = rate_answers(base, eval_dir / "votes.jsonl", found, seed=config.seed, on_step=check)
    parts = len(paths) + 1  # the bare base scores the held-out examples first
    report("scoring", 0, parts)
    scores = _Scores.of(base, heldout)
    questions = [prompt.messages[-1].content for prompt in prompts]
    findings: dict[str, Findings] = {}
    for number, (name, path) in enumerate(paths.items()):
        report("scoring", number + 1, parts)
        with adapted(base, path) as lora:
            subject = _Subject(base, lora, name)
            findings[name] = _metrics_of(subject, config, sampled[name], questions, scores)
    report("scoring", parts, parts)
    ids = [(example.id, example.label) for example in scores.examples]
    seconds = round(monotonic() - started, 1)
    _write_report(eval_dir / "report.json", findings, prompts, ids, rated, seconds=seconds)


@dataclass(frozen=True)
class _Sampled:
    """One candidate's answers to the prompts, prompt after prompt, and those that its KL is
    estimated on."""

    answers: Sequence[Answer]
    kl: Sequence[Answer]


def _sampled(
    config: EvalConfig,
    paths: Mapping[str, Path | None],
    prompts: Sequence[EvalPrompt],
    *,
    report: Progress,
    check: Callable[[], None],
) -> dict[str, _Sampled]:
    """Sample all candidates' answers in one mixed batch, on a base that is freed afterwards.

    Generation may store weights in another type than scoring computes in, and takes them out of
    the model; loading the base twice costs seconds and never holds two of them.
    """
    base = load_served(config.base_model, dtype=config.dtype, device=config.device)
    versions = Versions(base, paths)
    report("loading", 1, 2)
    contexts = [tuple(prompt_ids(base.tokenizer, _plain(prompt.messages))) for prompt in prompts]
    asked = [context for context in contexts for _ in range(config.answers_per_prompt)]
    how = Sampling(config.max_tokens, config.temperature, config.top_p, seed=config.seed)
    how_kl = kl_sampling(_KL_ANSWER_TOKENS, seed=config.seed)
    groups = {name: _questions(name, asked, how) for name in paths}
    kl_groups = {
        name: [] if path is None else _questions(name, contexts[: config.kl_prompts], how_kl)
        for name, path in paths.items()
    }
    answers = iter(
        versions.answers(
            list(chain(*groups.values(), *kl_groups.values())),
            on_progress=lambda done, total: report("sampling", done, total),
            on_step=check,
        )
    )
    found = {name: list(islice(answers, len(group))) for name, group in groups.items()}
    found_kl = {name: list(islice(answers, len(group))) for name, group in kl_groups.items()}
    return {name: _Sampled(found[name], found_kl[name]) for name in paths}


def _questions(name: str, prompts: Sequence[tuple[int, ...]], how: Sampling) -> list[Question]:
    """Return one question per prompt and answer; every version gets the same seeds."""
    return [
        Question(name, prompt, replace(how, seed=derived_seed(how.seed, index)))
        for index, prompt in enumerate(prompts)
    ]


@dataclass(frozen=True)
class _Scores:
    """Held-out examples as token ids, and the base's log-probability of each, in nats."""

    examples: Sequence[Tokenised]
    rows: Sequence[Row]
    reference: Sequence[float]

    @classmethod
    def of(cls, base: LoadedBase, heldout: Sequence[Example]) -> "_Scores":
        examples = tokenise_for(base, heldout, max_length=_MAX_LENGTH).examples
        rows = [(example.prompt, example.completion) for example in examples]
        return cls(examples, rows, _logprobs(base, rows))


@dataclass(frozen=True)
class _Subject:
    """A measured model: the base with an adapter, or alone where `lora` is None."""

    base: LoadedBase
    lora: Lora | None
    name: str


def _metrics_of(
    subject: _Subject,
    config: EvalConfig,
    sampled: _Sampled,
    questions: Sequence[str],
    scores: _Scores,
) -> Findings:
    base, many = subject.base, config.answers_per_prompt
    found = scores.reference if subject.lora is None else _logprobs(base, scores.rows)
    rewards = tuple(score - known for score, known in zip(found, scores.reference, strict=True))
    kl = _kl(subject, sampled.kl, min(config.kl_prompts, len(questions)))
    neutral = _neutral(base)
    values = [*rewards, *kl, *neutral]
    if not all(map(math.isfinite, values)):
        raise RunFailed(
            f"{subject.name} gives log-probabilities that are no numbers",
            advice="its weights are damaged or exploded: do not release it, train again",
        )
    answers = sampled.answers
    labels = [example.label for example in scores.examples]
    measures = {
        **_answer_metrics(answers, [question for question in questions for _ in range(many)]),
        "ranking": _ranking(subject, rewards, labels, seed=config.seed),
        "kl_per_token": mean(kl, seed=config.seed),
        "neutral_logprob": mean(neutral, seed=config.seed),
    }
    grouped = tuple(tuple(answers[i : i + many]) for i in range(0, len(answers), many))
    return Findings(grouped, rewards, measures)


def _logprobs(base: LoadedBase, rows: Sequence[Row]) -> list[float]:
    """Return log π(y|x) of each row in nats."""
    return sequence_logprobs(base.model, rows, _TOKEN_BUDGET).tolist() if rows else []


def _answer_metrics(answers: Sequence[Answer], questions: Sequence[str]) -> dict[str, Metric]:
    texts = [answer.text for answer in answers]
    asked = zip(texts, questions, strict=True)
    distinct = distinct_bigrams(texts)
    return {
        "finished": share([answer.finish_reason == "stop" for answer in answers]),
        "words": mean([float(len(words(text))) for text in texts]),
        "repetition": share([repeats(text) for text in texts]),
        "relevance": share([is_relevant(text, question) for text, question in asked]),
        "distinct": Metric(distinct, None, None, len(texts)),
    }


def _ranking(
    subject: _Subject, rewards: Sequence[float], labels: Sequence[bool], *, seed: int
) -> Metric:
    if subject.lora is None:  # every reward of the base is 0: a random ranking
        return Metric(0.5, None, None, len(labels))
    pairs = list(zip(rewards, labels, strict=True))
    return ranking(
        [reward for reward, label in pairs if label],
        [reward for reward, label in pairs if not label],
        seed=seed,
    )


def _kl(subject: _Subject, answers: Sequence[Answer], prompts: int) -> tuple[float, ...]:
    """Return KL per token of each answer in nats; 0 for the base."""
    if subject.lora is None:
        return (0.0,) * prompts
    return kl_of(subject.base.model, subject.lora, answers).answers if answers else ()


def _neutral(base: LoadedBase) -> list[float]:
    """Mean log-probability a token of each neutral passage, in nats, without a chat around it."""
    ids = [base.tokenizer.encode(passage, add_special_tokens=False) for passage in PASSAGES]
    rows: list[Row] = [(tokens[:1], tokens[1:]) for tokens in ids]
    sums = sequence_logprobs(base.model, rows, _TOKEN_BUDGET).tolist()
    return [total / len(rest) for total, (_, rest) in zip(sums, rows, strict=True)]


def _write_report(
    path: Path,
    findings: Mapping[str, Findings],
    prompts: Sequence[EvalPrompt],
    heldout: Sequence[tuple[str, bool]],
    rated: Ratings,
    *,
    seconds: float,
) -> None:
    report: dict[str, Any] = {
        "candidates": {
            name: {key: asdict(measure) for key, measure in found.measures.items()}
            for name, found in findings.items()
        },
        "answers": [
            {
                "id": prompt.id,
                "messages": _plain(prompt.messages),
                "answers": {
                    name: [_as_json(answer) for answer in found.answers[number]]
                    for name, found in findings.items()
                },
            }
            for number, prompt in enumerate(prompts)
        ],
        "heldout": [
            {
                "id": example_id,
                "label": label,
                "rewards": {name: found.rewards[number] for name, found in findings.items()},
            }
            for number, (example_id, label) in enumerate(heldout)
        ],
        "seconds": seconds,
    }
    rated.write_into(report)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    fsync(partial)
    partial.rename(path)


def _as_json(answer: Answer) -> dict[str, object]:
    return {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "tokens": len(answer.token_ids),
    }


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
