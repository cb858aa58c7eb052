"""The engine's HTTP bodies: OpenAI's chat completions and vLLM's adapter endpoints."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from trainer.chats.settings import template_kwargs_fault
from trainer.data.messages import tools_fault
from trainer.engine.sampling import Sampling

MAX_MESSAGES = 2_000
#: Default limit of an answer's tokens; answers of a small model are seldom longer.
DEFAULT_MAX_TOKENS = Sampling.max_tokens
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]
#: Kinds of content that OpenAI's API knows beside text.
NOT_TEXT = ("image_url", "input_image", "image", "input_audio", "file", "video_url", "audio_url")
Number = Annotated[float, Field(allow_inf_nan=False)]


class TextPart(BaseModel):
    """OpenAI's other form of content, of which text is the only kind a text model can read."""

    type: Literal["text"]
    text: str

    @field_validator("type", mode="before")
    @classmethod
    def text_only(cls, kind: object) -> object:
        if kind in NOT_TEXT:
            raise ValueError(f"{kind} is not supported: the model reads text only")
        return kind


class CalledFunction(BaseModel):
    name: Name
    arguments: str


class ToolCall(BaseModel):
    """A call of a tool that an earlier answer asked for."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(BaseModel):
    """One turn. Clients send more fields than we need; those are ignored."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_MESSAGES)] | None = None
    tool_call_id: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def join_parts(cls, content: object) -> object:
        """Parts become one text; anything else is judged as it is."""
        if not isinstance(content, list):
            return content
        return "\n".join(TextPart.model_validate(part).text for part in content)

    @model_validator(mode="before")
    @classmethod
    def call_needs_no_content(cls, message: Any) -> Any:
        """A message needs content, unless it calls tools."""
        if not isinstance(message, dict) or message.get("content") is not None:
            return message
        if not message.get("tool_calls"):
            return {**message, "content": None}
        return {**message, "content": ""}

    @model_validator(mode="after")
    def calls_are_answers(self) -> "Message":
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant's message has tool_calls")
        return self


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """`POST /v1/chat/completions`. Unknown fields are ignored: OpenAI clients send many."""

    model_config = ConfigDict(extra="ignore")

    model: Name
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=10)] = 1.0
    top_p: Annotated[Number, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    repetition_penalty: Annotated[Number, Field(gt=0, le=10)] = 1.0
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    n: Literal[1] | None = None  # one answer a request: ask again for another
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    return_token_ids: bool = False
    ignore_eos: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None

    @field_validator("tools")
    @classmethod
    def check_tools(cls, value: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        if fault := tools_fault(value):
            raise ValueError(fault)
        return value

    @model_validator(mode="after")
    def call_no_tools(self) -> "ChatRequest":
        """The prompt has the definitions, but a call would come back as the text of an answer."""
        if self.tools and self.tool_choice != "none":
            raise ValueError('this engine calls no tools: send "tool_choice": "none" with tools')
        return self

    @field_validator("chat_template_kwargs")
    @classmethod
    def check_template_kwargs(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and (fault := template_kwargs_fault(value)):
            raise ValueError(fault)
        return value

    @model_validator(mode="after")
    def check_logprobs(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def limit(self) -> int | None:
        """Return the requested limit of tokens."""
        return self.max_completion_tokens or self.max_tokens

    def sampling(self, *, room: int) -> Sampling:
        """Return how to sample, with `room` tokens left in the context."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=self.limit or min(DEFAULT_MAX_TOKENS, room),
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=self.seed,
            stop=tuple(stop),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            ignore_eos=self.ignore_eos,
        )


class LoadRequest(BaseModel):
    """`POST /v1/load_lora_adapter`. The path is absolute or relative to the artifact root."""

    lora_name: Name
    lora_path: Annotated[str, StringConstraints(min_length=1, max_length=4_096)]


class UnloadRequest(BaseModel):
    """`POST /v1/unload_lora_adapter`."""

    lora_name: Name


def error_body(message: str, kind: str, code: int) -> dict[str, Any]:
    """Return an error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "code": code, "param": None}}
