"""Version diff: a version, the one before and the base answer the project's fixed prompts.

The answers of the gate are no substitute: they are sampled, and to the prompts of one snapshot.
These use greedy decoding and always the same twenty prompts, so that any versions can be compared.
Missing answers are found from the rows, so that another worker resumes an interrupted report.

The prompts are of the validation split. Nothing is chosen by the answers automatically, but people
read them and change settings, guidelines or votes by what they see; with test prompts, that would
fit the next versions to what the gate measures them by.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from feedback_app.accounts.models import User
from feedback_app.db.claims import Claim
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.feedback.models import BASE_VERSION, Project, Prompt, Split
from feedback_app.feedback.prompts.completions import Answer, storable
from feedback_app.serving.engine import client
from feedback_app.serving.engine.batch import OnTokens, ask_each
from feedback_app.serving.engine.client import AdapterBroken, Engine, EngineError
from feedback_app.serving.engine.concurrency import ConcurrencyLimit
from feedback_app.serving.models import ChangeReport, FixedAnswer, FixedPrompt
from feedback_app.training.models import Adapter
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)

FIXED_PROMPTS = 20
#: Few at once, so that users of the engine are not slowed down.
PARALLEL = 4
MAX_ATTEMPTS = 20

ReportClaim = Claim[ChangeReport]


def conditions_of(project: Project) -> str:
    """Return a hash of what an answer depends on, besides the prompt and the version."""
    conditions = [project.base_model, project.system_prompt, project.max_tokens]
    if project.chat_template_kwargs:  # those without keep their hash
        conditions.append(json.dumps(project.chat_template_kwargs, sort_keys=True))
    return hashlib.sha256(json.dumps(conditions).encode()).hexdigest()


def prompts_fix(project: Project) -> list[FixedPrompt]:
    """Return the project's fixed prompts: the first twenty validation prompts by hash.

    While there are fewer, later prompts fill the free positions; a prompt keeps its position, also
    a test prompt that was fixed before there was a validation split. Raises UserError if there is
    no validation prompt.
    """
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        fixed = list(project.fixed_prompts.select_related("prompt"))
        if len(fixed) < FIXED_PROMPTS:
            places = sorted(set(range(FIXED_PROMPTS)) - {each.position for each in fixed})
            more = (
                project.prompts.asked()
                .filter(split=Split.VALIDATION)
                .exclude(pk__in=[each.prompt_id for each in fixed])
                .order_by("content_hash")[: len(places)]
            )
            fixed += [
                FixedPrompt.objects.create(project=project, prompt=prompt, position=place)
                for prompt, place in zip(more, places, strict=False)
            ]
    if not fixed:
        raise UserError("There is no validation prompt yet: import or add some prompts first.")
    return sorted(fixed, key=lambda each: each.position)


def version_diff_request(*, adapter: Adapter, by: User | None) -> ChangeReport:
    """Queue the version diff of an adapter.

    While it is in progress, a second request changes nothing; afterwards it requests the answers
    that are missing under the current conditions.
    """
    project = adapter.project
    prompts_fix(project)
    previous = str(adapter.gate.get("opponent") or project.live_version)
    with transaction.atomic():
        report, fresh = ChangeReport.objects.select_for_update().get_or_create(
            adapter=adapter,
            defaults={
                "previous": previous if previous != adapter.name else BASE_VERSION,
                "conditions": conditions_of(project),
                "requested_by": by,
            },
        )
        if not fresh and not report.active:
            report.status, report.error = ChangeReport.Status.QUEUED, ""
            report.attempt, report.done, report.total = 0, 0, 0
            report.conditions, report.requested_by = conditions_of(project), by
            report.save()
    return report


def adapters_without_version_diff() -> QuerySet[Adapter]:
    """Return the newest gate winner of each project whose version diff nobody has requested, of
    projects that have a prompt to ask."""
    asked = Prompt.objects.asked().filter(project=OuterRef("project"), split=Split.VALIDATION)
    fixed = FixedPrompt.objects.filter(project=OuterRef("project"))
    newer = Adapter.objects.usable().filter(
        project=OuterRef("project"), gate_won=True, pk__gt=OuterRef("pk")
    )
    return (
        Adapter.objects.usable()
        .filter(gate_won=True, change_report=None)
        .exclude(Exists(newer))
        .filter(Exists(fixed) | Exists(asked))
        .select_related("project")
        .defer("report")
    )


# -- the work


def report_claim(adapter_id: int) -> ReportClaim | None:
    """Claim a waiting or abandoned report; None if another worker has it or it has ended."""
    rows = ChangeReport.objects.select_related("adapter__project").filter(pk=adapter_id)
    return Claim.take(rows, error="")


def report_execute(claim: ReportClaim) -> None:
    """Request the missing answers; each is stored as it completes.

    If the engine as a whole fails, the report waits and continues later. If single answers fail,
    it ends as failed and says how many are missing; a new request asks for those only.
    """
    report = claim.row
    with claim.kept_alive() as heartbeat:
        try:
            failed = answers_store(claim, heartbeat)
        except (EngineError, UserError) as error:
            status = getattr(error, "status", 400)
            broken = isinstance(error, AdapterBroken)
            gave_up = claim.attempt >= MAX_ATTEMPTS or status in (400, 404, 422) or broken
            claim.update(
                status=ChangeReport.Status.FAILED if gave_up else ChangeReport.Status.QUEUED,
                error=str(error),
            )
            return
        if heartbeat.lost:
            log.warning("version_diff_claim_lost", adapter=report.adapter.name)
        elif failed:
            why = f"{len(failed)} answers are missing: {failed[0]}"
            claim.update(status=ChangeReport.Status.FAILED, error=why)
        else:
            claim.update(status=ChangeReport.Status.DONE, error="")


def answers_store(claim: ReportClaim, heartbeat: Heartbeat) -> list[EngineError]:
    """Request and store what is missing; return the errors of answers that failed.

    Returns early if the claim is lost. Raises EngineError if the engine as a whole fails, and
    UserError if there is no validation prompt.
    """
    report = claim.row
    project = report.adapter.project
    fixed = prompts_fix(project)
    known = set(
        FixedAnswer.objects.filter(
            fixed_prompt__in=fixed,
            version__in=report.versions,
            conditions=report.conditions,
        ).values_list("fixed_prompt", "version")
    )
    todo = [
        (prompt, version)
        for version in report.versions
        for prompt in fixed
        if (prompt.pk, version) not in known
    ]
    total = len(fixed) * len(report.versions)
    done = total - len(todo)
    claim.update(total=total, done=done)
    failed: list[EngineError] = []
    for (prompt, version), answer in answers(project, todo, goes_on=lambda: not heartbeat.lost):
        if isinstance(answer, EngineError):
            failed.append(answer)
            continue
        FixedAnswer.objects.get_or_create(
            fixed_prompt=prompt,
            version=version,
            conditions=report.conditions,
            defaults={"text": storable(answer.text), "finish_reason": answer.finish_reason},
        )
        done += 1
        if not claim.heartbeat(done=done):
            break
    return failed


def answers(
    project: Project, todo: list[tuple[FixedPrompt, str]], *, goes_on: Callable[[], bool]
) -> Iterator[tuple[tuple[FixedPrompt, str], Answer | EngineError]]:
    """Yield greedy answers as they complete, a few at once. Raises EngineError."""
    engine = Engine(project)
    for version in {version for _, version in todo} - {BASE_VERSION}:
        engine.load_version(version)
    likeliest = client.Sampling(max_tokens=project.max_tokens, temperature=0.0, top_p=1.0)

    def ask(work: tuple[FixedPrompt, str], on_tokens: OnTokens) -> Answer:
        prompt, version = work
        messages = prompt.prompt.messages
        return engine.answer(messages, version=version, sampling=likeliest, on_tokens=on_tokens)

    limit = ConcurrencyLimit(most=PARALLEL)
    asked = ask_each(
        todo,
        ask,
        limit=limit,
        healthy=engine.healthy,
        goes_on=goes_on,
        prompt_of=lambda work: work[0].pk,
    )
    with closing(asked):  # type: ignore[type-var]
        yield from asked
