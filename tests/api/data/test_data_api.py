"""The data API: stable pagination, idempotent requests, and no access to other projects."""

import json
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import strategies as st
from pytest_django import Settings

from feedback_app.accounts.models import ApiReceipt, Scope, User
from feedback_app.api.data.expiry import KEPT
from feedback_app.api.tasks import dispatch
from feedback_app.feedback.models import (
    Completion,
    Example,
    Pause,
    Project,
    Prompt,
    Source,
    Verdict,
    Vote,
)
from feedback_app.feedback.prompts.completions import sampling_request
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.tokens.services import token_create
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.serving.sampling.services import missing
from feedback_app.serving.version_diff.services import prompts_fix
from tests.api.gateway_client import Program, fault
from tests.conftest import MakeCompletions
from tests.feedback.queue.test_concurrency import at_once

pytestmark = pytest.mark.django_db
HERE = "/api/v1/projects/bot"
HELLO = [{"role": "user", "content": "Hello?"}]
As = Callable[[User], Client]


@pytest.fixture
def program(project: Project, admin: User) -> Program:
    return Program(*token_create(project=project, name="Sync", scopes=list(Scope), by=admin))


def post(program: Program, what: str, body: Any, key: str | None = None) -> Any:
    headers = program.headers | ({"Idempotency-Key": key} if key else {})
    return Client(enforce_csrf_checks=True).post(
        f"{HERE}/{what}", body, content_type="application/json", headers=headers
    )


def pages(program: Program, what: str, query: str = "") -> list[list[dict[str, Any]]]:
    """Return all pages of a list."""
    found, cursor = [], ""
    while True:
        page = program.get(f"{HERE}/{what}?{query}{cursor}").json()
        found.append(page["data"])
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


# -- definitions of tools

TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The weather"}}]


def test_definitions_of_tools_are_part_of_a_prompt(project: Project, program: Program) -> None:
    asked = {"messages": HELLO, "tools": TOOLS}
    with_tools, without, again = post(
        program, "prompts", {"prompts": [asked, {"messages": HELLO}, asked]}
    ).json()["data"]
    assert (with_tools["messages"], with_tools["tools"]) == (HELLO, TOOLS)
    assert (without["messages"], without["tools"]) == (HELLO, [])
    assert (again["id"], again["created"]) == (with_tools["id"], False)
    assert without["id"] != with_tools["id"]

    answers = [{**asked, "text": "Rain."}, {"prompt_id": without["id"], "text": "Rain."}]
    added = post(program, "completions", {"completions": answers}).json()["data"]
    assert [each["prompt_id"] for each in added] == [with_tools["id"], without["id"]]


@pytest.mark.parametrize(
    ("completion", "param"),
    [
        ({"messages": HELLO, "tools": [*TOOLS, *TOOLS]}, None),
        ({"prompt_id": 1, "tools": TOOLS}, "completions[0].tools"),
        ({"messages": HELLO, "tools": {}}, "completions[0].tools"),
    ],
)
def test_definitions_that_do_not_fit_are_refused(
    completion: dict[str, Any], param: str | None, program: Program
) -> None:
    refused = post(program, "completions", {"completions": [{**completion, "text": "Rain."}]})
    assert refused.status_code == 400
    assert fault(refused)[2] == param


# -- lists


def test_list_pages_are_stable_when_rows_are_added(
    project: Project, program: Program, make_completions: MakeCompletions
) -> None:
    make_completions(5)
    first = program.get(f"{HERE}/completions?limit=2").json()
    make_completions(1)

    rest = program.get(f"{HERE}/completions?limit=100&cursor={first['next_cursor']}").json()

    ids = [row["id"] for row in first["data"] + rest["data"]]
    assert ids == list(project.completions.order_by("pk").values_list("pk", flat=True))
    assert rest["next_cursor"] is None
    sizes = [len(page) for page in pages(program, "prompts", "limit=3")]
    assert sizes == [3, 3], "a full last page has no cursor"


def test_each_list_returns_stored_rows_and_can_be_filtered(
    project: Project, admin: User, program: Program, make_completions: MakeCompletions
) -> None:
    first, second = make_completions(2)
    vote_cast(completion=first, verdict=Verdict.DOWN, by=admin, source="annotate", comment="No")
    post(program, "votes", {"votes": [{"completion_id": first.pk, "verdict": "up", "user": "jo"}]})
    vote_cast(completion=second, verdict=Verdict.UP, by=admin, source="annotate")

    [[prompt, _]] = pages(program, "prompts")
    assert prompt["messages"] == [{"role": "user", "content": "Question number 0?"}]
    [[completion]] = pages(program, "completions", f"prompt_id={prompt['id']}")
    assert (completion["text"], completion["vote_count"]) == ("Answer number 0.", 2)
    [votes] = pages(program, "votes", f"completion_id={first.pk}")
    assert [(v["verdict"], v["user"], v["comment"]) for v in votes] == [
        ("down", None, "No"),
        ("up", "jo", ""),
    ]
    [[example]] = pages(program, "examples")
    assert (example["completion_id"], example["label"]) == (second.pk, True)
    assert pages(program, "completions", "version=bot%409") == [[]]
    for what, pk in (
        ("prompts", prompt["id"]),
        ("completions", first.pk),
        ("votes", votes[0]["id"]),
        ("examples", second.pk),
    ):
        one = program.get(f"{HERE}/{what}/{pk}")
        assert one.status_code == 200
        assert one.json() in pages(program, what)[0]


def test_list_queries_do_not_grow_with_rows(
    voted_project: Project, program: Program, django_assert_max_num_queries: Any
) -> None:
    for what in ("prompts", "completions", "votes", "examples"):
        with django_assert_max_num_queries(6):  # the token, its use (two), keys, the page
            program.get(f"{HERE}/{what}?limit=50")


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("limit=0", "invalid_value", "limit"),
        ("limit=101", "invalid_value", "limit"),
        ("cursor=nothing", "invalid_value", "cursor"),
        ("cursor=%00", "invalid_value", "cursor"),
        ("cursor=dm90ZXM6MQ", "invalid_value", "cursor"),  # votes:1
        ("user__password=x", "unknown_parameter", "user__password"),
        ("_connector=OR", "unknown_parameter", "_connector"),
    ],
)
def test_list_refuses_unknown_parameters(
    query: str, code: str, param: str, program: Program
) -> None:
    assert fault(program.get(f"{HERE}/prompts?{query}")) == (400, code, param)


# -- access


def test_token_is_limited_to_its_project_and_scopes(
    project: Project, admin: User, outsider: User, program: Program, make_completions: Any
) -> None:
    other = Project.objects.get(slug="other")
    [theirs] = make_completions(1, of=other)
    reader = Program(*token_create(project=project, name="R", scopes=[Scope.DATA_READ], by=admin))
    chatter = Program(*token_create(project=project, name="C", scopes=[Scope.CHAT], by=admin))

    assert fault(program.get("/api/v1/projects/other/prompts"))[:2] == (404, "not_found")
    assert fault(program.get("/api/v1/projects/nothing/prompts"))[:2] == (404, "not_found")
    for what in ("prompts", "completions", "examples"):
        assert fault(program.get(f"{HERE}/{what}/{theirs.pk}"))[0] == 404
    vote = {"votes": [{"completion_id": theirs.pk, "verdict": "up"}]}
    assert fault(post(program, "votes", vote)) == (404, "not_found", "votes[0].completion_id")
    answer = {"completions": [{"prompt_id": theirs.prompt_id, "text": "x"}]}
    assert fault(post(program, "completions", answer))[0] == 404
    assert fault(post(reader, "prompts", {"prompts": [{"messages": HELLO}]}))[0] == 403
    assert fault(chatter.get(f"{HERE}/prompts"))[0] == 403
    assert Client().get(f"{HERE}/prompts").status_code == 401
    assert not Vote.objects.exists()


def test_rate_limit_is_shared_with_the_gateway(program: Program, settings: Settings) -> None:
    settings.API_REQUESTS_PER_MINUTE = 2

    codes = [program.get(f"{HERE}/votes").status_code for _ in range(3)]
    codes.append(program.get("/v1/models").status_code)

    assert codes[:2] in ([200, 200], [200, 429])  # the rate-limit minute may change
    assert 429 in codes


# -- creating


def test_added_prompts_are_sampled_and_those_of_the_gateway_are_not(
    project: Project, program: Program
) -> None:
    asked = prompt_get_or_create(
        project=project, messages=[{"role": "user", "content": "Asked?"}], source=Source.API
    )
    both = prompt_get_or_create(
        project=project, messages=[{"role": "user", "content": "Both?"}], source=Source.API
    )
    new = [{"messages": HELLO}, {"messages": both.messages}]
    added = post(program, "prompts", {"prompts": new}).json()["data"]

    sampling = sampling_request(project=project, answers_per_prompt=1)

    assert [prompt.pk for prompt, _ in missing(sampling)] == [both.pk, added[0]["id"]]
    project.prompts.update(split="validation")
    fixed = {each.prompt_id for each in prompts_fix(project)}
    assert fixed == {both.pk, added[0]["id"]}
    assert asked.pk not in fixed


def test_added_prompts_and_completions_are_stored_once(project: Project, program: Program) -> None:
    new = {"messages": HELLO, "topic": "greeting"}
    added = post(program, "prompts", {"prompts": [new, new]}).json()["data"]
    again = post(program, "prompts", {"prompts": [new]}).json()["data"]
    assert [row["created"] for row in [*added, *again]] == [True, False, False]
    assert Prompt.objects.get().topic == "greeting"

    answers = [
        {"prompt_id": added[0]["id"], "text": "Hi.", "queued": True},
        {"messages": HELLO, "text": "Hi."},
        {"messages": HELLO, "text": "Good day.", "version": "base", "queued": True},
    ]
    stored = post(program, "completions", {"completions": answers}).json()["data"]

    assert [row["created"] for row in stored] == [True, False, True]
    queue = project.completions.in_queue().order_by("queue_position")
    assert [(c.text, c.version, c.queue_position) for c in queue] == [
        ("Hi.", "import", 0),
        ("Good day.", "base", 1),
    ]


def test_votes_make_examples_and_change_when_sent_again(
    program: Program, make_completions: MakeCompletions
) -> None:
    first, second = make_completions(2)
    votes = [
        {"completion_id": second.pk, "verdict": "down", "reasons": ["wrong"], "user": "jo"},
        {"completion_id": first.pk, "verdict": "up", "comment": "Good"},
        {"completion_id": first.pk, "verdict": "up", "user": "jo"},
    ]

    answered = post(program, "votes", {"votes": votes}).json()["data"]
    post(program, "votes", {"votes": [votes[0] | {"verdict": "up", "reasons": []}]})

    assert [row["completion_id"] for row in answered] == [second.pk, first.pk, first.pk]
    assert Vote.objects.count() == 3
    assert [e.desirable for e in Example.objects.order_by("pk")] == [True, True]
    assert {v.source for v in Vote.objects.all()} == {"api"}


def test_votes_and_examples_include_their_metadata(
    project: Project,
    program: Program,
    admin: User,
    annotator: User,
    second_annotator: User,
    make_completions: MakeCompletions,
    django_assert_max_num_queries: Any,
) -> None:
    first, second = make_completions(2)
    for completion, by, source in (
        (first, annotator, "annotate"),
        (first, second_annotator, "annotate"),
        (second, annotator, "import"),
    ):
        vote_cast(completion=completion, verdict=Verdict.DOWN, by=by, source=source)
    Vote.objects.filter(completion=first, user=annotator).update(hasty=True, guidelines_number=3)
    pause = Pause.objects.create(project=project, user=second_annotator, right=0, of=5)
    Vote.objects.filter(user=second_annotator).update(set_aside=pause)

    votes = pages(program, "votes")[0]
    with django_assert_max_num_queries(5):
        examples = pages(program, "examples")[0]

    marks = ("hasty", "set_aside", "guidelines")
    assert [tuple(vote[mark] for mark in marks) for vote in votes] == [
        (True, False, 3),
        (False, True, 1),
        (False, False, None),
    ]
    assert [tuple(example[mark] for mark in marks) for example in examples] == [
        (1, 1, [3]),
        (0, 0, []),
    ]
    one = program.get(f"{HERE}/examples/{first.pk}").json()
    assert (one["hasty"], one["set_aside"], one["guidelines"]) == (1, 1, [3])


@pytest.mark.parametrize(
    ("what", "body", "named"),
    [
        ("prompts", {"prompts": []}, "prompts"),
        ("prompts", {"prompts": [{"messages": HELLO}] * 101}, "prompts"),
        ("prompts", {"prompts": [{"messages": HELLO, "split": "train"}]}, "prompts[0].split"),
        ("prompts", {"prompts": [{"messages": [{"role": "assistant", "content": "x"}]}]}, None),
        ("prompts", {"prompts": [{"messages": [{"role": "root", "content": "x"}]}]}, "role"),
        ("prompts", {"prompts": [{"messages": [{"role": "user", "content": "\0"}]}]}, "content"),
        ("completions", {"completions": [{"text": "x"}]}, "completions[0]"),
        ("completions", {"completions": [{"messages": HELLO, "prompt_id": 1, "text": "x"}]}, "[0]"),
        ("completions", {"completions": [{"messages": HELLO, "text": "x", "id": 1}]}, "id"),
        ("votes", {"votes": [{"completion_id": 1, "verdict": "up", "source": "demo"}]}, "source"),
        ("votes", {"votes": [{"completion_id": 1, "verdict": "up", "weight": 9}]}, "weight"),
        ("votes", {"votes": [{"completion_id": True, "verdict": "up"}]}, "completion_id"),
        ("votes", {"votes": [{"completion_id": 1, "verdict": "maybe"}]}, "verdict"),
    ],
)
def test_invalid_request_names_the_field_and_adds_nothing(
    what: str, body: Any, named: str | None, program: Program, make_completions: MakeCompletions
) -> None:
    status, _, param = fault(post(program, what, body))

    assert status == 400
    assert named is None or (param or "").endswith(named)
    assert not (Prompt.objects.exists() or Completion.objects.exists() or Vote.objects.exists())


def test_request_is_atomic(program: Program, make_completions: MakeCompletions) -> None:
    [completion] = make_completions(1)
    good = {"completion_id": completion.pk, "verdict": "up", "user": "jo"}

    missing = post(program, "votes", {"votes": [good, good | {"completion_id": 999}]}, key="k")
    reasons = post(program, "votes", {"votes": [good, good | {"reasons": ["nonsense"]}]}, key="k")
    version = {"completions": [{"messages": HELLO, "text": "x", "version": "bot@7"}]}
    assert fault(missing) == (404, "not_found", "votes[1].completion_id")
    assert fault(reasons)[0] == 400
    assert fault(post(program, "completions", version))[0] == 404

    assert not Vote.objects.exists()
    assert not User.objects.filter(name="jo").exists()
    assert Prompt.objects.count() == 1
    assert not ApiReceipt.objects.exists(), "a refused request stores no receipt"
    assert post(program, "votes", {"votes": [good]}, key="k").status_code == 200


# -- idempotency


def test_repeated_idempotency_key_gets_the_same_answer_once(
    project: Project, admin: User, program: Program
) -> None:
    body = {"prompts": [{"messages": HELLO}]}

    first = post(program, "prompts", body, key="a b")
    again = post(program, "prompts", body, key="a b")

    assert first.json()["data"][0]["created"]
    assert (again.content, again["Idempotent-Replayed"]) == (first.content, "true")
    assert "Idempotent-Replayed" not in first
    other = post(program, "prompts", {"prompts": [{"messages": HELLO, "topic": "t"}]}, key="a b")
    assert fault(other)[:2] == (409, "idempotency_key_reused")
    elsewhere = post(program, "completions", body, key="a b")
    assert elsewhere.status_code == 400, "an invalid body is reported first"
    secret = token_create(project=project, name="B", scopes=list(Scope), by=admin)
    assert "Idempotent-Replayed" not in post(Program(*secret), "prompts", body, key="a b")
    assert fault(post(program, "prompts", body, key="x" * 201))[0] == 400


def test_idempotency_key_expires_after_a_day(program: Program) -> None:
    body = {"prompts": [{"messages": HELLO}]}
    post(program, "prompts", body, key="k")
    ApiReceipt.objects.update(created_at=timezone.now() - KEPT)

    assert post(program, "prompts", body, key="k").json()["data"][0]["created"] is False
    ApiReceipt.objects.update(created_at=timezone.now() - KEPT)
    dispatch()  # as beat calls it
    assert not ApiReceipt.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_same_key_ten_times_concurrently_is_processed_once(
    program: Program, make_completions: MakeCompletions
) -> None:
    body = {"completions": [{"messages": HELLO, "text": "Hi.", "queued": True}]}
    answers: list[bytes] = []

    def send() -> None:
        answers.append(post(program, "completions", body, key="k").content)

    assert at_once([send] * 10) == []

    assert len(set(answers)) == 1
    assert Completion.objects.count() == 1


# -- fuzzing

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    "messages topic prompt_id text version queued completion_id verdict reasons comment user "
    "role content".split()
)


@pytest.mark.slow
@hypothesis.settings(
    max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    what=st.sampled_from(["prompts", "completions", "votes"]),
    items=st.lists(st.dictionaries(FIELDS, JSON, max_size=4) | JSON, max_size=3) | JSON,
    query=st.dictionaries(st.sampled_from(["limit", "cursor", "version"]), st.text(max_size=30)),
)
def test_any_request_is_answered_or_refused_with_a_reason(
    what: str, items: Any, query: dict[str, str], program: Program, settings: Settings
) -> None:
    settings.API_REQUESTS_PER_MINUTE = 10**6

    for answer in (
        post(program, what, json.dumps({what: items})),
        Client().get(f"{HERE}/{what}", query, headers=program.headers),
    ):
        if answer.status_code != 200:
            assert fault(answer)[0] in (400, 404)


# -- documentation


@pytest.mark.slow
def test_docs_name_every_operation_and_are_for_members(
    project: Project, viewer: User, outsider: User, as_user: As
) -> None:
    path = reverse("api-docs", args=[project.slug])
    page = as_user(viewer).get(path).content.decode()
    schema = Client().get("/api/v1/openapi.json").json()

    assert len(schema["paths"]) == 13
    for operation in schema["paths"]:
        assert operation.replace("{slug}", "bot") in page
    assert "/v1/chat/completions" in page
    assert "votes[].verdict" in page
    assert "“up” or “down”" in page
    assert as_user(outsider).get(path).status_code == 404
    assert as_user(viewer).get(f"{path}?x=1").status_code == 400
