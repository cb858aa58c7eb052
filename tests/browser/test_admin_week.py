"""A week of an admin in the browser: all processes real, on a tiny model.

A run starts by its threshold, fails the gate because of wrong labels, and these are found and
corrected; the next version passes, is compared, released, split and rolled back; then a person is
erased, and the model is trained again without them and goes live with nobody there.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import call_command
from django.urls import reverse
from playwright.sync_api import Page, expect

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Completion, Project, Source, Split, Verdict, Vote
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.localstack.stack import Stack
from feedback_app.training.gate.services import gate_settings_save
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import Adapter, Run, SnapshotItem
from tests.browser.conftest import NewPage
from tests.conftest import PASSWORD
from tests.engines import wait_until
from tests.stacks import TINY, last_lines

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.django_db(transaction=True),
]

RUN_SECONDS = 900
#: Liked and disliked answers: a tiny model can learn to tell them apart.
GOOD, BAD = "Honest, short and on the point.", "The river runs, and the river runs."

Make = Callable[..., list[Completion]]


class Votes:
    """The people who vote, and what they think of each answer."""

    def __init__(self, project: Project, annotator: User, second: User) -> None:
        self.project, self.ann, self.bob = project, annotator, second
        self.dora = User.objects.create_user("dora@example.com", PASSWORD, name="Dora")
        member_set(project=project, user=self.dora, role=Role.ANNOTATOR)

    def cast(self, answers: list[Completion]) -> None:
        """Ann and Dora vote as the answers deserve, Bob the other way round. He sees none of the
        test prompts, and most of the others."""
        for number, completion in enumerate(answers):
            good = completion.text.startswith(GOOD)
            if completion.prompt.split == Split.TEST or number % 5 == 0:
                by = self.ann
            elif number % 5 == 1:
                by = self.dora
            else:
                by, good = self.bob, not good
            verdict = Verdict.UP if good else Verdict.DOWN
            vote_cast(completion=completion, verdict=verdict, by=by, source=Source.ANNOTATE)


@pytest.fixture
def votes(
    stack: Stack, project: Project, annotator: User, second_annotator: User, make_completions: Make
) -> Votes:
    """Two hundred answers, judged by three people of whom one has misread the guidelines."""
    Project.objects.filter(pk=project.pk).update(
        base_model=TINY, max_tokens=8, person_share=100, overlap=1
    )
    # the tiny model is noise: its votes are all that the gate can go by
    rules = GateSettings(primary="ranking", margins={}, prompts=10, minutes=0)
    gate_settings_save(project=project, settings=rules, by=annotator)
    answers = make_completions(203)
    for number, completion in enumerate(answers):
        text = GOOD if number % 2 else BAD
        Completion.objects.filter(pk=completion.pk).update(text=f"{text} {number}")
    people = Votes(Project.objects.get(pk=project.pk), annotator, second_annotator)
    people.cast(list(project.completions.select_related("prompt").order_by("pk")[:200]))
    return people


def ended(run: Run, stack: Stack) -> Run:
    """Wait until a run has succeeded."""

    def over() -> bool:
        run.refresh_from_db()
        return run.status not in Run.ACTIVE

    wait_until(over, what=f"the end of {run}", seconds=RUN_SECONDS)
    assert run.status == Run.Status.SUCCEEDED, f"{run.error} {last_lines(stack, 'worker-gpu')}"
    return run


def live(page: Page, slug: str) -> str:
    page.goto(reverse("releases", args=[slug]))
    return page.locator(".head .chip").inner_text()


def test_week_of_an_admin(
    new_page: NewPage, stack: Stack, project: Project, admin: User, votes: Votes, tmp_path: Path
) -> None:
    slug = project.slug
    page = new_page(admin, base_url=stack.url)

    # 1. overnight: a run starts because enough examples are new
    page.goto(reverse("runs", args=[slug]))
    page.get_by_label("Train automatically").check()
    page.get_by_label("New examples").fill("100")
    page.get_by_label("Hours between runs").fill("1")
    page.get_by_role("button", name="Save the schedule").click()
    expect(page.locator("#schedule-title")).to_contain_text("On")
    wait_until(Run.objects.exists, what="the schedule to start a run")
    first = ended(Run.objects.get(), stack)
    assert first.trigger == Run.Trigger.SCHEDULE

    # 2. in the morning: the gate has failed it
    page.goto(reverse("run", args=[slug, first.number]))
    expect(page.locator("main")).to_contain_text("failed the gate")

    # 3. examples that fit worst are sent back, and decided
    wrong = page.get_by_role("button", name="Send back")
    wrong.first.click()
    expect(page.get_by_text("Sent back").first).to_be_visible()
    page.goto(reverse("resolve", args=[slug]) + "?show=asked")
    page.get_by_label("Why?").fill("It answers the question.")
    page.get_by_role("button", name="Up").click()
    page.goto(reverse("resolve", args=[slug]) + "?show=resolved")
    expect(page.locator("main")).to_contain_text("It answers the question.")

    # 4. one person misread the guidelines: none of their examples is trained on
    page.goto(reverse("run-examples", args=[slug, first.number]))
    page.get_by_label("Person").select_option(label=votes.bob.name)
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url("**person=**")
    while True:
        page.get_by_label("Select all on this page").check()
        page.get_by_role("button", name="Exclude from training").click()
        expect(page.locator(".toast")).to_contain_text("changed")
        further = page.get_by_role("link", name="Next")
        if not further.count():
            break
        further.click()
        expect(page.get_by_text("Excluded")).to_have_count(0)
    excluded = project.completions.filter(training_weight=0)
    assert set(Vote.objects.filter(completion__in=excluded).values_list("user", flat=True)) == {
        votes.bob.pk
    }

    # 5. an annotator corrects an answer
    desk = new_page(votes.ann, base_url=stack.url)
    desk.goto(reverse("annotate", args=[slug]))
    desk.keyboard.press("e")
    field = desk.locator("#correction")
    field.fill(f"{GOOD} Corrected.")
    desk.get_by_role("button", name="Save correction").click()
    wait_until(Completion.objects.filter(version="edited").exists, what="the correction")

    # 6. trained again: it passes, and is compared with the one that failed
    page.goto(reverse("runs", args=[slug]))
    page.get_by_role("button", name="Train now").click()
    expect(page.get_by_role("heading", name="Run 2")).to_be_visible()
    second = ended(Run.objects.get(number=2), stack)
    page.goto(reverse("run", args=[slug, 2]))
    expect(page.locator("main")).to_contain_text("passed the gate")
    page.goto(reverse("runs", args=[slug]))
    page.get_by_label("Choose run 1").check()
    page.get_by_label("Choose run 2").check()
    page.get_by_role("button", name="Side by side").click()
    expect(page.get_by_role("heading", name="Runs side by side")).to_be_visible()
    expect(page.locator("#measures-title")).to_be_visible()

    # 7. released, tried against the other in a split, rolled back, and live again
    name = second.adapter.name
    page.goto(reverse("run", args=[slug, 2]))
    page.get_by_role("button", name=f"Release {name}").click()
    expect(page.locator(".toast")).to_contain_text(f"{name} is live now")
    page.goto(reverse("releases", args=[slug]))
    page.get_by_role("button", name="Start the split").click()
    expect(page.get_by_role("button", name="Stop the split")).to_be_visible()
    page.get_by_role("button", name="Stop the split").click()
    expect(page.get_by_text("Earlier splits")).to_be_visible()
    page.get_by_role("button", name="Roll back to the base").click()
    expect(page.locator(".head .chip")).to_contain_text("base is live")
    page.get_by_role("button", name="Make live again").first.click()
    expect(page.locator(".head .chip")).to_contain_text(f"{name} is live")

    # 8. a person is erased: their version is replaced by one without them, with nobody there
    judged = SnapshotItem.objects.filter(snapshot=second.snapshot_id).count()
    page.goto(reverse("person", args=[slug, votes.dora.pk]))
    page.get_by_text("Erase from this project").click()
    page.get_by_label(f"Type {votes.dora.email}").fill(votes.dora.email)
    page.get_by_role("button", name=f"Erase {votes.dora.name}").click()
    wait_until(Run.objects.filter(number=3).exists, what="a run without the erased person")
    third = ended(Run.objects.get(number=3), stack)
    assert third.retrains == second
    assert not Vote.objects.filter(user=votes.dora).exists()
    left = SnapshotItem.objects.filter(snapshot=third.snapshot_id).count()
    assert 0 < left < judged
    again = third.adapter.name
    wait_until(
        lambda: Project.objects.get(pk=project.pk).live_version == again,
        what=f"{again} to go live: {third.adapter.report.get('gate')}",
    )
    page.goto(reverse("erasures", args=[slug]))
    expect(page.locator("main")).to_contain_text(name)
    wait_until(
        lambda: Adapter.objects.get(name=name).locked_at is not None, what="the lock of the old one"
    )
    page.goto(reverse("run", args=[slug, 2]))
    expect(page.get_by_text("had learned from what was erased since")).to_be_visible()

    # 9. its dossier is as it was signed
    page.goto(reverse("run", args=[slug, 3]))
    with page.expect_download() as found:
        page.get_by_role("link", name="Dossier").click()
    file = tmp_path / "version.dossier.json"
    found.value.save_as(file)
    call_command("verify", str(file))
    changed = json.loads(file.read_text())
    assert votes.dora.email not in json.dumps(changed)
