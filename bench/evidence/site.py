"""The web app with simulated annotators, who vote over HTTP, and the snapshots of their votes.

Its database is in var/bench/evidence and outlives an interruption: an interrupted project is voted
on to its end.
"""

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from django.core.management import call_command
from django.db import transaction
from django.test import Client

from bench.annotation_vs_labelstudio import servers
from bench.evidence.pool import MAX_TOKENS, SPLIT_KEY, SYSTEM, WORK, PoolAnswer
from bench.evidence.rules import Rule
from feedback_app.accounts.models import Role, User
from feedback_app.closed_loop.people import Annotator, Item
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project, Sampling, Source
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.prompts.completions import completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.training.snapshots.caps import people_cap, snapshot_totals
from feedback_app.training.snapshots.files import snapshot_write
from feedback_app.training.snapshots.services import snapshot_freeze
from trainer.data.examples import Example, read_examples

SITE = WORK / "site"
PEOPLE = 6
PASSWORD = "only-for-the-studies-4711"
ENVIRONMENT = servers.ours_env("sqlite", SITE, {})


class Voter(Annotator):
    """Votes by one of the three rules. `wrong`: always against it."""

    rule: Rule
    wrong: bool = False

    def verdict(self, item: Item) -> tuple[bool, list[str]]:
        return self.rule.likes(item.answer) != self.wrong, []


class Site:
    """The running app and its people, signed in."""

    def __init__(self, url: str) -> None:
        self.people = [Voter(url, address(number), PASSWORD) for number in range(PEOPLE)]
        for person in self.people:
            # not through the form, which lets few people in within a minute
            browser = Client()
            browser.force_login(User.objects.get(email=person.email))
            person.client.cookies.set("sessionid", browser.cookies["sessionid"].value)
            person.get("/")

    def project(self, slug: str, answers: Sequence[PoolAnswer], *, overlap: int = 1) -> Project:
        """Return the project of this slug with these answers in its queue, made if missing."""
        with transaction.atomic():
            project = Project.objects.filter(slug=slug).first()
            if project is None:
                project = project_create(
                    slug=slug,
                    name=slug,
                    base_model="SmolLM2-135M-Instruct",
                    owner=User.objects.get(email=address(0)),
                    system_prompt=SYSTEM,
                    overlap=overlap,
                    max_tokens=MAX_TOKENS,
                    votes_per_hour=0,
                    person_share=100,
                )
                project.split_key = SPLIT_KEY
                project.save(update_fields=["split_key"])
                for number in range(1, PEOPLE):
                    user = User.objects.get(email=address(number))
                    member_set(project=project, user=user, role=Role.ANNOTATOR)
            answers_add(project, answers)
        return project

    def vote(
        self,
        project: Project,
        rule: Rule,
        *,
        noise: float = 0.0,
        seed: int = 0,
        people: Sequence[int] = range(3),
        wrong: bool = False,
        most: int | None = None,
    ) -> int:
        """Let people vote in turn until nothing is left for any, or until `most` votes of them all
        together; return the number of votes. `seed` decides who errs on which answer."""
        voters = [self.people[number] for number in people]
        for number, voter in zip(people, voters, strict=True):
            voter.rule, voter.noise, voter.wrong = rule, noise, wrong
            voter.seed = PEOPLE * seed + number
        votes = 0
        while voters:
            for voter in list(voters):
                if votes == most:
                    return votes
                if voter.vote_once(project.slug):
                    votes += 1
                else:
                    voters.remove(voter)
        return votes


def address(number: int) -> str:
    return f"voter{number}@example.com"


@contextmanager
def site() -> Iterator[Site]:
    """Start the app on the studies' database."""
    SITE.mkdir(parents=True, exist_ok=True)
    call_command("migrate", verbosity=0)
    servers.collect(ENVIRONMENT)
    for number in range(PEOPLE):
        if not User.objects.filter(email=address(number)).exists():
            User.objects.create_user(address(number), PASSWORD)
    port = servers.free_port()
    command = servers.ours_command(port)
    with servers.serving(command, ENVIRONMENT, port, SITE / "web.log"):
        yield Site(f"http://127.0.0.1:{port}")


def answers_add(project: Project, answers: Sequence[PoolAnswer]) -> None:
    """Put those answers into the queue that are not in the project yet."""
    sampling, _ = Sampling.objects.get_or_create(
        project=project, status=Sampling.Status.DONE, answers_per_prompt=1
    )
    known = set(project.completions.values_list("prompt__content_hash", "text"))
    for one in answers:
        prompt = prompt_get_or_create(project=project, messages=one.messages, source=Source.IMPORT)
        if (prompt.content_hash, one.answer.text) in known or not one.answer.text.strip():
            continue
        known.add((prompt.content_hash, one.answer.text))
        completion_create(
            project=project,
            prompt=prompt,
            answer=one.answer,
            source=Source.SAMPLED,
            sampling=sampling,
        )


def examples_of(project: Project, *, person_share: int = 100) -> list[Example]:
    """Return the examples of a snapshot of the project, as the trainer reads them.

    `person_share` is the cap on one person's votes in percent; 100 is none.
    """
    project.person_share = person_share
    project.save(update_fields=["person_share"])
    with transaction.atomic(), tempfile.TemporaryDirectory() as directory:
        cap = people_cap(project)
        totals = snapshot_totals(project, cap)
        snapshot = snapshot_freeze(project=project, cap=cap, totals=totals)
        snapshot_write(snapshot, Path(directory))
        return read_examples(Path(directory) / "examples.jsonl")


def drawn(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Return `count` examples: all of randomly drawn prompts."""
    by_prompt: dict[object, list[Example]] = {}
    for example in examples:
        by_prompt.setdefault(example.prompt, []).append(example)
    prompts = list(by_prompt)
    random.Random(seed).shuffle(prompts)
    chosen = [example for prompt in prompts for example in by_prompt[prompt]]
    if len(chosen) < count:
        raise SystemExit(f"{count} examples were asked for, and there are {len(chosen)}.")
    return chosen[:count]
