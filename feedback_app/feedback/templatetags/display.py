"""Filters for figures, times and roles, the `icon` tag and the project's tabs."""

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django import template
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from feedback_app.accounts.models import Membership, Role, roles_from
from feedback_app.db.bounded_count import COUNTED
from feedback_app.feedback.models import Project, Vote

register = template.Library()


@dataclass(frozen=True)
class Tab:
    """One page of a project's navigation; `pages` are the URL names that highlight it."""

    label: str
    url_name: str
    least: Role
    pages: tuple[str, ...]


TABS = (
    Tab("Home", "project-home", Role.ADMIN, ("project-home",)),
    Tab("Prompts", "prompts", Role.ADMIN, ("prompts", "prompt", "imports", "import-job")),
    Tab(
        "Annotate",
        "annotate",
        Role.ANNOTATOR,
        ("annotate", "own-votes", "practice", "pairs", "pair"),
    ),
    Tab("Examples", "examples", Role.ADMIN, ("examples", "completion-lineage", "run-examples")),
    Tab("Quality", "quality", Role.ADMIN, ("quality", "gold", "resolve", "flags")),
    Tab(
        "Train",
        "runs",
        Role.ADMIN,
        (
            "runs",
            "run",
            "runs-side-by-side",
            "schedule-settings",
            "sweeps",
            "sweep",
            "sweep-new",
            "run-pairs",
            "adapter-import",
            "lineage",
            "influence",
            "gate-rules",
            "gate-rules-preview",
            "probes",
        ),
    ),
    Tab("Releases", "releases", Role.ADMIN, ("releases", "changes")),
    Tab(
        "Demo",
        "demo",
        Role.VIEWER,
        (
            "demo",
            "conversation",
            "conversations",
            "compare",
            "comparison",
            "share-links",
            "conversation-log",
            "logged-conversation",
        ),
    ),
    Tab(
        "Settings",
        "project-settings",
        Role.ADMIN,
        (
            "project-settings",
            "tokens",
            "guidelines",
            "rules",
            "people",
            "person",
            "erasures",
            "api-docs",
            "webhooks",
            "webhook",
            "notification-choice",
            "audit",
            "project-delete",
        ),
    ),
)


@register.inclusion_tag("_components/tabs.html", takes_context=True)
def project_tabs(context: dict[str, Any], membership: Membership) -> dict[str, Any]:
    """Return the pages of the project that this member may open."""
    request: HttpRequest = context["request"]
    here = request.resolver_match.url_name if request.resolver_match else ""
    return {
        "tabs": [
            (
                tab.label,
                reverse(tab.url_name, args=[membership.project.slug]),
                here in tab.pages,
            )
            for tab in TABS
            if membership.role in roles_from(tab.least)
            # nothing is handed out in an archived project
            and not (tab.url_name == "annotate" and membership.project.archived_at)
        ]
    }


@register.filter
def may(membership: Membership, role: str) -> bool:
    """Return whether the member's role is `role` or a higher one."""
    return membership.role in roles_from(Role(role))


@register.simple_tag(takes_context=True)
def desk_url(context: dict[str, Any], name: str, pk: int) -> str:
    """Return the URL of an action at the annotation page, with the page's filter and order."""
    before, after = address_around(name, context["project"].slug)
    return f"{before}{pk}{after}{context['view'].query}"


@lru_cache(maxsize=1_000)
def address_around(name: str, slug: str) -> tuple[str, str]:
    """Return the parts of an action's URL before and after the number."""
    before, _, after = reverse(name, args=[slug, 0]).rpartition("/0/")
    return f"{before}/", f"/{after}"


@register.simple_tag
@lru_cache(maxsize=256)  # a page has many, and there are few
def icon(name: str, label: str = "") -> SafeString:
    """Return a symbol of static/icons.svg; without a label it is decorative."""
    href = f"{static('icons.svg')}#{name}"
    if label:
        return format_html(
            '<svg class="icon" role="img" aria-label="{}"><use href="{}"/></svg>', label, href
        )
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}"/></svg>', href)


@register.filter
def ago(moment: dt.datetime | None) -> SafeString | str:
    """Return a <time> element that js/time.js makes local and relative."""
    if moment is None:
        return "–"
    return format_html(
        '<time datetime="{}">{} UTC</time>',
        moment.isoformat(),
        f"{moment.day} {moment:%b %Y %H:%M}",
    )


@register.filter
def time_range(since: dt.datetime, until: dt.datetime) -> SafeString:
    """Return a <time> element of two moments that js/time.js makes local, such as 19:39–19:41."""
    return format_html(
        '<time datetime="{}" data-until="{}">{} to {} UTC</time>',
        since.isoformat(),
        until.isoformat(),
        f"{since.day} {since:%b %Y %H:%M}",
        f"{until.day} {until:%b %Y %H:%M}",
    )


@register.filter
def duration(seconds: float | None) -> str:
    """Return an estimate such as 'about 4 minutes'."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"about {whole} second{'' if whole == 1 else 's'}"
    if seconds < 5400:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"


@register.filter
def minutes(count: float) -> str:
    """Return an estimate in minutes as `duration` does one in seconds."""
    return duration(60 * count)


@register.filter
def bytes_size(count: int) -> str:
    """Return 2469606195 as '2.3 GB', in powers of 1,024."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.1f} {units[0]}" if size < 10 and units[0] != "B" else f"{size:.0f} {units[0]}"


@register.filter
def percent(share: float | None) -> str:
    """Return 0.834 as '83 %'."""
    return "–" if share is None else f"{100 * share:.0f} %"


@register.filter
def signed(value: float | None, digits: int = 2) -> str:
    """Return a number with its sign and a true minus."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


@register.filter
def many(count: int, most: int | None = None) -> str:
    """Return a count that is bounded by `most`, or by `bounded_count.COUNTED`."""
    most = COUNTED if most is None else most
    return f"more than {most:,}" if count > most else f"{count:,}"


@register.filter
def fate(vote: Vote) -> str:
    """Return what became of a vote.

    Neither the split nor the run: a new prompt would show its split, and a gold item that it was
    trained on before this vote.
    """
    if vote.set_aside_id is not None:
        return "set aside for now"
    example = getattr(vote.completion, "example", None)
    if example is None:
        return "tie, not used" if vote.completion.text.strip() else "empty answer, not used"
    return "used as an example"


@register.filter
def reasons_given(vote: Vote, project: Project) -> str:
    """Return the labels of a vote's reasons; a removed reason shows its key."""
    labels = {chip["key"]: chip["label"] for chip in project.reasons.get(vote.verdict, [])}
    return ", ".join(labels.get(key, key) for key in vote.reasons)


@register.filter
def labels(chips: list[dict[str, str]]) -> str:
    """Return the labels of reason chips as one line."""
    return ", ".join(chip["label"] for chip in chips)
