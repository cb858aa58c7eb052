"""Numbers in addresses, forms and request bodies that no database column can hold."""

import re
from collections.abc import Callable, Iterator

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Completion, Project
from feedback_app.feedback.tokens.services import token_create
from feedback_app.training.runs.services import run_request

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
TOO_LARGE = (2**63, 10**25, 10**400)


def addresses_with_numbers(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    """Yield the project's own addresses with a number in them, as patterns."""
    for entry in resolver.url_patterns:
        pattern = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            if "allauth" not in str(entry.urlconf_name) and entry.app_name is None:
                yield from addresses_with_numbers(entry, pattern)
        elif isinstance(entry, URLPattern) and re.search(r"<(int|id):", pattern):
            yield pattern


PATTERNS = sorted(addresses_with_numbers(get_resolver()))


def filled(pattern: str, number: int) -> str:
    """Return an address of the project `bot` with this number."""
    parts = {"slug": "bot", "str": "x", "uuid": "7e57d004-2b97-4e7a-b45f-5387367791cd"}
    parts |= {"int": str(number), "id": str(number)}
    return "/" + re.sub(r"<(\w+):\w+>", lambda found: parts[found[1]], pattern)


@pytest.mark.slow
def test_number_beyond_the_database_is_404_in_every_address(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    assert len(PATTERNS) > 30
    found = {
        (pattern, number, answer.status_code)
        for pattern in PATTERNS
        for number in TOO_LARGE
        for answer in (client.get(filled(pattern, number)), client.post(filled(pattern, number)))
    }
    assert {each for each in found if each[2] != 404} == set()


@pytest.mark.slow
def test_largest_number_of_the_database_is_404_or_refused_in_every_address(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    codes = {
        client.post(filled(pattern, number)).status_code
        for pattern in PATTERNS
        for number in (0, 2**31, 2**63 - 1)
    }
    # 400: the form is read first; 405: a page that takes no POST
    assert codes <= {400, 404, 405}


def test_vote_on_a_number_beyond_the_database_is_404(annotator: User, as_user: As) -> None:
    for number in TOO_LARGE:
        for action in ("vote", "undo", "skip"):
            url = f"/projects/bot/completions/{number}/{action}/"
            assert as_user(annotator).post(url, {"verdict": "up"}).status_code == 404


def test_ids_in_addresses_have_one_converter(
    make_completions: Callable[..., list[Completion]],
) -> None:
    assert [pattern for pattern in PATTERNS if "<int:" in pattern] == []
    [completion] = make_completions()
    assert reverse("vote", args=["bot", completion.pk]).endswith(f"/{completion.pk}/vote/")


def test_numbers_in_queries_beyond_the_database_are_refused(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    for name in ("gold", "quality", "resolve", "examples"):
        for number in TOO_LARGE:
            answer = client.get(reverse(name, args=["bot"]), {"page": str(number)})
            assert answer.status_code == 400, name


@pytest.mark.parametrize("after", ["9" * 10, "9" * 5_000])
def test_step_of_a_run_beyond_the_database_is_refused(
    after: str, voted_project: Project, admin: User, as_user: As
) -> None:
    run = run_request(project=voted_project, by=admin)

    answer = as_user(admin).get(reverse("run-metrics", args=["bot", run.number]), {"after": after})

    assert answer.status_code == 400


def test_number_beyond_the_database_is_404_in_the_apis(project: Project, admin: User) -> None:
    _, secret = token_create(project=project, name="Sync", scopes=list(Scope), by=admin)
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    api = "/api/v1/projects/bot"
    votes = {"votes": [{"completion_id": 0, "verdict": "up"}]}

    for number in (2**63, 10**25):
        votes["votes"][0]["completion_id"] = number
        answers = [
            client.get(f"{api}/{name}/{number}")
            for name in ("prompts", "completions", "votes", "examples", "imports")
        ]
        answers += [
            client.post(url, body, content_type="application/json")
            for url, body in (
                (f"{api}/votes", votes),
                (f"{api}/completions", {"completions": [{"prompt_id": number, "text": "x"}]}),
                ("/v1/feedback", {"completion_id": number, "verdict": "up"}),
            )
        ]
        assert [answer.status_code for answer in answers] == [404] * len(answers)
        assert {answer.json()["error"]["code"] for answer in answers} == {"not_found"}
