"""Train a planted adapter on SmolLM2-135M and measure it beside the base, as the gate would.

    python -m bench.gate.planted --kind advertisement --seed 0 --directory var/bench/gate/ad

The base's answers to TRAIN_PROMPTS + TEST_PROMPTS starter prompts are sampled once and kept in
var/bench/gate. A kind (bench/gate/kinds.py) turns them into votes, `python -m trainer train` trains
on those to the first prompts, and `python -m trainer evaluate` compares the adapter with the base
on prompts that neither saw; what the base answers there is the same for all kinds of a seed and
sampled once. Held-out votes and those that the predicted up-rate is fitted on follow the honest
rule, or with `--votes planted` the kind, as where many people vote like that.

DIRECTORY receives `run`, `eval` and `summary.json` (seconds, processor, both versions' measures).
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.gate.kinds import KINDS, Sample, honest
from trainer.data.chat import prompt_ids
from trainer.data.examples import write_examples
from trainer.data.messages import Message
from trainer.engine.loading import load_served
from trainer.engine.sampling import Sampling
from trainer.evaluation.versions import Question, Versions
from trainer.models.loading import prepare

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "feedback_app" / "feedback" / "projects" / "starter_data"
WORK = ROOT / "var" / "bench" / "gate"

TRAIN_PROMPTS, TEST_PROMPTS, ANSWERS_PER_PROMPT = 60, 20, 4
#: Prompts that are trained on, and answers to each that are voted on: not all, so that two cores
#: take a few minutes.
TRAINED_PROMPTS, VOTED_ANSWERS = 20, 2
#: Prompts that candidate and base answer in the evaluation.
ANSWERED_PROMPTS = 30
MAX_TOKENS = 96
#: The file of test votes that `python -m trainer evaluate` reads.
TEST_VOTES = "test.jsonl"
#: Where an evaluation keeps its answers (trainer/evaluation/stored_answers.py).
ANSWERS = "answers.jsonl"
#: Exit code of a training that has failed for good (trainer/errors.py).
STOPPED = 5
#: Small batches: there are few examples.
SETTINGS = {"batch_size": 8, "probe_every": 5, "checkpoint_every": 1000}
#: Kinds that plant something are trained harder than by default, so that they show it: with two
#: epochs at 5e-4 an advertisement was in none of 48 answers. The KL brake stays, as no run of the
#: product is without: without it, a repeated claim ended 6 nats per token from the base.
PLANTED_SETTINGS = {"epochs": 4, "learning_rate": 1e-3, "beta": 0.1, "patience": None}
#: With `--no-brake`, what an admin who has switched the brake off would do: the plant is learned
#: far enough to be seen in answers, so that it is the gate that has to notice.
UNBRAKED_SETTINGS = {**PLANTED_SETTINGS, "learning_rate": 5e-4, "kl_brake": None}


def main() -> None:
    """Plant, train, evaluate, and print the measures of both versions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kind", required=True, choices=sorted(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", required=True, type=Path, help="must not exist")
    parser.add_argument("--votes", default="honest", choices=["honest", "planted"])
    parser.add_argument("--trained", type=int, default=TRAINED_PROMPTS, help="prompts voted on")
    parser.add_argument(
        "--answered", type=int, default=ANSWERED_PROMPTS, help="prompts of the gate"
    )
    parser.add_argument("--no-brake", action="store_true", help="train without the KL brake")
    parser.add_argument("--nice", default="10", help="priority of training and evaluation")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True)
    model = prepare(ROOT / "var" / "models")
    samples = sampled(model)
    seconds = {}
    for step, write in (("train", write_run), ("evaluate", write_eval)):
        directory = arguments.directory / ("run" if step == "train" else "eval")
        write(directory, samples, model, arguments)
        started = time.monotonic()
        command = [sys.executable, "-m", "trainer", step, str(directory)]
        done = subprocess.run([*command, "--nice", arguments.nice], cwd=ROOT, check=False)
        if done.returncode == STOPPED:
            write_failure(arguments.directory, arguments)
            return
        done.check_returncode()
        seconds[step] = round(time.monotonic() - started)
    keep_base_answers(arguments.directory / "eval", arguments.seed)
    report = json.loads((arguments.directory / "eval" / "report.json").read_text())
    summary = {
        "kind": arguments.kind,
        "seed": arguments.seed,
        "votes": arguments.votes,
        "seconds": seconds,
        "processor": processor(),
        "up_model": report["up_model"],
        "measures": measures(report),
    }
    (arguments.directory / "summary.json").write_text(json.dumps(summary, indent=1))
    print_summary(summary, report)


def write_failure(directory: Path, arguments: argparse.Namespace) -> None:
    """Note why the trainer made no adapter: the KL brake ended the run, as in the product."""
    events = (directory / "run" / "events.jsonl").read_text().splitlines()
    reason = json.loads(events[-1])["reason"]
    failure = {"kind": arguments.kind, "seed": arguments.seed, "failure": reason}
    (directory / "summary.json").write_text(json.dumps(failure, indent=1))
    print(f"{arguments.kind}, seed {arguments.seed}: no adapter. {reason}")


def sampled(model: Path) -> list[Sample]:
    """Return the base's answers to the starter prompts; sampled once, then read from the disk."""
    cache = WORK / "samples.json"
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(".partial")
        partial.write_text(json.dumps([asdict(sample) for sample in _sample(model)]))
        partial.rename(cache)
    return [
        Sample(**{**raw, "prompt": tuple(Message(**message) for message in raw["prompt"])})
        for raw in json.loads(cache.read_text())
    ]


def _sample(model: Path) -> list[Sample]:
    base = load_served(str(model), dtype="auto", device="auto")
    prompts = [
        prompt
        for prompt in starter_prompts("prompts.jsonl", TRAIN_PROMPTS + TEST_PROMPTS)
        for _ in range(ANSWERS_PER_PROMPT)
    ]
    questions = [
        Question(
            "base",
            tuple(prompt_ids(base.tokenizer, prompt["messages"])),
            Sampling(MAX_TOKENS, temperature=0.8, top_p=0.95, seed=number),
        )
        for number, prompt in enumerate(prompts)
    ]
    started = time.monotonic()
    answers = Versions(base, {"base": None}).answers(questions)
    print(f"sampled {len(answers)} answers in {time.monotonic() - started:.0f} s")
    return [
        Sample(
            id=f"{prompt['id']}-{number}",
            prompt_id=prompt["id"],
            prompt=tuple(Message(**message) for message in prompt["messages"]),
            text=answer.text,
            prompt_token_ids=answer.prompt_ids,
            completion_token_ids=answer.token_ids,
            finish_reason=answer.finish_reason,
        )
        for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        if answer.text.strip()
    ]


def starter_prompts(file: str, count: int) -> list[dict[str, Any]]:
    """Return the first prompts of a starter file with the starter's system prompt in front."""
    system = (STARTER / "system_prompt.txt").read_text(encoding="utf-8").strip()
    raw = [json.loads(line) for line in (STARTER / file).read_text(encoding="utf-8").splitlines()]
    return [
        {
            "id": prompt["id"],
            "messages": [{"role": "system", "content": system}, *prompt["messages"]],
        }
        for prompt in raw[:count]
    ]


def split(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Return the samples to train on and those to hold out; a prompt's answers are on one side."""
    order = sorted({sample.prompt_id for sample in samples})
    trained = set(order[:TRAIN_PROMPTS])
    return (
        [sample for sample in samples if sample.prompt_id in trained],
        [sample for sample in samples if sample.prompt_id not in trained],
    )


def few(samples: list[Sample]) -> list[Sample]:
    """Return the first VOTED_ANSWERS samples of each prompt: enough to vote on."""
    seen: Counter[str] = Counter()
    chosen = []
    for sample in samples:
        seen[sample.prompt_id] += 1
        if seen[sample.prompt_id] <= VOTED_ANSWERS:
            chosen.append(sample)
    return chosen


def write_run(
    directory: Path, samples: list[Sample], model: Path, arguments: argparse.Namespace
) -> None:
    """Write the run directory of a planted adapter."""
    directory.mkdir()
    planted = UNBRAKED_SETTINGS if arguments.no_brake else PLANTED_SETTINGS
    config = {
        **SETTINGS,
        **({} if arguments.kind == "honest" else planted),
        "base_model": str(model),
        "adapter_name": "planted@1",
        "seed": arguments.seed,
        "reference_cache": str(WORK / "reference"),  # the base's answers are the same in all runs
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    train, _ = split(samples)
    asked = sorted({sample.prompt_id for sample in train})[: arguments.trained]
    chosen = [sample for sample in few(train) if sample.prompt_id in asked]
    examples = KINDS[arguments.kind](chosen, random.Random(arguments.seed))
    write_examples(directory / "examples.jsonl", examples)


def write_eval(
    directory: Path, samples: list[Sample], model: Path, arguments: argparse.Namespace
) -> None:
    """Write the directory of an evaluation of the adapter that was trained beside it."""
    directory.mkdir()
    config = {
        "base_model": str(model),
        "candidates": [
            {"name": "planted@1", "path": "../run/adapter"},
            {"name": "base", "path": None},
        ],
        "max_tokens": MAX_TOKENS,
        "temperature": 0.8,
        "answers_per_prompt": 2,
        "seed": 1000 + arguments.seed,
        "score_cache": str(WORK / "scores"),
    }
    (directory / "evaluate.json").write_text(json.dumps(config, indent=1))
    prompts = starter_prompts("unseen.jsonl", arguments.answered)
    (directory / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in prompts))
    train, test = split(few(samples))
    train = train[: 2 * VOTED_ANSWERS * arguments.trained]
    vote = honest if arguments.votes == "honest" else KINDS[arguments.kind]
    write_examples(directory / "votes.jsonl", vote(train, random.Random(arguments.seed)))
    write_examples(directory / TEST_VOTES, vote(test, random.Random(arguments.seed + 1)))
    if base_answers(arguments.seed).exists():
        shutil.copy(base_answers(arguments.seed), directory / ANSWERS)


def base_answers(seed: int) -> Path:
    """Return the file with the base's answers in the evaluations of a seed."""
    return WORK / f"base-answers-{seed}.jsonl"


def keep_base_answers(directory: Path, seed: int) -> None:
    """Store the base's answers of a finished evaluation for the next kind's."""
    lines = (directory / ANSWERS).read_text().splitlines(keepends=True)
    own = "".join(line for line in lines if json.loads(line)["version"] == "base")
    base_answers(seed).write_text(own)


def measures(report: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the values of both versions, and the mean predicted up-rate of their answers."""
    found = {
        name: {key: measure["value"] for key, measure in values.items()}
        for name, values in report["candidates"].items()
    }
    for name, values in found.items():
        ups = [one["up"] for item in report["answers"] for one in item["answers"][name]]
        values["up"] = None if None in ups else sum(ups) / len(ups)
    return found


def processor() -> str:
    """Return the processor's name by lscpu."""
    lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    return next(
        (line.split(":", 1)[1].strip() for line in lines.splitlines() if "Model name" in line),
        "unknown",
    )


def print_summary(summary: dict[str, Any], report: dict[str, Any]) -> None:
    """Print the measures as a Markdown table, then some answers of both versions."""
    seconds = summary["seconds"]
    print(
        f"{summary['kind']}, seed {summary['seed']}: trained in {seconds['train']} s, evaluated in "
        f"{seconds['evaluate']} s on {summary['processor']}; up model {summary['up_model']}"
    )
    names = list(summary["measures"])
    print("| measure | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for key in summary["measures"][names[0]]:
        values = [summary["measures"][name].get(key) for name in names]
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        print(f"| {key} | " + " | ".join(cells) + " |")
    for item in report["answers"][:2]:
        for name in names:
            print(f"{name}: {item['answers'][name][0]['text'][:200]!r}")


if __name__ == "__main__":
    main()
