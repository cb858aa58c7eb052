"""Request and response schemas of the data API. Unknown fields are errors."""

import datetime as dt
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from feedback_app.api.gateway.schemas import (
    MAX_CHARACTERS,
    MAX_MESSAGES,
    TOOLS_MOST,
    ChatMessage,
    Strict,
    Text,
    Tool,
)

MOST = 100  # items of a page, and of a request that adds items
Id = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
PathId = Annotated[int, Field(ge=1, lt=2**63)]
Item = TypeVar("Item")


class Message(ChatMessage):
    """A message of a prompt. The project's system prompt is added automatically."""

    role: Literal["user", "assistant", "tool"]


Messages = Annotated[
    list[Message],
    Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="The last one is the user's, or a tool's result",
    ),
]


Tools = Annotated[
    list[Tool],
    Field(
        max_length=TOOLS_MOST,
        description="Definitions of the tools that the answers could call: the same messages with "
        "other definitions are another prompt",
    ),
]


class PageQuery(BaseModel):
    """Which page of a list: `cursor` is the `next_cursor` of the page before."""

    limit: Annotated[int, Field(ge=1, le=MOST)] = 50
    cursor: Annotated[str, Field(max_length=100)] | None = None


class CompletionQuery(PageQuery):
    prompt_id: PathId | None = None
    version: Annotated[Text, Field(max_length=80)] | None = None


class VoteQuery(PageQuery):
    completion_id: PathId | None = None


class ExampleQuery(PageQuery):
    split: Literal["train", "validation", "test"] | None = None


class Page(BaseModel, Generic[Item]):
    """A page of a list, oldest first. The last page has no `next_cursor`."""

    object: Literal["list"] = "list"
    data: list[Item]
    next_cursor: str | None


class Added(BaseModel, Generic[Item]):
    """The items of a request, in its order; `created` is false for those that existed before."""

    object: Literal["list"] = "list"
    data: list[Item]


class PromptNew(Strict):
    messages: Messages
    tools: Tools = []
    topic: Annotated[Text, Field(max_length=60)] = ""


class PromptsAsk(Strict):
    prompts: Annotated[list[PromptNew], Field(min_length=1, max_length=MOST)]


class PromptOut(BaseModel):
    id: int
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    topic: str
    split: str
    source: str
    created_at: dt.datetime


class PromptAdded(PromptOut):
    created: bool


class CompletionNew(Strict):
    """An answer of another system to a prompt of the project or to `messages`."""

    prompt_id: Id | None = None
    messages: Messages | None = None
    tools: Annotated[Tools, Field(description="Those of `messages`")] = []
    text: Annotated[Text, Field(max_length=MAX_CHARACTERS)]
    version: Annotated[
        Text,
        Field(
            min_length=1,
            max_length=80,
            description="'import', 'base', a version of the project, or your own name of another "
            "system that gave the answer",
        ),
    ] = "import"
    queued: Annotated[bool, Field(strict=True, description="Show it to annotators")] = False


class CompletionsAsk(Strict):
    completions: Annotated[list[CompletionNew], Field(min_length=1, max_length=MOST)]


class CompletionOut(BaseModel):
    id: int
    prompt_id: int
    text: str
    version: str
    finish_reason: str
    source: str
    queued: bool
    vote_count: int
    created_at: dt.datetime


class CompletionAdded(CompletionOut):
    created: bool


class VoteNew(Strict):
    completion_id: Id
    verdict: Literal["up", "down"]
    reasons: (
        Annotated[list[Annotated[Text, Field(min_length=1, max_length=40)]], Field(max_length=20)]
        | None
    ) = None
    comment: Annotated[Text, Field(max_length=2_000)] | None = None
    user: (
        Annotated[
            Text,
            Field(min_length=1, max_length=200, description="Your own id of the user"),
        ]
        | None
    ) = None


class VotesAsk(Strict):
    votes: Annotated[list[VoteNew], Field(min_length=1, max_length=MOST)]


class VoteOut(BaseModel):
    """`person` is the id of the voter; `user` is the id that your product sent."""

    id: int
    completion_id: int
    verdict: str
    reasons: list[str]
    comment: str
    source: str
    person: int
    user: str | None
    hasty: Annotated[bool, Field(description="Given faster than the answer can be read")]
    set_aside: Annotated[
        bool,
        Field(description="Not counted: the person judged too many gold items wrongly"),
    ]
    guidelines: Annotated[
        int | None,
        Field(description="The version of the guidelines at the time of the vote; null: none"),
    ]
    created_at: dt.datetime
    updated_at: dt.datetime


class ExampleOut(BaseModel):
    """The example of a completion's votes; `label` is true for desirable."""

    completion_id: int
    prompt: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    completion: str
    label: bool
    weight: float
    split: str
    used_in_run: int | None
    hasty: Annotated[int, Field(description="Number of its hasty votes")]
    set_aside: Annotated[int, Field(description="Number of its votes that are set aside")]
    guidelines: Annotated[
        list[int],
        Field(description="The versions of the guidelines at the time of its votes"),
    ]
    created_at: dt.datetime
    updated_at: dt.datetime


#: Label values of a file.
Words = Annotated[list[Annotated[Text, Field(max_length=200)]], Field(max_length=20)]


class ImportAsk(BaseModel):
    """Options of an import."""

    name: Annotated[Text, Field(max_length=200, description="Shown to people")] | None = None
    dry_run: Annotated[bool, Field(description="Report only, store nothing")] = False
    map: Annotated[
        list[Annotated[Text, Field(max_length=200)]],
        Field(
            max_length=9,
            description="'prompt:question': the file calls the column 'prompt' 'question'; "
            "'gold:': what it calls 'gold' is something else",
        ),
    ] = []
    up: Annotated[Words, Field(description="Label values of the file that mean up")] = []
    down: Annotated[Words, Field(description="Label values of the file that mean down")] = []


class ImportOut(BaseModel):
    """`share` of the file is read, 0 to 1; `columns` are the names that were sent as `map`,
    `labels_up` and `labels_down` the labels; `gold` of the `imported` are gold items. The numbers
    of a dry run say what would have come in."""

    id: int
    name: str
    status: Literal["preview", "queued", "running", "done", "failed", "cancelled"]
    dry_run: bool
    columns: dict[str, str]
    labels_up: list[str]
    labels_down: list[str]
    share: float
    rows: int
    imported: int
    gold: int
    prompts: int
    duplicates: int
    refused: int
    error: str
    created_at: dt.datetime
    finished_at: dt.datetime | None


class RefusedOut(BaseModel):
    """A row that was not imported, the reason, and its beginning."""

    row: int
    reason: str
    content: str


class ExportQuery(BaseModel):
    format: Literal["jsonl", "parquet", "csv"] = "jsonl"
    votes: Annotated[bool, Field(description="Include votes, under pseudonyms")] = False
    snapshot: (
        Annotated[int, Field(ge=1, lt=2**31, description="The snapshot of this run number")] | None
    ) = None
