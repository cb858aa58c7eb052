"""The sign-in pages: each renders without the pages of allauth that are not mounted."""

from collections.abc import Callable

import pytest
from django.core import mail
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse

from feedback_app.accounts.models import User
from feedback_app.accounts.urls import urlpatterns
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]


def names(patterns: list[URLPattern | URLResolver]) -> list[str]:
    found = []
    for each in patterns:
        if isinstance(each, URLResolver):
            found += names(each.url_patterns)
        elif not str(each.name).startswith("openid_connect"):
            found.append(str(each.name))
    return found


PAGES = names(urlpatterns)
KEY = {"uidb36": "1", "key": "set-password"}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("password", [True, False])
def test_page_renders_for_everybody(
    name: str, password: bool, project: object, annotator: User, as_user: As
) -> None:
    path = reverse(name, kwargs=KEY if name == "account_reset_password_from_key" else {})
    if not password:
        annotator.set_unusable_password()
        annotator.save()

    for client in (Client(), as_user(annotator)):
        assert client.get(path, follow=True).status_code < 500
        assert client.post(path, follow=True).status_code < 500


def sign_in_page(client: Client) -> str:
    return client.get(reverse("account_login")).content.decode()


def test_forgotten_password_is_reset_by_mail_and_strangers_get_none(annotator: User) -> None:
    client, reset = Client(), reverse("account_reset_password")
    assert f'<a href="{reset}">Forgot password?</a>' in sign_in_page(client)
    for email in ("nobody@example.com", annotator.email):
        page = client.post(reset, {"email": email}, follow=True)
        assert page.status_code == 200
    [sent] = mail.outbox
    assert sent.to == [annotator.email]
    [link] = [word for word in str(sent.body).split() if "/password/reset/key/" in word]

    form = client.get(link, follow=True)
    new = {"password1": "another long password", "password2": "another long password"}
    done = client.post(form.redirect_chain[-1][0], new, follow=True)

    assert done.status_code == 200
    sign_in = {"login": annotator.email, "password": PASSWORD}
    assert client.post(reverse("account_login"), sign_in).status_code == 200
    sign_in["password"] = new["password1"]
    assert client.post(reverse("account_login"), sign_in).status_code == 302
