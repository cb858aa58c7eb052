"""A version that did not pass the gate goes live only with a person's reason, whatever the way."""

from collections.abc import Callable

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Project
from feedback_app.serving.models import Release
from feedback_app.serving.releases.services import (
    GateNotPassed,
    release_promote,
    release_rollback,
)
from feedback_app.serving.traffic_splits.services import split_start
from feedback_app.training.models import Adapter
from tests.served import MakeAdapter

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]
WHY = "did not pass the gate"


@pytest.fixture
def failed(make_adapter: MakeAdapter) -> Adapter:
    return make_adapter(1, gate_won=False)


@pytest.mark.parametrize("reason", ["", "  "])
def test_release_without_a_reason_is_refused(
    served: Project, failed: Adapter, admin: User, as_user: As, reason: str
) -> None:
    with pytest.raises(GateNotPassed, match=WHY):
        release_promote(project=served, adapter=failed, by=admin, reason=reason)
    with pytest.raises(CommandError, match=WHY):
        call_command("release", failed.name, reason=reason)
    page = as_user(admin).post(
        reverse("release", args=[served.slug, failed.name]), {"reason": reason}, follow=True
    )

    assert WHY in page.content.decode()
    assert not Release.objects.exists()
    served.refresh_from_db()
    assert served.live_version == "base"


def test_button_of_a_split_asks_for_the_reason(
    served: Project, failed: Adapter, admin: User, as_user: As
) -> None:
    split_start(project=served, adapter=failed, percent=10, by=admin)

    page = as_user(admin).get(reverse("releases", args=[served.slug])).content.decode()

    assert f'aria-label="Reason for releasing {failed.name} from its split"' in page
    assert 'type="hidden" name="reason"' not in page


def test_reason_is_in_the_audit_trail(served: Project, failed: Adapter, admin: User) -> None:
    call_command("release", failed.name, reason="A customer waits for it")

    event = AuditEvent.objects.get(action="release")
    assert event.reason == "The gate was not passed. A customer waits for it"
    assert Release.objects.get().reason == "A customer waits for it"


def test_version_that_was_live_needs_no_reason_again(
    served: Project, failed: Adapter, make_adapter: MakeAdapter, admin: User
) -> None:
    release_promote(project=served, adapter=failed, by=admin, reason="To try it")
    release_promote(project=served, adapter=make_adapter(2), by=admin)

    assert release_rollback(project=served, by=admin).version == failed.name
