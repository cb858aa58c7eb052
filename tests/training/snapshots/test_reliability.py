"""Example weights by the reliability of the people who voted."""

import pytest

from feedback_app.accounts.models import User
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.models import (
    Completion,
    Example,
    Figures,
    Project,
    Source,
    Verdict,
    Vote,
)
from feedback_app.feedback.reliability.services import NAME
from feedback_app.training.models import Snapshot
from feedback_app.training.snapshots.caps import people_cap, snapshot_totals
from feedback_app.training.snapshots.reliability import LEAST
from feedback_app.training.snapshots.services import snapshot_freeze
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db


@pytest.fixture
def people(project: Project) -> dict[str, User]:
    """People of known reliability: their votes weigh 1, 0.5, 0 and as of unknown people."""
    found = {name: User.objects.create_service(name=name) for name in ("good", "half", "none")}
    values = {"good": 1.0, "half": 0.75, "none": 0.5}
    Figures.objects.create(
        project=project,
        name=NAME,
        status=Figures.Status.DONE,
        value={str(found[name].pk): [value, 0, 1, 50] for name, value in values.items()},
    )
    Project.objects.update(weigh_by_reliability=True, person_share=100)
    project.refresh_from_db()
    return found


def judge(completion: Completion, source: Source = Source.ANNOTATE, **verdicts: User) -> None:
    for verdict, user in verdicts.items():
        Vote.objects.create(
            project=completion.project,
            completion=completion,
            user=user,
            verdict=verdict.split("_")[0],
            source=source,
        )


def frozen(project: Project) -> tuple[Snapshot, dict[int, float]]:
    examples_refresh(project.completions.values_list("pk", flat=True))
    cap = people_cap(project)
    totals = snapshot_totals(project, cap)
    snapshot = snapshot_freeze(project=project, cap=cap, totals=totals)
    trained = snapshot.items.filter(split="train")
    for desirable, weight in ((True, totals.train_weight_up), (False, totals.train_weight_down)):
        kept = trained.filter(desirable=desirable).values_list("weight", flat=True)
        assert weight == pytest.approx(sum(kept))
    return snapshot, dict(snapshot.items.values_list("completion", "weight"))


def test_votes_weigh_by_reliability(
    project: Project, people: dict[str, User], make_completions: MakeCompletions
) -> None:
    good, half, none, mixed, unknown, imported, decided = make_completions(7)
    stranger = User.objects.create_service(name="stranger")
    judge(good, up=people["good"])
    judge(half, down=people["half"])
    judge(none, up=people["none"])
    judge(mixed, up=people["good"], up_2=people["half"], down=people["none"])
    judge(unknown, down=stranger)
    judge(imported, source=Source.IMPORT, up=people["none"])
    judge(decided, up=people["none"])
    Completion.objects.filter(pk=decided.pk).update(decided=Verdict.UP)

    snapshot, weights = frozen(project)

    assert weights[good.pk] == pytest.approx(1)
    assert weights[half.pk] == pytest.approx(0.5)
    assert weights[none.pk] == pytest.approx(LEAST)
    assert weights[mixed.pk] == pytest.approx((1 + 0.5 - 0) / 3)
    assert weights[unknown.pk] == pytest.approx(0.6)
    assert weights[imported.pk] == weights[decided.pk] == 1
    labels = dict(snapshot.items.values_list("completion", "desirable"))
    assert labels == dict(Example.objects.values_list("completion", "desirable"))


def test_off_by_default_weights_are_the_examples_own(
    project: Project, people: dict[str, User], make_completions: MakeCompletions
) -> None:
    Project.objects.update(weigh_by_reliability=False)
    project.refresh_from_db()
    [answer] = make_completions(1)
    judge(answer, up=people["none"])

    assert frozen(project)[1] == {answer.pk: 1}


def test_example_that_only_unreliable_people_carry_keeps_the_least_weight(
    project: Project, people: dict[str, User], make_completions: MakeCompletions
) -> None:
    [answer] = make_completions(1)
    other = User.objects.create_service(name="another")
    figures = Figures.objects.get(name=NAME)
    figures.value[str(other.pk)] = [0.3, 0, 1, 50]
    figures.save()
    judge(answer, up=people["none"], up_2=other, down=people["good"])

    assert frozen(project)[1] == {answer.pk: pytest.approx(LEAST)}


def test_votes_that_are_set_aside_do_not_weigh(
    project: Project, people: dict[str, User], make_completions: MakeCompletions
) -> None:
    [answer] = make_completions(1)
    judge(answer, up=people["half"], up_2=people["none"])
    pause = project.pauses.create(user=people["none"], right=0, of=3)
    Vote.objects.filter(user=people["none"]).update(set_aside=pause)

    assert frozen(project)[1] == {answer.pk: pytest.approx(0.5)}
