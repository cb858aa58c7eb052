"""The engine's HTTP bodies: OpenAI's chat completions and vLLM's adapter endpoints."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from trainer.decoding import Sampling

MAX_MESSAGES = 2_000
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Message(BaseModel):
    """One turn. Clients send more fields than we need; those are ignored."""

    role: Literal["system", "user", "assistant"]
    content: str


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
    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    return_token_ids: bool = False

    def sampling(self, *, room: int) -> Sampling:
        """What the decoder needs; without a limit the answer may fill the context."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=self.limit or room,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            stop=tuple(text for text in stop if text),
        )

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class LoadRequest(BaseModel):
    """`POST /v1/load_lora_adapter`. The path is absolute or relative to the artifact root."""

    lora_name: Name
    lora_path: Name


class UnloadRequest(BaseModel):
    """`POST /v1/unload_lora_adapter`."""

    lora_name: Name


def error_body(message: str, kind: str, code: int) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "code": code, "param": None}}
