"""The body of a chat completion request, checked: bytes -> conversation, images and options.

What the model cannot do is refused by name, never ignored: an answer that silently lacks what was
asked for is wrong. Nothing is fetched: an image is a data URL. It knows neither model nor server.
Field names and their meaning: OpenAI's API reference, "Create chat completion".
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ocrdata.sample import IMAGE_PART, Message, Part, text_part
from ocrtrain.serving.errors import RequestError

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "temperature": (0,),
    "top_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
}
"""Options that the model does not have -> the values that ask for nothing. null always does."""

REASONS = {
    "n": "there is one answer to a request",
    "temperature": "answers are decoded greedily, so it must be 0",
    "top_p": "answers are decoded greedily",
    "stop": "an answer ends where the model ends it",
    "tools": "the model calls no tools",
    "functions": "the model calls no functions",
    "response_format": "the model writes plain text",
}
"""Why other values of the commonest options are refused."""

WITHOUT_EFFECT = ("user", "metadata", "seed", "service_tier", "safety_identifier",
                  "prompt_cache_key", "prompt_cache_retention")  # fmt: skip
"""Options that are for the records of a service, or that cannot change a greedy answer."""

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Role in a request -> role in a conversation."""

_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


@dataclass(frozen=True)
class RequestLimits:
    """What one request may ask for."""

    max_new_tokens: int = 1024
    images: int = 8


class ChatRequest(NamedTuple):
    """A conversation that ends with a user's message, its images as their bytes, and how to
    answer."""

    messages: list[Message]
    images: list[bytes]
    max_new_tokens: int
    stream: bool
    stream_usage: bool


def parse_chat_request(body: bytes, *, model: str, limits: RequestLimits) -> ChatRequest:
    """Check a request for `model`. Raises RequestError that names the field at fault."""
    fields = _Fields(_json_object(body))
    _check_model(fields.take("model", str), model)
    messages, images = _conversation(fields.take("messages", list), limits)
    limit = _token_limit(fields, limits)
    stream = bool(fields.take("stream", bool, default=False))
    usage = _stream_usage(fields.take("stream_options", dict, default=None), stream)
    for name, accepted in NEUTRAL.items():
        fields.refuse_unless(name, accepted)
    fields.refuse_others(WITHOUT_EFFECT)
    return ChatRequest(messages, images, limit, stream, usage)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"the body is not JSON: {str(exc)[:200]}", code="invalid_json") from exc
    if not isinstance(value, dict):
        raise RequestError(f"the body is {_kind(value)}, not a JSON object", code="invalid_json")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class _Fields:
    """The fields of a request that have not been looked at yet; null is as good as absent."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._left = {name: value for name, value in fields.items() if value is not None}

    def take(self, name: str, kind: type, default: Any = ...) -> Any:
        value = self._left.pop(name, default)
        if value is ...:
            raise RequestError(f"{name} is missing", param=name, code="missing_required_parameter")
        if value is not default and (
            not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)
        ):
            raise _wrong_type(name, value, kind)
        return value

    def refuse_unless(self, name: str, accepted: Sequence[Any]) -> None:
        value = self._left.pop(name, None)
        if value is not None and not any(_same(value, one) for one in accepted):
            reason = REASONS.get(name, "it is not supported")
            raise RequestError(
                f"{name} {_shown(value)}: {reason}", param=name, code="unsupported_value"
            )

    def refuse_others(self, ignored: Collection[str]) -> None:
        for name in self._left:
            if name not in ignored:
                raise RequestError(
                    f"unknown field {name[:100]!r}", param=name[:100], code="unknown_parameter"
                )


def _same(value: Any, other: Any) -> bool:
    """Equal, but True is not 1."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _check_model(asked: str, served: str) -> None:
    if asked != served:
        raise RequestError(
            f"no model {asked[:100]!r} here; the model is {served!r}",
            status=404, param="model", code="model_not_found",
        )  # fmt: skip


def _token_limit(fields: _Fields, limits: RequestLimits) -> int:
    """`max_completion_tokens`, or `max_tokens`, its older name."""
    given = {
        name: fields.take(name, int, default=None)
        for name in ("max_completion_tokens", "max_tokens")
    }
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if not 1 <= value <= limits.max_new_tokens:
            raise RequestError(
                f"{name} {_shown(value)} is out of range: 1 to {limits.max_new_tokens} here",
                param=name, code="invalid_value",
            )  # fmt: skip
    if len(set(given.values())) > 1:
        raise RequestError(
            "max_completion_tokens and max_tokens differ; give one of them",
            param="max_tokens", code="invalid_value",
        )  # fmt: skip
    return next(iter(given.values()), limits.max_new_tokens)


def _stream_usage(options: dict[str, Any] | None, stream: bool) -> bool:
    if options is None:
        return False
    if not stream:
        raise RequestError(
            "stream_options is only for stream: true", param="stream_options", code="invalid_value"
        )
    fields = _Fields(options)
    usage = bool(fields.take("include_usage", bool, default=False))
    fields.refuse_unless("include_obfuscation", (False,))
    fields.refuse_others(())
    return usage


def _conversation(messages: list[Any], limits: RequestLimits) -> tuple[list[Message], list[bytes]]:
    """The messages as a sample has them, and the images in their order."""
    if not messages:
        raise RequestError("messages is empty", param="messages", code="invalid_value")
    found: list[Message] = []
    images: list[bytes] = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        role = _role(message, place)
        content = _content(message["content"], f"{place}.content", role, images.append)
        if len(images) > limits.images:
            raise RequestError(
                f"more than {limits.images} images", param=place, code="too_many_images"
            )
        found.append({"role": role, "content": content})
    _check_order([message["role"] for message in found])
    return found, images


def _role(message: Any, place: str) -> str:
    """The role of a message that has the fields it must have, and no others with a meaning."""
    if not isinstance(message, dict):
        raise _wrong_type(place, message, dict)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise RequestError(
            f"{place}.role {_shown(role)}: must be one of {', '.join(ROLES)}",
            param=f"{place}.role", code="invalid_value",
        )  # fmt: skip
    if message.get("content") is None:
        raise RequestError(
            f"{place}.content is missing",
            param=f"{place}.content", code="missing_required_parameter",
        )  # fmt: skip
    for name, value in message.items():
        # Clients send an earlier answer back as they got it, with empty fields.
        if name not in ("role", "content") and value not in (None, [], {}):
            raise RequestError(
                f"{place}.{name[:100]}: not supported",
                param=f"{place}.{name[:100]}", code="unknown_parameter",
            )  # fmt: skip
    return ROLES[role]


def _content(content: Any, place: str, role: str, add: Callable[[bytes], None]) -> list[Part]:
    """The parts of a message; `add` gets the bytes of each image."""
    if isinstance(content, str):
        return [_text(content, place)]
    if not isinstance(content, list) or not content:
        raise RequestError(
            f"{place} is {_kind(content)}: must be a text or a list of parts",
            param=place, code="invalid_type",
        )  # fmt: skip
    parts = []
    for number, part in enumerate(content):
        at = f"{place}[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            parts.append(_text(part.get("text"), f"{at}.text"))
        elif kind == "image_url" and role == "user":
            add(_image(part.get("image_url"), f"{at}.image_url"))
            parts.append(dict(IMAGE_PART))
        elif kind == "image_url":
            raise RequestError(
                f"{at}: an image in the {role}'s message; images belong to the user's",
                param=at, code="invalid_value",
            )  # fmt: skip
        else:
            raise RequestError(
                f"{at}.type {_shown(kind)}: must be text or image_url",
                param=f"{at}.type", code="invalid_value",
            )  # fmt: skip
    return parts


def _text(text: Any, place: str) -> Part:
    if not isinstance(text, str):
        raise _wrong_type(place, text, str)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise RequestError(
            f"{place}: half a surrogate pair at character {exc.start}",
            param=place, code="invalid_value",
        ) from exc  # fmt: skip
    return text_part(text)


def _image(image_url: Any, place: str) -> bytes:
    """The bytes of `{"url": "data:image/...;base64,..."}`."""
    if not isinstance(image_url, dict):
        raise _wrong_type(place, image_url, dict)
    if image_url.get("detail", "auto") not in ("auto", "low", "high"):
        raise RequestError(
            f"{place}.detail {_shown(image_url['detail'])}: must be auto, low or high",
            param=f"{place}.detail", code="invalid_value",
        )  # fmt: skip
    url = image_url.get("url")
    place = f"{place}.url"
    if not isinstance(url, str):
        raise _wrong_type(place, url, str)
    match = _DATA_URL.match(url)
    if match is None:
        what = "a remote address; this server fetches nothing" if "://" in url[:20] else "no image"
        raise RequestError(
            f"{place} is {what}. Send the image itself, as data:image/png;base64,...",
            param=place, code="invalid_image_url",
        )  # fmt: skip
    try:
        return binascii.a2b_base64(url[match.end() :], strict_mode=True)
    except ValueError as exc:
        raise RequestError(
            f"{place}: invalid base64", param=place, code="invalid_base64_image"
        ) from exc


def _check_order(roles: Sequence[str]) -> None:
    """At most one system message, first; then user and assistant in turns, the user's last."""
    if roles.count("system") > 1 or "system" in roles[1:]:
        raise RequestError(
            "more than one system message, or one that is not the first",
            param="messages", code="invalid_value",
        )  # fmt: skip
    turns = [role for role in roles if role != "system"]
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise RequestError(
            f"roles out of order: {' '.join(roles)[:200]}; user and assistant must alternate, from "
            "the user to the user",
            param="messages", code="invalid_value",
        )  # fmt: skip


_KINDS = {str: "a string", bool: "a boolean", int: "an integer", float: "a number",
          list: "an array", dict: "an object", type(None): "null"}  # fmt: skip


def _kind(value: Any) -> str:
    return _KINDS[type(value)]


def _wrong_type(name: str, value: Any, kind: type) -> RequestError:
    return RequestError(
        f"{name} is {_kind(value)}, but must be {_KINDS[kind]}", param=name, code="invalid_type"
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
