"""What the gate will have to go on is said before a run starts."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.gate.forecast import forecast
from feedback_app.training.gate.settings import GUARDS, GateSettings

SETTINGS = GateSettings()


def test_wider_margins_need_fewer_prompts() -> None:
    margins = {key: guard.margin for key, guard in GUARDS.items()}
    wide = GateSettings(margins=margins | {"finished": 0.3, "repetition": 0.3, "refusal": 0.3})
    few = forecast(wide, prompts=10, ups=9, downs=9, learned=200)
    many = forecast(SETTINGS, prompts=10, ups=9, downs=9, learned=200)
    assert few.prompts_enough < many.prompts_enough
    assert not many.enough
    assert forecast(SETTINGS, prompts=400, ups=0, downs=0, learned=200).enough


def test_test_votes_count_where_the_up_rate_cannot_be_predicted() -> None:
    early = forecast(SETTINGS, prompts=400, ups=4, downs=4, learned=20)
    assert early.by_votes
    assert not early.enough
    assert early.votes_enough > 8
    assert forecast(SETTINGS, prompts=400, ups=300, downs=300, learned=20).enough
    by_rank = GateSettings(primary="ranking")
    assert forecast(by_rank, prompts=400, ups=4, downs=4, learned=999).by_votes
    assert not forecast(GateSettings(primary="up"), prompts=9, ups=0, downs=0, learned=0).by_votes


def test_people_need_a_pair_for_each_prompt() -> None:
    people = GateSettings(primary="people", margins={})
    found = forecast(people, prompts=114, ups=0, downs=0, learned=0)
    assert (found.prompts_enough, found.by_votes, found.enough) == (114, False, True)


@pytest.mark.django_db
def test_train_page_says_how_much_would_be_enough(
    voted_project: Project, admin: User, as_user: Callable[[User], Client]
) -> None:
    page = as_user(admin).get(reverse("runs", args=[voted_project.slug])).content.decode()
    prompts = voted_project.prompts.filter(split="test").count()
    text = " ".join(page.split())
    assert f"The gate has {prompts} test prompts" in text
    assert "are enough to see a moderate gain: with fewer it may find" in text
