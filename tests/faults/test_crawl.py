"""Every URL, requested by everyone whom it is not for, with every id of other people's objects.

The URLs come from the URL table: a view that is new there fails the first test until LEAST says who
may use it, and is then requested by all the others.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.http.response import HttpResponseBase
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from pytest_django import Settings

from feedback_app.accounts.models import Scope
from tests.faults.world import World, all_rows, changed, ids_of, make_world, move_ids

# the table is checked by each run of the suite, and what it says by `make test-long`
pytestmark = pytest.mark.django_db

#: Who may use a page of a project: the lowest role.
VIEWER, ANNOTATOR, ADMIN, OWNER = ROLES = ["viewer", "annotator", "admin", "owner"]
#: Views outside a project: for everyone, for holders of the URL's secret, for signed-in people.
EVERYONE, HOLDER, PERSON = "everyone", "holder", "person"
#: Pages for monitoring: they read neither ids nor sessions, and the tests are in tests/monitoring.
OPERATOR = "operator"
LEAST = {
    "health": EVERYONE,
    "healthz": EVERYONE,
    "readyz": OPERATOR,
    "metrics": OPERATOR,
    "components": EVERYONE,
    "annotate-worker": EVERYONE,
    "home": PERSON,
    "project-new": PERSON,
    "project-deletions": PERSON,
    "system": PERSON,
    "system-free": PERSON,
    "project-deletion": PERSON,
    "me": PERSON,
    "notifications": PERSON,
    "me-export": PERSON,
    "me-erase": PERSON,
    "invitation": HOLDER,
    "erasure-status": HOLDER,
    "shared": HOLDER,
    "shared-send": HOLDER,
    "shared-new": HOLDER,
    "shared-again": HOLDER,
    "shared-show": HOLDER,
    "shared-vote": HOLDER,
    "shared-undo": HOLDER,
    "me-leave": VIEWER,
    "api-docs": VIEWER,
    "demo": VIEWER,
    "conversation-new": VIEWER,
    "conversation": VIEWER,
    "conversation-send": VIEWER,
    "turn-again": VIEWER,
    "conversation-choose": VIEWER,
    "conversations": VIEWER,
    "conversation-rename": VIEWER,
    "conversation-delete": VIEWER,
    "turn-show": VIEWER,
    "compare": VIEWER,
    "comparison-new": VIEWER,
    "comparison": VIEWER,
    "comparison-answer": VIEWER,
    "comparison-judge": VIEWER,
    "comparison-withdraw": VIEWER,
    "demo-vote": VIEWER,
    "demo-undo": VIEWER,
    "demo-copied": VIEWER,
    "changes": VIEWER,
    "changes-progress": VIEWER,
    "annotate": ANNOTATOR,
    "annotate-status": ANNOTATOR,
    "annotate-ahead": ANNOTATOR,
    "vote": ANNOTATOR,
    "vote-undo": ANNOTATOR,
    "skip": ANNOTATOR,
    "skips-undo": ANNOTATOR,
    "pairs": ANNOTATOR,
    "pair": ANNOTATOR,
    "pair-vote": ANNOTATOR,
    "pair-undo": ANNOTATOR,
    "guidelines": ANNOTATOR,
    "own-votes": ANNOTATOR,
    "practice": ANNOTATOR,
    "practice-again": ANNOTATOR,
    "own-vote-change": ANNOTATOR,
    "person-deactivate": OWNER,
    "person-reactivate": OWNER,
    "project-archive": OWNER,
    "project-restore": OWNER,
    "project-delete": OWNER,
    **dict.fromkeys(
        """
        examples examples-export imports import-job import-columns import-start import-stop
        import-refusals project-settings rules quality resolve resolve-decide resolve-undo
        resolve-unask flags flag-restore flag-again flags-restore gold gold-mark gold-unmark
        pause-lift votes-restore sampling-new sampling-cancel tokens
        token-revoke people member-change member-remove invitation-revoke webhooks webhook
        webhook-test webhook-pause webhook-resume webhook-remove delivery-again releases release
        notification-choice
        conversation-log conversation-log-export logged-conversation logged-answer-flag
        logged-answer-queue conversation-settings
        project-home history-csv runs-side-by-side audit audit-export adapter-download
        influence influence-progress influence-new influence-cancel influence-train
        lineage completion-lineage dossier erasures completion-erase
        prompts prompt prompt-retire prompt-restore
        changes-new split-new split-change split-stop share-links share-link-revoke runs run-plan
        run-request sweeps sweep sweep-new sweep-cancel sweep-choose
        schedule schedule-settings gate-rules gate-rules-preview gate-rules-reset gate-judge
        gate-judge-test gate-judge-remove probes probe-retire probe-restore run run-live
        run-pairs run-pairs-close
        run-examples run-metrics run-metrics-csv misfit-send-back run-cancel run-resume
        adapter-discard adapter-import adapter-push adapter-restore
        person person-erase api-person-erase
        """.split(),
        ADMIN,
    ),
}
#: The scope that an operation of the APIs asks for; None: any token.
SCOPES = {
    "models": None,
    "chat_completions": Scope.CHAT,
    "feedback": Scope.FEEDBACK,
    **dict.fromkeys(
        "prompts prompt completions completion votes vote examples example imports import_one "
        "import_refused export".split(),
        Scope.DATA_READ,
    ),
    **dict.fromkeys(
        "prompts_new completions_new votes_new imports_new import_stop".split(), Scope.DATA_WRITE
    ),
}
#: Forms that are valid, so that a refusal is about the person and not about the fields.
BODIES: dict[str, dict[str, Any]] = {
    "vote": {"verdict": "down"},
    "own-vote-change": {"verdict": "down"},
    "practice": {"completion": "1", "verdict": "down"},
    "skip": {"flag": "1"},
    "demo-vote": {"verdict": "down"},
    "shared-vote": {"verdict": "down"},
    "shared-send": {"text": "Hello?"},
    "shared-again": {"text": "Hello?"},
    "conversation-send": {"text": "Hello?"},
    "turn-again": {"text": "Hello?"},
    "conversation-choose": {"choice": "live"},
    "conversation-rename": {"title": "Another"},
    "comparison-judge": {"choice": "left"},
    "pair-vote": {"choice": "left"},
    "sweep-choose": {"run": "1"},
    "resolve-decide": {"verdict": "up"},
    "gold-mark": {"verdict": "up", "why": "Clear."},
    "member-change": {"role": "viewer"},
    "probes": {"prompt": "Why?", "kind": "contains", "pattern": "Because"},
    "gate-judge": {"url": "https://93.184.215.14/v1", "model": "judge"},
}
#: A member whose request ends their own membership or account leaves the crawl.
ENDS = {"me-erase", "me-leave", "project-archive"}
PLACE = re.compile(r"<(?:(\w+):)?(\w+)>")


@dataclass(frozen=True)
class Route:
    """A pattern of the URL table; `api`: an operation that a token opens."""

    pattern: str
    name: str
    api: bool

    @property
    def in_project(self) -> bool:
        return "<slug:slug>" in self.pattern

    def urls(self, slug: str, values: dict[str, list[Any]]) -> Iterator[str]:
        """Yield the URL with every combination of one value for all its places of a kind."""
        places = [
            ("uuid" if kind == "uuid" else name)
            for kind, name in PLACE.findall(self.pattern)
            if name != "slug"
        ]
        rounds = max((len(values[place]) for place in places), default=1)
        for number in range(rounds):
            url = PLACE.sub(
                lambda found, number=number: str(
                    slug if found[2] == "slug" else pick(values, found[1], found[2], number)
                ),
                self.pattern,
            )
            yield "/" + url


def pick(values: dict[str, list[Any]], kind: str, name: str, number: int) -> Any:
    choices = values["uuid" if kind == "uuid" else name]
    return choices[number % len(choices)]


def routes() -> list[Route]:
    """Return the product's own URLs; the sign-in pages of allauth have their own tests."""

    def walk(table: URLResolver, before: str = "") -> Iterator[tuple[str, URLPattern]]:
        for entry in table.url_patterns:
            pattern = before + str(entry.pattern)
            if isinstance(entry, URLResolver):
                yield from walk(entry, pattern)
            else:
                yield pattern, entry

    found = []
    for pattern, entry in walk(get_resolver()):
        if pattern.startswith("accounts/"):
            continue
        api = pattern.startswith(("v1/", "api/v1/"))
        found.append(Route(pattern, str(entry.name), api))
    return found


PAGES = [route for route in routes() if not route.api and LEAST.get(route.name) != OPERATOR]
OPERATIONS = [route for route in routes() if route.api and route.name in SCOPES]


@pytest.fixture
def bot() -> World:
    """The project that is attacked."""
    return make_world("bot")


@pytest.fixture
def other(bot: World) -> World:
    """Another project, whose ids differ from all of the first."""
    move_ids(10_000)
    return make_world("other")


def test_table_says_for_each_url_who_may_use_it() -> None:
    pages = {route.name for route in routes() if not route.api}
    assert pages - set(LEAST) == set(), "say in LEAST who may use these views"
    assert set(LEAST) - pages == set(), "no such views"
    described = {"openapi-json", "api-root"}
    operations = {route.name for route in routes() if route.api}
    assert operations - set(SCOPES) - described == set(), "say in SCOPES which scope they ask for"


def sign_in(user: Any) -> Client:
    # as the browser sees an unexpected exception: a response with 500
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def both(client: Client, route: Route, url: str) -> list[HttpResponseBase]:
    """Request the URL by both methods."""
    return [client.get(url), client.post(url, BODIES.get(route.name, {}))]


def text_of(response: Any) -> str:
    body = b"".join(response.streaming_content) if response.streaming else response.content
    return body.decode("utf-8", "replace") + response.get("Location", "")


def attack(world: World) -> dict[str, list[Any]]:
    """Return the values of a world's objects, with every number that is an id as `pk`."""
    return world.values | {"pk": ids_of(all_rows()), "secret": ["no-such-secret"]}


def is_sign_in(response: HttpResponseBase) -> bool:
    return response.status_code == 302 and response["Location"].startswith("/accounts/login/")


@pytest.mark.long
def test_pages_ask_anonymous_and_deactivated_people_to_sign_in(bot: World) -> None:
    deactivated = sign_in(bot.people[ADMIN])
    bot.people[ADMIN].is_active = False
    bot.people[ADMIN].save()
    before, values = all_rows(), attack(bot)
    values = {name: of[:2] for name, of in values.items()}  # nobody gets as far as an object
    faults = [
        f"{who} {url}: {response.status_code}"
        for who, client in (("anonymous", Client()), ("deactivated", deactivated))
        for route in PAGES
        if LEAST[route.name] not in (EVERYONE, HOLDER)
        for url in route.urls("bot", values)
        for response in both(client, route, url)
        if not is_sign_in(response)
    ]
    assert faults == []
    assert changed(before) == []


@pytest.mark.long
def test_owner_of_another_project_finds_nothing(bot: World, other: World) -> None:
    """Neither under the project's address nor by its ids under the own address."""
    before = {
        table: {pk: row for pk, row in rows.items() if not isinstance(pk, int) or pk < 10_000}
        for table, rows in all_rows().items()
    }
    owner = other.people[OWNER]
    values = bot.values | {
        "pk": [pk for pk in ids_of(all_rows()) if pk < 10_000],
        "secret": ["no-such-secret"],
    }
    client, faults = sign_in(owner), []
    for route in PAGES:
        if route.name in ENDS:
            continue
        for slug in ["bot", "other"] if route.in_project else [""]:
            few = {name: of[:2] for name, of in values.items()} if slug == "bot" else values
            for url in route.urls(slug, few):
                for response in both(client, route, url):
                    status, text = response.status_code, text_of(response)
                    if slug == "bot" and status not in (404, 405):
                        faults.append(f"{url}: {status}")
                    if status >= 500 or bot.word in text or bot.private in text:
                        faults.append(f"{url}: {status}, or a text of the other project")
    assert faults == []
    assert changed(before) == []


@pytest.mark.long
@pytest.mark.parametrize("role", ROLES[:-1])
def test_member_is_refused_what_needs_a_higher_role(bot: World, role: str) -> None:
    client, faults = sign_in(bot.people[role]), []
    before, values = all_rows(), attack(bot)
    for route in PAGES:
        least = LEAST[route.name]
        if least not in ROLES or ROLES.index(least) <= ROLES.index(role):
            continue
        for url in route.urls("bot", values):
            for response in both(client, route, url):
                status = response.status_code
                if status not in (403, 405):
                    faults.append(f"{url}: {status}")
    assert faults == []
    assert changed(before) == []


@pytest.mark.long
@pytest.mark.parametrize("role", ROLES)
def test_member_sees_no_conversation_of_others(bot: World, role: str) -> None:
    """Whatever is requested with whatever id; nothing of it gets into the own export."""
    reader = bot.people[role]
    if role == VIEWER:  # theirs is the private conversation
        reader = make_second_viewer(bot)
    values, client, faults = attack(bot), sign_in(reader), []
    for route in PAGES:
        least = LEAST[route.name]
        if route.name in ENDS or (least in ROLES and ROLES.index(least) > ROLES.index(role)):
            continue
        if least == ADMIN:
            continue  # admins curate all answers that people voted on
        for url in route.urls("bot", values):
            for response in both(client, route, url):
                if response.status_code >= 500 or bot.private in text_of(response):
                    faults.append(f"{url}: {response.status_code}, or a private text")
                done = response.wsgi_request.method == "POST" and response.status_code < 400
                if done and bot.private in text_of(client.get("/me/export/")):
                    faults.append(f"{url}: a private text is in the export")
    assert faults == []


def make_second_viewer(world: World) -> Any:
    from feedback_app.accounts.models import Role, User
    from feedback_app.feedback.members.services import member_set

    user = User.objects.create_user("second@example.com", "x")
    member_set(project=world.project, user=user, role=Role.VIEWER)
    return user


@pytest.mark.long
def test_owner_gets_an_answer_to_every_request(bot: World) -> None:
    """The table is not too strict, and no id breaks a page."""
    values, faults = attack(bot), []
    for route in PAGES:
        if route.name in ENDS or LEAST[route.name] == HOLDER:
            continue
        client = sign_in(bot.people[OWNER])
        for url in route.urls("bot", values):
            for response in both(client, route, url):
                text_of(response)
                if response.status_code in (401, 403) or response.status_code >= 500:
                    faults.append(f"{url}: {response.status_code}")
    assert faults == []


@pytest.mark.long
def test_visitor_reaches_nothing_but_the_own_conversation(bot: World, other: World) -> None:
    client = Client(raise_request_exception=False)
    session = client.session
    session[f"share-{bot.visitor.link_id}"] = bot.visitor.pk
    session.save()
    own = set(bot.visitor.user.conversations.values_list("turns__completion", flat=True))
    own_turns = set(bot.visitor.user.conversations.values_list("turns", flat=True))
    assert client.get(f"/s/{bot.link}/").status_code == 200
    before, faults = all_rows(), []
    values = attack(bot) | {"secret": [bot.link]}
    values["pk"] = [pk for pk in values["pk"] if pk not in own]
    values["turn"] = [
        pk for pk in [*bot.values["turn"], *other.values["turn"]] if pk not in own_turns
    ]
    for route in PAGES:
        least = LEAST[route.name]
        if route.name in ("shared-vote", "shared-undo", "shared-again", "shared-show"):
            for url in route.urls("bot", values):
                status = client.post(url, BODIES.get(route.name, {})).status_code
                if status != 404:
                    faults.append(f"{url}: {status}")
        elif least not in (EVERYONE, HOLDER):
            few = {name: of[:2] for name, of in values.items()}
            for url in route.urls("bot", few):
                faults += [
                    f"{url}: {response.status_code}"
                    for response in both(client, route, url)
                    if not is_sign_in(response)
                ]
    assert faults == []
    assert changed(before) == []
    assert SESSION_KEY not in client.session


def request_by_token(route: Route, url: str, secret: str) -> Any:
    client = Client(raise_request_exception=False, headers={"Authorization": f"Bearer {secret}"})
    if SCOPES[route.name] in (Scope.CHAT, Scope.FEEDBACK, Scope.DATA_WRITE):
        return client.post(url, {}, content_type="application/json")
    return client.get(url)


@pytest.mark.long
@pytest.mark.parametrize("scope", Scope)
def test_token_opens_only_its_project_and_scope(
    bot: World, other: World, scope: Scope, settings: Settings
) -> None:
    settings.API_REQUESTS_PER_MINUTE = 10_000
    before, faults = all_rows(), []
    rows_of_bot = [pk for pk in ids_of(before) if pk < 10_000]
    values = {"pk": rows_of_bot}
    for route in OPERATIONS:
        wanted = SCOPES[route.name]
        for slug in ["bot", "other"]:
            for url in route.urls(slug, values):
                url = url.replace("<slug>", slug)
                response = request_by_token(route, url, other.tokens[scope])
                status, text = response.status_code, text_of(response)
                if wanted not in (None, scope) and status != 403:
                    faults.append(f"{url}: {status} without the scope {wanted}")
                if status >= 500 or bot.word in text or bot.private in text:
                    faults.append(f"{url}: {status}, or a text of the other project")
                # 400: the fields are read first, and say nothing about projects
                if wanted == scope and slug == "bot" and status not in (400, 404):
                    faults.append(f"{url}: {status} for another project's token")
    assert faults == []
    apart = {"accounts_apitoken"}  # its minute counter
    assert changed({table: rows for table, rows in before.items() if table not in apart}) == []


@pytest.mark.long
def test_operations_ask_for_a_valid_token(bot: World) -> None:
    values = {"pk": ids_of(all_rows())[:2]}
    session = sign_in(bot.people[OWNER])  # a session is no token
    faults = []
    for route in OPERATIONS:
        for url in route.urls("bot", values):
            for response in (
                request_by_token(route, url, "pr_wrong"),
                session.get(url),
                session.post(url, {}),
            ):
                if response.status_code not in (401, 405):
                    faults.append(f"{url}: {response.status_code}")
    assert faults == []
