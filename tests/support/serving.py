"""A server of the small trained model on a free port of loopback, in this process."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ocrtrain.run.trained import TrainedModel
from ocrtrain.serving.batcher import Batcher, BatchLimits
from ocrtrain.serving.endpoint import EndpointOptions, make_app
from ocrtrain.serving.listening import Server, bind
from tests.support import small


def trained(folder: Path) -> TrainedModel:
    """The model that knows the squares."""
    model = small.trained(folder).model().eval()
    return TrainedModel(model, small.tokenizer(), small.CONFIG, folder)


def endless(folder: Path) -> TrainedModel:
    """A model that never ends its answers: whatever it is asked, it repeats the first token."""
    model = small.untrained().eval()
    with torch.no_grad():
        model.gpt.lm_head.weight.zero_()
    return TrainedModel(model, small.tokenizer(), small.CONFIG, folder)


@dataclass(frozen=True)
class Answered:
    """A response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A running server."""

    host: str
    port: int
    batcher: Batcher

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=60)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answered:
        """One request; a body that is not bytes is sent as JSON."""
        connection = self.connect()
        try:
            sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            kind = {"Content-Type": "application/json"} if sent is not None else {}
            connection.request(method, path, sent, {**kind, **(headers or {})})
            answer = connection.getresponse()
            return Answered(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def chat(self, **fields: Any) -> Answered:
        """A request for a chat completion."""
        return self.ask("POST", "/v1/chat/completions", {**question("red", "colour"), **fields})


def data_url(data: bytes) -> str:
    """Bytes as an image in a request."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def image(data: bytes) -> dict[str, Any]:
    """A part with an image."""
    return {"type": "image_url", "image_url": {"url": data_url(data)}}


def question(colour: str, kind: str) -> dict[str, Any]:
    """A request that the model can answer."""
    parts = [
        image(small.png(small.COLOURS[colour])),
        {"type": "text", "text": small.QUESTIONS[kind]},
    ]
    return {"model": "small", "messages": [{"role": "user", "content": parts}]}


@contextmanager
def serve(
    model: TrainedModel,
    options: EndpointOptions | None = None,
    limits: BatchLimits | None = None,
) -> Iterator[Served]:
    """A server while the context lasts."""
    ready = threading.Event()
    with bind("127.0.0.1", 0) as bound, Batcher(model, limits or BatchLimits()) as batcher:
        host, port = bound.getsockname()
        app = make_app(model, batcher, options or EndpointOptions("small"))
        server = Server(app, timeout=60, ready=ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            assert ready.wait(60)
            yield Served(host, port, batcher)
        finally:
            server.should_exit = True
            thread.join()
