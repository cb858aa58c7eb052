"""Creating a project, with the settings of another one if that is wanted."""

from django.db import IntegrityError, transaction

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Source
from feedback_app.feedback.models.rules import ProjectRules
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.projects.starter import starter_prompts
from feedback_app.feedback.prompts.services import prompts_add
from feedback_app.training.gate.services import gate_settings, gate_settings_save
from feedback_app.web.errors import Conflict

#: What a copy takes from its original. Guidelines become version 1 of the copy's.
COPIED = (
    "reasons",
    "overlap",
    "queue_order",
    "validation_percent",
    "test_percent",
    "max_tokens",
    "temperature",
    "top_p",
    "chat_template_kwargs",
    "reasoning",
    "conversation_days",
    *(field.name for field in ProjectRules._meta.local_fields),
)


def project_new(
    *,
    by: User,
    slug: str,
    name: str,
    base_model: str,
    system_prompt: str,
    guidelines: str,
    with_starter_prompts: bool,
    like: Project | None = None,
) -> Project:
    """Create a project that `by` owns. Settings, vote rules and rules of the gate are those of
    `like`; its prompts, answers, votes, versions and members are not copied.

    Raises Conflict if another project has the slug.
    """
    copied = {} if like is None else {name: getattr(like, name) for name in COPIED}
    try:
        with transaction.atomic():
            project = project_create(
                slug=slug,
                name=name,
                base_model=base_model,
                owner=by,
                system_prompt=system_prompt,
                guidelines=guidelines,
                **copied,
            )
            if like is not None:
                gate_settings_save(project=project, settings=gate_settings(like), by=by)
            if with_starter_prompts:
                prompts_add(project=project, prompts=starter_prompts(), source=Source.IMPORT)
            target = slug if like is None else f"{slug}, like {like.slug}"
            audit(project=project, actor=by, action="project.create", target=target)
    except IntegrityError as error:
        raise Conflict(f"A project with the address “{slug}” exists.") from error
    return project
