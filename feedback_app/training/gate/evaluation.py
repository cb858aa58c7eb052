"""The input of a gate's evaluation, and how much is sampled.

The first look takes a fixed number of prompts. If rules are undecided then and time is left, a
second look takes as many more as they need, once: each further look would raise the chance of a
wrong verdict (results.LEVEL).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from heapq import nsmallest
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings

from feedback_app.artifacts import artifact_store
from feedback_app.feedback.models import BASE_VERSION, Project, Split
from feedback_app.feedback.prompts.tools import tools_fields, without_tools
from feedback_app.training.gate.probes import probes_judged
from feedback_app.training.gate.rules import GateResult
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import GateOutcome, Run
from feedback_app.training.snapshots.files import as_line, items_of

#: The folder of a run's directory with what the gate writes of its version.
EVALUATION = "evaluation"
#: Answers per prompt and version at the first look, and at most.
ANSWERS, MOST_ANSWERS = 2, 6
#: Rules that look at one answer to each prompt: more of them change nothing.
ONE_ANSWER = {"people", "judge", "kl"}
#: Prompts that a version's distance to the base is estimated on at the first look, one answer each.
KL_PROMPTS = 16
#: Votes that are scored; a fixed sample of more: they cost a forward pass each, for every version.
VOTES_SCORED = 1_000
MOST_PROMPTS = 400
#: The examples that the gate scores versions on. No other file holds the test split.
TEST_FILE = "test.jsonl"
#: What it asks, and the votes that it predicts up-rates from.
PROMPTS_FILE, PROBES_FILE, VOTES_FILE = "prompts.jsonl", "probes.jsonl", "votes.jsonl"
#: What evaluations have computed of versions whose weights are the same (trainer: score_cache).
SCORES = "scores"
#: What a judge model said of the answers (judge/evaluation.py).
JUDGE_FILE = "judge.json"


@dataclass(frozen=True)
class Look:
    """How much an evaluation samples: prompts, answers of each version to a prompt, and prompts of
    the distance to the base."""

    prompts: int
    answers: int = ANSWERS
    kl: int = KL_PROMPTS


def first_look(settings: GateSettings) -> Look:
    return Look(settings.prompts)


def second_look(
    look: Look, result: GateResult, settings: GateSettings, *, seconds: float, available: int
) -> Look | None:
    """Return a larger look if that can decide what the first one, of `seconds`, left open.

    More prompts come first; where there are no more, more answers to each.
    """
    open_rules = [
        rule
        for rule in result.rules
        if rule.outcome == GateOutcome.UNDECIDED and rule.counted == "prompts" and rule.needed
    ]
    failed = any(rule.outcome == GateOutcome.FAILED for rule in result.rules)
    left = settings.minutes * 60 - seconds
    if failed or not open_rules or left <= 0:
        return None
    needed = {rule.key: rule.needed or 0 for rule in open_rules}
    affordable = int(look.prompts * (1 + left / max(seconds, 1.0)))
    prompts = min(max(needed.values()), available, affordable, MOST_PROMPTS)
    if prompts > look.prompts:
        return replace(look, prompts=prompts, kl=_kl_prompts(look, needed, prompts))
    asked = min(look.prompts, available)
    kl = _kl_prompts(look, needed, asked)
    answers = look.answers
    if needed.keys() - ONE_ANSWER:
        answers = max(answers, min(MOST_ANSWERS, look.answers * affordable // max(asked, 1)))
    more = Look(asked, answers, kl)
    return more if (answers, kl) > (look.answers, look.kl) else None


def _kl_prompts(look: Look, needed: Mapping[str, int], prompts: int) -> int:
    """Return on how many of the prompts the distance to the base is estimated next."""
    return max(look.kl, min(needed.get("kl", 0), prompts))


def evaluation_directory(run: Run) -> Path:
    return run.directory / EVALUATION


def evaluation_ids(run: Run, name: str) -> list[str]:
    """Return the ids in a file of the last evaluation; none if there is no such file."""
    return [json.loads(line)["id"] for line in _lines(evaluation_directory(run) / name)]


def evaluation_read(run: Run) -> dict[str, Any]:
    """Return the report of the last evaluation, with the outcome of the probes and the judge
    model's part if it was asked. For workers."""
    text = (evaluation_directory(run) / "report.json").read_text()
    # PostgreSQL stores no NUL, which a model may generate
    report: dict[str, Any] = json.loads(text.replace("\\u0000", "\\ufffd"))
    judged = evaluation_directory(run) / JUDGE_FILE
    if judged.exists():
        report["judge"] = json.loads(judged.read_text())
    return probes_judged(run.project, report)


def evaluation_write(run: Run, look: Look, *, base_model: str) -> Path:
    """Write the input of the comparison of new, live and base on the test split; returns its
    directory. The same rows give the same files, so it can be repeated."""
    directory = evaluation_directory(run)
    directory.mkdir(exist_ok=True)
    # of the look before, or of rules that were changed meanwhile
    (directory / JUDGE_FILE).unlink(missing_ok=True)
    project = run.project
    project.refresh_from_db(fields=["live_version"])
    candidates: list[dict[str, Any]] = [
        {"name": project.adapter_name(run.number), "path": str(run.directory / "adapter")}
    ]
    live = project.adapters.filter(name=project.live_version).first()
    # after an erasure the live version is about to be deleted: what would be left is the base
    if live is not None and run.retrains_id is None:
        candidates.append({"name": live.name, "path": str(artifact_store().fetch(live.path))})
    candidates.append({"name": BASE_VERSION, "path": None})
    seed = int(run.config.get("seed", 0))
    config = {
        "base_model": base_model,
        "candidates": candidates,
        "max_tokens": project.max_tokens,
        "temperature": project.temperature,
        "top_p": project.top_p,
        "answers_per_prompt": look.answers,
        "kl_prompts": look.kl,
        "seed": seed,
        # new, live and base are compared on the base that the run trained on
        "quantisation": run.config.get("quantisation"),
        "chat_template_kwargs": project.chat_template_kwargs,
        "reasoning": project.reasoning,
        "score_cache": str(Path(django_settings.ARTIFACT_ROOT) / SCORES),
    }
    _write(directory / "evaluate.json", [json.dumps(config, indent=1)])
    test = (
        json.dumps(as_line(item), ensure_ascii=False) for item in items_of(run.snapshot, Split.TEST)
    )
    _write(directory / TEST_FILE, _sample(test, seed))
    votes = (
        line
        for name in ("examples.jsonl", "validation.jsonl")
        for line in _lines(run.directory / name)
    )
    _write(directory / VOTES_FILE, _sample(votes, seed))
    _write(directory / PROMPTS_FILE, _prompts(project, look.prompts, seed))
    probes = list(_probes(project))
    if probes:
        _write(directory / PROBES_FILE, probes)
    else:  # an earlier attempt may have had some
        (directory / PROBES_FILE).unlink(missing_ok=True)
    return directory


def prompts_available(project: Project) -> int:
    """Return how many test prompts there are, counted up to MOST_PROMPTS."""
    return len(project.prompts.active().filter(split=Split.TEST).values_list("pk")[:MOST_PROMPTS])


def _prompts(project: Project, count: int, seed: int) -> Iterator[str]:
    """Yield test prompts, voted or not, drawn by the seed: a larger count adds to a smaller one."""
    ids = project.prompts.active().filter(split=Split.TEST).order_by().values_list("pk", flat=True)
    chosen = nsmallest(count, ids.iterator(chunk_size=10_000), key=lambda pk: place(str(pk), seed))
    prompts = project.prompts.in_bulk(chosen)
    for pk in chosen:
        yield _asked(project, pk, prompts[pk].messages)


def _probes(project: Project) -> Iterator[str]:
    """Yield the active probes' prompts."""
    for probe in project.probes.filter(retired_at=None).order_by("pk"):
        yield _asked(project, probe.pk, probe.messages)


def _asked(project: Project, pk: int, messages: list[dict[str, Any]]) -> str:
    """Return a line of a file of prompts, the project's system prompt first."""
    head = [{"role": "system", "content": project.system_prompt}] if project.system_prompt else []
    asked = [*head, *without_tools(messages)]
    return json.dumps({"id": str(pk), "messages": asked, **tools_fields(messages)})


def _sample(lines: Iterable[str], seed: int) -> Iterator[str]:
    """Yield all lines, or a sample of VOTES_SCORED of them drawn by the seed, in their order."""
    chosen = nsmallest(VOTES_SCORED, enumerate(lines), key=lambda pair: place(str(pair[0]), seed))
    return (line for _, line in sorted(chosen))


def place(key: str, seed: int) -> bytes:
    """Return a key's place in an order that the seed draws."""
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()


def _lines(path: Path) -> Iterator[str]:
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield line.rstrip("\n")


def _write(path: Path, lines: Iterable[str]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
    partial.replace(path)
