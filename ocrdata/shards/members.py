"""Which members of a tar form a sample, and what they mean.

Our samples have a `KEY.json` with messages. In anybody else's WebDataset, a text member beside
images becomes a conversation: the user shows the images, the assistant answers with the text, and a
JSON member becomes the meta. Other members can be read as bytes, but not as a sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ocrdata.errors import ShardError
from ocrdata.sample import IMAGE_PART, Sample, text_part
from ocrdata.shards.tar import TarMember

IMAGE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "gif", "webp", "bmp", "tif", "tiff"})

TEXT_SUFFIXES = ("txt", "caption")
"""Members of foreign samples that hold the answer to their images, the preferred one first."""


def split_name(name: str) -> tuple[str, str] | None:
    """'a/000.1.jpg' -> ('a/000', '1.jpg'); None for a name that belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return (folder + slash + stem, suffix) if stem and dot else None


def kind_of(name: str) -> str:
    """The last suffix of a name in lower case: 'a/000.1.JPG' -> 'jpg'."""
    return name.rpartition(".")[2].lower()


def by_suffix(members: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """A sample's payloads by what follows the key in their names, in lower case: {'json': ...}."""
    return {(split_name(name) or ("", ""))[1].lower(): data for name, data in members}


def samples(shard: str, members: Iterator[TarMember]) -> Iterator[tuple[str, TarMember]]:
    """Each member with the key of its sample. Raises ShardError for a repeated member name, and
    for a sample whose members are not adjacent."""
    seen: set[str] = set()
    current, names = "", set[str]()
    for member in members:
        split = split_name(member.name) if member.regular else None
        if split is None:
            continue
        key = split[0]
        if key != current:
            if key in seen:
                raise ShardError(
                    shard,
                    "members of one sample are not adjacent",
                    key=key,
                    member=member.name,
                    remedy="repack the tar with the files of each sample side by side",
                )
            seen.add(key)
            current, names = key, set()
        if member.name in names:
            raise ShardError(shard, "duplicate member name", key=key, member=member.name)
        names.add(member.name)
        yield key, member


def to_sample(shard: str, key: str, members: Mapping[str, bytes]) -> Sample:
    """The sample that these members (bytes by name, in the tar's order) form. Raises ShardError."""
    images = [data for name, data in members.items() if kind_of(name) in IMAGE_SUFFIXES]
    payloads = by_suffix(members.items())
    document: Any = None
    if (raw := payloads.get("json")) is not None:
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as exc:
            detail = f"invalid JSON: {str(exc)[:200]}"
            name = next(name for name, data in members.items() if data is raw)
            raise ShardError(shard, detail, key=key, member=name) from exc
        if isinstance(document, dict) and isinstance(document.get("messages"), list):
            return _conversation(shard, key, document, images)
    for suffix in TEXT_SUFFIXES:
        if images and (raw := payloads.get(suffix)) is not None:
            return _captioned(shard, key, raw, images, document)
    raise ShardError(
        shard,
        "not a conversation: it has neither a .json with messages nor a .txt or .caption beside an "
        f"image; its members are {', '.join(sorted(members))}",
        key=key,
        remedy="read it with members(), or convert it with tools/make_shards.py",
    )


def _conversation(shard: str, key: str, document: dict[str, Any], images: list[bytes]) -> Sample:
    source, meta = document.get("source", ""), document.get("meta", {})
    if not (isinstance(source, str) and isinstance(meta, dict)):
        raise ShardError(shard, "source must be a string and meta an object", key=key)
    placed = _count_image_parts(document["messages"])
    if placed is None:
        raise ShardError(
            shard,
            "invalid messages: each needs a role and a list of text and image parts",
            key=key,
            remedy="convert it: python tools/make_shards.py jsonl reads other kinds of messages",
        )
    if placed != len(images):
        detail = f"the messages refer to {placed} images, the tar holds {len(images)}"
        raise ShardError(shard, detail, key=key)
    return Sample(document["messages"], images, source, meta)


def _count_image_parts(messages: list[Any]) -> int | None:
    """How many images the messages refer to; None if they are not in our form."""
    placed = 0
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return None
        content = message.get("content")
        if not isinstance(content, list):
            return None
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "image":
                placed += 1
            elif kind != "text" or not isinstance(part.get("text"), str):
                return None
    return placed


def _captioned(shard: str, key: str, raw: bytes, images: list[bytes], document: object) -> Sample:
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise ShardError(shard, "the caption is not valid UTF-8", key=key) from exc
    messages = [
        {"role": "user", "content": [dict(IMAGE_PART) for _ in images]},
        {"role": "assistant", "content": [text_part(text)]},
    ]
    meta = document if isinstance(document, dict) else {}
    source = meta.get("source", "")
    return Sample(messages, images, source if isinstance(source, str) else "", meta)
