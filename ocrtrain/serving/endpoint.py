"""The HTTP routes, in OpenAI's format: `/v1/chat/completions`, `/v1/models`, and `/health`.

    bytes -> ChatRequest -> Question -> Job in the batcher -> steps -> a document, or events

What waits for its turn takes memory that is accounted for (`budget.py`); images are decoded by a
few threads; the batcher's thread alone touches the model. A client that goes away ends its row.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ocrdata.errors import ImageError
from ocrdata.images.decode import decode_rgb, read_header
from ocrdata.images.letterbox import shrink_to_fit
from ocrtrain.evaluation.generation import Question, Step, plain_text, prompt_ids
from ocrtrain.run.trained import TrainedModel
from ocrtrain.serving.batcher import Batcher, Closed, Failure, Job, QueueFull
from ocrtrain.serving.budget import MemoryBudget, Reservation
from ocrtrain.serving.chat_request import ChatRequest, RequestLimits, parse_chat_request
from ocrtrain.serving.errors import RequestError, busy
from ocrtrain.serving.replies import Reply, TextStream, event

DECODERS = 2
"""Threads that parse requests and decode images: each may hold a whole image of `max_pixels`."""

BODY_COPIES = 5
"""Times its size that a body takes until its images are decoded: its bytes, its text, the strings
in it, one of them without what precedes the base64, and the bytes in that are 4.75 times at
most."""

LAST_WORD = 5.0
"""Seconds that the error of a stream may take to be sent to a client that reads nothing."""


@dataclass(frozen=True)
class EndpointOptions:
    """`model` is the name that requests must give; `image_size` is as in `TrainedModel.image_mode`.
    Without a `token` only requests for `hosts` are answered, so that no web page can reach a server
    on loopback under a name of its own."""

    model: str
    token: str = field(default="", repr=False)
    image_size: str = ""
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    limits: RequestLimits = RequestLimits()
    timeout: float = 120.0
    max_body: int = 32_000_000
    max_pixels: int = 50_000_000
    memory: int = 2_000_000_000


class _Prepared(NamedTuple):
    request: ChatRequest
    question: Question
    prompt: int


class _Gone:
    """Among the events of an answer: the client went away."""


def make_app(trained: TrainedModel, batcher: Batcher, options: EndpointOptions) -> Starlette:
    """The application; `batcher` is running. Raises UsageError as `image_mode` does."""
    return Endpoint(trained, batcher, options).app()


class Endpoint:
    """What the routes share."""

    def __init__(self, trained: TrainedModel, batcher: Batcher, options: EndpointOptions) -> None:
        self._trained, self._batcher, self._options = trained, batcher, options
        self._mode = trained.image_mode(options.image_size)
        self._budget = MemoryBudget(options.memory)
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder")

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/models", self.models),
                Route("/v1/models/{model:path}", self.model),
                Route("/v1/chat/completions", _Chat(self), methods=["POST"]),
            ],
            exception_handlers={
                RequestError: _refused,
                HTTPException: _no_route,
                Exception: _failed,
            },
        )

    async def health(self, request: Request) -> Response:
        """200 while the model can answer; needs no token."""
        waiting, answering = self._batcher.load
        alive = self._batcher.alive
        return JSONResponse(
            {
                "status": "ok" if alive else "failed",
                "waiting": waiting,
                "answering": answering,
            },
            200 if alive else 503,
        )

    async def models(self, request: Request) -> Response:
        """The one model."""
        self._check_access(request)
        return JSONResponse({"object": "list", "data": [self._model_card()]})

    async def model(self, request: Request) -> Response:
        """A model by its name."""
        self._check_access(request)
        asked = request.path_params["model"]
        if asked != self._options.model:
            raise RequestError(
                f"no model {asked[:100]!r} here; the model is {self._options.model!r}",
                status=404, param="model", code="model_not_found",
            )  # fmt: skip
        return JSONResponse(self._model_card())

    def _model_card(self) -> dict[str, Any]:
        return {"id": self._options.model, "object": "model", "created": 0, "owned_by": "ocrtrain"}

    def _check_access(self, request: Request) -> None:
        """Raises RequestError where a request has not the token, or asks for another host."""
        options = self._options
        if not options.token:
            host = re.sub(r":\d*$", "", request.headers.get("host", "")).strip("[]").lower()
            if host not in options.hosts:
                raise RequestError(
                    "requests to another host's name are refused", status=403, code="wrong_host"
                )
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Both as bytes: compare_digest takes only ASCII as text.
        same = hmac.compare_digest(given.strip().encode(), options.token.encode())
        if scheme.lower() != "bearer" or not same:
            raise RequestError(
                "the token is missing or wrong (header Authorization: Bearer TOKEN)",
                status=401, code="invalid_api_key",
            )  # fmt: skip

    async def chat(self, request: Request, send: Send) -> None:
        """Answer one request."""
        self._check_access(request)
        deadline = asyncio.get_running_loop().time() + self._options.timeout
        with Reservation(self._budget) as held:
            prepared = await self._receive(request, held, deadline)
            async with self._asked(prepared, request.receive) as events:
                reply = Reply(self._options.model, prepared.prompt)
                if prepared.request.stream:
                    await self._stream(prepared, reply, events, deadline, send)
                    return
                step = await _next(events, deadline)
            if step is not None and step.end is not None:
                text = plain_text(self._trained.tokenizer, step.end.tokens)
                response = JSONResponse(reply.whole(text, step.end))
                await response(request.scope, request.receive, send)

    async def _receive(self, request: Request, held: Reservation, deadline: float) -> _Prepared:
        """Read and check a request. Raises RequestError, ClientDisconnect."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # A form of a web page cannot send this type.
            raise RequestError("send content-type: application/json", status=415)
        try:
            async with asyncio.timeout_at(deadline):
                body = await self._body(request, held)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._decoders, self._prepare, body, held)
        except TimeoutError:
            raise _too_slow(408) from None

    async def _body(self, request: Request, held: Reservation) -> bytes:
        limit = self._options.max_body
        too_large = RequestError(
            f"the body is larger than {limit:,} bytes", status=413, code="body_too_large"
        )
        announced = request.headers.get("content-length", "0")
        if int(announced) > limit:  # uvicorn has checked that it is a number
            raise too_large
        body = bytearray()
        async for chunk in request.stream():
            if len(body) + len(chunk) > limit:
                raise too_large
            held.resize(BODY_COPIES * (len(body) + len(chunk)))
            body += chunk
        return bytes(body)

    def _prepare(self, body: bytes, held: Reservation) -> _Prepared:
        """Parse a request and decode its images; in a thread of its own. Raises RequestError."""
        options = self._options
        request = parse_chat_request(body, model=options.model, limits=options.limits)
        sizes = [self._pixels(number, data) for number, data in enumerate(request.images)]
        # 3 bytes a pixel, and for one image at a time what decoding, turning and shrinking take.
        held.resize(BODY_COPIES * len(body) + 3 * sum(sizes) + 9 * max(sizes, default=0))
        images, layouts = [], []
        for number, data in enumerate(request.images):
            try:
                rgb = decode_rgb(data)
            except ImageError as exc:
                raise _bad_image(number, str(exc)) from exc
            images.append(torch.from_numpy(shrink_to_fit(rgb, self._mode.size)))
            layouts.append(self._mode.layout(*rgb.shape[1::-1]))
        question = Question(request.messages, tuple(images), tuple(layouts))
        prompt = len(prompt_ids(self._trained.model, self._trained.tokenizer, question))
        most = self._batcher.max_positions - request.max_new_tokens
        if prompt > most:
            raise RequestError(
                f"the prompt has {prompt} tokens, images included; with an answer of "
                f"{request.max_new_tokens} there is room for {max(most, 0)}",
                param="messages", code="context_length_exceeded",
            )  # fmt: skip
        held.resize(sum(image.nbytes for image in images))
        return _Prepared(request._replace(images=[]), question, prompt)

    def _pixels(self, number: int, data: bytes) -> int:
        """Pixels of an image, by its header."""
        try:
            info = read_header(data)
        except ImageError as exc:
            raise _bad_image(number, str(exc)) from exc
        pixels = info.width * info.height
        if pixels > self._options.max_pixels:
            raise RequestError(
                f"image {number} has {info.width} x {info.height} px; at most "
                f"{self._options.max_pixels:,} are decoded",
                param="messages", code="image_too_large",
            )  # fmt: skip
        return pixels

    @asynccontextmanager
    async def _asked(
        self, prepared: _Prepared, receive: Receive
    ) -> AsyncIterator[asyncio.Queue[Step | Failure | _Gone]]:
        """Submits a question; within the context its steps, or its end alone if it is not streamed,
        are put into a queue, and so is the client's going away. After it the row has ended.

        Raises RequestError where the queue of the batcher is full.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Step | Failure | _Gone] = asyncio.Queue()

        def deliver(step: Step | Failure) -> None:
            if prepared.request.stream or isinstance(step, Failure) or step.end is not None:
                with suppress(RuntimeError):  # the loop is closed: the server stops at once
                    loop.call_soon_threadsafe(events.put_nowait, step)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            events.put_nowait(_Gone())

        job = Job(prepared.question, prepared.prompt, prepared.request.max_new_tokens, deliver)
        try:
            self._batcher.submit(job)
        except QueueFull:
            raise busy("the queue is full") from None
        except Closed:
            raise RequestError(
                "the server is stopping", status=503, kind="server_error", code="stopping"
            ) from None
        watching = asyncio.create_task(watch())
        try:
            yield events
        finally:
            watching.cancel()
            self._batcher.cancel(job)

    async def _stream(
        self,
        prepared: _Prepared,
        reply: Reply,
        events: asyncio.Queue[Step | Failure | _Gone],
        deadline: float,
        send: Send,
    ) -> None:
        """Send the answer as it is given."""
        # The first token comes before the status, so that what fails until then has its own.
        step = await _next(events, deadline)
        if step is None:
            return
        out = _EventStream(send, deadline)
        await out.start()
        await out.send(event(reply.first_chunk()))
        text = TextStream(self._trained.tokenizer)
        try:
            while step is not None:
                new = text.add(step.token) if step.token is not None and step.end is None else ""
                if step.end is not None:
                    new = text.close(step.end.tokens)
                if new:
                    await out.send(event(reply.text_chunk(new)))
                if step.end is not None:
                    await out.send(event(reply.last_chunk(step.end)))
                    if prepared.request.stream_usage:
                        await out.send(event(reply.usage_chunk(step.end)))
                    await out.close(event("[DONE]"))
                    return
                step = await _next(events, deadline)
        except RequestError as exc:
            await out.close(event(exc.body()))


class _Chat:
    """The route as an application: Starlette hands over what sends the answer."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            await self._endpoint.chat(Request(scope, receive), send)


class _EventStream:
    """A response of server-sent events, given up where the client does not read it in time."""

    def __init__(self, send: Send, deadline: float) -> None:
        self._send, self._deadline = send, deadline

    async def start(self) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"),
                   (b"cache-control", b"no-cache")]  # fmt: skip
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(self, data: bytes) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            raise _too_slow(504) from None

    async def close(self, data: bytes) -> None:
        """The last event."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                await self._send({"type": "http.response.body", "body": data})


async def _next(events: asyncio.Queue[Step | Failure | _Gone], deadline: float) -> Step | None:
    """The next step; None when the client has gone. Raises RequestError where the model fails or
    takes too long."""
    try:
        async with asyncio.timeout_at(deadline):
            found = await events.get()
    except TimeoutError:
        raise _too_slow(504) from None
    if isinstance(found, Failure):
        what = "the device has no memory left for it" if found.out_of_memory else "the model failed"
        raise RequestError(
            f"{what}; the server goes on",
            status=503 if found.out_of_memory else 500, kind="server_error", code="model_failed",
        )  # fmt: skip
    return None if isinstance(found, _Gone) else found


def _too_slow(status: int) -> RequestError:
    what = "the request was not received" if status == 408 else "the answer was not given"
    return RequestError(
        f"{what} in time (--timeout)", status=status, kind="server_error", code="timeout"
    )


def _bad_image(number: int, reason: str) -> RequestError:
    return RequestError(f"image {number}: {reason}", param="messages", code="invalid_image")


async def _refused(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestError)
    return JSONResponse(exc.body(), exc.status, exc.headers())


async def _no_route(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    error = RequestError(f"{request.method} {request.url.path}: {exc.detail}",
                         status=exc.status_code, code="unknown_url")  # fmt: skip
    return JSONResponse(error.body(), exc.status_code, dict(exc.headers or {}))


async def _failed(request: Request, exc: Exception) -> Response:
    error = RequestError("a bug in the server; its log has the traceback", status=500,
                         kind="server_error")  # fmt: skip
    return JSONResponse(error.body(), 500)
