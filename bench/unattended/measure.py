"""A project that trains and releases by its schedule, and when each step of that happened."""

import datetime as dt
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from itertools import pairwise

from django.utils import timezone

from feedback_app.accounts.models import Role, User
from feedback_app.closed_loop.people import Annotator
from feedback_app.closed_loop.proof import Deadline, LoopBroken
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import BASE_VERSION, Project, Source
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.projects.starter import starter_prompts, starter_text
from feedback_app.feedback.prompts.completions import (
    Answer,
    completion_create,
    completion_queue,
)
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.serving.engine.client import Engine, Sampling
from feedback_app.training.gate.services import gate_settings_save
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.schedules.own_settings import schedule_settings_set
from feedback_app.training.schedules.services import schedule_set

Moment = Callable[[Run], dt.datetime | None]
Say = Callable[[str], object]
SLUG = "unattended"
#: The same prompts are for training, validation and test each time.
SPLIT_KEY = "u" * 64
#: Seconds between two looks at the rows: times that no row has are exact to this.
POLL_SECONDS = 0.2
#: The measurement ends when no row has changed for so long.
PATIENCE = 900.0
#: The ranking of test votes decides alone, which these votes teach in a few steps: times are
#: measured, not quality. The number of prompts is the usual one: sampling takes most of the time.
GATE = GateSettings(primary="ranking", margins={}, minutes=0)


@dataclass(frozen=True)
class Timeline:
    """When each step happened. `answered`: the engine gave the first answer of the version that
    had just become live."""

    voted: dt.datetime
    queued: dt.datetime
    started: dt.datetime
    trained: dt.datetime
    decided: dt.datetime
    live: dt.datetime
    answered: dt.datetime

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part, and their sum as `total`."""
        parts = [(end - start).total_seconds() for start, end in pairwise(astuple(self))]
        names = [field.name for field in fields(self)][1:]
        return dict(zip(names, parts, strict=True)) | {"total": sum(parts)}


def answer_pair(question: str) -> Iterator[str]:
    """Yield an answer that the rule of the simulated annotators likes, and one that it does not."""
    yield f"In short: {question.rstrip(' ?.!')} is best done one step at a time, with a friend."
    yield "Well, who can say that, and who can say why, and " * 6 + "so on"


def project_fill(
    *, base_model: str, votes: int, config: RunConfig | None, gate: GateSettings
) -> tuple[Project, str, str]:
    """Create a project with `votes` answers in the queue, whose schedule trains when all have a
    vote; return it with an annotator's address and password."""
    password = secrets.token_urlsafe(12)
    owner = User.objects.create_user(f"owner@{SLUG}.example.com", password)
    annotator = User.objects.create_user(f"annotator@{SLUG}.example.com", password)
    project = project_create(
        slug=SLUG,
        name="Unattended",
        base_model=base_model,
        owner=owner,
        system_prompt=starter_text("system_prompt.txt"),
        validation_percent=10,
        test_percent=25,
    )
    project.split_key = SPLIT_KEY
    project.save(update_fields=["split_key"])
    member_set(project=project, user=annotator, role=Role.ANNOTATOR)
    answers = 0
    for topic, messages in starter_prompts():
        prompt = prompt_get_or_create(
            project=project, messages=messages, source=Source.IMPORT, topic=topic
        )
        for text in answer_pair(str(messages[-1]["content"])):
            if answers < votes:
                answer = Answer(text, BASE_VERSION, "stop", None, None)
                completion_queue(
                    completion_create(
                        project=project, prompt=prompt, answer=answer, source=Source.IMPORT
                    )
                )
                answers += 1
    if answers < votes:
        raise LoopBroken(f"There are prompts for {answers} votes at most.")
    gate_settings_save(project=project, settings=gate, by=owner)
    schedule_set(
        project=project,
        by=owner,
        enabled=True,
        min_new_examples=votes,
        min_hours=0,
        auto_release=True,
    )
    schedule_settings_set(project=project, by=owner, config=config)
    return project, annotator.email, password


def measure(
    url: str,
    *,
    base_model: str,
    votes: int,
    config: RunConfig | None = None,
    gate: GateSettings = GATE,
    say: Say = lambda line: None,
) -> Timeline:
    """Vote at the site `url` until the schedule is due, and wait until its version answers.

    Raises LoopBroken if a step fails, or if nothing changes for PATIENCE seconds.
    """
    project, email, password = project_fill(
        base_model=base_model, votes=votes, config=config, gate=gate
    )
    with closing(Annotator(url, email, password, noise=0.0)) as annotator:
        annotator.sign_in()
        while annotator.votes < votes:
            if not annotator.vote_once(project.slug):
                raise LoopBroken(f"The queue was empty after {annotator.votes} of {votes} votes.")
    return timeline(project, say)


def timeline(project: Project, say: Say) -> Timeline:
    """Wait for the run of the schedule and its release. Raises LoopBroken."""
    voted = project.votes.order_by("-created_at").values_list("created_at", flat=True)[0]
    moments = [voted]
    for part, moment in MOMENTS.items():
        moments.append(wait_for(project, moment))
        say(f"{part} after {(moments[-1] - voted).total_seconds():.1f} s")
    project.refresh_from_db()
    how = Sampling(max_tokens=16, temperature=0.0, top_p=1.0, seed=0)
    question = project.prompts.order_by("pk")[0].messages
    Engine(project).answer(question, version=project.live_version, sampling=how)
    return Timeline(*moments, timezone.now())


def wait_for(project: Project, moment: Moment) -> dt.datetime:
    """Return the moment as soon as the project's run has it. Raises LoopBroken."""
    deadline = Deadline("Nothing changed", PATIENCE)
    while True:
        run = project.runs.first()
        if run is not None:
            if run.status in (Run.Status.FAILED, Run.Status.CANCELLED):
                raise LoopBroken(f"{run} {run.get_status_display().lower()}: {run.error}")
            if found := moment(run):
                return found
        deadline.check(run and (run.status, run.phase, run.progress_done))
        time.sleep(POLL_SECONDS)


def trained(run: Run) -> dt.datetime | None:
    return timezone.now() if run.status in (Run.Status.EVALUATING, Run.Status.SUCCEEDED) else None


def live(run: Run) -> dt.datetime | None:
    """Return when the run's version became live. Raises LoopBroken if it never will."""
    if not run.adapter.gate_won:
        raise LoopBroken(f"{run} did not pass the gate: {run.adapter.gate['sentence']}")
    return run.adapter.releases.values_list("since", flat=True).first()


#: The parts and when each ended, of a run that may not be there yet.
MOMENTS: dict[str, Moment] = {
    "queued": lambda run: run.created_at,
    "started": lambda run: run.started_at,
    "trained": trained,
    "decided": lambda run: run.finished_at,
    "live": live,
}
