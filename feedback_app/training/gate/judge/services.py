"""Setting up a project's judge model, and trying it."""

from dataclasses import dataclass

from cryptography.fernet import InvalidToken
from django.core.cache import cache
from django.db import transaction

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.accounts.sealing import seal, unseal
from feedback_app.feedback.models import Project
from feedback_app.training.gate.judge.client import JudgeClient, JudgeFailed, judge_target
from feedback_app.training.gate.judge.questions import (
    SCHEMA,
    Choice,
    Pair,
    choice_of,
    question,
)
from feedback_app.training.models import Judge
from feedback_app.web.errors import RateLimited, UserError

#: A page waits for the answer to one question, in total.
TRY_SECONDS = 30.0
TRIES_A_MINUTE = 5
TRIED = Pair(
    "try",
    [{"role": "user", "content": "What is the capital of France?"}],
    "The capital of France is Paris.",
    "The capital of France is Rome.",
)
#: Longest answer that the page shows.
SHOWN = 1000


class KeyNeeded(UserError):
    """The stored API key belongs to another URL."""


def judge_of(project: Project) -> Judge | None:
    """Return the project's judge model, or None."""
    return Judge.objects.filter(project=project).first()


def judge_save(*, project: Project, url: str, model: str, api_key: str, by: User) -> Judge:
    """Store the judge; an empty `api_key` keeps the stored one.

    A stored key is never sent to another URL than the one it was entered for: raise KeyNeeded if
    the URL changes without a key. Raise UserError for an address that is not allowed.
    """
    judge_target(url)  # queries a name server, so not in the transaction
    with transaction.atomic():
        stored = Judge.objects.select_for_update().filter(project=project).first()
        sealed = seal(api_key) if api_key else ""
        if stored is not None and stored.api_key and not api_key:
            if stored.url != url:
                raise KeyNeeded("The stored API key is for the old URL: enter one for the new.")
            sealed = stored.api_key
        judge, _ = Judge.objects.update_or_create(
            project=project,
            defaults={"url": url, "model": model, "api_key": sealed, "saved_by": by},
        )
        audit(project=project, actor=by, action="gate.judge", target=str(judge)[:200])
    return judge


def judge_remove(*, project: Project, by: User) -> None:
    """Delete the judge with its key; a gate that needs one is then undecided."""
    with transaction.atomic():
        judge = judge_of(project)
        if judge is not None:
            judge.delete()
            audit(project=project, actor=by, action="gate.judge_remove", target=str(judge)[:200])


def judge_client(
    judge: Judge, *, seconds: float, silence: float | None = None, connections: int = 1
) -> JudgeClient:
    """Return a client for a project's judge. Raise UserError for an address that is not allowed, or
    a key that SECRET_KEY does not open."""
    try:
        key = unseal(judge.api_key) if judge.api_key else ""
    except InvalidToken as error:
        raise UserError(
            "The API key cannot be decrypted, as SECRET_KEY has changed: save it again."
        ) from error
    return JudgeClient(
        url=judge.url,
        model=judge.model,
        api_key=key,
        seconds=seconds,
        silence=silence,
        connections=connections,
    )


@dataclass(frozen=True)
class Trial:
    """What a judge answered to one question. `choice` is None for an answer that would not count;
    `error` is "" if there was an answer."""

    answer: str = ""
    choice: Choice | None = None
    error: str = ""


def judge_try(judge: Judge) -> Trial:
    """Ask the judge one question, about a right and a wrong answer.

    Each question holds a thread of the web and costs the project. Raises RateLimited.
    """
    key = f"judge-trials:{judge.project_id}"
    # without the cache's server both do nothing, and 0 questions were asked
    if not cache.add(key, 1, timeout=60) and cache.incr(key) > TRIES_A_MINUTE:
        raise RateLimited(f"{TRIES_A_MINUTE} questions were asked within a minute: wait for one.")
    try:
        with judge_client(judge, seconds=TRY_SECONDS, silence=TRY_SECONDS) as client:
            answer = client.ask(question(TRIED, swapped=False), schema=SCHEMA)
    except (UserError, JudgeFailed) as error:
        return Trial(error=str(error).removesuffix("."))
    return Trial(answer=answer[:SHOWN], choice=choice_of(answer))
