"""What a request may say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrtrain.serving.chat_request import NEUTRAL, ChatRequest, RequestLimits, parse_chat_request
from ocrtrain.serving.errors import RequestError
from tests.support.serving import data_url, image

LIMITS = RequestLimits(max_new_tokens=50, images=2)
USER = {"role": "user", "content": "What?"}


def parse(value: Any) -> ChatRequest:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse_chat_request(body, model="m", limits=LIMITS)


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


def user(*parts: Any) -> dict[str, Any]:
    return asked(messages=[{"role": "user", "content": list(parts)}])


def text(of: str) -> dict[str, str]:
    return {"type": "text", "text": of}


def test_a_conversation_keeps_its_parts_and_their_order() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image(b"one"), text("What?")], "name": None},
        {"role": "assistant", "content": "Red.", "refusal": None, "tool_calls": None,
         "annotations": []},
        {"role": "user", "content": [text("And"), image(b"two"), text("this?")]},
    ]  # fmt: skip
    found = parse(asked(messages=messages))
    assert found.images == [b"one", b"two"]
    picture = {"type": "image"}
    assert found.messages == [
        {"role": "system", "content": [text("Be brief.")]},
        {"role": "user", "content": [picture, text("What?")]},
        {"role": "assistant", "content": [text("Red.")]},
        {"role": "user", "content": [text("And"), picture, text("this?")]},
    ]
    assert (found.max_new_tokens, found.stream, found.stream_usage) == (50, False, False)


def test_options_that_ask_for_nothing_are_accepted() -> None:
    neutral = {name: values[0] for name, values in NEUTRAL.items()}
    harmless = {"seed": 5, "user": "me", "metadata": {"a": "b"}, "temperature": 0.0, "stop": None}
    found = parse(asked(**{**neutral, **harmless}, max_tokens=7, max_completion_tokens=7,
                        stream=True, stream_options={"include_usage": True}))  # fmt: skip
    assert (found.max_new_tokens, found.stream, found.stream_usage) == (7, True, True)


REFUSED = [
    (b"", None, "invalid_json"),
    (b"[]", None, "invalid_json"),
    (b"\xff", None, "invalid_json"),
    (b'{"model": NaN}', None, "invalid_json"),
    (b"[" * 100_000, None, "invalid_json"),
    (b'{"n": ' + b"9" * 5000 + b"}", None, "invalid_json"),
    ({"messages": [USER]}, "model", "missing_required_parameter"),
    ({"model": "m"}, "messages", "missing_required_parameter"),
    (asked(model=1), "model", "invalid_type"),
    (asked(model="gpt-4o"), "model", "model_not_found"),
    (asked(messages=[]), "messages", "invalid_value"),
    (asked(messages="hello"), "messages", "invalid_type"),
    (asked(messages=["hello"]), "messages[0]", "invalid_type"),
    (asked(messages=[{"role": "tool", "content": "x"}]), "messages[0].role", "invalid_value"),
    (asked(messages=[{"role": [], "content": "x"}]), "messages[0].role", "invalid_value"),
    (asked(messages=[{"role": "user"}]), "messages[0].content", "missing_required_parameter"),
    (asked(messages=[{"role": "user", "content": 3}]), "messages[0].content", "invalid_type"),
    (asked(messages=[{"role": "user", "content": []}]), "messages[0].content", "invalid_type"),
    (asked(messages=[{**USER, "name": "Ann"}]), "messages[0].name", "unknown_parameter"),
    (asked(messages=[{"role": "system", "content": "a"}]), "messages", "invalid_value"),
    (asked(messages=[{"role": "system", "content": "a"}, {"role": "developer", "content": "b"},
                     USER]), "messages", "invalid_value"),
    (asked(messages=[USER, {"role": "system", "content": "a"}]), "messages", "invalid_value"),
    (asked(messages=[USER, USER]), "messages", "invalid_value"),
    (asked(messages=[USER, {"role": "assistant", "content": "a"}]), "messages", "invalid_value"),
    (user("hello"), "messages[0].content[0].type", "invalid_value"),
    (user({"type": "input_audio"}), "messages[0].content[0].type", "invalid_value"),
    (user(text(3)), "messages[0].content[0].text", "invalid_type"),  # type: ignore[arg-type]
    (user(text("\ud800")), "messages[0].content[0].text", "invalid_value"),
    (user({"type": "image_url", "image_url": data_url(b"x")}),
     "messages[0].content[0].image_url", "invalid_type"),
    (user({"type": "image_url", "image_url": {"url": 3}}),
     "messages[0].content[0].image_url.url", "invalid_type"),
    (user({"type": "image_url", "image_url": {"url": data_url(b"x"), "detail": "most"}}),
     "messages[0].content[0].image_url.detail", "invalid_value"),
    (user({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
     "messages[0].content[0].image_url.url", "invalid_image_url"),
    (user({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
     "messages[0].content[0].image_url.url", "invalid_image_url"),
    (user({"type": "image_url", "image_url": {"url": "data:image/png,xyz"}}),
     "messages[0].content[0].image_url.url", "invalid_image_url"),
    (user({"type": "image_url", "image_url": {"url": "data:image/png;base64,a"}}),
     "messages[0].content[0].image_url.url", "invalid_base64_image"),
    (user({"type": "image_url", "image_url": {"url": "data:image/png;base64,aé=="}}),
     "messages[0].content[0].image_url.url", "invalid_base64_image"),
    (user(*[image(b"x")] * 3), "messages[0]", "too_many_images"),
    (asked(messages=[{"role": "system", "content": [image(b"x")]}, USER]),
     "messages[0].content[0]", "invalid_value"),
    (asked(max_tokens=0), "max_tokens", "invalid_value"),
    (asked(max_tokens=51), "max_tokens", "invalid_value"),
    (asked(max_completion_tokens=10**30), "max_completion_tokens", "invalid_value"),
    (asked(max_tokens=True), "max_tokens", "invalid_type"),
    (asked(max_tokens="5"), "max_tokens", "invalid_type"),
    (asked(max_tokens=5, max_completion_tokens=6), "max_tokens", "invalid_value"),
    (asked(stream="yes"), "stream", "invalid_type"),
    (asked(stream_options={"include_usage": True}), "stream_options", "invalid_value"),
    (asked(stream=True, stream_options={"include_usage": 1}), "include_usage", "invalid_type"),
    (asked(stream=True, stream_options={"more": 1}), "more", "unknown_parameter"),
    (asked(n=2), "n", "unsupported_value"),
    (asked(n=True), "n", "unsupported_value"),
    (asked(temperature=0.7), "temperature", "unsupported_value"),
    (asked(tools=[{"type": "function"}]), "tools", "unsupported_value"),
    (asked(response_format={"type": "json_object"}), "response_format", "unsupported_value"),
    (asked(stop=["\n"]), "stop", "unsupported_value"),
    (asked(logprobs=True), "logprobs", "unsupported_value"),
    (asked(best_of=3), "best_of", "unknown_parameter"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "param", "code"), REFUSED)
def test_what_is_wrong_is_named(value: Any, param: str | None, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(value)
    error = caught.value
    assert (error.param, error.code) == (param, code)
    assert error.status == (404 if code == "model_not_found" else 400)
    assert len(str(error)) < 400


def test_a_remote_image_is_refused_with_the_reason() -> None:
    part = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/a.png"}}
    with pytest.raises(RequestError, match=r"fetches nothing.*data:image"):
        parse(user(part))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.sampled_from(["user", "system", "text", "image_url"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "image_url", "url"]),
                      inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FIELDS = st.sampled_from([*asked(), *NEUTRAL, "stream", "stream_options", "max_tokens", "x"])


@given(st.dictionaries(FIELDS, JSON, max_size=5), st.booleans())
def test_any_document_is_a_request_or_refused(fields: dict[str, Any], valid: bool) -> None:
    value = {**asked(), **fields} if valid else fields
    try:
        found = parse(value)
    except RequestError as error:
        assert error.status in (400, 404)
    else:
        assert value["messages"]
        assert found.messages[-1]["role"] == "user"
