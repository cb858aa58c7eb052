"""Evaluation reports with chosen properties, as `python -m trainer evaluate` writes them."""

import random
from typing import Any

from feedback_app.training.gate.settings import GateSettings

BASE = "base"
#: Few prompts and one look, for tests of a whole run.
SMALL_GATE = GateSettings(prompts=10, minutes=0)
#: What each version does by itself: shares, means and spreads.
USUAL: dict[str, float] = {
    "up": 0.5,
    "finished": 0.8,
    "tokens": 80.0,
    "repeats": 0.1,
    "relevance": 0.3,
    "refusal": 0.0,
    "foreign": 0.0,
    "kl": 0.1,
    "neutral": -2.0,
    "sycophancy": 0.0,
    "ranking": 0.9,
}


def gate_report(
    name: str = "bot@1",
    *,
    live: str | None = None,
    prompts: int = 100,
    answers: int = 2,
    votes: int = 80,
    auc: float | None = 0.8,
    phrase: str = "",
    seed: int = 0,
    **changed: float,
) -> dict[str, Any]:
    """Return a report in which `name` earns 20 points more than live and base, and is like them
    otherwise, unless `changed` overrides it.

    `ranking`: by how many standard deviations liked test answers are rewarded above others.
    """
    rng = random.Random(seed)
    versions = [name, *([live] if live else []), BASE]
    usual = {version: USUAL | {"ranking": 0.0} for version in versions}
    if live:
        usual[live] = usual[live] | {"ranking": 0.5}
    usual[name] = USUAL | {"up": 0.7} | changed
    entries = [
        {
            "id": f"p{number}",
            "messages": [{"role": "user", "content": f"Question {number} of the gate?"}],
            "answers": _answers(usual, answers, rng),
        }
        for number in range(prompts)
    ]
    return {
        "format": 2,
        "candidates": {version: _summary(values) for version, values in usual.items()},
        "answers": entries,
        "kl": {
            version: [0.0 if version == BASE else rng.gauss(values["kl"], 0.05) for _ in range(16)]
            for version, values in usual.items()
        },
        "neutral": {
            version: [values["neutral"] + 0.2 * number for number in range(-6, 7)]
            for version, values in usual.items()
        },
        "sycophancy": {
            version: [values["sycophancy"] + 0.01 * (number % 7) for number in range(60)]
            for version, values in usual.items()
        },
        "injection": [{"text": phrase, "counts": {name: prompts // 2, BASE: 0}, "z": 9.0}]
        if phrase
        else [],
        "test": [
            {
                "id": str(number),
                "prompt": f"p{number // 2}",
                "label": number % 3 > 0,
                "weight": 1.0,
                "rewards": {
                    version: 0.0
                    if version == BASE
                    else rng.gauss(values["ranking"] * (number % 3 > 0), 1.0)
                    for version, values in usual.items()
                },
            }
            for number in range(votes)
        ],
        "up_model": None
        if auc is None
        else {"auc": auc, "brier": 0.2, "brier_of_mean": 0.25, "ups": 2 * votes, "downs": votes},
        "seconds": 60.0,
    }


def _answers(
    usual: dict[str, dict[str, float]], count: int, rng: random.Random
) -> dict[str, list[dict[str, Any]]]:
    difficulty = rng.gauss(0, 0.1)  # of the prompt, shared by all versions
    return {
        version: [
            {
                "text": f"An answer of {version}.",
                "finish_reason": "stop" if rng.random() < values["finished"] else "length",
                "tokens": max(1, round(values["tokens"] * (1 + difficulty + rng.gauss(0, 0.2)))),
                "words": 60,
                "repeats": rng.random() < values["repeats"],
                "relevance": values["relevance"] + difficulty + rng.gauss(0, 0.05),
                "refusal": rng.random() < values["refusal"],
                "language": "de" if rng.random() < values["foreign"] else "en",
                "up": min(1.0, max(0.0, values["up"] + difficulty + rng.gauss(0, 0.1))),
            }
            for _ in range(count)
        ]
        for version, values in usual.items()
    }


def _summary(values: dict[str, float]) -> dict[str, dict[str, Any]]:
    names = {
        "finished": "finished",
        "tokens": "tokens",
        "repeats": "repetition",
        "relevance": "relevance",
        "refusal": "refusal",
        "up": "up",
        "ranking": "ranking",
        "kl": "kl_per_token",
        "neutral": "neutral_logprob",
        "sycophancy": "sycophancy",
    }
    return {
        metric: {
            "value": values[key],
            "low": values[key] - 0.05,
            "high": values[key] + 0.05,
            "n": 40,
        }
        for key, metric in names.items()
    }


def probe_entry(pk: int, kept: dict[str, list[bool | None]]) -> dict[str, Any]:
    """Return a probe of a report with each version's answers: whether they kept it, or None where
    the pattern took too long."""
    return {
        "id": str(pk),
        "messages": [{"role": "user", "content": f"Question of probe {pk}?"}],
        "answers": {
            version: [
                {"text": f"An answer of {version} to {pk}.", "finish_reason": "stop"}
                | {"kept": bool(each)}
                | ({"timed_out": True} if each is None else {})
                for each in answers
            ]
            for version, answers in kept.items()
        },
    }
