"""Has a version answer the project's prompts, so that annotators have something to judge.

Resumable by its rows: what is missing is counted, not remembered, so a killed worker or a
lost message costs nothing but time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import structlog
from django.db.models.functions import Coalesce
from django.utils import timezone

from feedback_app.db.claims import Claim
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.feedback.models import BASE_VERSION, Prompt, Sampling, Source
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.serving.engine import client
from feedback_app.serving.engine.batch import PARALLEL, Heard, ask_each
from feedback_app.serving.engine.client import AdapterBroken, Engine, EngineError
from feedback_app.serving.engine.concurrency import ConcurrencyLimit

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 20

SamplingClaim = Claim[Sampling]


def sampling_claim(sampling_id: int) -> SamplingClaim | None:
    """Claim a waiting or abandoned sampling; None if another worker has it or it has ended."""
    rows = Sampling.objects.select_related("project").filter(pk=sampling_id)
    return Claim.take(rows, started_at=Coalesce("started_at", timezone.now()), error="")


def missing(sampling: Sampling) -> list[tuple[Prompt, int]]:
    """(prompt, which answer) that are still to be sampled: first answers first."""
    prompts = list(sampling.project.prompts.filter(source=Source.IMPORT).order_by("pk"))
    answered = Counter(sampling.completions.values_list("prompt_id", flat=True))
    return [
        (prompt, index)
        for index in range(sampling.answers_per_prompt)
        for prompt in prompts
        if index >= answered[prompt.pk]
    ]


def sampling_execute(claim: SamplingClaim) -> None:
    """Samples what is missing; every answer is stored, and shown to annotators, as it comes.

    If the engine fails as a whole the sampling waits and goes on later. Answers that fail alone
    are left out, and the sampling says how many and why.
    """
    sampling = claim.row
    with claim.kept_alive() as heartbeat:
        try:
            failed = answers_store(claim, heartbeat)
        except EngineError as error:
            for_good = isinstance(error, AdapterBroken) or error.status in (400, 404)
            gave_up = for_good or claim.attempt >= MAX_ATTEMPTS
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
    """Ends a sampling that has asked for everything; `failed` are the answers that are missing."""
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
    """Returns the message of a sampling with missing answers, for people."""
    left, done = len(missing(sampling)), sampling.completions.count()
    return f"{left} of {left + done} answers are missing: {error}"


def answers_store(claim: SamplingClaim, heartbeat: Heartbeat) -> list[EngineError]:
    """Asks for what is missing and stores it; returns why answers are missing still.

    Returns early if the claim is lost. Raises EngineError if the engine fails as a whole.
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
        completion_create(
            project=sampling.project,
            prompt=prompt,
            answer=answer,
            source=Source.IMPORT,
            sampling=sampling,
        )
        done += 1
        if not claim.heartbeat(done=done):
            break
    return failed


def answers(
    sampling: Sampling, todo: list[tuple[Prompt, int]], *, goes_on: Callable[[], bool]
) -> Iterator[tuple[Prompt, Answer | EngineError]]:
    """Asks the engine for each; yields answers as they come in. Raises EngineError."""
    project = sampling.project
    engine = Engine(project)
    if sampling.version != BASE_VERSION:
        engine.load_version(sampling.version)

    def ask(work: tuple[Prompt, int], heard: Heard) -> Answer:
        prompt, index = work
        how = client.Sampling(
            max_tokens=project.max_tokens,
            temperature=project.temperature,
            top_p=project.top_p,
            seed=(sampling.pk * 1_000_003 + prompt.pk * 101 + index) % 2**31,
        )
        return engine.answer(prompt.messages, version=sampling.version, sampling=how, heard=heard)

    pace = ConcurrencyLimit(most=PARALLEL)
    asked = ask_each(todo, ask, pace=pace, healthy=engine.healthy, goes_on=goes_on)
    with closing(asked):  # type: ignore[type-var]
        for (prompt, _), answer in asked:
            yield prompt, answer
