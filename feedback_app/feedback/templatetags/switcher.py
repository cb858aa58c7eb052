"""`{% project_switcher request.membership %}`: the project's name in the bar, and the way to the
same page of another project."""

from typing import Any

from django import template
from django.db.models.functions import Lower
from django.urls import ResolverMatch, reverse

from feedback_app.accounts.models import Membership, Role, roles_from
from feedback_app.feedback.templatetags.display import TABS

register = template.Library()

#: Projects in the menu, the first by name; the page of all projects has the others.
OFFERED = 20
#: Pages that say nothing without what was chosen in their own project, or end it.
OWN = {"runs-side-by-side", "gate-rules-preview", "project-delete"}


@register.inclusion_tag("_components/switcher.html", takes_context=True)
def project_switcher(context: dict[str, Any], membership: Membership) -> dict[str, Any]:
    """Return the project and the person's other ones with their pages, in one query."""
    here = context["request"].resolver_match
    others = (
        Membership.objects.filter(user=membership.user_id, project__archived_at=None)
        .exclude(pk=membership.pk)
        .select_related("project")
        .only("role", "project__name", "project__slug")
        .order_by(Lower("project__name"), "pk")[:OFFERED]
    )
    return {
        "project": membership.project,
        "others": [(other.project.name, page_in(other, here)) for other in others],
    }


def page_in(other: Membership, here: ResolverMatch | None) -> str:
    """Return the page of another project that corresponds to this one: the same, else the first of
    its tab, else the first that the person's role there may see."""
    slug = other.project.slug
    tabs = [tab for tab in TABS if other.role in roles_from(tab.least)]
    name = here.url_name if here else None
    if here is None or name is None:
        return reverse(tabs[0].url_name, args=[slug])
    tab = next((tab for tab in TABS if name in tab.pages), None)
    least = getattr(here.func, "least", Role.OWNER)
    if (
        tab
        and here.kwargs.keys() == {"slug"}
        and name not in OWN
        and other.role in roles_from(least)
    ):
        return reverse(name, args=[slug])
    return reverse((tab if tab in tabs else tabs[0]).url_name, args=[slug])
