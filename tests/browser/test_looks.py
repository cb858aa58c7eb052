"""Every page in both themes and on a phone: accessible, inside the screen, under its weight."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import resolve, reverse
from django.utils import timezone
from playwright.sync_api import Page, expect

from feedback_app.accounts.models import ApiToken, Membership, Role, Scope, User
from feedback_app.feedback.members.services import invitation_create
from feedback_app.feedback.models import Completion, Probe, Project, Vote
from feedback_app.feedback.models.webhooks import Event, WebhookDelivery
from feedback_app.feedback.probes.services import probe_add, probe_retire
from feedback_app.feedback.projects.services import project_change
from feedback_app.feedback.prompts.completions import sampling_request
from feedback_app.feedback.queue.services import item_skip
from feedback_app.feedback.tokens.services import token_create, token_revoke
from feedback_app.feedback.webhooks.services import ping_write, webhook_create
from feedback_app.training.models import PairVote
from tests.accounts.test_second_factor import code_of
from tests.browser.conftest import NewPage
from tests.browser.world import LONG, furnish, quality
from tests.conftest import PASSWORD
from tests.training.gate.people.world import batch_of, judge
from tests.training.gate.reports import probe_entry

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

PHONE = {"width": 390, "height": 844}
NARROWEST = {"width": 360, "height": 640}
DESKTOP = {"width": 1280, "height": 860}
#: Bytes of styles, scripts and pictures that a page may load, before compression.
PAGE_WEIGHT = 150_000
LIGHT_IN_LONG = [pytest.param("light", marks=pytest.mark.long), "dark"]

Make = Callable[..., list[Completion]]


@pytest.fixture
def furnished(
    voted_project: Project, admin: User, annotator: User, make_completions: Make
) -> Project:
    furnish(voted_project, admin, annotator)
    for text in ("Short, honest, finished.\n\n- " + "a rule " * 40, "Short.\n\n- and kind"):
        project_change(project=voted_project, by=admin, changes={"guidelines": text})
    for name in ("Shop", "Help centre, a name that is long for a phone"):
        token, _ = token_create(project=voted_project, name=name, scopes=list(Scope), by=admin)
    token_revoke(token=token, by=admin)
    quality(voted_project, admin, annotator)
    probes(voted_project, admin)
    pairs(voted_project, admin)
    owner = Membership.objects.get(user=admin, project=voted_project)
    for uses in (1, 20):
        invitation_create(role=Role.VIEWER, days=7, max_uses=uses, actor=owner)
    tell(voted_project, admin)
    first, second, flagged = make_completions(3)
    item_skip(completion=flagged, by=annotator, flag=True, reason="Rude. " * 30)
    Completion.objects.filter(pk=first.pk).update(text=LONG * 8)
    Completion.objects.filter(pk=second.pk).update(text="a" * 50_000)
    return Project.objects.get(pk=voted_project.pk)


def tell(project: Project, admin: User) -> None:
    """A webhook with a delivery in each state."""
    url = f"https://93.184.215.14/{'long' * 20}?token=12345"  # a number: no name is asked for
    webhook, _ = webhook_create(project=project, url=url, events=list(Event), by=admin)
    for status in WebhookDelivery.Status.values:
        ping_write(webhook=webhook)
        error = "" if status == "delivered" else "The server could not be reached: ConnectError."
        newest = webhook.deliveries.order_by("-pk")[:1]
        later = timezone.now() + timedelta(hours=1)
        webhook.deliveries.filter(pk__in=list(newest.values_list("pk", flat=True))).update(
            status=status, error=error, attempts=2, next_at=later, answer_status=503
        )


def probes(project: Project, admin: User) -> None:
    """A kept, a broken, a slow and a new probe, and a retired one."""
    added = [
        probe_add(
            project=project,
            messages=[{"role": "user", "content": f"How long does rice take? {LONG * number}"}],
            kind=Probe.Kind.NOT_MATCHES,
            pattern=f"(?i)a{'long' * 30}|{number}",
            note="Nobody may be sent to this address any more. " * 3,
            by=admin,
        )
        for number in range(5)
    ]
    probe_retire(probe=added[4], by=admin)
    newest = project.adapters.order_by("-pk")[0]
    kept: tuple[list[bool | None], ...] = ([True, True], [False, False], [None, None])
    newest.report["probes"] = [
        probe_entry(probe.pk, {newest.name: each, newest.gate["opponent"]: [True, False]})
        for probe, each in zip(added, kept, strict=False)
    ]
    newest.save()


def pairs(project: Project, admin: User) -> None:
    """An open batch of pairs with a choice of the admin, and one that has ended."""
    lost, won = project.adapters.order_by("pk")
    batch = batch_of(lost, text=LONG)
    judge(batch.pairs.all()[:1], admin, PairVote.Choice.TIE)
    batch_of(won, pairs=30, end="decided", text=LONG)


def project_pages(project: Project) -> list[str]:
    names = ("project-home", "annotate", "examples", "runs", "releases", "demo", "project-settings")
    names += ("tokens", "imports", "compare", "guidelines", "rules", "gold", "quality", "resolve")
    names += ("people", "api-docs", "webhooks", "share-links", "flags", "gate-rules", "probes")
    names += ("conversations", "conversation-log", "adapter-import", "sweeps", "sweep-new")
    names += ("schedule-settings", "own-votes", "practice")
    names += ("pairs", "prompts", "audit", "notification-choice", "erasures")
    runs = project.runs.values_list("number", flat=True)
    return [
        "/?all=1",
        reverse("project-new"),
        reverse("project-new") + f"?like={project.slug}",
        reverse("project-deletions"),
        reverse("system"),
        reverse("project-delete", args=[project.slug]),
        "/me/",
        "/notifications/",
        *(reverse("person", args=[project.slug, m.user_id]) for m in project.memberships.all()),
        *(reverse(name, args=[project.slug]) for name in names),
        reverse("quality", args=[project.slug]) + "?show=pairs",
        *(reverse("resolve", args=[project.slug]) + f"?show={s}" for s in ("asked", "resolved")),
        reverse("probes", args=[project.slug]) + "?show=retired",
        reverse("conversation-log", args=[project.slug]) + "?text=nothing-like-this",
        *(
            reverse("logged-conversation", args=[project.slug, chat.pk])
            for chat in project.conversations.kept().filter(turns__isnull=False).distinct()
        ),
        *(
            reverse("probes", args=[project.slug]) + f"?completion={completion.pk}"
            for completion in project.completions.all()[:1]
        ),
        reverse("own-votes", args=[project.slug]) + "?text=nothing-like-this",
        reverse("prompts", args=[project.slug]) + "?text=nothing-like-this&show=retired",
        *(reverse("prompt", args=[project.slug, p.pk]) for p in project.prompts.all()[:1]),
        # the list of answers is open
        reverse("annotate", args=[project.slug]) + "?order=newest",
        *(reverse("sweep", args=[project.slug, s.number]) for s in project.sweeps.all()),
        *(reverse("run", args=[project.slug, number]) for number in runs),
        *(reverse("run-examples", args=[project.slug, number]) for number in runs),
        reverse("runs-side-by-side", args=[project.slug])
        + "?"
        + "&".join(f"run={number}" for number in list(runs)[:4]),
        *(reverse("pair", args=[project.slug, vote.pair_id]) for vote in PairVote.objects.all()),
        *(
            reverse("run-pairs", args=[project.slug, batch.adapter.run.number])
            for batch in project.pair_batches.exclude(end="")
        ),
        *(reverse("changes", args=[project.slug, a.name]) for a in project.adapters.all()),
        *(reverse("lineage", args=[project.slug, a.name]) for a in project.adapters.all()[:1]),
        *(reverse("influence", args=[project.slug, a.name]) for a in project.adapters.all()),
        *(
            reverse("completion-lineage", args=[project.slug, completion.pk])
            for completion in project.completions.order_by("pk")[:1]
        ),
        *(reverse("comparison", args=[project.slug, c.pk]) for c in project.comparisons.all()),
        *(reverse("webhook", args=[project.slug, w.pk]) for w in project.webhooks.all()),
        *(reverse("import-job", args=[project.slug, job.pk]) for job in project.import_jobs.all()),
    ]


def complaints(page: Page) -> list[str]:
    """What axe finds, one line a rule."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{page.url} {rule['id']}: {[node['target'] for node in rule['nodes']][:3]}"
        for rule in found
    ]


def wider_than_screen(page: Page) -> list[str]:
    over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [f"{page.url} is {over} px too wide"] if over > 0 else []


def without_a_tab(page: Page) -> list[str]:
    """A page of a project belongs to one tab of its bar."""
    tabs = page.locator("nav[aria-label='Project']")
    here = tabs.locator("[aria-current]").count()
    return [f"{page.url} marks {here} tabs as current"] if tabs.count() and here != 1 else []


def one_a_view(paths: list[str]) -> list[str]:
    """Return the last path of each view and search."""
    last = {}
    for path in paths:
        address, _, query = path.partition("?")
        last[resolve(address).view_name, query] = path
    return list(last.values())


def test_furnished_views_axe_finds_nothing(
    new_page: NewPage, furnished: Project, admin: User
) -> None:
    page = new_page(admin, color_scheme="light", viewport=DESKTOP)
    found = []
    for path in one_a_view(project_pages(furnished)):
        page.goto(path)
        found += complaints(page) + without_a_tab(page)

    assert found == []


@pytest.mark.long
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_furnished_pages_axe_finds_nothing(
    theme: str, new_page: NewPage, furnished: Project, admin: User
) -> None:
    page = new_page(admin, color_scheme=theme, viewport=DESKTOP)
    found = []
    for path in project_pages(furnished):
        page.goto(path)
        if path.endswith("/runs/4/"):
            expect(page.locator("canvas")).to_have_count(4)
        found += complaints(page) + without_a_tab(page)

    assert found == []


@pytest.mark.long
def test_furnished_pages_fit_a_phone(new_page: NewPage, furnished: Project, admin: User) -> None:
    page = new_page(admin, viewport=PHONE)
    found = []
    for path in project_pages(furnished):
        page.goto(path)
        found += wider_than_screen(page) + complaints(page)
        page.set_viewport_size(NARROWEST)
        found += wider_than_screen(page)
        page.set_viewport_size(PHONE)

    assert found == []


@pytest.mark.long
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_empty_pages_axe_finds_nothing(
    theme: str, new_page: NewPage, project: Project, admin: User
) -> None:
    page = new_page(admin, color_scheme=theme, viewport=PHONE)
    found = []
    for path in [*project_pages(project), "/projects/nothing/annotate/"]:
        page.goto(path)
        found += complaints(page) + wider_than_screen(page)
    sampling_request(project=project)
    page.goto(reverse("annotate", args=[project.slug]))
    expect(page.locator("#waiting")).to_contain_text("on their way")
    found += complaints(page)

    assert found == []


@pytest.mark.parametrize("theme", LIGHT_IN_LONG)
def test_new_token_is_shown_copied_and_axe_finds_nothing(
    theme: str, new_page: NewPage, project: Project, admin: User
) -> None:
    page = new_page(admin, color_scheme=theme, viewport=PHONE)
    page.goto(reverse("project-settings", args=[project.slug]))
    page.get_by_role("link", name="Manage tokens").click()
    page.get_by_label("Name").fill("Shop")
    page.get_by_role("button", name="Create token").click()
    expect(page.get_by_role("heading", name="Shop is ready")).to_be_visible()
    page.locator("summary", has_text="Revoke").click()
    found = complaints(page) + wider_than_screen(page)
    ready = page.get_by_role("region", name="Shop is ready")
    ready.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.get_by_role("button", name="Revoke now").click()

    expect(page.get_by_text("Shop is revoked")).to_be_visible()
    assert found == []
    assert ApiToken.objects.get().revoked_at


@pytest.mark.parametrize("theme", LIGHT_IN_LONG)
def test_share_link_is_shown_opened_ended_and_axe_finds_nothing(
    theme: str, new_page: NewPage, project: Project, admin: User
) -> None:
    page = new_page(admin, color_scheme=theme, viewport=PHONE)
    page.goto(reverse("demo", args=[project.slug]))
    page.get_by_role("link", name="Share").click()
    page.get_by_label("Name").fill("Board meeting")
    page.get_by_role("button", name="Make link").click()
    address = page.locator("pre code").inner_text()
    page.locator("summary", has_text="Revoke").click()
    found = complaints(page) + wider_than_screen(page)
    visitor = new_page(color_scheme=theme, viewport=PHONE)
    visitor.goto(address)
    expect(visitor.get_by_role("heading", name="Ask something")).to_be_visible()
    found += complaints(visitor) + wider_than_screen(visitor)
    # no engine runs in this test: the page shows that
    visitor.get_by_label("Your message").fill("Hello?")
    visitor.keyboard.press("Enter")
    expect(visitor.get_by_text("Nothing was lost")).to_be_visible()
    found += complaints(visitor) + wider_than_screen(visitor)
    page.get_by_role("button", name="Revoke now").click()
    expect(page.get_by_text("Board meeting is revoked")).to_be_visible()
    visitor.get_by_label("Your message").fill("Still there?")
    visitor.keyboard.press("Enter")
    expect(visitor.get_by_text("This link does not work")).to_be_visible()
    visitor.goto(address)
    expect(visitor.get_by_role("heading", name="This link has ended")).to_be_visible()
    found += complaints(visitor) + wider_than_screen(visitor)

    assert found == []


@pytest.mark.parametrize("theme", LIGHT_IN_LONG)
def test_sign_in_pages_axe_finds_nothing(
    theme: str, new_page: NewPage, project: Project, admin: User, viewer: User
) -> None:
    page = new_page(color_scheme=theme, viewport=PHONE)
    owner = Membership.objects.select_related("project").get(user=admin)
    _, secret = invitation_create(role=Role.VIEWER, days=7, max_uses=1, actor=owner)
    page.goto(reverse("invitation", args=[secret]))
    found = complaints(page) + wider_than_screen(page)
    page.goto("/accounts/login/")
    found += complaints(page) + wider_than_screen(page)
    page.get_by_label("E-mail address").fill(viewer.email)
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    found += complaints(page)
    inside = new_page(viewer, color_scheme=theme, viewport=PHONE)
    account = ("/accounts/logout/", "/accounts/password/change/")
    for path in (*account, reverse("runs", args=[project.slug])):
        inside.goto(path)
        found += complaints(inside) + wider_than_screen(inside)
    found += second_factor_looks(inside)

    assert found == []


def second_factor_looks(page: Page) -> list[str]:
    """Sets up an app, one page after the other."""
    page.goto("/accounts/2fa/")
    found = complaints(page) + wider_than_screen(page)
    page.get_by_role("link", name="Set up").click()
    found += complaints(page) + wider_than_screen(page)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("img", name="QR code")).to_be_visible()
    found += complaints(page) + wider_than_screen(page)
    page.get_by_label("2. Type the code").fill(code_of(page.locator(".secret").inner_text()))
    page.get_by_role("button", name="Turn on").click()
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    page.reload()  # without the toasts, which are still fading in
    found += complaints(page) + wider_than_screen(page)
    page.get_by_role("link", name="Done").click()
    return found + complaints(page) + wider_than_screen(page)


@pytest.mark.long
def test_page_weight_stays_small(new_page: NewPage, furnished: Project, admin: User) -> None:
    page = new_page(admin, viewport=DESKTOP)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))

    for name in ("annotate", "runs", "demo"):
        asked.clear()
        page.goto(reverse(name, args=[furnished.slug]), wait_until="networkidle")
        static = {url: len(page.request.get(url).body()) for url in asked if "/static/" in url}
        assert len(static) > 8
        assert sum(static.values()) < PAGE_WEIGHT, static


def test_theme_choice_is_kept(new_page: NewPage, project: Project, admin: User) -> None:
    page = new_page(admin, color_scheme="light")
    page.goto(reverse("runs", args=[project.slug]))
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.locator("summary[aria-label^='Account']").click()
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.goto(reverse("demo", args=[project.slug]))

    assert dark != before
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_keyboard_alone_reaches_and_presses_the_verdict(
    new_page: NewPage, project: Project, annotator: User, make_completions: Make
) -> None:
    [first] = make_completions(1)
    page = new_page(annotator)
    page.goto(reverse("annotate", args=[project.slug]))

    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.value") == "up":
            break
    page.keyboard.press("Enter")

    expect(page.get_by_text("All done")).to_be_visible()
    assert Vote.objects.get().completion_id == first.pk
