"""The engine's HTTP side: one process, one base model, many adapters (docs/architecture.md)."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import structlog
import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from artifact_store.errors import StoreError
from artifact_store.selection import store_of
from trainer.backends import backend_for
from trainer.engine.http import chat
from trainer.engine.http.errors import Refusal, on_refusal
from trainer.engine.http.metrics import exposition
from trainer.engine.http.protocol import ChatRequest, LoadRequest, UnloadRequest
from trainer.engine.http.request_ids import RequestIds
from trainer.engine.jobs import Stopped, UnknownModel
from trainer.engine.loading import load_served
from trainer.engine.scheduler import Scheduler
from trainer.errors import BadArtifact
from trainer.heap import release_free_memory
from trainer.models.loading import resolve_device

log = structlog.get_logger("trainer.engine")

#: A page of another site can have its own name resolve to this machine: others are refused.
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
BODY_LIMIT = 8 * 1024 * 1024
SHUTDOWN_SECONDS = 5  # time for streams to end when the engine stops
#: What /health adds while the model is loading.
COMPILES_FIRST = "its first start on this processor compiles code, which may take a minute"
Body = TypeVar("Body", bound=BaseModel)


class Api:
    """The endpoints. Until the model is loaded there is no scheduler, and they answer 503."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = int(time.time())
        self.loaded: Scheduler | None = None

    @property
    def scheduler(self) -> Scheduler:
        if self.loaded is None:
            raise Refusal(503, f"{self.name} is still loading: try again soon.", "server_error")
        return self.loaded

    async def health(self, request: Request) -> Response:
        if self.loaded is None:
            backend = backend_for(resolve_device("auto"))
            detail = "" if backend.is_compiled("serving") else COMPILES_FIRST
            return JSONResponse({"status": "loading", "detail": detail}, 503)
        if not self.loaded.alive:
            return JSONResponse({"status": "down"}, 503)
        adapters = [held.name for held in self.loaded.adapters()]
        return JSONResponse({"status": "ok", "model": self.name, "adapters": adapters})

    async def models(self, request: Request) -> Response:
        entry = {"object": "model", "created": self.started, "owned_by": "prospect"}
        packed = self.scheduler.base.quantisation
        base = {"id": self.name, "parent": None, "quantisation": packed, **entry}
        adapters = [
            {"id": held.name, "parent": self.name, "root": str(held.path), **entry}
            for held in self.scheduler.adapters()
        ]
        return JSONResponse({"object": "list", "data": [base, *adapters]})

    async def chat(self, request: Request) -> Response:
        body = await body_of(request, ChatRequest)
        return await chat.answer(request, self.scheduler, body)

    async def load(self, request: Request) -> Response:
        body = await body_of(request, LoadRequest)
        try:
            await asyncio.to_thread(self.scheduler.load, body.lora_name, body.lora_path)
        except BadArtifact as error:
            log.warning("adapter_refused", adapter=body.lora_name, faults=error.faults)
            raise Refusal(400, f"{body.lora_name} was not loaded: {error}") from error
        except Stopped as error:
            raise Refusal(503, str(error), "server_error") from error
        except StoreError as error:
            log.warning("adapter_not_fetched", adapter=body.lora_name, why=str(error))
            raise Refusal(
                500, f"{body.lora_name} was not loaded: {error}", "server_error"
            ) from error
        log.info("adapter_loaded", adapter=body.lora_name)
        return PlainTextResponse(f"{body.lora_name} is loaded.")

    async def unload(self, request: Request) -> Response:
        body = await body_of(request, UnloadRequest)
        try:
            self.scheduler.unload(body.lora_name)
        except UnknownModel as error:
            raise Refusal(404, str(error), "not_found_error") from error
        log.info("adapter_unloaded", adapter=body.lora_name)
        return PlainTextResponse(f"{body.lora_name} is unloaded.")

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(exposition(self.scheduler))


async def body_of(request: Request, shape: type[Body]) -> Body:
    """Read and validate a JSON body; one refusal lists every fault.

    Other content types are refused: a web page can send those to a local port without a preflight
    request, but not JSON.
    """
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise Refusal(415, "Send the body as application/json.")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_LIMIT:
            raise Refusal(413, f"The body is larger than {BODY_LIMIT:,} bytes.")
    try:
        return shape.model_validate_json(bytes(data))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'body'}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        )
        raise Refusal(400, faults) from error


def create_app(
    name: str,
    make: Callable[[], Scheduler],
    *,
    on_failure: Callable[[Exception], None],
    hosts: Sequence[str] = (),
) -> Starlette:
    """Return the ASGI app. `make` loads the model while the app already answers that it is loading;
    `on_failure` is called with the error if that fails. Requests to other `hosts` than these and
    the names of loopback are refused."""
    api = Api(name)

    async def bring_up() -> None:
        try:
            scheduler = await asyncio.to_thread(make)
        except Exception as error:  # an engine without a model must end
            on_failure(error)
            return
        scheduler.start()
        api.loaded = scheduler
        base = scheduler.base
        log.info(
            "serving",
            model=name,
            device=str(base.device),
            precision=base.precision,
            quantisation=base.quantisation,
        )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(bring_up())
        yield
        await loading
        if api.loaded is not None:
            await asyncio.to_thread(api.loaded.stop)

    return Starlette(
        routes=[
            Route("/health", api.health),
            Route("/metrics", api.metrics),
            Route("/v1/models", api.models),
            Route("/v1/chat/completions", api.chat, methods=["POST"]),
            Route("/v1/load_lora_adapter", api.load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", api.unload, methods=["POST"]),
        ],
        exception_handlers={Refusal: on_refusal, HTTPException: on_refusal, 500: on_refusal},
        middleware=[
            Middleware(RequestIds),
            Middleware(
                TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_HOSTS, *hosts], www_redirect=False
            ),
        ],
        lifespan=lifespan,
    )


def main(options: argparse.Namespace) -> None:
    """Serve until a signal stops it. Raises TrainerError when the model cannot be loaded."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    # uvicorn raises the signal again after its shutdown: exit with 0
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    backend_for(resolve_device("auto"))  # imported before requests arrive: it takes a second
    name = options.served_model_name or Path(options.model).name
    failures: list[Exception] = []

    def make() -> Scheduler:
        store = store_of(
            options.artifacts, cache=options.artifact_cache, cache_gb=options.artifact_cache_gb
        )
        store.local.mkdir(parents=True, exist_ok=True)
        packed = None if options.quantisation == "none" else options.quantisation
        base = load_served(options.model, dtype=options.dtype, quantisation=packed)
        scheduler = Scheduler(base, store.local, name=name, store=store, on_crash=give_up)
        release_free_memory()
        return scheduler

    def give_up(error: Exception) -> None:
        log.error("giving_up", why=f"{type(error).__name__}: {error}")
        failures.append(error)
        server.should_exit = True

    config = uvicorn.Config(
        create_app(name, make, on_failure=give_up, hosts=[options.host, *options.allowed_host]),
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)
    server.run()
    if failures:
        raise failures[0]
