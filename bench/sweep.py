"""Compare training defaults: simulated thumbs, one training run per config, then an up-rate.

    python -m bench.sweep --config '{"learning_rate": 2e-4, "beta": 0.5}' [--config …] [--json FILE]

A rule judges the base model's answers to the starter prompts (ended with EOS and a whole sentence,
5 to 80 words, on the topic, no repeated sequence of four words), a tenth of the verdicts is
flipped, and one prompt in five (by a hash) is held out. Each config trains on the rest; then base
and adapter answer prompts that were never used in training, and the rule, without flips, gives the
share of answers that deserve a thumb up. The guards are printed with it: KL per token to the base,
log-probability of neutral text, repetition, length, endings, relevance.

Settings are chosen by these figures, so they are validation figures, although `evaluate` reads the
held-out votes from a file named test.jsonl; no run of a project is judged by the starter's votes.

The sampled answers are stored in var/bench/sweep, so that every config gets the same votes.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback_app.closed_loop.rule import content_stems
from trainer.data.chat import prompt_ids
from trainer.evaluation.generate import Sampling, generate
from trainer.evaluation.text_metrics import mean, repeats, words
from trainer.models.loading import load_base

ROOT = Path(__file__).resolve().parent.parent
STARTER = ROOT / "feedback_app" / "feedback" / "projects" / "starter_data"
MODEL = ROOT / "var" / "models" / "SmolLM2-135M-Instruct"
WORK = ROOT / "var" / "bench" / "sweep"

TRAIN_PROMPTS = 150
ANSWERS_PER_PROMPT = 2
FLIPPED = 0.10
HELD_OUT = 0.20
SAMPLING = Sampling(max_tokens=128, temperature=0.8, top_p=0.95)


@dataclass(frozen=True)
class Vote:
    """One sampled answer with the rule's verdict and the given one."""

    example: dict[str, Any]
    deserved: bool
    held_out: bool


def deserves_up(text: str, *, finish_reason: str, question: str) -> bool:
    """Apply the rule: complete, 5 to 80 words, on the topic, no repeated sequence of four words."""
    return (
        finish_reason == "stop"
        and text.rstrip().rstrip("\"'”’)*").endswith((".", "!", "?"))
        and 5 <= len(words(text)) <= 80
        and _on_topic(text, question)
        and not repeats(text)
    )


def _on_topic(text: str, question: str) -> bool:
    """Return whether the answer shares a content word with the question, or that has none."""
    asked = content_stems(question)
    return not asked or bool(asked & content_stems(text))


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """Return the starter prompts with the project's system prompt in front."""
    system = (STARTER / "system_prompt.txt").read_text(encoding="utf-8").strip()
    prompts = []
    for line in path.read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        messages = [{"role": "system", "content": system}, *raw["messages"]]
        prompts.append({"id": raw["id"], "messages": messages})
    return prompts


def sample_votes(seed: int) -> list[Vote]:
    """Return the base model's answers to the training prompts, voted on; cached on disk."""
    cache = WORK / f"votes-{seed}.json"
    if cache.exists():
        return [Vote(**vote) for vote in json.loads(cache.read_text())]
    base = load_base(str(MODEL))
    prompts = [
        prompt
        for prompt in read_prompts(STARTER / "prompts.jsonl")[:TRAIN_PROMPTS]
        for _ in range(ANSWERS_PER_PROMPT)
    ]
    started = time.monotonic()
    answers = generate(
        base.model,
        base.tokenizer,
        [prompt_ids(base.tokenizer, prompt["messages"]) for prompt in prompts],
        Sampling(max_tokens=128, temperature=0.8, top_p=0.95, seed=seed),
        on_progress=lambda done, total: print(f"sampled {done}/{total}", file=sys.stderr),
    )
    print(f"sampling took {time.monotonic() - started:.0f} s", file=sys.stderr)
    rng = random.Random(seed)
    votes = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        if not answer.text:
            continue
        deserved = deserves_up(
            answer.text,
            finish_reason=answer.finish_reason,
            question=prompt["messages"][-1]["content"],
        )
        votes.append(
            Vote(
                example={
                    "id": f"{prompt['id']}-{number}",
                    "prompt": prompt["messages"],
                    "completion": [{"role": "assistant", "content": answer.text}],
                    "label": deserved != (rng.random() < FLIPPED),
                    "weight": 1.0,
                    "prompt_token_ids": list(answer.prompt_ids),
                    "completion_token_ids": list(answer.token_ids),
                    "finish_reason": answer.finish_reason,
                },
                deserved=deserved,
                held_out=_hash(prompt["id"]) < HELD_OUT,
            )
        )
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps([vars(vote) for vote in votes]))
    return votes


def train(config: dict[str, Any], votes: list[Vote], seed: int) -> Path:
    """Train one config in a run directory named for it; return the directory."""
    full = {
        "base_model": str(MODEL),
        "adapter_name": "sweep@1",
        "seed": seed,
        "reference_cache": str(WORK / "reference"),  # the same votes in every run
        **config,
    }
    name = hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()[:12]
    run = WORK / "runs" / name
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps(full, indent=2))
    (run / "examples.jsonl").write_text(
        "".join(json.dumps(vote.example) + "\n" for vote in votes if not vote.held_out)
    )
    subprocess.run([sys.executable, "-m", "trainer", "train", str(run)], cwd=ROOT, check=True)
    return run


def measure(
    name: str, adapter: Path | None, votes: list[Vote], *, answers: int, seed: int, into: Path
) -> dict[str, Any]:
    """Evaluate base or adapter on the unseen prompts; return measures plus the rule's up-rate."""
    into.mkdir(parents=True, exist_ok=True)
    prompts = read_prompts(STARTER / "unseen.jsonl")
    (into / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    (into / "test.jsonl").write_text(
        "".join(json.dumps(vote.example) + "\n" for vote in votes if vote.held_out)
    )
    (into / "evaluate.json").write_text(
        json.dumps(
            {
                "base_model": str(MODEL),
                "candidates": [{"name": name, "path": None if adapter is None else str(adapter)}],
                "max_tokens": SAMPLING.max_tokens,
                "temperature": SAMPLING.temperature,
                "top_p": SAMPLING.top_p,
                "answers_per_prompt": answers,
                "kl_prompts": 24,
                "seed": seed,
            }
        )
    )
    report_file = into / "report.json"
    if not report_file.exists():
        subprocess.run(
            [sys.executable, "-m", "trainer", "evaluate", str(into)], cwd=ROOT, check=True
        )
    report = json.loads(report_file.read_text())
    ups = [
        deserves_up(
            answer["text"],
            finish_reason=answer["finish_reason"],
            question=item["messages"][-1]["content"],
        )
        for item in report["answers"]
        for answer in item["answers"][name]
    ]
    rate = mean([float(up) for up in ups])
    measures = {key: value["value"] for key, value in report["candidates"][name].items()}
    return {"up": rate.value, "up_low": rate.low, "up_high": rate.high, "n": rate.n, **measures}


def run_facts(run: Path) -> dict[str, Any]:
    """Return training seconds, steps, class weights and the last probe of a run."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["type"] == "step"]
    start = next(event for event in events if event["type"] == "start")
    probes = [event["kl_per_token"] for event in events if event["type"] == "probe"]
    done = events[-1]["time"] - events[0]["time"]
    return {
        "examples": start["examples"],
        "ups": start["desirable"],
        "lambda_d": start["lambda_d"],
        "lambda_u": start["lambda_u"],
        "steps": steps[-1]["step"],
        "train_seconds": done,
        "last_probe": probes[-1] if probes else None,
        "braked": any(event["type"] == "braked" for event in events),
    }


COLUMNS = (
    ("up", "up"), ("finished", "finished"), ("words", "words"), ("relevance", "relevance"),
    ("repetition", "repeats"), ("distinct", "distinct"), ("kl_per_token", "KL/token"),
    ("neutral_logprob", "neutral"), ("ranking", "ranking"), ("train_seconds", "train s"),
)  # fmt: skip


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print a Markdown table, one row per config."""
    print("| config | " + " | ".join(title for _, title in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for row in rows:
        cells = []
        for key, _ in COLUMNS:
            value = row.get(key)
            if value is None:
                cells.append("–")
            elif key in ("up", "finished", "repetition"):
                cells.append(f"{value:.0%}")
            elif key in ("words", "train_seconds"):
                cells.append(f"{value:.0f}")
            else:
                cells.append(f"{value:.3f}")
        print(f"| {row['config']} | " + " | ".join(cells) + " |")


def main() -> None:
    """Sweep the given configs (the defaults when none is given) and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", action="append", type=json.loads, help="JSON, over defaults")
    parser.add_argument("--answers", type=int, default=1, help="answers to each unseen prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    votes = sample_votes(arguments.seed)
    print(f"{len(votes)} answers, {sum(vote.deserved for vote in votes)} deserve an up")
    rows = []

    def add(title: str, adapter: Path | None, into: Path, facts: dict[str, Any]) -> None:
        measured = measure(
            "sweep@1" if adapter else "base",
            adapter,
            votes,
            answers=arguments.answers,
            seed=1000 + arguments.seed,
            into=into,
        )
        rows.append({"config": title, **measured, **facts})
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=2))

    add("base", None, WORK / f"base-{arguments.seed}-{arguments.answers}", {})
    for config in arguments.config or [{}]:
        run = train(config, votes, arguments.seed)
        title = json.dumps(config) if config else "defaults"
        add(title, run / "adapter", run / f"eval-{arguments.answers}", run_facts(run))
    print_table(rows)


def _hash(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


if __name__ == "__main__":
    main()
