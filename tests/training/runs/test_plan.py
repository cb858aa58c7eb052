"""The plan on the Train page before a run, and its reasons to refuse one."""

import pytest

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Example, Project
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.planning.plan import lambdas, run_plan_shown
from feedback_app.training.runs.services import run_request
from feedback_app.web.errors import UserError

pytestmark = pytest.mark.django_db
CONFIG = RunConfig()


@pytest.mark.parametrize(
    ("desirable", "undesirable", "expected"),
    [
        (10, 10, (1.0, 1.0)),  # ratio 1 is inside [1, 4/3]
        (12, 10, (1.0, 1.0)),
        (10, 40, (4.0, 1.0)),  # 4·10 / 40 = 1
        (40, 10, (1.0, 3.0)),  # 40 / (3·10) = 4/3
    ],
)
def test_lambda_rule_equals_values_computed_by_hand(
    desirable: int, undesirable: int, expected: tuple[float, float]
) -> None:
    found = lambdas(desirable, undesirable)
    assert found == pytest.approx(expected)
    assert 1 - 1e-9 <= found[0] * desirable / (found[1] * undesirable) <= 4 / 3 + 1e-9


def test_plan_counts_both_classes(voted_project: Project) -> None:
    plan = run_plan_shown(project=voted_project, config=CONFIG)
    assert plan is not None
    assert plan.objections == ()
    assert plan.train_total + plan.validation_total + plan.test_total == 60
    assert plan.train_total == Example.objects.filter(split="train").count()
    assert plan.test_total == Example.objects.filter(split="test").count()
    assert plan.new_examples == 60
    assert plan.minutes > 0


def test_lambdas_balance_the_summed_weights_of_the_classes(voted_project: Project) -> None:
    train = Example.objects.filter(split="train")
    train.filter(desirable=False).update(weight=0.5)
    plan = run_plan_shown(project=voted_project, config=CONFIG)
    assert plan is not None
    up, down = plan.train_up, plan.train_down * 0.5
    ratio = plan.lambda_d * up / (plan.lambda_u * down)
    assert 1 - 1e-9 <= ratio <= 4 / 3 + 1e-9
    assert (plan.lambda_d, plan.lambda_u) == pytest.approx(lambdas(up, down))


def test_only_ups_is_refused_with_the_reason(voted_project: Project, admin: User) -> None:
    Example.objects.update(desirable=True)
    with pytest.raises(UserError, match="0 down"):
        run_request(project=voted_project, by=admin)
    assert not Run.objects.exists()


def test_fewer_than_a_batch_is_refused(voted_project: Project, admin: User) -> None:
    with pytest.raises(UserError, match="fewer than one batch of 256"):
        run_request(project=voted_project, by=admin, config=RunConfig(batch_size=256))


def test_second_run_waits_for_the_first(voted_project: Project, admin: User) -> None:
    run_request(project=voted_project, by=admin)
    with pytest.raises(UserError, match="Run 1 is in progress"):
        run_request(project=voted_project, by=admin)


def test_all_unusable_settings_are_reported_together() -> None:
    with pytest.raises(UserError) as fault:
        RunConfig(batch_size=1, learning_rate=5)
    assert "Batch is 1" in str(fault.value)
    assert "Learning rate is 5" in str(fault.value)
