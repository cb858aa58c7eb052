"""A batch of blind pairs from the end of a run to the gate's second verdict."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import AuditEvent, Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project, Prompt, Source
from feedback_app.feedback.models.webhooks import Event, WebhookDelivery
from feedback_app.feedback.webhooks.services import webhook_create
from feedback_app.privacy.erasure import person_erase
from feedback_app.privacy.export import person_json
from feedback_app.serving.releases.selectors import adapters_to_release
from feedback_app.training import tasks
from feedback_app.training.forgetting.gate_reports import questions_forget
from feedback_app.training.gate.people import decision
from feedback_app.training.gate.people.decision import batch_decide, batches_end
from feedback_app.training.gate.people.selectors import pair_next
from feedback_app.training.gate.people.services import batch_close, pair_judge
from feedback_app.training.gate.people.sides import candidate_is_left
from feedback_app.training.gate.rules import GateResult
from feedback_app.training.gate.services import (
    gate_decide_again,
    gate_preview,
    gate_settings,
)
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import (
    Adapter,
    BlindPair,
    GateOutcome,
    PairBatch,
    PairVote,
    RunNote,
)
from feedback_app.training.querysets import SKIPS_TO_LEAVE_OUT
from feedback_app.web.errors import Conflict
from tests.training.gate.people.world import (
    CANDIDATE,
    LIVE,
    click,
    judge,
    people_run,
    prompts_of,
)

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]
#: Pairs that decide, if all go to one side.
ENOUGH = 8


@pytest.fixture
def adapter(voted_project: Project, admin: User) -> Adapter:
    return people_run(voted_project, admin)


@pytest.fixture
def pairs(adapter: Adapter) -> list[BlindPair]:
    return list(adapter.pair_batch.pairs.order_by("position"))


def decided(adapter: Adapter) -> Adapter:
    """Do what the scheduler does, and return the version as it is then."""
    for pk in PairBatch.objects.undecided().values_list("pk", flat=True):
        batch_decide(pk)
    return Adapter.objects.get(pk=adapter.pk)


def rule_of(adapter: Adapter) -> dict[str, Any]:
    found: dict[str, Any] = adapter.gate["rules"][0]
    assert found["key"] == "people"
    return found


def test_run_leaves_pairs_and_an_undecided_gate(adapter: Adapter, pairs: list[BlindPair]) -> None:
    assert adapter.gate_outcome == GateOutcome.UNDECIDED
    assert rule_of(adapter)["text"] == "people have judged 0 of 100 pairs"
    assert [rule["outcome"] for rule in adapter.gate["rules"][1:]].count("passed") > 8
    assert len(pairs) == 100
    assert pairs[3].candidate_text == "Fresh answer number 3."
    assert pairs[3].live_text == "Plain answer number 3."
    assert pairs[3].messages == [{"role": "user", "content": "Question 3 of the gate?"}]


def test_question_that_is_deleted_while_people_decide_does_not_return(
    adapter: Adapter, pairs: list[BlindPair], annotator: User
) -> None:
    judge(pairs[:ENOUGH], annotator, CANDIDATE)
    Prompt.objects.filter(pk=pairs[0].prompt_id).update(split="test")

    def meanwhile(*arguments: Any) -> GateResult:
        questions_forget([pairs[0].prompt_id])
        return gate_decide_again(*arguments)

    with patch.object(decision, "gate_decide_again", meanwhile):
        found = decided(adapter)

    assert found.report["answers"][0]["messages"] == []
    assert found.report["people"] == PairBatch.objects.get().counts


def test_same_answers_are_ties_that_nobody_is_asked_about(
    voted_project: Project, admin: User
) -> None:
    adapter = people_run(voted_project, admin, prompts=100, same=30)
    assert adapter.pair_batch.pairs.count() == 70
    assert adapter.pair_batch.same == 30
    few = people_run(voted_project, admin, prompts=100, same=95)
    assert not PairBatch.objects.filter(adapter=few).exists()
    assert "people are asked from 10 on" in rule_of(few)["text"]


def test_private_questions_are_shown_to_nobody(voted_project: Project, admin: User) -> None:
    """Questions of the demo and of the API are test prompts too, but no annotator reads them."""
    for number, prompt in enumerate(prompts_of(voted_project, 40)):
        prompt.source = (Source.DEMO, Source.API, Source.IMPORT, Source.IMPORT)[number % 4]
        prompt.save()
    batch = people_run(voted_project, admin, prompts=40).pair_batch
    assert batch.pairs.count() == 20
    assert set(batch.pairs.values_list("prompt__source", flat=True)) == {Source.IMPORT}


def test_at_most_two_hundred_pairs(voted_project: Project, admin: User) -> None:
    assert people_run(voted_project, admin, prompts=230).pair_batch.pairs.count() == 200


def test_failed_guard_makes_no_pairs(voted_project: Project, admin: User) -> None:
    adapter = people_run(voted_project, admin, prompts=300, finished=0.2)
    assert adapter.gate_outcome == GateOutcome.FAILED
    assert not PairBatch.objects.exists()
    assert rule_of(adapter)["text"] == "people were not asked, as a guard has failed"


def test_other_primary_measures_ask_nobody(voted_project: Project, admin: User) -> None:
    people_run(voted_project, admin)
    assert gate_settings(voted_project).primary == "people"
    previews = gate_preview(voted_project, GateSettings())
    assert [preview.outcome for preview in previews] == [GateOutcome.PASSED]


@pytest.mark.parametrize(
    ("choice", "outcome"), [(CANDIDATE, GateOutcome.PASSED), (LIVE, GateOutcome.FAILED)]
)
def test_clear_votes_end_the_batch_early(
    adapter: Adapter, pairs: list[BlindPair], annotator: User, choice: str, outcome: str
) -> None:
    judge(pairs[: ENOUGH - 1], annotator, choice)
    assert decided(adapter).gate_outcome == GateOutcome.UNDECIDED
    judge(pairs[ENOUGH - 1 : ENOUGH], annotator, choice)
    batch = PairBatch.objects.get()
    assert batch.end == PairBatch.End.DECIDED
    found = decided(adapter)
    assert found.gate_outcome == outcome
    assert found.gate_won == (outcome == GateOutcome.PASSED)
    assert found.report["people"]["judged"] == ENOUGH
    assert RunNote.objects.filter(text__startswith="People have judged bot@1.").count() == 1
    with pytest.raises(Conflict):
        pair_judge(pair=pairs[20], by=annotator, side=PairVote.Side.TIE)


def test_message_that_comes_twice_decides_once(
    adapter: Adapter, pairs: list[BlindPair], annotator: User, admin: User
) -> None:
    webhook_create(
        project=adapter.project, url="https://93.184.215.14/", events=[Event.RUN_FINISHED], by=admin
    )
    judge(pairs[:ENOUGH], annotator, CANDIDATE)
    for _ in range(2):
        tasks.decide_pairs(adapter.pair_batch.pk)
    event = WebhookDelivery.objects.get()
    assert '"gate_outcome":"passed"' in event.body.replace(": ", ":")


def test_batch_without_a_clear_side_ends_undecided(
    voted_project: Project, admin: User, annotator: User
) -> None:
    adapter = people_run(voted_project, admin, prompts=20)
    for number, pair in enumerate(adapter.pair_batch.pairs.order_by("position")):
        judge([pair], annotator, CANDIDATE if number % 3 else LIVE)
    found = decided(adapter)
    assert PairBatch.objects.get().end == PairBatch.End.JUDGED
    assert found.gate_outcome == GateOutcome.UNDECIDED
    assert "pairs would decide" in rule_of(found)["text"]
    assert rule_of(found)["needed"] > 20


def test_one_vote_a_person_and_pair(
    adapter: Adapter, pairs: list[BlindPair], annotator: User
) -> None:
    judge(pairs[:1] * 3, annotator, CANDIDATE)
    judge(pairs[:1], annotator, LIVE)
    assert PairVote.objects.get().choice == LIVE
    judge(pairs[1:2] * 20, annotator, CANDIDATE)
    assert not PairBatch.objects.get().end


def test_people_get_pairs_that_nobody_has_judged(
    adapter: Adapter, pairs: list[BlindPair], annotator: User, second_annotator: User
) -> None:
    judge(pairs[:3], annotator, PairVote.Choice.TIE)
    found, waiting = pair_next(adapter.project, second_annotator)
    assert waiting == 97
    assert found not in pairs[:3]
    orders = {pair_next(adapter.project, user)[0] for user in (annotator, second_annotator)}
    assert len(orders) == 2
    for user in (annotator, second_annotator)[:SKIPS_TO_LEAVE_OUT]:
        judge(pairs[5:6], user, PairVote.Choice.SKIP)
    assert pairs[5] not in BlindPair.objects.unjudged()


def test_sides_are_drawn_for_each_pair_and_person(
    pairs: list[BlindPair], annotator: User, second_annotator: User
) -> None:
    first = [candidate_is_left(pair, annotator) for pair in pairs]
    assert 25 < sum(first) < 75
    assert first == [candidate_is_left(pair, annotator) for pair in pairs]
    assert first != [candidate_is_left(pair, second_annotator) for pair in pairs]


def test_admin_closes_the_pairs_early(
    adapter: Adapter, pairs: list[BlindPair], annotator: User, admin: User
) -> None:
    judge(pairs[:4], annotator, CANDIDATE)
    batch_close(batch=adapter.pair_batch, by=admin)
    found = decided(adapter)
    assert found.gate_outcome == GateOutcome.UNDECIDED
    assert "4 of 100 pairs, then an admin closed them" in rule_of(found)["text"]
    entry = AuditEvent.objects.get(action="gate.pairs_close")
    assert (entry.actor, entry.target) == (admin, "bot@1")


def test_pairs_of_a_discarded_version_wait(
    adapter: Adapter, pairs: list[BlindPair], annotator: User
) -> None:
    Adapter.objects.update(discarded_at=adapter.created_at)
    assert pair_next(adapter.project, annotator) == (None, 0)
    with pytest.raises(Conflict):
        pair_judge(pair=pairs[0], by=annotator, side=PairVote.Side.TIE)
    Adapter.objects.update(discarded_at=None)
    assert pair_next(adapter.project, annotator)[1] == 100


def test_batch_ends_when_its_last_prompts_are_deleted(
    adapter: Adapter, pairs: list[BlindPair], annotator: User
) -> None:
    judge(pairs[:2], annotator, PairVote.Choice.TIE)
    batches_end()
    assert not PairBatch.objects.get().end
    Prompt.objects.filter(pk__in=[pair.prompt_id for pair in pairs[2:]]).delete()
    batches_end()
    assert PairBatch.objects.get().end == PairBatch.End.JUDGED


@pytest.mark.parametrize("account", [True, False])
def test_erased_person_leaves_no_vote_on_a_pair(
    adapter: Adapter,
    pairs: list[BlindPair],
    annotator: User,
    second_annotator: User,
    admin: User,
    account: bool,
) -> None:
    judge(pairs[:3], annotator, CANDIDATE)
    judge(pairs[3:4], second_annotator, CANDIDATE)
    person_erase(user=annotator, by=admin, project=None if account else adapter.project)
    assert list(PairVote.objects.values_list("user", flat=True)) == [second_annotator.pk]


def test_export_has_the_choices_and_not_whose_answers_they_were(
    pairs: list[BlindPair], annotator: User
) -> None:
    judge(pairs[:1], annotator, CANDIDATE)
    text = "".join(person_json(annotator))
    assert '"pair_votes": [\n{"pair__batch__project__slug": "bot"' in text
    assert '"side": ' in text
    assert "candidate" not in text


@pytest.mark.parametrize("auto_release", [True, False])
def test_votes_on_the_page_release_the_version(
    voted_project: Project, admin: User, annotator: User, as_user: As, auto_release: bool
) -> None:
    """From the page to what the scheduler releases."""
    adapter = people_run(voted_project, admin, auto_release=auto_release)
    client = as_user(annotator)
    assert not adapters_to_release().exists()
    for number in range(ENOUGH):
        page = client.get(reverse("pairs", args=["bot"]))
        pair = page.context["pair"]
        assert page.context["waiting"] == 100 - number
        answer = click(client, pair, annotator, CANDIDATE)
        assert answer["Location"] == reverse("pairs", args=["bot"])
    assert client.get(reverse("pairs", args=["bot"])).context["pair"] is None
    assert decided(adapter).gate_outcome == GateOutcome.PASSED
    assert list(adapters_to_release()) == ([adapter] if auto_release else [])


@pytest.fixture
def third_annotator(project: Project) -> User:
    user = User.objects.create_user("cleo@example.com", "x", name="Cleo")
    member_set(project=project, user=user, role=Role.ANNOTATOR)
    return user


def test_one_of_three_annotators_judges_half_and_decides_nothing_alone(
    adapter: Adapter,
    pairs: list[BlindPair],
    annotator: User,
    second_annotator: User,
    third_annotator: User,
) -> None:
    half = len(pairs) // 2
    judge(pairs[:half], annotator, CANDIDATE)
    assert half > ENOUGH
    assert not PairBatch.objects.get().end
    assert pair_next(adapter.project, annotator) == (None, 0)
    with pytest.raises(Conflict, match="half of these pairs"):
        judge(pairs[half : half + 1], annotator, CANDIDATE)
    judge(pairs[:1], annotator, CANDIDATE)  # changing an own choice is no new one
    assert pair_next(adapter.project, second_annotator)[1] == len(pairs) - half

    judge(pairs[half:], second_annotator, CANDIDATE)
    assert PairBatch.objects.get().end == PairBatch.End.DECIDED
    assert decided(adapter).gate_outcome == GateOutcome.PASSED


def test_pairs_of_one_of_three_annotators_are_no_evidence_when_closed(
    adapter: Adapter,
    pairs: list[BlindPair],
    admin: User,
    annotator: User,
    second_annotator: User,
    third_annotator: User,
) -> None:
    judge(pairs[: ENOUGH + 5], annotator, CANDIDATE)
    batch_close(batch=PairBatch.objects.get(), by=admin)
    found = decided(adapter)
    assert found.gate_outcome == GateOutcome.UNDECIDED
    assert f"one person judged {ENOUGH + 5} of {ENOUGH + 5} pairs" in rule_of(found)["text"]
