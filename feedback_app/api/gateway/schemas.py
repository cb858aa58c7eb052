"""Request and response schemas of the gateway. Unknown fields are errors."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from feedback_app.feedback.prompts.services import Message, message_new

MAX_MESSAGES = 200
MAX_CHARACTERS = 32_000
SCHEMA_CHARACTERS = 20_000
TOOLS_MOST = 64
TOP_LOGPROBS = 20  # the most that OpenAI, vLLM and the embedded engine report
MAX_GROUP = 40
MAX_MESSAGE_ID = 100
#: In front of a product's own id of a message, where feedback names an answer.
MESSAGE = "message:"
Number = Annotated[float, Field(allow_inf_nan=False)]


def keepable(text: str) -> str:
    """Reject characters that a database cannot store: a prompt is stored as it was sent.

    PostgreSQL stores no NUL, and half of a surrogate pair, which JSON can spell, is no text.
    """
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("must not contain NUL or half of a surrogate pair")
    return text


#: The schema excludes NUL as well; a pattern cannot express a lone surrogate.
Text = Annotated[
    str, AfterValidator(keepable), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


#: Other kinds of content that OpenAI's API knows.
NOT_TEXT = ("image_url", "input_image", "image", "input_audio", "file", "video_url", "audio_url")


class TextPart(BaseModel):
    """OpenAI's other form of content; only text is supported."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def text_only(cls, part: object) -> object:
        """Name what is not text: a model that did not see it would answer something else."""
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in NOT_TEXT:
            raise ValueError(f"{kind} is not supported: the models here read text only")
        return part


class CalledFunction(Strict):
    name: Annotated[Text, Field(min_length=1, max_length=64)]
    arguments: Annotated[Text, Field(max_length=MAX_CHARACTERS)]


class ToolCall(Strict):
    """A call that an earlier answer has asked for."""

    id: Annotated[Text, Field(min_length=1, max_length=100)]
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(Strict):
    """One message of the conversation. A call of tools has no content."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[Text, Field(min_length=1, max_length=MAX_CHARACTERS)] | None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=TOOLS_MOST)] | None = None
    tool_call_id: Annotated[Text, Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="before")
    @classmethod
    def calls_need_no_content(cls, message: object) -> object:
        """Accept a call of tools without content, as some clients send it."""
        if isinstance(message, dict) and message.get("tool_calls"):
            return {"content": None, **message}
        return message

    @field_validator("content", mode="before")
    @classmethod
    def join_parts(cls, content: object) -> object:
        """Join parts to one text; leave anything else to validation."""
        if not isinstance(content, list):
            return content
        return "\n".join(TextPart.model_validate(part).text for part in content)

    @model_validator(mode="after")
    def fields_agree(self) -> "ChatMessage":
        """Require content, and allow calls in their roles only."""
        if self.content is None and self.tool_calls is None:
            raise ValueError("a message needs content")
        if self.tool_calls is not None and self.role != "assistant":
            raise ValueError("only an assistant's message has tool_calls")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("a message of the role tool, and only such a one, has a tool_call_id")
        return self

    def as_stored(self) -> Message:
        """Return the message of a prompt."""
        calls = None if self.tool_calls is None else [one.model_dump() for one in self.tool_calls]
        return message_new(
            self.role, self.content or "", tool_calls=calls, tool_call_id=self.tool_call_id
        )

    def as_sent(self) -> dict[str, Any]:
        """Return the message for an engine that calls tools."""
        return self.model_dump(exclude_none=True)


class ToolFunction(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[Text, Field(max_length=4_000)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    """A function that the model may ask the caller to call."""

    type: Literal["function"]
    function: ToolFunction


class NamedFunction(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class NamedTool(Strict):
    type: Literal["function"]
    function: NamedFunction


class StreamOptions(Strict):
    include_usage: bool = False


#: A text that ends the answer; the answer does not contain it.
Stop = Annotated[Text, Field(min_length=1, max_length=200)]


class JsonSchema(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[Text, Field(max_length=4_000)] | None = None
    # BaseModel has a method `schema`
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Strict):
    """OpenAI's choice of a format. Formats other than text need an engine that keeps to them."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def schema_agrees(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError('json_schema belongs to the type "json_schema"')
        try:
            too_long = len(self.as_sent()) > SCHEMA_CHARACTERS
            json.dumps(json.loads(self.as_sent()), ensure_ascii=False).encode()
        except (RecursionError, ValueError) as error:
            raise ValueError(
                "this schema is nested too deeply, or has numbers or letters that JSON has not"
            ) from error
        if too_long:
            raise ValueError(f"a schema has at most {SCHEMA_CHARACTERS:,} characters")
        return self

    def as_sent(self) -> str:
        """Return the JSON that an engine is sent."""
        return json.dumps(self.model_dump(exclude_none=True, by_alias=True), allow_nan=False)


class ChatMetadata(Strict):
    """OpenAI's metadata of a request; two keys are known."""

    user_group: (
        Annotated[
            Text,
            Field(
                min_length=1,
                max_length=MAX_GROUP,
                description="Your own label of the user's group, such as a plan: the "
                "representative up-rate weights groups by their answers. Without it the "
                "token's name is taken",
            ),
        ]
        | None
    ) = None

    message_id: (
        Annotated[
            Text,
            Field(
                min_length=1,
                max_length=MAX_MESSAGE_ID,
                description="Your own id of the answer's message: feedback may name it as "
                "`message:<id>`",
            ),
        ]
        | None
    ) = None


class ChatAsk(Strict):
    """`POST /v1/chat/completions`. Other fields are not supported and rejected."""

    model: Annotated[
        Text, Field(min_length=1, max_length=200, description="'live', 'base' or a version's name")
    ]
    messages: Annotated[
        list[ChatMessage],
        Field(
            min_length=1,
            max_length=MAX_MESSAGES,
            description="A system message may come first; without one the project's is used.",
        ),
    ]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=32_768)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    response_format: ResponseFormat | None = None
    logprobs: Annotated[
        bool, Field(description="Report the log-probability of each token of the answer, in nats")
    ] = False
    top_logprobs: (
        Annotated[
            int,
            Field(ge=0, le=TOP_LOGPROBS, description="With `logprobs`: the likeliest other tokens"),
        ]
        | None
    ) = None
    tools: (
        Annotated[
            list[Tool],
            Field(
                min_length=1,
                max_length=TOOLS_MOST,
                description="Passed to engines that call tools, refused by others. With "
                'tool_choice "none" part of the conversation, which is stored',
            ),
        ]
        | None
    ) = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    n: Literal[1] | None = None
    user: (
        Annotated[
            Text,
            Field(
                max_length=200,
                description="Your own id of the user: their conversations are listed under it, and "
                "it keeps them on one side of a traffic split",
            ),
        ]
        | None
    ) = None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def with_tools(self) -> bool:
        """Whether it can only be answered by an engine that calls tools. Calls and results of
        earlier turns are part of the conversation, which the chat template renders; so are
        definitions where no tool may be called."""
        if self.tool_choice == "none":
            return False
        asked = (self.tools, self.tool_choice, self.parallel_tool_calls)
        return any(value is not None for value in asked)

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """Return the definitions of tools in OpenAI's form."""
        return [tool.model_dump(exclude_none=True) for tool in self.tools or []]

    @model_validator(mode="after")
    def logprobs_agree(self) -> "ChatAsk":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    metadata: ChatMetadata | None = None

    @property
    def user_group(self) -> str:
        """Return the group that the product puts this user in, or an empty string."""
        return (self.metadata.user_group if self.metadata else None) or ""

    @property
    def message_id(self) -> str:
        """Return the product's own id of the answer, or an empty string."""
        return (self.metadata.message_id if self.metadata else None) or ""


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str


class LogProbs(BaseModel):
    """Of each token `token`, `logprob`, `bytes` and `top_logprobs`, as the engine reports them."""

    content: list[dict[str, Any]]


class Choice(BaseModel):
    index: int = 0
    message: AnswerMessage
    logprobs: LogProbs | None = None
    finish_reason: str


class ChatAnswer(BaseModel):
    """A complete answer. Feedback refers to its `completion_id`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    completion_id: int


class ModelEntry(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "prospect"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


class FeedbackAsk(Strict):
    """`POST /v1/feedback`: one person's verdict on one answer."""

    completion_id: (
        Annotated[int, Field(strict=True, ge=1, lt=2**63)]
        | Annotated[str, Field(pattern=r"^cmpl-[0-9]{1,18}$")]
        | Annotated[
            Text,
            Field(
                min_length=len(MESSAGE) + 1,
                max_length=len(MESSAGE) + MAX_MESSAGE_ID,
                pattern=rf"^{MESSAGE}[^\x00]+$",
                json_schema_extra={"pattern": rf"^{MESSAGE}[^\u0000]+$"},
            ),
        ]
    )
    verdict: Literal["up", "down"]
    reasons: (
        Annotated[list[Annotated[Text, Field(min_length=1, max_length=40)]], Field(max_length=20)]
        | None
    ) = None
    comment: Annotated[Text, Field(max_length=2_000)] | None = None
    correction: (
        Annotated[
            Text,
            Field(
                max_length=20_000,
                description="The answer as it should have been, with `down`: it becomes an example "
                "of its own with the user's up",
            ),
        ]
        | None
    ) = None
    user: (
        Annotated[
            Text,
            Field(
                min_length=1,
                max_length=200,
                description="Your own id of the user: one vote per user and answer",
            ),
        ]
        | None
    ) = None

    @field_validator("completion_id", mode="before")
    @classmethod
    def whole_number(cls, value: object) -> object:
        """Accept 17.0 as 17: JSON has one kind of number."""
        return int(value) if isinstance(value, float) and value.is_integer() else value

    @property
    def lookup(self) -> dict[str, int | str]:
        """Return the fields of the completion that is meant."""
        said = str(self.completion_id)
        if said.startswith(MESSAGE):
            return {"message_id": said.removeprefix(MESSAGE)}
        return {"pk": int(said.removeprefix("cmpl-"))}


class FeedbackAnswer(BaseModel):
    """The vote as stored."""

    object: Literal["feedback"] = "feedback"
    completion_id: int
    verdict: Literal["up", "down"]
    reasons: list[str]
    comment: str
    user: str | None


class Fault(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class FaultAnswer(BaseModel):
    """The format of every error."""

    error: Fault


#: The error statuses of every operation.
FAULTS: dict[int, Any] = dict.fromkeys((400, 401, 403, 404, 413, 429, 503), FaultAnswer)
