"""A judge model's part of an evaluation: its agreement with people, then its preferences."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from heapq import nsmallest
from typing import Any

from django.db.models import Count, Q

from feedback_app.feedback.models import BASE_VERSION, Split
from feedback_app.feedback.prompts.tools import tools_text, with_tools
from feedback_app.training.gate.evaluation import (
    JUDGE_FILE,
    evaluation_directory,
    evaluation_read,
    place,
)
from feedback_app.training.gate.judge.agreement import Agreement, agreement, counts, preference
from feedback_app.training.gate.judge.interview import AT_ONCE, Interview, JudgeDown
from feedback_app.training.gate.judge.questions import Pair
from feedback_app.training.gate.judge.services import judge_client, judge_of
from feedback_app.training.gate.primary import MOST_JUDGED
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import Run, SnapshotItem
from feedback_app.training.snapshots.files import context
from feedback_app.web.errors import UserError
from feedback_app.web.text.reasoning import answer_of

#: Pairs of a liked and a disliked answer that agreement is measured on, one a prompt.
MOST_PAIRS = 60
ANSWERS_FILE = "judge.jsonl"
#: Requests that are under way when the time is over are stopped, not timed out.
GRACE_SECONDS = 60.0


@dataclass
class JudgeReport:
    """What the report of an evaluation says of a judge (report.json, key "judge").

    `prompts` maps prompt ids to 1 (the candidate was preferred in both orders), 0 (live was) or
    0.5; `failures` counts prompts without a valid answer. `late`: the time was over before all
    prompts were asked. `error`: why the judge does not count, or "".
    """

    model: str = ""
    kappa: float | None = None
    kappa_low: float | None = None
    kappa_high: float | None = None
    pairs: int = 0
    prompts: dict[str, float] = field(default_factory=dict)
    failures: int = 0
    late: bool = False
    error: str = ""

    def agreement_set(self, found: Agreement) -> None:
        self.kappa, self.kappa_low, self.kappa_high = found.kappa, found.low, found.high
        self.pairs = found.pairs


def judge_evaluate(
    *,
    run: Run,
    settings: GateSettings,
    seconds: float,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Ask the project's judge about the answers of the last evaluation, for `seconds` at most.

    Writes JUDGE_FILE, whatever happens, and returns what went wrong or "". Questions that were
    answered earlier are not asked again. Raises interview.Interrupted if `stopped` says so.
    """
    found = JudgeReport()
    judge = judge_of(run.project)
    if judge is None:
        found.error = "none is set up"
    else:
        found.model = judge.model
        try:
            with judge_client(
                judge, seconds=seconds + GRACE_SECONDS, connections=AT_ONCE
            ) as client:
                interview = Interview(
                    client,
                    evaluation_directory(run) / ANSWERS_FILE,
                    until=time.monotonic() + seconds,
                    stopped=stopped,
                    progress=progress,
                )
                _interview(run, settings, interview, found)
        except (UserError, JudgeDown) as error:
            found.error = str(error).removesuffix(".")
    path = evaluation_directory(run) / JUDGE_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(found)))
    partial.replace(path)
    return found.error


def _interview(run: Run, settings: GateSettings, interview: Interview, found: JudgeReport) -> None:
    votes = interview.choices(vote_pairs(run))
    found.agreement_set(agreement(list(votes.values())))
    found.late = interview.late
    if not counts(found.kappa, found.kappa_low, settings.minimum_kappa):
        return  # its preferences would not count
    pairs = answer_pairs(evaluation_read(run), candidate=run.project.adapter_name(run.number))
    for key, chosen in interview.choices(pairs).items():
        value = preference(chosen)
        if value is None:
            found.failures += 1
        else:
            found.prompts[key] = value
    found.late = interview.late


def answer_pairs(report: Mapping[str, Any], *, candidate: str) -> list[Pair]:
    """Return the first answers of candidate and live (the base if there is none) to each prompt,
    without their reasoning, which the evaluation has separated."""
    others = [name for name in report["candidates"] if name not in (candidate, BASE_VERSION)]
    live = others[0] if others else BASE_VERSION
    return [
        Pair(
            entry["id"],
            _asked(entry),
            entry["answers"][candidate][0]["text"],
            entry["answers"][live][0]["text"],
        )
        for entry in report["answers"][:MOST_JUDGED]
    ]


def _asked(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a prompt's messages, definitions of tools with the first one after the system's."""
    messages = list(entry["messages"])
    head = [message for message in messages[:1] if message["role"] == "system"]
    return [*head, *with_tools(messages[len(head) :], tools_text(entry.get("tools")))]


def vote_pairs(run: Run) -> list[Pair]:
    """Return a liked and a disliked answer to each of up to MOST_PAIRS prompts of the training and
    validation splits, drawn by the run's seed."""
    seed = int(run.config.get("seed", 0))
    items = run.snapshot.items.filter(split__in=[Split.TRAIN, Split.VALIDATION])
    both = (
        items.order_by()
        .values("completion__prompt")
        .annotate(
            ups=Count("pk", filter=Q(desirable=True)), downs=Count("pk", filter=Q(desirable=False))
        )
        .filter(ups__gt=0, downs__gt=0)
        .values_list("completion__prompt", flat=True)
    )
    prompts = nsmallest(
        MOST_PAIRS, both.iterator(chunk_size=10_000), key=lambda pk: place(str(pk), seed)
    )
    by_prompt: dict[int, list[SnapshotItem]] = {pk: [] for pk in prompts}
    rows = items.filter(completion__prompt__in=prompts).select_related("completion__prompt")
    for item in rows.order_by("completion_id"):
        by_prompt[item.completion.prompt_id].append(item)
    pairs = (_vote_pair(str(pk), of_prompt, seed) for pk, of_prompt in by_prompt.items())
    # people disagreed about one text: nobody can choose between it and itself
    return [pair for pair in pairs if not pair.equal]


def _vote_pair(key: str, items: Iterable[SnapshotItem], seed: int) -> Pair:
    items = sorted(items, key=lambda item: place(f"{item.completion_id}", seed))
    liked = next(item for item in items if item.desirable).completion
    disliked = next(item for item in items if not item.desirable).completion
    return Pair(key, context(liked), answer_of(liked.text), answer_of(disliked.text))
