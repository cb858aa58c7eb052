"""The data API's operations: prompts, completions, votes and examples of one project."""

from typing import Any

from django.db.models import Prefetch
from django.http import HttpResponse
from django.urls import URLPattern, URLResolver
from ninja import NinjaAPI, Path, Query
from pydantic import BaseModel

from feedback_app.api.auth import ApiRequest
from feedback_app.api.data import schemas as s
from feedback_app.api.data.auth import FAULTS, HERE, READ, WRITE, project_of
from feedback_app.api.data.files import router as files
from feedback_app.api.data.idempotency import once
from feedback_app.api.data.pagination import page_of
from feedback_app.api.data.services import completions_add, prompts_add, unknown, votes_cast
from feedback_app.api.error_handlers import error_handlers_add, token_urls
from feedback_app.feedback.models import Completion, Example, Project, Prompt, Vote
from feedback_app.feedback.prompts.tools import tools_of, without_tools

api = NinjaAPI(
    title="Prospect data",
    version="1",
    description="Prompts, completions, votes and examples of a project, to read and to add, one by "
    "one or as files.",
    urls_namespace="data-api",
    docs_url=None,
)

# -- prompts


def prompt_out(prompt: Prompt) -> dict[str, Any]:
    return {
        "id": prompt.pk,
        "messages": without_tools(prompt.messages),
        "tools": tools_of(prompt.messages),
        "topic": prompt.topic,
        "split": prompt.split,
        "source": prompt.source,
        "created_at": prompt.created_at,
    }


@api.get(f"{HERE}/prompts", response={200: s.Page[s.PromptOut], **FAULTS}, auth=READ)
def prompts(request: ApiRequest, slug: str, query: Query[s.PageQuery]) -> Any:
    """List all prompts, oldest first."""
    project = project_of(request, slug, s.PageQuery)
    rows, after = page_of(project.prompts.all(), "prompts", query)
    return {"data": [prompt_out(row) for row in rows], "next_cursor": after}


@api.post(f"{HERE}/prompts", response={200: s.Added[s.PromptAdded], **FAULTS}, auth=WRITE)
def prompts_new(request: ApiRequest, slug: str, ask: s.PromptsAsk) -> HttpResponse:
    """Add up to 100 prompts; an existing prompt is returned unchanged."""
    project = project_of(request, slug)

    def action() -> BaseModel:
        return s.Added[s.PromptAdded](
            data=[
                s.PromptAdded(**prompt_out(prompt), created=new)
                for prompt, new in prompts_add(project, ask.prompts)
            ]
        )

    return once(request, action)


@api.get(f"{HERE}/prompts/{{pk}}", response={200: s.PromptOut, **FAULTS}, auth=READ)
def prompt(request: ApiRequest, slug: str, pk: Path[s.PathId]) -> Any:
    """Get a prompt."""
    row = project_of(request, slug).prompts.filter(pk=pk).first()
    if row is None:
        raise unknown("pk", f"prompt {pk}")
    return prompt_out(row)


# -- completions


def completion_out(completion: Completion) -> dict[str, Any]:
    return {
        "id": completion.pk,
        "prompt_id": completion.prompt_id,
        "text": completion.text,
        "version": completion.version,
        "finish_reason": completion.finish_reason,
        "source": completion.source,
        "queued": completion.queued,
        "vote_count": completion.vote_count,
        "created_at": completion.created_at,
    }


@api.get(f"{HERE}/completions", response={200: s.Page[s.CompletionOut], **FAULTS}, auth=READ)
def completions(request: ApiRequest, slug: str, query: Query[s.CompletionQuery]) -> Any:
    """List all completions, oldest first; optionally of one prompt or version."""
    rows = project_of(request, slug, s.CompletionQuery).completions.defer(
        "token_ids", "prompt_token_ids"
    )
    if query.prompt_id is not None:
        rows = rows.filter(prompt=query.prompt_id)
    if query.version is not None:
        rows = rows.filter(version=query.version)
    found, after = page_of(rows, "completions", query)
    return {"data": [completion_out(row) for row in found], "next_cursor": after}


@api.post(f"{HERE}/completions", response={200: s.Added[s.CompletionAdded], **FAULTS}, auth=WRITE)
def completions_new(request: ApiRequest, slug: str, ask: s.CompletionsAsk) -> HttpResponse:
    """Add up to 100 answers of another system; `queued` shows them to annotators."""
    project = project_of(request, slug)

    def action() -> BaseModel:
        return s.Added[s.CompletionAdded](
            data=[
                s.CompletionAdded(**completion_out(completion), created=new)
                for completion, new in completions_add(project, ask.completions)
            ]
        )

    return once(request, action)


@api.get(f"{HERE}/completions/{{pk}}", response={200: s.CompletionOut, **FAULTS}, auth=READ)
def completion(request: ApiRequest, slug: str, pk: Path[s.PathId]) -> Any:
    """Get a completion."""
    rows = project_of(request, slug).completions.defer("token_ids", "prompt_token_ids")
    row = rows.filter(pk=pk).first()
    if row is None:
        raise unknown("pk", f"completion {pk}")
    return completion_out(row)


# -- votes


def vote_out(vote: Vote) -> dict[str, Any]:
    named = getattr(vote.user, "api_person", None)
    return {
        "id": vote.pk,
        "completion_id": vote.completion_id,
        "verdict": vote.verdict,
        "reasons": vote.reasons,
        "comment": vote.comment,
        "source": vote.source,
        "person": vote.user_id,
        "user": named.name if named else None,
        "hasty": vote.hasty,
        "set_aside": vote.set_aside_id is not None,
        "guidelines": vote.guidelines_number or None,
        "created_at": vote.created_at,
        "updated_at": vote.updated_at,
    }


@api.get(f"{HERE}/votes", response={200: s.Page[s.VoteOut], **FAULTS}, auth=READ)
def votes(request: ApiRequest, slug: str, query: Query[s.VoteQuery]) -> Any:
    """List all votes, oldest first; optionally on one completion."""
    rows = project_of(request, slug, s.VoteQuery).votes.select_related("user__api_person")
    if query.completion_id is not None:
        rows = rows.filter(completion=query.completion_id)
    found, after = page_of(rows, "votes", query)
    return {"data": [vote_out(row) for row in found], "next_cursor": after}


@api.post(f"{HERE}/votes", response={200: s.Added[s.VoteOut], **FAULTS}, auth=WRITE)
def votes_new(request: ApiRequest, slug: str, ask: s.VotesAsk) -> HttpResponse:
    """Cast up to 100 votes: one per person and completion; sending one again changes it."""
    project_of(request, slug)

    def action() -> BaseModel:
        cast = votes_cast(request.auth, ask.votes)
        return s.Added[s.VoteOut](data=[s.VoteOut(**vote_out(vote)) for vote in cast])

    return once(request, action)


@api.get(f"{HERE}/votes/{{pk}}", response={200: s.VoteOut, **FAULTS}, auth=READ)
def vote(request: ApiRequest, slug: str, pk: Path[s.PathId]) -> Any:
    """Get a vote."""
    rows = project_of(request, slug).votes.select_related("user__api_person")
    row = rows.filter(pk=pk).first()
    if row is None:
        raise unknown("pk", f"vote {pk}")
    return vote_out(row)


# -- examples


def example_out(example: Example) -> dict[str, Any]:
    votes = example.completion.votes.all()
    standing = [vote for vote in votes if vote.set_aside_id is None]
    return {
        "completion_id": example.pk,
        "prompt": without_tools(example.completion.prompt.messages),
        "tools": tools_of(example.completion.prompt.messages),
        "completion": example.completion.text,
        "label": example.desirable,
        "weight": example.weight,
        "split": example.split,
        "used_in_run": example.used_in_run,
        "hasty": sum(vote.hasty for vote in standing),
        "set_aside": len(votes) - len(standing),
        "guidelines": sorted({vote.guidelines_number for vote in standing} - {0}),
        "created_at": example.created_at,
        "updated_at": example.updated_at,
    }


@api.get(f"{HERE}/examples", response={200: s.Page[s.ExampleOut], **FAULTS}, auth=READ)
def examples(request: ApiRequest, slug: str, query: Query[s.ExampleQuery]) -> Any:
    """List the current examples, in the order of their completions."""
    rows = with_texts(project_of(request, slug, s.ExampleQuery))
    if query.split is not None:
        rows = rows.filter(split=query.split)
    found, after = page_of(rows, "examples", query)
    return {"data": [example_out(row) for row in found], "next_cursor": after}


@api.get(f"{HERE}/examples/{{pk}}", response={200: s.ExampleOut, **FAULTS}, auth=READ)
def example(request: ApiRequest, slug: str, pk: Path[s.PathId]) -> Any:
    """Get the example of a completion."""
    row = with_texts(project_of(request, slug)).filter(pk=pk).first()
    if row is None:
        raise unknown("pk", f"example of completion {pk}")
    return example_out(row)


def with_texts(project: Project) -> Any:
    marks = Vote.objects.only("completion_id", "hasty", "set_aside_id", "guidelines_number")
    return (
        project.examples.select_related("completion__prompt")
        .prefetch_related(Prefetch("completion__votes", marks))
        .defer("completion__token_ids", "completion__prompt_token_ids")
    )


api.add_router("", files)
error_handlers_add(api)


def data_api_urls() -> tuple[list[URLResolver | URLPattern], Any, Any]:
    """Return the API's URLs for include()."""
    return token_urls(api)
