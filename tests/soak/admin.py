"""The admin of a soak: trains, cancels, resumes, releases, rolls back, discards, restores."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from django.db import DatabaseError, close_old_connections, connection

from feedback_app.feedback.models import BASE_VERSION, Project, Sampling
from feedback_app.training.models import Adapter, Run
from feedback_app.training.runs.config import RunConfig, form_values
from tests.soak.people import Human

T = TypeVar("T")
#: Small enough for a run in half a minute on the tiny model.
CONFIG = form_values(RunConfig(epochs=1, batch_size=64, lora_r=4, kl_brake=10))
PLAIN = {"HX-Request": "true"}
RETRY_SECONDS = 1.0
#: Items of the queue, below which more are sampled.
LOW = 100


async def read(query: Callable[[], T]) -> T:
    """Return what a query reads directly from the database, once that is there again."""

    def attempt() -> T:
        close_old_connections()
        try:
            return query()
        finally:
            connection.close()

    while True:
        try:
            return await asyncio.to_thread(attempt)
        except DatabaseError:
            await asyncio.sleep(RETRY_SECONDS)


@dataclass
class State:
    """What the admin sees."""

    live: str
    usable: list[str]
    discarded: list[str]
    active: Run | None
    broken: list[Run]
    #: whether the annotators need new answers, and none are being sampled
    queue_is_low: bool


def state_of(slug: str) -> State:
    project = Project.objects.get(slug=slug)
    runs = list(project.runs.newest_first())
    adapters = Adapter.objects.filter(project=project).order_by("pk")
    return State(
        live=project.live_version,
        usable=[one.name for one in adapters if one.discarded_at is None],
        discarded=[one.name for one in adapters if one.discarded_at is not None],
        active=next((run for run in runs if run.active), None),
        broken=[run for run in runs if run.status in (Run.Status.FAILED, Run.Status.CANCELLED)],
        queue_is_low=project.completions.in_queue().needs_votes(project.overlap).count() < LOW
        and not project.samplings.filter(Sampling.claimable() | Sampling.working()).exists(),
    )


@dataclass
class Admin(Human):
    """Does one thing at a time, all through the pages."""

    thinks: ClassVar[tuple[float, float]] = (2.0, 5.0)
    #: runs that were requested, so that their numbers differ in nothing but the seed
    requested: int = 0

    async def act(self) -> None:
        state = await read(lambda: state_of(self.slug))
        if state.queue_is_low:
            await self.do("samplings/new/", "sample", answers_per_prompt="1", version=state.live)
        elif state.active is None and self.rng.random() < 0.8:
            if state.broken and self.rng.random() < 0.5:
                await self.resume(self.rng.choice(state.broken))
            else:
                await self.train()
        elif state.active is not None and self.rng.random() < 0.03:
            await self.do(f"runs/{state.active.number}/cancel/", "cancel")
        elif self.rng.random() < 0.4:
            await self.look(state)
        else:
            await self.change(state)

    async def do(self, path: str, what: str, **form: str) -> bool:
        """Press a button; return whether it was accepted."""
        response = await self.send(
            "POST", f"/projects/{self.slug}/{path}", headers=PLAIN, data=form
        )
        done = response.status_code < 400
        self.count(f"{what} {'done' if done else 'refused'}")
        return done

    async def train(self) -> None:
        self.requested += 1
        await self.do("runs/new/", "train", **CONFIG | {"seed": str(self.requested)})

    async def resume(self, run: Run) -> None:
        await self.do(f"runs/{run.number}/resume/", "resume")

    async def look(self, state: State) -> None:
        """Open a page that reads much."""
        pages = ["runs/", "releases/", "quality/", "examples/", "people/"]
        if state.active is not None:
            pages.append(f"runs/{state.active.number}/")
        await self.send("GET", f"/projects/{self.slug}/{self.rng.choice(pages)}")

    async def change(self, state: State) -> None:
        """Release, roll back, discard or restore a version."""
        others = [name for name in [BASE_VERSION, *state.usable] if name != state.live]
        action = self.rng.choices(("release", "roll back", "discard", "restore"), (5, 3, 1, 1))[0]
        if action == "restore" and state.discarded:
            await self.do(f"adapters/{self.rng.choice(state.discarded)}/restore/", action)
        elif action == "discard" and len(others) > 3:
            await self.do(f"adapters/{self.rng.choice(others[1:])}/discard/", action)
        elif action == "release" and len(others) > 1:
            await self.release(others[-1], action)
        elif others:
            await self.release(self.rng.choice(others), "roll back")

    async def release(self, name: str, what: str) -> None:
        done = await self.do(f"adapters/{name}/release/", what, reason="The soak wants it.")
        # a repeated request is refused if the first one was done and its answer was lost
        if done or (await read(lambda: state_of(self.slug))).live == name:
            self.ledger.releases.append(name)
