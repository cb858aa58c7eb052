"""Sampling: a version answers the project's prompts, so that annotators can judge the answers.

Missing answers are found from the rows, so that another worker resumes an interrupted sampling.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import structlog
from django.db import transaction
from django.db.models.functions import Coalesce
from django.utils import timezone

from feedback_app.db.claims import Claim
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.feedback.models import BASE_VERSION, Prompt, Sampling, Source
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.serving.engine import client
from feedback_app.serving.engine.batch import PARALLEL, OnTokens, ask_each
from feedback_app.serving.engine.client import AdapterBroken, Engine, EngineError
from feedback_app.serving.engine.concurrency import ConcurrencyLimit

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 20
#: Characters of a prompt that is answered after all others: about 2,000 tokens of English.
LONG_PROMPT = 8_000

SamplingClaim = Claim[Sampling]


def sampling_claim(sampling_id: int) -> SamplingClaim | None:
    """Claim a waiting or abandoned sampling; None if another worker has it or it has ended."""
    rows = Sampling.objects.select_related("project").filter(pk=sampling_id)
    return Claim.take(rows, started_at=Coalesce("started_at", timezone.now()), error="")


def missing(sampling: Sampling) -> list[tuple[Prompt, int]]:
    """Return the missing answers as (prompt, index), the first answer of every prompt first.

    Long prompts come last: reading one takes minutes on a slow machine, and may end an engine that
    has too little memory.
    """
    prompts = list(sampling.project.prompts.asked().order_by("pk"))
    answered = Counter(sampling.completions.values_list("prompt_id", flat=True))
    found = [
        (prompt, index)
        for index in range(sampling.answers_per_prompt)
        for prompt in prompts
        if index >= answered[prompt.pk]
    ]
    return sorted(found, key=lambda work: is_long(work[0]))


def is_long(prompt: Prompt) -> bool:
    return sum(len(message["content"]) for message in prompt.messages) > LONG_PROMPT


def sampling_execute(claim: SamplingClaim) -> None:
    """Sample what is missing; each answer is stored, and shown to annotators, as it completes.

    If the engine as a whole fails, the sampling waits and continues later. Single answers that
    fail are left out; the sampling's message says how many and why.
    """
    sampling = claim.row
    with claim.kept_alive() as heartbeat:
        try:
            failed = answers_store(claim, heartbeat)
        except EngineError as error:
            permanent = isinstance(error, AdapterBroken) or error.status in (400, 404)
            gave_up = permanent or claim.attempt >= MAX_ATTEMPTS
            claim.update(
                status=Sampling.Status.FAILED if gave_up else Sampling.Status.QUEUED,
                error=incomplete(sampling, error),
            )
            return
        if heartbeat.lost:
            log.warning("sampling_claim_lost", sampling=sampling.pk)
            return
        sampling_end(claim, failed)


def sampling_end(claim: SamplingClaim, failed: list[EngineError]) -> None:
    """End a sampling that has requested every answer; `failed` are errors of missing ones."""
    sampling = claim.row
    done = sampling.completions.count()
    error = ""
    if failed:
        error = incomplete(sampling, failed[0])
    nothing = failed and not done
    claim.update(
        status=Sampling.Status.FAILED if nothing else Sampling.Status.DONE, error=error, done=done
    )


def incomplete(sampling: Sampling, error: EngineError) -> str:
    """Return the message of a sampling with missing answers."""
    left, done = len(missing(sampling)), sampling.completions.count()
    return f"{left} of {left + done} answers are missing: {error}"


def answers_store(claim: SamplingClaim, heartbeat: Heartbeat) -> list[EngineError]:
    """Request and store what is missing; return the errors of answers that failed.

    Returns early if the claim is lost. Raises EngineError if the engine as a whole fails.
    """
    sampling = claim.row
    todo = missing(sampling)
    done = sampling.completions.count()
    claim.update(total=len(todo) + done, done=done)
    failed: list[EngineError] = []
    for prompt, answer in answers(sampling, todo, goes_on=lambda: not heartbeat.lost):
        if isinstance(answer, EngineError):
            failed.append(answer)
            continue
        with transaction.atomic():
            # a worker that was paused for long may have the answer of another one's request
            if not claim.heartbeat(done=done + 1):
                break
            completion_create(
                project=sampling.project,
                prompt=prompt,
                answer=answer,
                source=Source.SAMPLED,
                sampling=sampling,
            )
        done += 1
    return failed


def answers(
    sampling: Sampling, todo: list[tuple[Prompt, int]], *, goes_on: Callable[[], bool]
) -> Iterator[tuple[Prompt, Answer | EngineError]]:
    """Yield the engine's answers as they complete. Raises EngineError."""
    project = sampling.project
    engine = Engine(project)
    if sampling.version != BASE_VERSION:
        engine.load_version(sampling.version)

    def ask(work: tuple[Prompt, int], on_tokens: OnTokens) -> Answer:
        prompt, index = work
        how = client.Sampling(
            max_tokens=project.max_tokens,
            temperature=project.temperature,
            top_p=project.top_p,
            seed=(sampling.pk * 1_000_003 + prompt.pk * 101 + index) % 2**31,
        )
        return engine.answer(
            prompt.messages, version=sampling.version, sampling=how, on_tokens=on_tokens
        )

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
        for (prompt, _), answer in asked:
            yield prompt, answer
