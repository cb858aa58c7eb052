"""The engine's HTTP side: one process, one base model, many adapters (docs/architecture.md)."""

import argparse
import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from trainer.chat import prompt_ids
from trainer.engine.protocol import ChatRequest, LoadRequest, UnloadRequest, error_body
from trainer.engine.scheduler import Job, Piece, QueueFull, Scheduler, UnknownModel
from trainer.engine.text import TextStream
from trainer.errors import BadArtifact, Refused
from trainer.model import load_base

log = logging.getLogger("trainer.engine")

BODY_LIMIT = 8 * 1024 * 1024
DISCONNECT_SECONDS = 0.5  # how often a waiting request looks whether its client is still there
Body = TypeVar("Body", bound=BaseModel)


class Refusal(Exception):
    """An answer in OpenAI's error shape."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


async def body_of(request: Request, shape: type[Body]) -> Body:
    """Reads and validates a JSON body; every fault is named in one refusal."""
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


class Listener:
    """Carries a job's pieces from the model's thread into this request's coroutine."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[Piece] = asyncio.Queue()

    def tell(self, piece: Piece) -> None:
        self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


class Api:
    """The endpoints over one scheduler."""

    def __init__(self, scheduler: Scheduler, served_name: str) -> None:
        self.scheduler = scheduler
        scheduler.base_name = served_name
        self.started = time.time()

    async def health(self, request: Request) -> Response:
        alive = self.scheduler.alive
        return JSONResponse(
            {
                "status": "ok" if alive else "down",
                "model": self.scheduler.base_name,
                "adapters": [held.name for held in self.scheduler.adapters()],
            },
            status_code=200 if alive else 503,
        )

    async def models(self, request: Request) -> Response:
        base = self.scheduler.base_name
        entry = {"object": "model", "created": int(self.started), "owned_by": "prospect"}
        adapters = [
            {"id": held.name, "parent": base, "root": str(held.path), **entry}
            for held in self.scheduler.adapters()
        ]
        return JSONResponse(
            {"object": "list", "data": [{"id": base, "parent": None, **entry}, *adapters]}
        )

    async def load(self, request: Request) -> Response:
        body = await body_of(request, LoadRequest)
        try:
            await asyncio.wrap_future(self.scheduler.load(body.lora_name, body.lora_path))
        except BadArtifact as error:
            raise Refusal(400, f"{body.lora_name} was not loaded: {error}") from error
        log.info("adapter_loaded %s", body.lora_name)
        return PlainTextResponse(f"{body.lora_name} is loaded.")

    async def unload(self, request: Request) -> Response:
        body = await body_of(request, UnloadRequest)
        try:
            await asyncio.wrap_future(self.scheduler.unload(body.lora_name))
        except UnknownModel as error:
            raise Refusal(404, str(error), "not_found_error") from error
        log.info("adapter_unloaded %s", body.lora_name)
        return PlainTextResponse(f"{body.lora_name} is unloaded.")

    async def metrics(self, request: Request) -> Response:
        counters = self.scheduler.counters
        lines = [
            f"prospect_engine_{name}_total {counters[name]}"
            for name in ("tokens", "finished", "cancelled", "failures")
        ]
        lines += [
            f"prospect_engine_running {self.scheduler.running}",
            f"prospect_engine_queued {self.scheduler.queued}",
            f"prospect_engine_adapters {len(self.scheduler.adapters())}",
        ]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def chat(self, request: Request) -> Response:
        body = await body_of(request, ChatRequest)
        messages = [message.model_dump() for message in body.messages]
        try:
            ids = prompt_ids(self.scheduler.base.tokenizer, messages)
        except Refused as error:
            raise Refusal(400, str(error)) from error
        room = self.scheduler.context_limit - len(ids)
        if (body.limit or 1) > room:
            raise Refusal(
                400,
                f"The prompt has {len(ids):,} tokens and the answer may have "
                f"{body.limit or 1:,}: together more than the context of "
                f"{self.scheduler.context_limit:,}.",
            )
        listener = Listener()
        sampling = body.sampling(room=room)
        job = Job(
            prompt_ids=ids,
            sampling=sampling,
            model=body.model,
            tell=listener.tell,
            text=TextStream(self.scheduler.base.tokenizer, sampling.stop),
        )
        try:
            self.scheduler.submit(job)
        except UnknownModel as error:
            raise Refusal(404, str(error), "not_found_error") from error
        except QueueFull as error:
            return JSONResponse(
                error_body(f"{error}: try again in a moment.", "overloaded_error", 429),
                status_code=429,
                headers={"Retry-After": "2"},
            )
        if body.stream:
            return StreamingResponse(
                self._stream(job, listener, body), media_type="text/event-stream"
            )
        return await self._whole(request, job, listener, body)

    async def _whole(
        self, request: Request, job: Job, listener: Listener, body: ChatRequest
    ) -> Response:
        token_ids: list[int] = []
        text = ""
        try:
            while True:
                try:
                    piece = await asyncio.wait_for(listener.pieces.get(), DISCONNECT_SECONDS)
                except TimeoutError:
                    if await request.is_disconnected():
                        return Response(status_code=499)
                    continue
                if piece.error:
                    raise Refusal(503, piece.error, "server_error")
                token_ids += piece.token_ids
                text += piece.text
                if piece.finish_reason:
                    break
        finally:
            self.scheduler.cancel(job)
        answer: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": piece.finish_reason,
                }
            ],
            "usage": usage(job, len(token_ids)),
        }
        if body.return_token_ids:
            answer["prompt_token_ids"] = job.prompt_ids
            answer["choices"][0]["token_ids"] = token_ids
        return JSONResponse(answer)

    async def _stream(self, job: Job, listener: Listener, body: ChatRequest) -> AsyncIterator[str]:
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": body.model,
        }
        first: dict[str, Any] = {**head, "choices": [choice({"role": "assistant", "content": ""})]}
        if body.return_token_ids:
            first["prompt_token_ids"] = job.prompt_ids
        count = 0
        try:
            yield sse(first)
            while True:
                piece = await listener.pieces.get()
                if piece.error:
                    yield sse(error_body(piece.error, "server_error", 503))
                    break
                count += len(piece.token_ids)
                part = choice({"content": piece.text} if piece.text else {}, piece.finish_reason)
                if body.return_token_ids:
                    part["token_ids"] = piece.token_ids
                yield sse({**head, "choices": [part]})
                if piece.finish_reason:
                    if body.stream_options and body.stream_options.include_usage:
                        yield sse({**head, "choices": [], "usage": usage(job, count)})
                    break
            yield "data: [DONE]\n\n"
        finally:
            # also when the client has gone away: its row leaves before the next token
            self.scheduler.cancel(job)


def choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def usage(job: Job, completion_tokens: int) -> dict[str, int]:
    prompt_tokens = len(job.prompt_ids)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def sse(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def on_refusal(request: Request, error: Exception) -> Response:
    if isinstance(error, Refusal):
        return JSONResponse(error_body(str(error), error.kind, error.status), error.status)
    if isinstance(error, HTTPException):
        body = error_body(error.detail, "invalid_request_error", error.status_code)
        return JSONResponse(body, error.status_code)
    return JSONResponse(error_body("The engine failed.", "server_error", 500), 500)


def create_app(scheduler: Scheduler, served_name: str) -> Starlette:
    """The ASGI app; its lifespan starts and stops the scheduler."""
    api = Api(scheduler, served_name)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        scheduler.start()
        yield
        await asyncio.to_thread(scheduler.stop)

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
        lifespan=lifespan,
    )


def main(options: argparse.Namespace) -> None:
    """Loads the base model and serves until it is asked to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    base = load_base(options.model, dtype=options.dtype)
    options.artifacts.mkdir(parents=True, exist_ok=True)
    scheduler = Scheduler(base, options.artifacts)
    name = options.served_model_name or Path(options.model).name
    log.info("serving %s on %s in %s", name, base.device, base.dtype)
    uvicorn.run(
        create_app(scheduler, name),
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
