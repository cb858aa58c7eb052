"""Has a version answer the project's prompts, so that annotators have something to judge.

Resumable by its rows: what is missing is counted, not remembered, so a killed worker or a
lost message costs nothing but time.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import structlog
from django.conf import settings
from django.db.models import F, Q
from django.utils import timezone

from feedback_app.feedback.models import BASE_VERSION, Prompt, Sampling, Source
from feedback_app.feedback.services import Answer, completion_create
from feedback_app.serving import client

log = structlog.get_logger(__name__)

#: Requests under way at once: enough to fill the engine's batch.
PARALLEL = 16
MAX_ATTEMPTS = 20


@dataclass(frozen=True)
class SamplingClaim:
    """One worker's hold on a sampling; writes go through it."""

    sampling: Sampling
    attempt: int

    def update(self, **fields: object) -> bool:
        return bool(
            Sampling.objects.filter(
                pk=self.sampling.pk, attempt=self.attempt, status=Sampling.Status.RUNNING
            ).update(heartbeat_at=timezone.now(), **fields)
        )


def claimable() -> Q:
    """Waiting, or left alone by the worker that had it."""
    stale = timezone.now() - dt.timedelta(seconds=settings.RUN_STALE_SECONDS)
    return Q(status=Sampling.Status.QUEUED) | Q(
        status=Sampling.Status.RUNNING, heartbeat_at__lt=stale
    )


def sampling_claim(sampling_id: int) -> SamplingClaim | None:
    """Takes it by compare-and-swap; None if another worker has it or nothing is to do."""
    sampling = (
        Sampling.objects.filter(claimable(), pk=sampling_id).select_related("project").first()
    )
    if sampling is None:
        return None
    now = timezone.now()
    taken = Sampling.objects.filter(claimable(), pk=sampling_id, attempt=sampling.attempt).update(
        attempt=F("attempt") + 1,
        status=Sampling.Status.RUNNING,
        heartbeat_at=now,
        started_at=sampling.started_at or now,
        error="",
    )
    return SamplingClaim(sampling, sampling.attempt + 1) if taken else None


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
    """Samples what is missing; every answer is stored, and shown to annotators, as it comes."""
    sampling = claim.sampling
    todo = missing(sampling)
    total = len(todo) + sampling.completions.count()
    done = total - len(todo)
    try:
        claim.update(total=total, done=done)
        for prompt, answer in answers(sampling, todo):
            completion_create(
                project=sampling.project,
                prompt=prompt,
                answer=answer,
                source=Source.IMPORT,
                sampling=sampling,
            )
            done += 1
            if not claim.update(done=done):
                log.warning("sampling_claim_lost", sampling=sampling.pk)
                return
    except client.EngineError as error:
        # the rows say what is missing: the next tick tries again
        gave_up = claim.attempt >= MAX_ATTEMPTS or error.status in (400, 404)
        claim.update(
            status=Sampling.Status.FAILED if gave_up else Sampling.Status.QUEUED,
            error=str(error),
        )
        return
    claim.update(status=Sampling.Status.DONE, error="")


def answers(sampling: Sampling, todo: list[tuple[Prompt, int]]) -> Iterator[tuple[Prompt, Answer]]:
    """Asks the engine with PARALLEL requests under way; yields answers as they come in."""
    project = sampling.project
    engine = client.Engine(project)
    if sampling.version != BASE_VERSION:
        engine.load_version(sampling.version)

    def ask(prompt: Prompt, index: int) -> tuple[Prompt, Answer]:
        settings_ = client.Sampling(
            max_tokens=project.max_tokens,
            temperature=project.temperature,
            top_p=project.top_p,
            seed=(sampling.pk * 1_000_003 + prompt.pk * 101 + index) % 2**31,
        )
        answer = engine.answer(prompt.messages, version=sampling.version, sampling=settings_)
        return prompt, answer

    waiting = iter(todo)
    with ThreadPoolExecutor(PARALLEL) as pool:
        running: set[Future[tuple[Prompt, Answer]]] = set()
        try:
            while True:
                for prompt, index in waiting:
                    running.add(pool.submit(ask, prompt, index))
                    if len(running) == PARALLEL:
                        break
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()
