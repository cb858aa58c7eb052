"""`POST /v1/chat/completions`: pass a request to the model's thread and return its answer."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from trainer.data.chat import prompt_ids
from trainer.engine.http.errors import Refusal
from trainer.engine.http.protocol import ChatRequest, error_body
from trainer.engine.jobs import Job, Piece, QueueFull, Stopped, UnknownModel
from trainer.engine.sampling import TokenScore
from trainer.engine.scheduler import Scheduler
from trainer.errors import BadArtifact, Refused

log = structlog.get_logger("trainer.engine")

CLIENT_GONE = 499  # for the log only
RETRY_SECONDS = 2
#: A stream that has sent nothing for this long sends a comment.
WAITING_SECONDS = 5.0
WAITING = ": waiting\n\n"
#: After so long without a step of the model the comments end, and the client's limit on silence
#: decides. A step that reads a long prompt takes minutes on a slow machine.
STALLED_SECONDS = 300.0


class Listener:
    """Passes a job's pieces from the model's thread to this request's coroutine."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[Piece] = asyncio.Queue()

    def deliver(self, piece: Piece) -> None:
        # the loop is closed when the server has stopped
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


class Exchange:
    """One accepted request, and its answer so far."""

    def __init__(self, scheduler: Scheduler, body: ChatRequest, ids: list[int]) -> None:
        self.scheduler = scheduler
        self.body = body
        self.listener = Listener()
        self.began = time.perf_counter()
        self.text = ""
        self.token_ids: list[int] = []
        self.scores: list[TokenScore] = []
        self.first_seconds: float | None = None
        self.steps_seen = -1
        self.stepped = self.began
        self.finish_reason: str | None = None
        self.job = Job(
            prompt=tuple(ids),
            sampling=body.sampling(room=scheduler.context - len(ids)),
            model=body.model,
            deliver=self.listener.deliver,
        )
        self.head: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk" if body.stream else "chat.completion",
            "created": int(time.time()),
            "model": body.model,
        }

    def keep(self, piece: Piece) -> None:
        self.text += piece.text
        self.token_ids += piece.token_ids
        if piece.score is not None:
            self.scores.append(piece.score)
        if self.first_seconds is None:
            self.first_seconds = round(time.perf_counter() - self.began, 3)
        self.finish_reason = piece.finish_reason

    def moving(self) -> bool:
        """Return whether the model has begun a step within STALLED_SECONDS."""
        steps, now = self.scheduler.counters["steps"], time.perf_counter()
        if steps != self.steps_seen:
            self.steps_seen, self.stepped = steps, now
        return now - self.stepped < STALLED_SECONDS

    def close(self) -> None:
        """Cancel the job if it still runs (the client disconnected) and log the outcome."""
        self.scheduler.cancel(self.job)
        log.info(
            "answered",
            model=self.body.model,
            finish_reason=self.finish_reason or "broken off",
            prompt_tokens=len(self.job.prompt),
            completion_tokens=len(self.token_ids),
            first_token_seconds=self.first_seconds,
            seconds=round(time.perf_counter() - self.began, 3),
        )

    def usage(self) -> dict[str, int]:
        prompt, completion = len(self.job.prompt), len(self.token_ids)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def whole(self) -> dict[str, Any]:
        """Return the answer in one body."""
        message = {"role": "assistant", "content": self.text}
        choice: dict[str, Any] = {
            "index": 0,
            "message": message,
            "finish_reason": self.finish_reason,
        }
        if self.body.logprobs:
            choice["logprobs"] = self.logprobs(self.scores)
        answer = {**self.head, "choices": [choice], "usage": self.usage()}
        if self.body.return_token_ids:
            answer["prompt_token_ids"] = self.job.prompt
            choice["token_ids"] = self.token_ids
        return answer

    def chunk(self, delta: dict[str, str], piece: Piece | None = None) -> str:
        """Return one event of a stream; the first has no piece and carries the prompt's ids."""
        choice: dict[str, Any] = {
            "index": 0,
            "delta": delta,
            "finish_reason": piece.finish_reason if piece else None,
        }
        if self.body.logprobs:
            scores = [piece.score] if piece and piece.score else []
            choice["logprobs"] = self.logprobs(scores) if scores else None
        event = {**self.head, "choices": [choice]}
        if self.body.return_token_ids:
            if piece is None:
                event["prompt_token_ids"] = self.job.prompt
            else:
                choice["token_ids"] = piece.token_ids
        return sse(event)

    def logprobs(self, scores: Sequence[TokenScore]) -> dict[str, Any]:
        """Return log-probabilities of tokens and of the likeliest others, as OpenAI writes them."""
        tokenizer = self.scheduler.base.tokenizer

        def entry(token: int, logprob: float) -> dict[str, Any]:
            text = tokenizer.decode([token])
            return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

        content = [
            {
                **entry(score.token, score.logprob),
                "top_logprobs": [entry(token, value) for token, value in score.top],
            }
            for score in scores
        ]
        return {"content": content}


def context(scheduler: Scheduler, body: ChatRequest) -> list[int]:
    """Return the prompt's token ids. Raises Refusal when it and the answer do not fit the
    context."""
    try:
        ids = prompt_ids(
            scheduler.base.tokenizer,
            [message.model_dump(exclude_none=True) for message in body.messages],
            body.chat_template_kwargs,
            body.tools or (),
        )
    except Refused as error:
        raise Refusal(400, str(error)) from error
    answer = body.limit or 1
    if len(ids) + answer > scheduler.context:
        raise Refusal(
            400,
            f"The prompt has {len(ids):,} tokens and the answer may have {answer:,}: together "
            f"more than the context of {scheduler.context:,}. Shorten the conversation or lower "
            "max_tokens.",
        )
    return ids


async def answer(request: Request, scheduler: Scheduler, body: ChatRequest) -> Response:
    """Lets the request in and answers it, whole or as a stream."""
    # a template and a tokenizer may take long over a long conversation; streams must not wait
    ids = await asyncio.to_thread(context, scheduler, body)
    exchange = Exchange(scheduler, body, ids)
    try:
        await admit(scheduler, exchange.job)
    except (UnknownModel, BadArtifact) as error:
        raise Refusal(404, str(error), "not_found_error") from error
    except Stopped as error:
        raise Refusal(503, str(error), "server_error") from error
    except QueueFull as error:
        retry = {"Retry-After": str(RETRY_SECONDS)}
        return JSONResponse(error_body(str(error), "overloaded_error", 429), 429, retry)
    if body.stream:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream(exchange), media_type="text/event-stream", headers=headers)
    return await whole(request, exchange)


async def admit(scheduler: Scheduler, job: Job) -> None:
    """Submit a job; an adapter that is registered but not loaded is loaded first.

    Raises what Scheduler.submit and Scheduler.load_registered do.
    """
    try:
        scheduler.submit(job)
    except UnknownModel:
        if not await asyncio.to_thread(scheduler.load_registered, job.model):
            raise
        log.info("adapter_loaded", adapter=job.model, why="asked for")
        scheduler.submit(job)


async def whole(request: Request, exchange: Exchange) -> Response:
    """Wait for the last token, or until the client has disconnected."""
    # the body has been read: the next message is that the client disconnected
    gone = asyncio.ensure_future(request.receive())
    try:
        while exchange.finish_reason is None:
            coming = asyncio.create_task(exchange.listener.pieces.get())
            await asyncio.wait({gone, coming}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                coming.cancel()
                return Response(status_code=CLIENT_GONE)
            piece = coming.result()
            if piece.error:
                raise Refusal(503, piece.error, "server_error")
            exchange.keep(piece)
        return JSONResponse(exchange.whole())
    finally:
        gone.cancel()
        exchange.close()


async def stream(exchange: Exchange) -> AsyncIterator[str]:
    """Yield server-sent events, one for each token that adds final text or ends the answer.

    Meanwhile comments show that the request is waiting or in progress.
    """
    try:
        yield exchange.chunk({"role": "assistant", "content": ""})
        while exchange.finish_reason is None:
            try:
                async with asyncio.timeout(WAITING_SECONDS):
                    piece = await exchange.listener.pieces.get()
            except TimeoutError:
                if exchange.moving():
                    yield WAITING
                continue
            if piece.error:
                yield sse(error_body(piece.error, "server_error", 503))
                break
            exchange.keep(piece)
            yield exchange.chunk({"content": piece.text} if piece.text else {}, piece)
        options = exchange.body.stream_options
        if exchange.finish_reason and options and options.include_usage:
            yield sse({**exchange.head, "choices": [], "usage": exchange.usage()})
        yield "data: [DONE]\n\n"
    finally:
        exchange.close()


def sse(data: dict[str, Any]) -> str:
    """Format one server-sent event."""
    # ASCII: some clients take U+0085 or U+2028, which a model may write, for the end of a line
    return f"data: {json.dumps(data)}\n\n"
