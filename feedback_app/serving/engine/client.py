"""Talks to the engine: the only place that knows its HTTP protocol (docs/architecture.md)."""

import atexit
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import httpx
import structlog
from django.conf import settings
from django.db.models import Q

from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.feedback.prompts.completions import Answer
from feedback_app.feedback.prompts.services import Message
from feedback_app.serving.engine.replicas import usable, went_down
from feedback_app.serving.engine.stream import ABORTED, AdapterBroken, EngineError, Streamed, pieces
from feedback_app.training.models import Adapter
from feedback_app.training.registry.files import BadAdapter, manifest_check

log = structlog.get_logger(__name__)

__all__ = ["AdapterBroken", "Engine", "EngineError", "Sampling", "Streamed", "engine_urls"]

LOADED_ALREADY = "has already been loaded"
#: Faults of one engine that another may not have: no answer, a full queue, on its way up or down.
ELSEWHERE = (0, httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)

#: What an engine says of an adapter's files that it does not take; vLLM calls that its own fault.
REFUSED = (400, 404, 422, 500)
#: vLLM's answer to a question (with status 400) if its resolver found an adapter that is damaged.
NOT_LOADED = "was found but could not be loaded"


@dataclass(frozen=True)
class Sampling:
    """How to sample; temperature 0 takes the likeliest token."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None = None


def engine_urls(base_model: str) -> list[str]:
    """Where the engines of this base model listen. Raises EngineError if there is none."""
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
    """One client a process: making one costs more than asking an engine."""
    # uvicorn hangs up on what was idle for five seconds: be the first to let go
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=4)
    client = httpx.Client(limits=limits)
    atexit.register(client.close)
    return client


def silence_limit() -> httpx.Timeout:
    """Returns the time-out of a request: how long the engine may send nothing, not how long the
    answer may take. The embedded engine sends a comment every five seconds while it is at work."""
    return httpx.Timeout(10.0, read=settings.ENGINE_SILENCE_SECONDS)


class Engine:
    """The engine of one project, spoken to over HTTP, or all of them if there are several.
    Short-lived: one per action."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.urls = engine_urls(project.base_model)

    def model_of(self, version: str) -> str:
        """The name the engine knows a version by."""
        return self.project.base_model if version == BASE_VERSION else version

    def load(self, adapter: Adapter) -> None:
        """Makes every engine that answers hold the adapter; loading twice is one load.

        Raises EngineError if one refuses, or none answers.
        """
        self._everywhere(lambda url: self._load_at(url, adapter))

    def load_version(self, version: str) -> None:
        """Loads one of the project's adapters by its name. Raises EngineError 404 if unknown."""
        self.load(self._adapter(version))

    def unload(self, name: str) -> None:
        """Lets go of an adapter once its running answers are done; not loaded is fine."""

        def unload_at(url: str) -> None:
            try:
                self._post(url, "/v1/unload_lora_adapter", {"lora_name": name})
            except EngineError as error:
                if error.status != httpx.codes.NOT_FOUND:
                    raise

        self._everywhere(unload_at)

    def first_words(
        self, messages: Sequence[Message], *, version: str, sampling: Sampling
    ) -> list[str]:
        """How every engine that answers at all begins; "" if it says nothing. Raises EngineError.

        The rest is not waited for: an engine with fifty readers takes a second for twelve tokens.
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
        heard: Callable[[int], object] = lambda tokens: None,
    ) -> Answer:
        """Returns one whole answer, however long it takes.

        `heard` is called with the number of tokens that came, at each sign of life of the engine;
        an exception that it raises ends the request. Raises EngineError, also for an answer that
        broke off.
        """
        streamed = Streamed()
        known = 0
        coming = self.stream(messages, version=version, sampling=sampling, into=streamed)
        with closing(coming):  # type: ignore[type-var]
            for piece in coming:
                # engines that send no token ids are counted by their pieces
                now = len(streamed.token_ids) if streamed.token_ids else known + bool(piece)
                heard(now - known)
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
        """Yields pieces of text as they come and keeps everything in `into`. A piece is empty where
        the engine says that it is at work but has no text yet.

        `system_prompt` stands in for the project's. `opened` is called once an engine has taken
        the question, while it reads it.
        Closing the iterator closes the connection, which frees the slot in the engine.
        Raises EngineError, also halfway; what came until then is in `into`.
        """
        body = self._body(messages, version=version, sampling=sampling, system_prompt=system_prompt)
        body["stream"] = True
        into.version = version
        fault = self._unreachable()
        for url in self._usable(body):
            try:
                response = self._with_adapter(url, version, partial(self._open, url, body))
            except EngineError as error:
                fault = self._elsewhere(url, error)
                continue
            try:
                with closing(response):
                    opened()
                    yield from pieces(response, into)
            except httpx.HTTPError as error:
                went_down(url)
                raise self._unreachable(error) from error
            return
        raise fault

    def healthy(self) -> bool:
        """Returns whether one of the engines says that it is ready."""
        return any(self._ready(url) for url in self.urls)

    @staticmethod
    def _ready(url: str) -> bool:
        try:
            return http().get(f"{url}/health", timeout=10.0).is_success
        except httpx.HTTPError:
            return False

    def _open(self, url: str, body: dict[str, Any]) -> httpx.Response:
        """A stream that has begun. Raises EngineError."""
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
        # the system prompt and the first question: what all turns of a conversation share
        key = json.dumps(body["messages"][:2])
        return usable(self.urls, key, self._bring_up)

    def _bring_up(self, url: str) -> bool:
        """Gives an engine what is live on its base model, or a candidate of a split, before it is
        asked anything."""
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
        """Raises a fault that another engine would have as well; else returns it."""
        if error.status not in ELSEWHERE:
            raise error
        if error.status != httpx.codes.TOO_MANY_REQUESTS:
            went_down(url)
        return error

    def _everywhere(self, action: Callable[[str], None]) -> None:
        """Does it at every engine. One that does not answer is out of traffic, and gets what is
        live when it is back; if none answers, or one refuses, EngineError is raised."""
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
        """Has one engine load an adapter whose files are what they were when it was registered:
        vLLM looks at no hash, and weights that are not finite spoil the answers of all others."""
        try:
            manifest_check(adapter.directory, name=adapter.name)
        except BadAdapter as error:
            raise EngineError(str(error), status=httpx.codes.UNPROCESSABLE_ENTITY) from error
        body = {"lora_name": adapter.name, "lora_path": str(adapter.directory)}
        try:
            self._post(url, "/v1/load_lora_adapter", body)
        except EngineError as error:
            # vLLM's words for what the embedded engine calls a success: names are immutable
            if LOADED_ALREADY not in str(error):
                raise

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

    def _with_adapter(self, url: str, version: str, call: Callable[[], Any]) -> Any:
        """Repeats a call after loading the adapter if the engine does not know it (any more)."""
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
            # not the conversation's fault, which is what a 400 of the answer itself means
            if error.status in REFUSED:
                raise AdapterBroken(str(error), status=503) from error
            raise EngineError(str(error), status=error.status and 503) from error
        return call()

    def _adapter(self, version: str) -> Adapter:
        adapter = Adapter.objects.filter(project=self.project, name=version).first()
        if adapter is None:
            raise EngineError(f"This project has no version {version}.", status=404)
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
        """The id under which the web process logs this request, so that the engine does too."""
        request_id = structlog.contextvars.get_contextvars().get("request_id")
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
