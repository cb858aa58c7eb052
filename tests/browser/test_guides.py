"""The screenshots of docs/guides, taken from the current pages (tools/screenshots.py)."""

import os
import re
from pathlib import Path

import pytest
from django.urls import reverse

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project, Sampling, Source, Verdict
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.projects.starter import starter_prompts, starter_text
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.serving.models import Comparison, Conversation, Release, Turn
from feedback_app.training.models import Adapter
from feedback_app.training.runs.services import run_request
from tests.browser.conftest import NewPage
from tests.browser.world import claimed, finish, said
from tests.conftest import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
#: The directory for the screenshots; without it the test only checks that each page is shown.
TARGET = os.environ.get("PROSPECT_SCREENSHOTS")
#: The screenshots in the guides.
IMAGES = re.compile(r"\(images/(\w+)\.png\)")
VIEW = {"width": 1200, "height": 760}
RICE = "How long do I have to cook rice?"
SHORT = "Rinse it, add twice as much water, and let it simmer for twelve minutes with the lid on."
RAMBLING = (
    "Rice is one of the most popular foods in the world and there are many kinds of rice, and each "
    "kind of rice has its own time. Some people like rice soft and some people like it firm."
)
ANSWERS = (
    "Use *their* for something that belongs to people and *there* for a place: their house is over "
    "there.",
    "A fever is your body turning up its heating to fight germs. You feel hot and tired while it "
    "works. Drink a lot, rest, and tell a grown-up if you feel worse.",
    "A vaccine shows your body a harmless part of a germ. Your body learns to recognise it and is "
    "ready when the real one comes.",
    "Join something that meets every week, such as a sports club or a choir. Talk to the same "
    "people again and again, and suggest a coffee after a few meetings.",
)


@pytest.fixture
def guide_project(admin: User) -> Project:
    """A project with votes, two runs, a live version and a conversation."""
    project = project_create(
        slug="home-advice",
        name="Home advice",
        base_model="SmolLM2-135M-Instruct",
        owner=admin,
        system_prompt=starter_text("system_prompt.txt"),
        guidelines=starter_text("guidelines.md"),
    )
    annotator = User.objects.create_user("ann@example.com", PASSWORD, name="Ann Otator")
    member_set(project=project, user=annotator, role=Role.ANNOTATOR)
    sampling = Sampling.objects.create(project=project, status=Sampling.Status.DONE)
    for number, (topic, messages) in enumerate(starter_prompts()[:120]):
        completion = completion_create(
            project=project,
            prompt=prompt_get_or_create(
                project=project, messages=messages, source=Source.IMPORT, topic=topic
            ),
            answer=Answer(ANSWERS[number % len(ANSWERS)], "base", "stop", None, None),
            source=Source.IMPORT,
            sampling=sampling,
        )
        if number >= len(ANSWERS) * 2:
            verdict = Verdict.DOWN if number % 3 else Verdict.UP
            vote_cast(completion=completion, verdict=verdict, by=annotator, source=Source.ANNOTATE)
    finish(claimed(run_request(project=project, by=admin)), up=0.62)
    live = finish(claimed(run_request(project=project, by=admin)), up=0.8)
    release(project, admin, live)
    return project


def release(project: Project, admin: User, live: Adapter) -> None:
    Release.objects.create(project=project, adapter=live, released_by=admin, reason="First round")
    Project.objects.filter(pk=project.pk).update(live_version=live.name)
    project.refresh_from_db()
    conversation = Conversation.objects.create(project=project, user=admin, title=RICE)
    answer = said(project, RICE, SHORT, version=live.name)
    Turn.objects.create(conversation=conversation, position=0, user_message=RICE, completion=answer)
    vote_cast(completion=answer, verdict=Verdict.UP, by=admin, source=Source.DEMO)
    Comparison.objects.create(
        project=project,
        user=admin,
        question=RICE,
        left_version="base",
        right_version=live.name,
        left=said(project, RICE, RAMBLING, version="base"),
        right=said(project, RICE, SHORT, version=live.name),
    )


@pytest.mark.long
def test_every_screenshot_of_the_guides_can_be_taken(
    guide_project: Project, admin: User, new_page: NewPage, tmp_path: Path
) -> None:
    slug = guide_project.slug
    pages = {
        "annotate": reverse("annotate", args=[slug]),
        "train": reverse("runs", args=[slug]),
        "run": reverse("run", args=[slug, 2]),
        "releases": reverse("releases", args=[slug]),
        "demo": reverse("conversation", args=[slug, Conversation.objects.get().pk]),
        "compare": reverse("comparison", args=[slug, Comparison.objects.get().pk]),
    }
    target = Path(TARGET) if TARGET else tmp_path
    target.mkdir(parents=True, exist_ok=True)
    page = new_page(admin, viewport=VIEW, color_scheme="light")
    for name, address in pages.items():
        response = page.goto(address, wait_until="load")
        assert response is not None
        assert response.ok, name
        page.wait_for_function("document.fonts.status === 'loaded'")
        page.screenshot(path=target / f"{name}.png", animations="disabled")

    named = {image for text in GUIDES.glob("*.md") for image in IMAGES.findall(text.read_text())}
    assert named == set(pages)
