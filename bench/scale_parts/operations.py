"""Every interactive page and API operation, as requests that the client can make.

The list comes from the URL table: a view that is new there stops the benchmark until PLACES, POSTS
or LEFT_OUT says how it is requested.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")
django.setup()

from tests.faults.test_crawl import LEAST, PLACE, ROLES, SCOPES, Route, routes  # noqa: E402

#: Views that are not measured here, with the reason.
LEFT_OUT = {
    **dict.fromkeys(
        "conversation-send turn-again shared-send shared-again comparison-answer "
        "chat_completions@api release split-new".split(),
        "waits for the engine",
    ),
    **dict.fromkeys(
        "conversation-log-export audit-export adapter-download dossier examples-export export@api "
        "me-export import-refusals run-metrics-csv".split(),
        "a download, of any size: the table of transfers",
    ),
    **dict.fromkeys(
        "imports_new@api import-columns import-start adapter-import".split(),
        "reads an uploaded file: the table of transfers",
    ),
    "run-request": "takes a snapshot: the table of transfers",
    "sweep-new": "takes a snapshot: the table of transfers",
    **dict.fromkeys(
        "me-erase me-leave person-erase api-person-erase member-remove completion-erase".split(),
        "removes the person who asks, or one per request",
    ),
    **dict.fromkeys(
        "sampling-new sampling-cancel run-cancel run-resume split-stop import-stop import_stop@api "
        "webhook-remove votes-restore skips-undo invitation conversation-delete logged-answer-flag "
        "logged-answer-queue sweep-cancel sweep-choose influence-cancel "
        "influence-train".split(),
        "can be done once: a second request is another one",
    ),
    **dict.fromkeys(
        "health healthz readyz metrics components annotate-worker".split(), "reads no project"
    ),
    "openapi-json@api": "a fixed document",
    "api-root@api": "a fixed document",
    "system-free": "sends a task: nobody receives it here",
    "adapter-push": "refused where PUSH_DESTINATIONS is not set",
    "gate-judge-test": "waits for another server",
    **dict.fromkeys(
        "project-archive project-restore".split(), "every other request would be refused"
    ),
    "project-deletion": "about a project that is deleted",
    "erasure-status": "by a signed link, and about one erasure",
    **dict.fromkeys("turn-show shared-show".split(), "few conversations have branches"),
    "own-vote-change": "of a vote that the person has cast before, as `vote` stores one",
    "conversation-settings": "of an admin's own conversations, of which there are none here",
    "run-pairs-close": "ends the batch whose pairs others judge",
    "webhook-test": "refused while the webhook is paused, which nobody may receive here",
}
#: The pool of ids (places.py) that a view's place takes, if it is not the first of DEFAULTS.
PLACES = {
    "prompt": "prompt",
    "prompt@api": "prompt",
    "completion@api": "completion",
    "vote@api": "vote",
    "example@api": "example",
    "import_one@api": "import",
    "import_refused@api": "import",
    "import-job": "import",
    "webhook": "webhook",
    "person": "person",
    "comparison": "comparison",
    "conversation": "conversation",
    "logged-conversation": "conversation",
    "run-live": "running",
    "completion-lineage": "trained",
    "run-pairs": "pair_run",
    "pair": "pair",
    "sweep": "sweep",
}
DEFAULTS = {"table": "table", "number": "run", "name": "adapter", "slug": "slug"}
#: Further requests to pages that have parameters: what is listed, filtered or ordered.
VARIANTS = {
    "home": ["all="],
    "annotate": [
        "order=newest",
        "order=contested",
        "order=unsure",
        "order=uploaded",
        "source=import",
        "topic=topic+7",
        "version=base",
    ],
    "examples": [
        "page=9",
        "label=up",
        "label=tie",
        "split=test",
        "source=demo",
        "source=annotate",
        "version={listed_version}",
        "version=import&label=down&split=test",
        "label=tie&version={listed_version}",
        "sort=oldest",
        "sort=votes",
        "sort=weight",
        "sort=version",
    ],
    "quality": ["show=pairs"],
    "resolve": ["show=asked", "show=resolved", "page=3"],
    "flags": ["show=restored"],
    "gold": ["page=2"],
    "probes": ["page=3", "show=retired", "completion={completion}"],
    "conversations": ["text=question", "page=2"],
    "conversation-log": [
        "page=9",
        "version=base",
        "verdict=up",
        "verdict=none&source=demo",
        "source=link",
        "text=nothing-like-this",
        "person={person}",
        "first=2026-01-01",
    ],
    "audit": ["page=9", "action=run.request", "person=none", "first=2026-01-01"],
    "notifications": ["page=3"],
    "prompts": ["page=9", "show=retired", "text=bread", "topic=topic+7", "source=demo"],
    "people": ["sort=votes", "sort=name", "q=p", "role=annotator"],
    "runs": ["page=3", "page=9999"],
    "sweeps": ["page=2"],
    "sweep": ["sort=epochs&order=descending"],
    "tokens": ["page=2"],
    "own-votes": ["page=9", "text=bread", "verdict=up"],
    "webhook": ["state=failed", "state=waiting", "page=3"],
    "prompts@api": ["limit=100", "cursor={cursor}"],
    "completions@api": ["version={other_adapter}", "prompt_id={prompt}", "limit=100"],
    "votes@api": ["completion_id={completion}", "limit=100", "cursor={votes_cursor}"],
    "examples@api": ["split=test", "limit=100", "cursor={examples_cursor}"],
    "run-metrics": ["after=100"],
    "run-examples": ["sort=saturated", "page=9", "label=down&length=long", "week=2026-W48"],
    "influence": ["by=topic", "by=source", "by=week", "page=9"],
    "lineage": ["page=9", "split=test", "show=people", "person={person}"],
}
#: The query of a view that has no page without one.
QUERIES = {"run-plan": "{run_form}", "runs-side-by-side": "run={newest_run}&run=1"}
HTMX = {"HX-Request": "true"}
#: Pages of which htmx requests a part, and its target.
PARTIALS = {
    "examples": "list",
    "people": "list",
    "webhook": "log",
    "project-settings": "sampling-status",
}


@dataclass(frozen=True)
class Post:
    """A form or an API operation that changes something."""

    #: pools of the URL's places, in order
    pools: tuple[str, ...] = ()
    body: dict[str, Any] = field(default_factory=dict)
    #: the view, with the same ids, that makes the request possible again
    before: str = ""
    before_body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    role: str = ""


WHY = {"verdict": "up", "why": "Clear."}
POSTS: dict[str, Post] = {
    # what an annotator does, with the item that the page before has shown (client.py)
    "vote": Post(("item",), {"verdict": "up"}, headers=HTMX | {"HX-Target": "stage"}),
    "vote-undo": Post(
        ("item",),
        before="vote",
        before_body={"verdict": "up"},
        headers=HTMX | {"HX-Target": "stage"},
    ),
    "skip": Post(("item",), headers=HTMX | {"HX-Target": "stage"}),
    "practice-again": Post(),
    "demo-vote": Post(("demo_completion",), {"verdict": "up"}, headers=HTMX),
    "demo-undo": Post(
        ("demo_completion",), before="demo-vote", before_body={"verdict": "up"}, headers=HTMX
    ),
    "demo-copied": Post(("demo_completion",)),
    "conversation-new": Post(),
    "conversation-rename": Post(("conversation",), {"title": "Another"}),
    "conversation-choose": Post(("conversation",), {"choice": "base"}),
    "comparison-new": Post((), {"question": "Why?", "one": "base", "other": "{other_adapter}"}),
    "comparison-judge": Post(("open_comparison",), {"choice": "left"}),
    "comparison-withdraw": Post(("comparison",)),
    "shared-new": Post(("link",)),
    "shared-vote": Post(("link", "visitor_completion"), {"verdict": "up"}, headers=HTMX),
    "shared-undo": Post(
        ("link", "visitor_completion"),
        before="shared-vote",
        before_body={"verdict": "up"},
        headers=HTMX,
    ),
    "resolve-decide": Post(("contested",), WHY | {"show": "contested"}),
    "resolve-undo": Post(("contested",), before="resolve-decide", before_body=WHY),
    "resolve-unask": Post(("asked",)),
    "flag-restore": Post(("flagged",), before="flag-again"),
    "flag-again": Post(("flagged",), before="flag-restore"),
    "flags-restore": Post(("person",)),
    "gold-mark": Post(("plain",), WHY),
    "gold-unmark": Post(("plain",), before="gold-mark", before_body=WHY),
    "pause-lift": Post(("pause",)),
    "project-settings": Post((), {"form": "settings"}),
    "rules": Post((), {"form": "rules"}),
    "gate-rules": Post((), {"form": "gate"}),
    "gate-rules-preview": Post((), {"form": "gate"}, headers=HTMX),
    "gate-rules-reset": Post(),
    "prompts": Post((), {"text": "How do I bake bread?"}),
    "prompt-retire": Post(("prompt",), before="prompt-restore"),
    "prompt-restore": Post(("prompt",), before="prompt-retire"),
    "probe-retire": Post(("probe",), before="probe-restore"),
    "probe-restore": Post(("probe",), before="probe-retire"),
    "pair-vote": Post(("pair",), {"choice": "left"}),
    "pair-undo": Post(("pair",), before="pair-vote", before_body={"choice": "left"}),
    # a number: no name is asked for
    "gate-judge": Post((), {"url": "https://93.184.215.14/v1", "model": "judge"}),
    "gate-judge-remove": Post(),
    "schedule-settings": Post((), {"form": "schedule"}),
    "schedule": Post((), {"min_new_examples": "50", "min_hours": "24"}),
    "people": Post((), {"role": "viewer", "days": "7", "max_uses": "1"}),
    "member-change": Post(
        ("person",), {"role": "viewer"}, before="member-change", before_body={"role": "annotator"}
    ),
    "person-deactivate": Post(("person",), before="person-reactivate"),
    "person-reactivate": Post(("person",), before="person-deactivate"),
    "invitation-revoke": Post(("invitation",)),
    "tokens": Post((), {"name": "Another", "scopes": ["chat"]}),
    "token-revoke": Post(("token",)),
    "webhook-pause": Post(("webhook",)),
    "webhook-resume": Post(("webhook",), before="webhook-pause"),
    "delivery-again": Post(("webhook", "delivery")),
    "share-links": Post(
        (),
        {
            "label": "Another",
            "choice": "live",
            "days": "7",
            "messages_limit": "9",
            "messages_each": "9",
            "votes_limit": "9",
        },
    ),
    "share-link-revoke": Post(("share_link",)),
    "split-change": Post(("split",), {"percent": "40"}, role="owner"),
    "changes-new": Post(("adapter",)),
    "influence-new": Post(("adapter",)),
    "adapter-discard": Post(("other_adapter",), before="adapter-restore"),
    "adapter-restore": Post(("other_adapter",), before="adapter-discard"),
    "misfit-send-back": Post(
        ("newest_run", "trained"), before="misfit-send-back", before_body={"take_back": "on"}
    ),
    "prompts_new@api": Post((), {"json": "prompts"}),
    "completions_new@api": Post((), {"json": "completions"}),
    "votes_new@api": Post((), {"json": "votes"}),
    "feedback@api": Post((), {"json": "feedback"}),
}
#: Pages of a person's own objects: nobody else has them.
OWN = {"conversation", "comparison"}
#: Both methods: the page is measured as well as the form.
BOTH = {
    "schedule-settings",
    "project-settings",
    "rules",
    "gate-rules",
    "people",
    "tokens",
    "share-links",
    "prompts",
}


@dataclass(frozen=True)
class Operation:
    """A request that is repeated; `post` is None for pages."""

    route: Route
    #: a key of the world's sessions, or the scope of a token
    who: str
    query: str = ""
    post: Post | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        method = "POST" if self.post else "GET"
        query = f"?{self.query}" if self.query else ""
        partial = " (htmx)" if self.headers and not self.post else ""
        return f"{method} {key_of(self.route)}{query}{partial} as {self.who}"

    @property
    def pools(self) -> tuple[str, ...]:
        if self.post:
            return self.post.pools
        names = [name for _, name in PLACE.findall(self.route.pattern) if name != "slug"]
        return tuple(self.pool_of(name) for name in names)

    def pool_of(self, name: str) -> str:
        if name == "secret":
            return "link"
        return PLACES.get(key_of(self.route)) or DEFAULTS[name]

    def url(self, world: dict[str, Any], ids: list[Any]) -> str:
        """Return the URL with the ids of its places."""
        return url_of(self.route, ids, world) + (
            f"?{self.query.format(**examples_of(world))}" if self.query else ""
        )


def key_of(route: Route) -> str:
    """Return the view's name; some operations of the API have the name of a page."""
    return route.name + ("@api" if route.api else "")


def url_of(route: Route, ids: list[Any], world: dict[str, Any]) -> str:
    left = list(ids)

    def value(found: Any) -> str:
        return str(world["project"] if found[2] == "slug" else left.pop(0))

    return "/" + PLACE.sub(value, route.pattern).replace("<slug>", world["project"])


def examples_of(world: dict[str, Any]) -> dict[str, Any]:
    """Return one id of each pool, for query strings and bodies."""
    return {name: values[0] for name, values in world["places"].items() if values}


def people_of(route: Route) -> list[str]:
    """Return who requests the view: its lowest role and the owner, or a token."""
    if route.api:
        return [SCOPES[route.name].value if SCOPES[route.name] else "data:read"]
    least = LEAST[route.name]
    if route.name in OWN:
        return [least]
    if least == "holder":
        return ["visitor"]
    if least not in ROLES:
        return ["owner"]
    return list(dict.fromkeys([least, "owner"]))


def operations() -> list[Operation]:
    """Return all of them. Raise SystemExit for a view that nothing is said about."""
    return [operation for route in routes() for operation in of_route(route)]


def of_route(route: Route) -> Iterator[Operation]:
    key = key_of(route)
    if key in LEFT_OUT:
        return
    people = people_of(route)
    if post := POSTS.get(key):
        yield Operation(route, post.role or people[0], post=post)
        if key not in BOTH:
            return
    names = {name for _, name in PLACE.findall(route.pattern)} - DEFAULTS.keys() - {"secret"}
    if names and key not in PLACES:
        raise SystemExit(f"{key}: say in operations.py how it is measured, or why not")
    for who in people:
        yield Operation(route, who, QUERIES.get(key, ""))
    for query in VARIANTS.get(key, []):
        yield Operation(route, people[0], query)
    if key in PARTIALS:
        headers = HTMX | {"HX-Target": PARTIALS[key]}
        yield Operation(route, people[0], headers=tuple(headers.items()))


def body_of(
    post: Post, body: dict[str, Any], world: dict[str, Any], number: int
) -> tuple[str, str]:
    """Return the body and its content type; `number` makes it differ from earlier ones."""
    if "json" in body:
        return json.dumps(api_body(body["json"], world, number)), "application/json"
    if "form" in body:  # as a page sent it: it may contain braces
        values = dict(world[body["form"]])
    else:
        known = examples_of(world)
        values = {k: v.format(**known) if isinstance(v, str) else v for k, v in body.items()}
    return urlencode(values, doseq=True), "application/x-www-form-urlencoded"


def api_body(kind: str, world: dict[str, Any], number: int) -> dict[str, Any]:
    places = world["places"]
    asked = [{"role": "user", "content": f"Question of {world['started']}, number {number}"}]
    completions = places["api_completion"]
    verdict = "up" if number // len(completions) % 2 else "down"
    completion = completions[number % len(completions)]
    return {
        "prompts": {"prompts": [{"messages": asked}]},
        "completions": {
            "completions": [{"prompt_id": places["prompt"][0], "text": str(asked), "queued": True}]
        },
        "votes": {"votes": [{"completion_id": completion, "verdict": verdict, "user": "u1"}]},
        "feedback": {"completion_id": completion, "verdict": verdict, "user": "u2"},
    }[kind]
