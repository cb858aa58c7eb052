"""The closed loop without a browser, step by step, against running processes."""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any

from django.db import connection
from django.utils import timezone

from feedback_app.accounts.models import Role, User
from feedback_app.closed_loop.measure import Gain, Guard, Side, gain, guards, side_sample
from feedback_app.closed_loop.people import Annotator, PageError, Person
from feedback_app.closed_loop.size import LoopSize, Speed, TimeLeft, patience_for, seconds_for
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project, Sampling, Source
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.projects.starter import starter_prompts, starter_text
from feedback_app.feedback.prompts.completions import sampling_request
from feedback_app.feedback.prompts.services import prompts_add
from feedback_app.training.gate.services import gate_settings_save
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig, form_values

Say = Callable[[str], None]
#: (what, done, total, left of the step, left in all): progress of the present step, times in
#: seconds
Progress = Callable[[str, int, int, float, float], None]

POLL_SECONDS = 1.0
OUTCOME_MARKS = {"passed": "✓", "failed": "✗", "undecided": "?"}


class LoopBroken(Exception):
    """A step of the loop failed; the message says which and why."""


@dataclass(frozen=True)
class Proof:
    """The result of the loop."""

    project: str
    adapter: str
    votes: int
    flipped: int
    before: Side
    after: Side
    gain: Gain
    guards: list[Guard]
    gate_won: bool
    seconds: dict[str, float]
    expected: dict[str, float]

    @property
    def held(self) -> bool:
        """Return whether the up-rate rose significantly and all guards held."""
        return self.gain.significant and all(guard.held for guard in self.guards)

    def as_json(self) -> dict[str, Any]:
        return {
            "project": self.project,
            "adapter": self.adapter,
            "votes": self.votes,
            "flipped": self.flipped,
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "gain": asdict(self.gain),
            "guards": [asdict(guard) for guard in self.guards],
            "gate_won": self.gate_won,
            "seconds": self.seconds,
            "expected_seconds": self.expected,
            "held": self.held,
        }


class ClosedLoop:
    """Runs the proof once, in a new project, through the pages at `url`.

    `speed` determines the estimated times, and how long a step may show no progress.
    """

    def __init__(
        self,
        *,
        url: str,
        slug: str,
        size: LoopSize,
        speed: Speed,
        say: Say,
        progress: Progress,
    ) -> None:
        self.url = url
        self.slug = slug
        self.size = size
        self.say = say
        self.show = progress
        self.seconds: dict[str, float] = {}
        self.expected = seconds_for(size, speed)
        self.patience = patience_for(size, speed)
        self.time_left = TimeLeft(self.expected)

    def run(self, *, base_model: str) -> Proof:
        """Run all steps. Raises LoopBroken, PageError or EngineError."""
        started = time.monotonic()
        with ExitStack() as browsers:
            project, admin, annotators = self._set_up(base_model)
            for person in (admin, *annotators):
                browsers.enter_context(closing(person))
            self._timed("annotate", lambda: self._annotate(project, annotators))
            run = self._timed("train", lambda: self._train(project, admin))
            adapter = run.adapter
            self._timed("release", lambda: self._release(project, admin, adapter.name))
            before, after = self._timed("measure", lambda: self._measure(project, adapter.name))
        self.seconds["total"] = time.monotonic() - started
        return Proof(
            project=self.slug,
            adapter=adapter.name,
            votes=sum(person.votes for person in annotators),
            flipped=sum(person.flipped for person in annotators),
            before=before,
            after=after,
            gain=gain(before, after),
            guards=guards(
                before=before,
                after=after,
                measures=adapter.report["candidates"],
                adapter=adapter.name,
                kl_brake=float(run.config["kl_brake"]),
            ),
            gate_won=adapter.gate_won,
            seconds=self.seconds,
            expected=self.expected,
        )

    def _timed(self, step: str, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        self.time_left.begin(step, started)
        result = work()
        self.seconds[step] = time.monotonic() - started
        return result

    def _progress(self, what: str, done: int, total: int) -> None:
        step, whole = self.time_left.left(what, done, total, time.monotonic())
        self.show(what, done, total, step, whole)

    def _set_up(self, base_model: str) -> tuple[Project, Person, list[Annotator]]:
        """Create a project with the starter's prompts, an admin and simulated annotators."""
        owner_email = f"admin@{self.slug}.example.com"
        password = secrets.token_urlsafe(12)
        owner = User.objects.create_user(owner_email, password, name="Loop admin")
        project = project_create(
            slug=self.slug,
            name=f"Closed loop {timezone.now():%Y-%m-%d %H:%M}",
            base_model=base_model,
            owner=owner,
            system_prompt=starter_text("system_prompt.txt"),
            guidelines=starter_text("guidelines.md"),
            validation_percent=self.size.validation_percent,
            test_percent=self.size.test_percent,
        )
        # one look: the time that was announced has no room for a second
        gate_settings_save(project=project, settings=GateSettings(minutes=0), by=owner)
        prompts = starter_prompts()[: self.size.prompts]
        prompts_add(project=project, prompts=prompts, source=Source.IMPORT)
        annotators = []
        for number in range(1, self.size.annotators + 1):
            email = f"annotator{number}@{self.slug}.example.com"
            user = User.objects.create_user(email, password, name=f"Simulated {number}")
            member_set(project=project, user=user, role=Role.ANNOTATOR)
            annotators.append(Annotator(self.url, email, password, noise=self.size.noise))
        sampling_request(project=project, answers_per_prompt=self.size.answers_per_prompt)
        admin = Person(self.url, owner_email, password)
        for person in [admin, *annotators]:
            person.sign_in()
        self.say(f"Project {self.slug}: {len(annotators)} simulated annotators have signed in.")
        return project, admin, annotators

    def _annotate(self, project: Project, annotators: list[Annotator]) -> None:
        """Vote on answers as they complete, until all are sampled and judged."""
        self.say("The engine samples answers; the annotators vote as they come in.")
        deadline = Deadline("No answer was sampled or judged", self.patience)

        def vote(annotator: Annotator) -> bool:
            voted = False
            while annotator.vote_once(self.slug):
                voted = True
                votes = sum(person.votes for person in annotators)
                self._progress("voted", votes, self.size.votes)
            connection.close()
            return voted

        while True:
            # read before voting: an answer that completes in between is voted on in the next round
            sampling = project.samplings.get()
            with ThreadPoolExecutor(len(annotators)) as pool:
                voted = list(pool.map(vote, annotators))
            if sampling.status == Sampling.Status.FAILED:
                raise LoopBroken(f"Sampling failed: {sampling.error}")
            votes = sum(person.votes for person in annotators)
            self._progress("voted", votes, sampling.total or self.size.votes)
            if not any(voted):
                if not sampling.active:
                    return
                time.sleep(POLL_SECONDS)
            deadline.check((votes, sampling.done))

    def _train(self, project: Project, admin: Person) -> Run:
        """Start a run with Train now, and wait for its end."""
        admin.get(f"/projects/{self.slug}/runs/")
        config = form_values(RunConfig(epochs=self.size.epochs))
        admin.post(f"/projects/{self.slug}/runs/new/", dict(config))
        run = project.runs.newest_first().first()
        if run is None:
            raise LoopBroken("Train now was pressed, but no run was queued.")
        snapshot = run.snapshot
        self.say(
            f"Run {run.number} on {snapshot.train_up} ups and {snapshot.train_down} downs; "
            f"{snapshot.validation_total} examples are for validation, {snapshot.test_total} for "
            "the test."
        )
        deadline = Deadline(f"Run {run.number} made no progress", self.patience)
        while run.active:
            self._progress(
                run.phase or run.get_status_display(), run.progress_done, run.progress_total
            )
            deadline.check((run.phase, run.progress_done, run.status))
            time.sleep(POLL_SECONDS)
            run.refresh_from_db()
        if run.status != Run.Status.SUCCEEDED:
            raise LoopBroken(f"Run {run.number} {run.get_status_display().lower()}: {run.error}")
        return run

    def _release(self, project: Project, admin: Person, name: str) -> None:
        """Release the adapter, whether it passed the gate or not; the guards decide in the end."""
        adapter = project.adapters.get(name=name)
        self.say(f"{name}: {adapter.gate['sentence']}")
        for rule in adapter.gate["rules"]:
            self.say(f"  {OUTCOME_MARKS[rule['outcome']]} {rule['label']}: {rule['text']}")
        admin.post(f"/projects/{self.slug}/adapters/{name}/release/", {"reason": "closed loop"})
        project.refresh_from_db()
        if project.live_version != name:
            raise LoopBroken(f"Release was pressed, but {project.live_version} is live.")
        self.say(f"{name} is live.")

    def _measure(self, project: Project, name: str) -> tuple[Side, Side]:
        """Have base and live answer prompts that were in no project and no run."""
        prompts = [messages for _, messages in starter_prompts("unseen.jsonl")]
        prompts = prompts[: self.size.unseen_prompts]

        def side(version: str) -> Side:
            return side_sample(
                project=project,
                version=version,
                prompts=prompts,
                answers_per_prompt=self.size.answers_per_unseen,
                on_progress=lambda done, total: self._progress(
                    f"answered by {version}", done, total
                ),
            )

        self.say(f"Base and {name} answer {len(prompts)} prompts that were never annotated.")
        return side("base"), side(name)


class Deadline:
    """Raises LoopBroken if the observed state has not changed for `seconds`."""

    def __init__(self, complaint: str, seconds: float) -> None:
        self.complaint = complaint
        self.seconds = seconds
        self.state: object = None
        self.since = time.monotonic()

    def check(self, state: object) -> None:
        if state != self.state:
            self.state, self.since = state, time.monotonic()
        elif time.monotonic() - self.since > self.seconds:
            raise LoopBroken(
                f"{self.complaint} for {self.seconds:.0f} s. The project and its votes are kept. "
                "See var/logs/ for the reason."
            )


__all__ = ["ClosedLoop", "LoopBroken", "LoopSize", "PageError", "Proof"]
