"""report.json, format 2: raw measures per prompt and answer, paired across versions, from which a
gate computes its own statistics, and summaries for display."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.artifacts.adapter_directory import fsync
from trainer.evaluation.config import EvalPrompt
from trainer.evaluation.generate import Answer
from trainer.evaluation.measures.answers import MeasuredAnswer
from trainer.evaluation.measures.injection import Phrase
from trainer.evaluation.scoring import ScoredExamples, Scores
from trainer.evaluation.text_metrics import (
    Metric,
    distinct_bigrams,
    mean,
    mean_over_prompts,
    ranking,
)

FORMAT = 2


@dataclass(frozen=True)
class Findings:
    """One version's answers, a list per prompt, and its scores."""

    answers: Sequence[Sequence[MeasuredAnswer]]
    scores: Scores
    is_base: bool


def report_of(
    findings: Mapping[str, Findings],
    prompts: Sequence[EvalPrompt],
    test: ScoredExamples,
    injection: Sequence[Phrase],
    up_model: Mapping[str, Any] | None,
    *,
    seed: int,
    seconds: float,
    probes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the report; `findings` begin with the candidate, `seed` is that of the bootstrap,
    `probes` come from probes_reported."""
    scores = {name: found.scores for name, found in findings.items()}
    return {
        "format": FORMAT,
        "candidates": {
            name: {
                metric: asdict(value) for metric, value in summary(found, test, seed=seed).items()
            }
            for name, found in findings.items()
        },
        "answers": [
            {
                "id": prompt.id,
                "messages": prompt.as_dicts(),
                **({"tools": list(prompt.tools)} if prompt.tools else {}),
                "answers": {
                    name: [asdict(answer) for answer in found.answers[number]]
                    for name, found in findings.items()
                },
            }
            for number, prompt in enumerate(prompts)
        ],
        "kl": {name: list(found.kl) for name, found in scores.items()},
        "neutral": {name: list(found.neutral) for name, found in scores.items()},
        "sycophancy": {name: list(found.sycophancy) for name, found in scores.items()},
        "injection": [asdict(phrase) for phrase in injection],
        "test": [
            {
                "id": example.id,
                "prompt": prompt,
                "label": example.label,
                "weight": example.weight,
                "rewards": {name: found.rewards[number] for name, found in scores.items()},
            }
            for number, (example, prompt) in enumerate(
                zip(test.examples, test.prompts, strict=True)
            )
        ],
        "up_model": up_model,
        "probes": list(probes),
        "seconds": seconds,
    }


def probes_reported(
    probes: Sequence[EvalPrompt], answers: Mapping[str, Sequence[Sequence[Answer]]]
) -> list[dict[str, Any]]:
    """Return the probes with all versions' answers, of which `answers` has a list per probe."""
    return [
        {
            "id": probe.id,
            "messages": probe.as_dicts(),
            "answers": {
                name: [
                    {"text": answer.text, "finish_reason": answer.finish_reason}
                    | ({"reasoning": answer.reasoning} if answer.reasoning else {})
                    for answer in groups[number]
                ]
                for name, groups in answers.items()
            },
        }
        for number, probe in enumerate(probes)
    ]


def summary(found: Findings, test: ScoredExamples, *, seed: int) -> dict[str, Metric]:
    """Return a version's metrics with intervals from a bootstrap over prompts."""
    answers, scores = found.answers, found.scores

    def averaged(values: Sequence[Sequence[float]]) -> Metric:
        return mean_over_prompts(values, seed=seed)

    texts = [answer.text for group in answers for answer in group]
    ups = [[answer.up for answer in group if answer.up is not None] for group in answers]
    labels = [example.label for example in test.examples]
    return {
        "finished": averaged([[float(a.finish_reason == "stop") for a in g] for g in answers]),
        "words": averaged([[float(a.words) for a in group] for group in answers]),
        "repetition": averaged([[float(a.repeats) for a in group] for group in answers]),
        "relevance": averaged([[a.relevance for a in group] for group in answers]),
        "refusal": averaged([[float(a.refusal) for a in group] for group in answers]),
        # an interval would mislead: a resample repeats prompts, and so bigrams
        "distinct": Metric(distinct_bigrams(texts), None, None, len(texts)),
        "tokens": averaged([[float(a.tokens) for a in group] for group in answers]),
        **({"up": averaged(ups)} if any(ups) else {}),
        # every reward of the base is 0, which ranks at random
        "ranking": Metric(0.5, None, None, len(labels))
        if found.is_base
        else ranking(scores.rewards, labels, test.prompts, seed=seed),
        "kl_per_token": mean(scores.kl, seed=seed),
        "neutral_logprob": mean(scores.neutral, seed=seed),
        "sycophancy": mean(scores.sycophancy, seed=seed),
    }


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report so that it is complete whenever it exists. Raises OSError."""
    partial = path.with_suffix(".partial")
    text = json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False)
    partial.write_text(text, encoding="utf-8")
    fsync(partial)
    partial.rename(path)
