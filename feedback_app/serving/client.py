"""Talks to the engine: the only place that knows its HTTP protocol (docs/architecture.md)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from django.conf import settings

from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.feedback.services import Answer, Message, storable
from feedback_app.training.models import Adapter

LOAD_SECONDS = 60.0


class EngineError(Exception):
    """The engine cannot do it; the message is fit for people. `status` 0: it did not answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Sampling:
    """How to sample; temperature 0 takes the likeliest token."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None = None


@dataclass
class Streamed:
    """An answer that is still coming in; complete once the iterator has ended."""

    text: str = ""
    finish_reason: str = "aborted"
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] = field(default_factory=list)


def engine_url(base_model: str) -> str:
    """Where the engine of this base model listens. Raises EngineError if there is none."""
    url = settings.ENGINES.get(base_model)
    if url is None:
        known = ", ".join(sorted(settings.ENGINES)) or "none"
        raise EngineError(
            f"No engine serves {base_model}. Engines here: {known}. "
            "Set ENGINES or ENGINE_URL and start one."
        )
    return str(url).rstrip("/")


class Engine:
    """The engine of one project, spoken to over HTTP. Short-lived: one per deed."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.url = engine_url(project.base_model)

    def model_of(self, version: str) -> str:
        """The name the engine knows a version by."""
        return self.project.base_model if version == BASE_VERSION else version

    def load(self, adapter: Adapter) -> None:
        """Makes the engine hold the adapter; loading twice is one load."""
        self._post(
            "/v1/load_lora_adapter",
            {"lora_name": adapter.name, "lora_path": str(adapter.directory)},
        )

    def load_version(self, version: str) -> None:
        """Loads one of the project's adapters by its name. Raises EngineError 404 if unknown."""
        self.load(self._adapter(version))

    def unload(self, name: str) -> None:
        """Lets go of an adapter once its running answers are done; not loaded is fine."""
        try:
            self._post("/v1/unload_lora_adapter", {"lora_name": name})
        except EngineError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise

    def answer(self, messages: Sequence[Message], *, version: str, sampling: Sampling) -> Answer:
        """One whole answer. Raises EngineError."""
        body = self._body(messages, version=version, sampling=sampling)
        data = self._with_adapter(version, lambda: self._post("/v1/chat/completions", body))
        choice = data["choices"][0]
        return Answer(
            text=choice["message"]["content"] or "",
            version=version,
            finish_reason=choice["finish_reason"],
            prompt_token_ids=data.get("prompt_token_ids"),
            token_ids=choice.get("token_ids"),
        )

    def stream(
        self,
        messages: Sequence[Message],
        *,
        version: str,
        sampling: Sampling,
        into: Streamed,
        system_prompt: str | None = None,
    ) -> Iterator[str]:
        """Yields pieces of text as they come and keeps everything in `into`.

        `system_prompt` stands in for the project's.
        Closing the iterator closes the connection, which frees the slot in the engine.
        Raises EngineError, also halfway; what came until then is in `into`.
        """
        body = self._body(messages, version=version, sampling=sampling, system_prompt=system_prompt)
        body["stream"] = True
        if version != BASE_VERSION:
            # cheap if it is loaded; an engine that was restarted has forgotten it
            try:
                self.load_version(version)
            except EngineError as error:
                # not the conversation's fault, which is what a 400 of the answer itself means
                raise EngineError(str(error), status=httpx.codes.SERVICE_UNAVAILABLE) from error
        timeout = httpx.Timeout(10.0, read=120.0)
        try:
            with (
                httpx.Client(timeout=timeout) as client,
                client.stream("POST", f"{self.url}/v1/chat/completions", json=body) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise self._error(response)
                yield from self._pieces(response, into)
        except httpx.HTTPError as error:
            raise self._unreachable() from error

    @staticmethod
    def _pieces(response: httpx.Response, into: Streamed) -> Iterator[str]:
        for line in response.iter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            chunk = json.loads(data)
            if "error" in chunk:
                raise EngineError(chunk["error"].get("message", "The engine failed."), status=500)
            into.prompt_token_ids = chunk.get("prompt_token_ids") or into.prompt_token_ids
            for choice in chunk.get("choices", []):
                into.token_ids += choice.get("token_ids") or []
                into.finish_reason = choice.get("finish_reason") or into.finish_reason
                piece = (choice.get("delta") or {}).get("content")
                if piece:
                    piece = storable(piece)  # what is read is what is kept
                    into.text += piece
                    yield piece

    def _body(
        self,
        messages: Sequence[Message],
        *,
        version: str,
        sampling: Sampling,
        system_prompt: str | None = None,
    ) -> dict[str, Any]:
        system = self.project.system_prompt if system_prompt is None else system_prompt
        context = [{"role": "system", "content": system}] if system else []
        body: dict[str, Any] = {
            "model": self.model_of(version),
            "messages": [*context, *messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "return_token_ids": True,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        return body

    def _with_adapter(self, version: str, call: Any) -> Any:
        """Repeats a call after loading the adapter if the engine does not know it (any more)."""
        try:
            return call()
        except EngineError as error:
            if error.status != httpx.codes.NOT_FOUND or version == BASE_VERSION:
                raise
        self.load_version(version)
        return call()

    def _adapter(self, version: str) -> Adapter:
        adapter = Adapter.objects.filter(project=self.project, name=version).first()
        if adapter is None:
            raise EngineError(f"This project has no version {version}.", status=404)
        return adapter

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        try:
            response = httpx.post(
                f"{self.url}{path}", json=body, timeout=httpx.Timeout(LOAD_SECONDS, connect=5.0)
            )
        except httpx.HTTPError as error:
            raise self._unreachable() from error
        if response.status_code != httpx.codes.OK:
            raise self._error(response)
        is_json = "json" in response.headers.get("content-type", "")
        return response.json() if is_json else response.text

    def _unreachable(self) -> EngineError:
        return EngineError(
            f"The engine of {self.project.base_model} does not answer. Nothing was lost: "
            "try again in a moment."
        )

    @staticmethod
    def _error(response: httpx.Response) -> EngineError:
        try:
            message = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = response.text[:500] or f"The engine answered {response.status_code}."
        return EngineError(str(message), status=response.status_code)
