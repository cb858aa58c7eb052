"""Measurement before and after: answers of base and live to prompts that no run has used."""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedback_app.closed_loop.rule import Finding, judge
from feedback_app.feedback.models import Project
from feedback_app.feedback.prompts.completions import Answer
from feedback_app.feedback.prompts.services import Message
from feedback_app.serving.engine.batch import PARALLEL, OnTokens, ask_each
from feedback_app.serving.engine.client import Engine, EngineError, Sampling
from feedback_app.serving.engine.concurrency import ConcurrencyLimit
from feedback_app.serving.stats.wilson import wilson_interval

BOOTSTRAP = 4_000


@dataclass(frozen=True)
class Share:
    """A share of answers with its 95 % Wilson interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.0%} ({self.low:.0%} to {self.high:.0%})"


def share(hits: Sequence[bool]) -> Share:
    """Return the share of hits with Wilson's interval."""
    low, high = wilson_interval(sum(hits), len(hits))
    return Share(sum(hits) / len(hits), low, high, len(hits))


@dataclass(frozen=True)
class Side:
    """The answers of one version by prompt, with the findings of the rule."""

    version: str
    findings: list[list[Finding]]
    texts: list[list[str]]

    @property
    def flat(self) -> list[Finding]:
        return [finding for group in self.findings for finding in group]

    @property
    def up_rate(self) -> Share:
        return share([finding.up for finding in self.flat])

    @property
    def words(self) -> float:
        return statistics.fmean(finding.words for finding in self.flat)

    @property
    def distinct(self) -> Share:
        """Share of answers that occur once: a collapsed model gives the same answer to all."""
        texts = [text.strip().lower() for group in self.texts for text in group]
        return share([texts.count(text) == 1 for text in texts])

    def as_json(self) -> dict[str, Any]:
        flat = self.flat
        shares = {
            "up_rate": self.up_rate,
            "finished": share([f.finished for f in flat]),
            "short": share([f.short for f in flat]),
            "relevance": share([f.on_topic for f in flat]),
            "no_repetition": share([f.no_repetition for f in flat]),
            "distinct": self.distinct,
        }
        return {
            "version": self.version,
            "answers": len(flat),
            "words": self.words,
            **{name: vars(value) for name, value in shares.items()},
        }


def side_sample(
    *,
    project: Project,
    version: str,
    prompts: Sequence[Sequence[Message]],
    answers_per_prompt: int,
    on_progress: Callable[[int, int], None],
) -> Side:
    """Generate answers to every prompt with the engine; all versions use the same seeds.

    Raises EngineError if an answer is missing: shares must be of the same number of answers.
    """
    engine = Engine(project)
    total = len(prompts) * answers_per_prompt

    def ask(number: int, on_tokens: OnTokens) -> Answer:
        prompt, seed = prompts[number // answers_per_prompt], 7_000_000 + number
        how = Sampling(project.max_tokens, project.temperature, project.top_p, seed)
        return engine.answer(prompt, version=version, sampling=how, on_tokens=on_tokens)

    found: dict[int, Answer] = {}
    limit = ConcurrencyLimit(most=PARALLEL)
    for number, answer in ask_each(range(total), ask, limit=limit, healthy=engine.healthy):
        if isinstance(answer, EngineError):
            raise answer
        found[number] = answer
        on_progress(len(found), total)
    answers = [found[number] for number in range(total)]
    groups = [answers[i : i + answers_per_prompt] for i in range(0, total, answers_per_prompt)]
    return Side(
        version=version,
        findings=[
            [
                judge(
                    question=prompt[-1]["content"],
                    answer=answer.text,
                    complete=answer.finish_reason == "stop",
                )
                for answer in group
            ]
            for prompt, group in zip(prompts, groups, strict=True)
        ],
        texts=[[answer.text for answer in group] for group in groups],
    )


@dataclass(frozen=True)
class Gain:
    """The rise of the up-rate, with a 95 % interval by resampling of prompts."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        return self.low > 0


def gain(before: Side, after: Side, *, seed: int = 0) -> Gain:
    """Return a paired bootstrap over prompts: answers to one prompt are not independent."""
    pairs = [
        (
            statistics.fmean(f.up for f in old),
            statistics.fmean(f.up for f in new),
        )
        for old, new in zip(before.findings, after.findings, strict=True)
    ]
    differences = [new - old for old, new in pairs]
    draw = random.Random(seed)  # noqa: S311
    means = sorted(
        statistics.fmean(draw.choices(differences, k=len(differences))) for _ in range(BOOTSTRAP)
    )
    return Gain(
        value=statistics.fmean(differences),
        low=means[int(0.025 * BOOTSTRAP)],
        high=means[int(0.975 * BOOTSTRAP) - 1],
    )


@dataclass(frozen=True)
class Guard:
    """A measure that must not get worse while the up-rate rises."""

    name: str
    before: float
    after: float
    limit: str
    held: bool


def guards(
    *, before: Side, after: Side, measures: Mapping[str, Any], adapter: str, kl_brake: float
) -> list[Guard]:
    """Return the guards against a collapsed model. `measures` is the gate's report."""
    new, base = measures[adapter], measures["base"]
    kl = float(new["kl_per_token"]["value"])
    neutral, neutral_base = (float(side["neutral_logprob"]["value"]) for side in (new, base))
    old, now = before.as_json(), after.as_json()

    def kept(name: str, slack: float) -> Guard:
        was, is_now = old[name]["value"], now[name]["value"]
        return Guard(name, was, is_now, f"≥ before - {slack:.0%}", is_now >= was - slack)

    return [
        Guard("kl_per_token", 0.0, kl, f"≤ {kl_brake:g} nats", kl <= kl_brake),
        Guard(
            "neutral_logprob",
            neutral_base,
            neutral,
            "within 5 % of base",
            neutral >= neutral_base - 0.05 * abs(neutral_base),
        ),
        Guard(
            "words",
            before.words,
            after.words,
            "≥ 12 and ≥ 30 % of before",
            after.words >= max(12.0, 0.3 * before.words),
        ),
        kept("finished", 0.05),
        kept("relevance", 0.05),
        kept("no_repetition", 0.05),
        kept("distinct", 0.05),
    ]
