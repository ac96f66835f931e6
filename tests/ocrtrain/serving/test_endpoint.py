"""The server, asked by OpenAI's client and by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from PIL import Image

from ocrdata.images.decode import decode_rgb
from ocrtrain.evaluation import generation
from ocrtrain.serving import endpoint
from ocrtrain.serving.batcher import BatchLimits
from ocrtrain.serving.chat_request import RequestLimits
from ocrtrain.serving.endpoint import EndpointOptions
from tests.support import serving, small
from tests.support.serving import Served, image, question, serve
from tests.support.waiting import until


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the trained model."""
    with serve(serving.trained(tmp_path_factory.mktemp("squares"))) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    """OpenAI's client, which does not try again."""
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as found:
        yield found


def ask(client: openai.OpenAI, colour: str, kind: str, **more: Any) -> Any:
    return client.chat.completions.create(**question(colour, kind), **more)


def test_openais_client_gets_the_answer(client: openai.OpenAI) -> None:
    for kind, wanted in (("colour", "green"), ("first", "g")):
        found = ask(client, "green", kind)
        (choice,) = found.choices
        assert choice.message.content == wanted
        assert choice.finish_reason == "stop"
        assert found.usage.completion_tokens == len(wanted)  # tokens are bytes
        assert found.usage.total_tokens == found.usage.prompt_tokens + len(wanted)
    cut = ask(client, "green", "colour", max_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("gr", "length")
    assert [model.id for model in client.models.list()] == ["small"]
    assert client.models.retrieve("small").id == "small"


def test_a_streamed_answer_is_the_same_in_pieces(client: openai.OpenAI) -> None:
    whole = ask(client, "blue", "colour")
    options = {"include_usage": True}
    chunks = list(ask(client, "blue", "colour", stream=True, stream_options=options))
    *text, usage = chunks
    assert [piece.choices[0].delta.content for piece in text] == ["", *"blue", None]
    assert text[0].choices[0].delta.role == "assistant"
    assert [piece.choices[0].finish_reason for piece in text] == [None] * 5 + ["stop"]
    assert (usage.choices, usage.usage) == ([], whole.usage)
    assert len({piece.id for piece in chunks}) == 1


def test_a_hundred_requests_at_once_are_answered_as_each_alone(
    served: Served, client: openai.OpenAI, tmp_path: Path
) -> None:
    model = serving.trained(tmp_path)
    cases = [
        (colour, kind, "so " * (number % 5))
        for number, (colour, kind) in enumerate(
            [(colour, kind) for colour in small.COLOURS for kind in small.QUESTIONS] * 13
        )
    ][:100]

    def asked(case: tuple[str, str, str]) -> tuple[str, int]:
        colour, kind, filler = case
        request = question(colour, kind)
        request["messages"][0]["content"][1]["text"] = filler + small.QUESTIONS[kind]
        found = client.chat.completions.create(**request, max_tokens=20)
        assert found.usage is not None
        return found.choices[0].message.content or "", found.usage.prompt_tokens

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(asked, cases))
    for (colour, kind, filler), (text, prompt) in set(zip(cases, answers, strict=True)):
        pixels = torch.from_numpy(decode_rgb(small.png(small.COLOURS[colour])))
        content = [{"type": "image"}, {"type": "text", "text": filler + small.QUESTIONS[kind]}]
        one = generation.Question([{"role": "user", "content": content}], (pixels,))
        (alone,) = generation.answer(model.model, model.tokenizer, [one], generation.Decoding(20))
        assert text == alone.text
        assert prompt == len(generation.prompt_ids(model.model, model.tokenizer, one))
    assert served.batcher.load == (0, 0)


def test_mistakes_raise_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'small'"):
        client.chat.completions.create(**{**question("red", "colour"), "model": "gpt-4o"})
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "red", "colour", n=2)
    assert (caught.value.param, caught.value.code) == ("n", "unsupported_value")


def bomb(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "code", "fact"),
    [
        (b"hello", "invalid_image", "known are PNG"),
        (small.png((1, 2, 3))[:60], "invalid_image", "image 0"),
        (bomb(9000, 9000), "image_too_large", "9000 x 9000"),
    ],
)
def test_what_is_no_image_or_a_bomb_is_refused(
    served: Served, data: bytes, code: str, fact: str
) -> None:
    found = served.chat(messages=[{"role": "user", "content": [image(data)]}])
    assert found.status == 400
    error = found.json()["error"]
    assert error["code"] == code and fact in error["message"]


def test_requests_that_are_none_are_refused_in_openais_format(served: Served) -> None:
    path = "/v1/chat/completions"
    for method, where, body, headers, status in (
        ("GET", path, None, {}, 405),
        ("GET", "/v1/embeddings", None, {}, 404),
        ("POST", path, b"{", {}, 400),
        ("POST", path, b"{}", {"Content-Type": "text/plain"}, 415),
        ("POST", path, b"{}", {"Host": "evil.example"}, 403),
        ("GET", "/v1/models", None, {"Host": "[::1"}, 403),
        ("GET", "/v1/models", None, {"Host": "[::1]:80"}, 200),
        ("GET", "/v1/models", None, {"Host": "localhost:99"}, 200),
    ):
        found = served.ask(method, where, body, headers)
        assert found.status == status, where
        if status != 200:
            assert set(found.json()["error"]) == {"message", "type", "param", "code"}
    assert served.ask("GET", path).headers["allow"] == "POST"
    health = served.ask("GET", "/health")
    assert (health.status, health.json()["status"]) == (200, "ok")


def test_a_token_is_asked_for_and_never_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = EndpointOptions("small", token="s3cret-Token")
    assert "s3cret" not in repr(options)
    with serve(serving.trained(tmp_path), options) as served:
        for given in ("", "Bearer", "Bearer wrong", "Basic s3cret-Token", "Bearer \xe9"):
            found = served.ask("GET", "/v1/models", headers={"Authorization": given})
            assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
            assert found.json()["error"]["code"] == "invalid_api_key"
            assert "s3cret" not in found.body.decode()
        assert served.chat().status == 401
        assert served.ask("GET", "/health").status == 200
        with openai.OpenAI(base_url=served.url, api_key="s3cret-Token") as client:
            assert ask(client, "red", "colour").choices[0].message.content == "red"
    assert "s3cret" not in "".join(capfd.readouterr())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    options = EndpointOptions("small", max_body=2000, memory=9000)
    with serve(serving.trained(tmp_path), options) as served:
        assert served.chat().status == 429  # 5 times its body, and the image beside it
        large = served.ask("POST", "/v1/chat/completions", b" " * 2001)
        assert (large.status, large.json()["error"]["code"]) == (413, "body_too_large")
        text = served.chat(messages=[{"role": "user", "content": "Which colour?"}])
        assert text.status == 200  # what was refused has been given back


def test_a_body_of_unknown_length_is_refused_when_it_is_too_large(tmp_path: Path) -> None:
    with serve(serving.trained(tmp_path), EndpointOptions("small", max_body=2000)) as served:
        connection = served.connect()
        chunks = (b" " * 500 for _ in range(5))
        connection.request("POST", "/v1/chat/completions", chunks, encode_chunked=True,
                           headers={"Content-Type": "application/json"})  # fmt: skip
        with closing(connection):
            assert connection.getresponse().status == 413


def test_a_prompt_without_room_for_its_answer_is_refused(tmp_path: Path) -> None:
    a_position = 2 * 4 * small.MODEL.gpt_layers * small.MODEL.gpt_width
    options = EndpointOptions("small", limits=RequestLimits(max_new_tokens=10))
    limits = BatchLimits(cache_bytes=100 * a_position)
    with serve(serving.trained(tmp_path), options, limits) as served:
        found = served.chat(messages=[{"role": "user", "content": "x" * 90}])
        assert found.status == 400
        assert found.json()["error"]["code"] == "context_length_exceeded"
        assert served.chat(messages=[{"role": "user", "content": "x" * 80}]).status == 200


class Stream:
    """An answer that is being streamed."""

    def __init__(self, served: Served, **fields: Any) -> None:
        self.connection = served.connect()
        body = json.dumps({**question("red", "colour"), "stream": True, **fields})
        self.connection.request("POST", "/v1/chat/completions", body,
                                {"Content-Type": "application/json"})  # fmt: skip
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        self.answer.readline()

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


def test_a_full_queue_says_when_to_try_again_and_a_client_that_left_ends_its_row(
    tmp_path: Path,
) -> None:
    options = EndpointOptions("small", limits=RequestLimits(max_new_tokens=100_000))
    limits = BatchLimits(rows=1, waiting=1, stop_repeats=0)
    with serve(serving.endless(tmp_path), options, limits) as served:
        streamed = Stream(served)
        waiting = served.connect()
        waiting.request("POST", "/v1/chat/completions", json.dumps(question("red", "colour")),
                        {"Content-Type": "application/json"})  # fmt: skip
        assert until(lambda: served.batcher.load == (1, 1))
        full = served.chat()
        assert (full.status, full.headers["retry-after"]) == (429, "1")
        assert full.json()["error"]["code"] == "server_busy"
        waiting.close()
        assert until(lambda: served.batcher.load == (0, 1))
        streamed.close()
        assert until(lambda: served.batcher.load == (0, 0))


def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    options = EndpointOptions("small", limits=RequestLimits(max_new_tokens=1_000_000), timeout=0.5)
    limits = BatchLimits(stop_repeats=0, cache_bytes=2_000_000_000)
    with serve(serving.endless(tmp_path), options, limits) as served:
        found = served.chat()
        assert (found.status, found.json()["error"]["code"]) == (504, "timeout")
        streamed = Stream(served)
        *_, last = streamed.answer.read().decode().strip().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
        streamed.close()
        slow = served.connect()  # announces more than it sends
        slow.putrequest("POST", "/v1/chat/completions")
        for name, value in (("Content-Type", "application/json"), ("Content-Length", "9")):
            slow.putheader(name, value)
        slow.endheaders(b"{")
        assert slow.getresponse().status == 408
        slow.close()
        assert until(lambda: served.batcher.load == (0, 0))


def test_a_model_that_fails_is_a_server_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = serving.trained(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    with serve(model) as served:
        with monkeypatch.context() as patch:
            patch.setattr(type(model.model), "step", broken)
            found = served.chat()
        assert (found.status, found.json()["error"]["code"]) == (500, "model_failed")
        assert served.chat().status == 200
        with monkeypatch.context() as patch:
            patch.setattr(endpoint, "parse_chat_request", broken)
            found = served.chat()
        assert (found.status, found.json()["error"]["type"]) == (500, "server_error")
    assert "a bug" in capsys.readouterr().err
