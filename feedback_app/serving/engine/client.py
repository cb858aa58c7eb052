"""HTTP client of the engine: the only module that knows its protocol (docs/architecture.md)."""

import atexit
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import httpx
import structlog
from django.conf import settings
from django.db.models import Q

from artifact_store.errors import StoreError
from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.feedback.prompts.completions import Answer
from feedback_app.feedback.prompts.services import Message
from feedback_app.feedback.prompts.tools import tools_of, without_tools
from feedback_app.serving.engine.replicas import usable, went_down
from feedback_app.serving.engine.stream import (
    ABORTED,
    AdapterBroken,
    EngineError,
    Streamed,
    chunks,
    pieces,
)
from feedback_app.training.models import Adapter
from feedback_app.training.registry.files import BadAdapter, adapter_fetch
from feedback_app.training.registry.services import locked_text
from feedback_app.web import log_context

T = TypeVar("T")
log = structlog.get_logger(__name__)

__all__ = ["AdapterBroken", "Engine", "EngineError", "Sampling", "Streamed", "engine_urls"]

LOADED_ALREADY = "has already been loaded"
#: Errors of one engine that another may not have: no answer, a full queue, starting or stopping.
ELSEWHERE = (0, httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)

#: Status codes for adapter files that an engine refuses; vLLM reports them as a server error.
REFUSED = (400, 404, 422, 500)
#: vLLM's message for a request (with status 400) if its resolver found a damaged adapter.
NOT_LOADED = "was found but could not be loaded"


@dataclass(frozen=True)
class Sampling:
    """How to sample; temperature 0 is greedy decoding."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0
    frequency_penalty: float = 0
    # the likeliest other tokens that are reported with each token; None: nothing is reported
    logprobs: int | None = None
    # OpenAI's response_format as JSON, for engines that know it; empty: text
    response_format: str = ""


def engine_urls(base_model: str) -> list[str]:
    """Return the URLs of this base model's engines. Raises EngineError if there is none."""
    found = settings.ENGINES.get(base_model)
    if not found:
        known = ", ".join(sorted(settings.ENGINES)) or "none"
        raise EngineError(
            f"No engine serves {base_model}. Engines here: {known}. "
            "Set ENGINES or ENGINE_URL and start one."
        )
    return [url.rstrip("/") for url in ([found] if isinstance(found, str) else found)]


@cache
def http() -> httpx.Client:
    """Return the process's client: creating one takes longer than a request."""
    # uvicorn closes connections that were idle for five seconds: close them earlier
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=4)
    client = httpx.Client(limits=limits)
    atexit.register(client.close)
    return client


def silence_limit() -> httpx.Timeout:
    """Return the time-out of a request: it limits silence of the engine, not the whole duration.

    The embedded engine sends a comment every five seconds while it works.
    """
    return httpx.Timeout(10.0, read=settings.ENGINE_SILENCE_SECONDS)


class Engine:
    """The engine of a project, or all its replicas. Create one per action."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.urls = engine_urls(project.base_model)

    def model_of(self, version: str) -> str:
        """Return the name by which the engine knows a version."""
        return self.project.base_model if version == BASE_VERSION else version

    def load(self, adapter: Adapter) -> None:
        """Load the adapter into every engine that answers; loading it again has no effect.

        Raises EngineError if one refuses, or none answers.
        """
        self._everywhere(lambda url: self._load_at(url, adapter))

    def load_version(self, version: str) -> None:
        """Load one of the project's adapters by name. Raises EngineError 404 if unknown."""
        self.load(self._adapter(version))

    def unload(self, name: str) -> None:
        """Unload an adapter once its answers in progress are done; one not loaded is no error."""

        def unload_at(url: str) -> None:
            try:
                self._post(url, "/v1/unload_lora_adapter", {"lora_name": name})
            except EngineError as error:
                if error.status != httpx.codes.NOT_FOUND:
                    raise

        self._everywhere(unload_at)

    def first_pieces(
        self, messages: Sequence[Message], *, version: str, sampling: Sampling
    ) -> list[str]:
        """Return the first text of each engine that answers; "" for an empty answer.

        Does not wait for the rest: an engine with fifty streams takes a second for twelve tokens.
        Raises EngineError.
        """
        body = {**self._body(messages, version=version, sampling=sampling), "stream": True}
        found: list[str] = []

        def begin(url: str) -> None:
            response = self._with_adapter(url, version, partial(self._open, url, body))
            try:
                with closing(response):
                    coming = pieces(response, Streamed())
                    found.append(next((piece for piece in coming if piece.strip()), ""))
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error

        self._everywhere(begin)
        return found

    def answer(
        self,
        messages: Sequence[Message],
        *,
        version: str,
        sampling: Sampling,
        on_tokens: Callable[[int], object] = lambda tokens: None,
    ) -> Answer:
        """Return one complete answer, however long it takes.

        `on_tokens` is called with the number of new tokens whenever the engine sends something;
        an exception that it raises ends the request. Raises EngineError, also for an aborted
        answer.
        """
        streamed = Streamed()
        known = 0
        coming = self.stream(messages, version=version, sampling=sampling, into=streamed)
        with closing(coming):  # type: ignore[type-var]
            for piece in coming:
                # engines that send no token ids are counted by their pieces
                now = len(streamed.token_ids) if streamed.token_ids else known + bool(piece)
                on_tokens(now - known)
                known = now
        if streamed.finish_reason == ABORTED:
            why = f"The engine of {self.project.base_model} broke the answer off."
            raise EngineError(why, status=500)
        return Answer(
            text=streamed.text,
            version=version,
            finish_reason=streamed.finish_reason,
            prompt_token_ids=streamed.prompt_token_ids,
            token_ids=streamed.token_ids or None,
        )

    def stream(
        self,
        messages: Sequence[Message],
        *,
        version: str,
        sampling: Sampling,
        into: Streamed,
        system_prompt: str | None = None,
        opened: Callable[[], object] = lambda: None,
    ) -> Iterator[str]:
        """Yield pieces of text as they arrive and keep everything in `into`.

        A piece is empty where the engine works but has no text yet. `system_prompt` replaces the
        project's. `opened` is called once an engine has accepted the request, while it reads it.
        Closing the iterator closes the connection, which frees the slot in the engine.
        Raises EngineError, also halfway; the partial answer is in `into`.
        """
        body = self._body(messages, version=version, sampling=sampling, system_prompt=system_prompt)
        into.version = version

        def read(response: httpx.Response) -> Iterator[str]:
            opened()
            yield from pieces(response, into)

        yield from self._read_from_first(body, version=version, read=read)

    def relay(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        version: str,
        sampling: Sampling,
        system_prompt: str | None,
        more: dict[str, Any],
    ) -> Iterator[dict[str, Any] | None]:
        """Yield the events of a stream as the engine sends them, None for a comment.

        `more` are further fields of the request, which the engine must know. Raises EngineError.
        """
        body = self._body(messages, version=version, sampling=sampling, system_prompt=system_prompt)
        del body["return_token_ids"]
        yield from self._read_from_first(body | more, version=version, read=chunks)

    def _read_from_first(
        self,
        body: dict[str, Any],
        *,
        version: str,
        read: Callable[[httpx.Response], Iterator[T]],
    ) -> Iterator[T]:
        """Yield what `read` makes of a stream of the first engine that accepts the request."""
        body["stream"] = True
        fault = self._unreachable()
        for url in self._usable(body):
            try:
                response = self._with_adapter(url, version, partial(self._open, url, body))
            except EngineError as error:
                fault = self._elsewhere(url, error)
                continue
            try:
                with closing(response):
                    yield from read(response)
            except httpx.HTTPError as error:
                went_down(url)
                raise self._unreachable(error) from error
            return
        raise fault

    def healthy(self) -> bool:
        """Return whether one of the engines is ready."""
        return any(self._ready(url) for url in self.urls)

    @staticmethod
    def _ready(url: str) -> bool:
        try:
            return http().get(f"{url}/health", timeout=10.0).is_success
        except httpx.HTTPError:
            return False

    def _open(self, url: str, body: dict[str, Any]) -> httpx.Response:
        """Return the response of a stream that has begun. Raises EngineError."""
        request = http().build_request(
            "POST",
            f"{url}/v1/chat/completions",
            json=body,
            headers=self._headers(),
            timeout=silence_limit(),
        )
        try:
            response = http().send(request, stream=True)
            if response.status_code != httpx.codes.OK:
                with closing(response):
                    response.read()
                    raise self._error(response)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return response

    # -- one engine of several

    def _usable(self, body: dict[str, Any]) -> Iterator[str]:
        # the system prompt and the first message, which all turns of a conversation share
        key = json.dumps(body["messages"][:2])
        return usable(self.urls, key, self._bring_up)

    def _bring_up(self, url: str) -> bool:
        """Load what is live on the base model, and candidates of splits; return success."""
        live = (
            Adapter.objects.filter(
                Q(releases__live=True) | Q(traffic_splits__status="running"),
                project__base_model=self.project.base_model,
            )
            .select_related("project")
            .distinct()
        )
        try:
            http().get(f"{url}/health", timeout=5.0).raise_for_status()
            for adapter in live:
                try:
                    self._load_at(url, adapter)
                except EngineError as error:
                    # one broken version must not keep an engine from serving all the others
                    if error.status not in REFUSED:
                        raise
                    log.warning("adapter_left_out", adapter=adapter.name, why=str(error))
        except (httpx.HTTPError, EngineError) as error:
            log.warning("engine_left_out", engine=url, why=str(error))
            return False
        return True

    @staticmethod
    def _elsewhere(url: str, error: EngineError) -> EngineError:
        """Return an error that another engine may not have; raise any other."""
        if error.status not in ELSEWHERE:
            raise error
        if error.status != httpx.codes.TOO_MANY_REQUESTS:
            went_down(url)
        return error

    def _everywhere(self, action: Callable[[str], None]) -> None:
        """Call `action` for every engine. Raises EngineError if none answers, or one refuses.

        An engine that does not answer gets no traffic until it is back and has loaded what is live.
        """
        silent: list[EngineError] = []
        for url in self.urls:
            try:
                action(url)
            except EngineError as error:
                if error.status:
                    raise
                went_down(url)
                log.warning("engine_left_out", engine=url, why=str(error))
                silent.append(error)
        if len(silent) == len(self.urls):
            raise silent[0]

    def _load_at(self, url: str, adapter: Adapter) -> None:
        """Load an adapter into one engine after checking its files against their hashes.

        vLLM checks no hash, and weights that are not finite spoil the answers of all versions.
        """
        try:
            directory = adapter_fetch(adapter)
        except BadAdapter as error:
            raise EngineError(str(error), status=httpx.codes.UNPROCESSABLE_ENTITY) from error
        except StoreError as error:  # says nothing of the version
            raise EngineError(str(error), status=httpx.codes.INTERNAL_SERVER_ERROR) from error
        body = {"lora_name": adapter.name, "lora_path": str(directory)}
        try:
            self._post(url, "/v1/load_lora_adapter", body)
        except EngineError as error:
            # vLLM reports an error here; names are immutable, so this is a success
            if LOADED_ALREADY not in str(error):
                raise

    def _body(
        self,
        messages: Sequence[Message] | Sequence[dict[str, Any]],
        *,
        version: str,
        sampling: Sampling,
        system_prompt: str | None = None,
    ) -> dict[str, Any]:
        system = self.project.system_prompt if system_prompt is None else system_prompt
        context = [{"role": "system", "content": system}] if system else []
        body: dict[str, Any] = {
            "model": self.model_of(version),
            "messages": [*context, *without_tools(messages)],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "return_token_ids": True,
        }
        if tools := tools_of(messages):
            # the template writes them; an answer is a text
            body |= {"tools": tools, "tool_choice": "none"}
        if self.project.chat_template_kwargs:
            body["chat_template_kwargs"] = self.project.chat_template_kwargs
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        if sampling.response_format:
            body["response_format"] = json.loads(sampling.response_format)
        for name in ("presence_penalty", "frequency_penalty"):
            if value := getattr(sampling, name):
                body[name] = value
        return body

    def _with_adapter(self, url: str, version: str, call: Callable[[], Any]) -> Any:
        """Repeat a call after loading the adapter if the engine does not know it."""
        try:
            return call()
        except EngineError as error:
            if NOT_LOADED in str(error):
                raise AdapterBroken(str(error), status=503) from error
            if error.status != httpx.codes.NOT_FOUND or version == BASE_VERSION:
                raise
        adapter = self._adapter(version)
        try:
            self._load_at(url, adapter)
        except EngineError as error:
            # a 400 would mean that the conversation was refused
            if error.status in REFUSED:
                raise AdapterBroken(str(error), status=503) from error
            raise EngineError(str(error), status=error.status and 503) from error
        return call()

    def _adapter(self, version: str) -> Adapter:
        adapter = Adapter.objects.filter(project=self.project, name=version).first()
        if adapter is None:
            raise EngineError(f"This project has no version {version}.", status=404)
        if adapter.locked_at is not None:
            raise EngineError(locked_text(adapter), status=404)
        return adapter

    def _post(self, url: str, path: str, body: dict[str, Any]) -> Any:
        try:
            response = http().post(
                f"{url}{path}", json=body, headers=self._headers(), timeout=silence_limit()
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.status_code != httpx.codes.OK:
            raise self._error(response)
        is_json = "json" in response.headers.get("content-type", "")
        return response.json() if is_json else response.text

    @staticmethod
    def _headers() -> dict[str, str]:
        """Return the request id of the web process, so that the engine logs the same."""
        request_id = log_context.request_id()
        return {"X-Request-ID": request_id} if request_id else {}

    def _unreachable(self, error: httpx.HTTPError | None = None) -> EngineError:
        what = "does not answer"
        if isinstance(error, httpx.ReadTimeout):
            what = f"has sent nothing for {settings.ENGINE_SILENCE_SECONDS:g} s"
        return EngineError(
            f"The engine of {self.project.base_model} {what}. Nothing was lost: "
            "try again in a moment."
        )

    @staticmethod
    def _error(response: httpx.Response) -> EngineError:
        try:
            message = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = response.text[:500] or f"The engine answered {response.status_code}."
        return EngineError(str(message), status=response.status_code)
