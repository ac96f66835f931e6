"""What the members of one sample in a tar mean.

Ours is `KEY.json` with messages. In anybody else's WebDataset a text member beside images is the
answer to them: the user shows the images, the assistant says the text, and what a JSON member
holds is meta. Anything else can be read as members, not as a sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ocrdata.errors import ShardError
from ocrdata.sample import IMAGE_PART, Sample, text_part
from ocrdata.shards.tar import TarMember


def to_sample(shard: str, key: str, members: Mapping[str, bytes]) -> Sample:
    """The sample these members (bytes by name, in order) are. Raises ShardError."""
    images = [data for name, data in members.items() if kind_of(name) in IMAGE_SUFFIXES]
    document: Any = None
    if (raw := members.get(f"{key}.json")) is not None:
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as exc:
            detail = f"not readable as JSON: {str(exc)[:200]}"
            raise ShardError(shard, detail, key=key, member=f"{key}.json") from exc
        if isinstance(document, dict) and isinstance(document.get("messages"), list):
            return _conversation(shard, key, document, images)
    for suffix in TEXT_SUFFIXES:
        if images and (raw := members.get(f"{key}.{suffix}")) is not None:
            return _captioned(shard, key, raw, images, document)
    raise ShardError(
        shard,
        f"no messages in a .json, and no .txt or .caption beside an image (it has: "
        f"{', '.join(sorted(members))})",
        key=key,
        remedy="read it with members(), or convert it with tools/make_shards.py",
    )


def _conversation(shard: str, key: str, document: dict[str, Any], images: list[bytes]) -> Sample:
    source, meta = document.get("source", ""), document.get("meta", {})
    if not (isinstance(source, str) and isinstance(meta, dict)):
        raise ShardError(shard, "source or meta is not what a sample has", key=key)
    placed = _placed_images(document["messages"])
    if placed is None:
        raise ShardError(
            shard,
            "its messages are not lists of parts",
            key=key,
            remedy="convert it: python tools/make_shards.py jsonl reads other kinds of messages",
        )
    if placed != len(images):
        detail = f"the messages place {placed} images, the tar holds {len(images)}"
        raise ShardError(shard, detail, key=key)
    return Sample(document["messages"], images, source, meta)


def _placed_images(messages: list[Any]) -> int | None:
    """How many images the messages place; None where they are not ours."""
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
        raise ShardError(shard, "the text is not UTF-8", key=key) from exc
    messages = [
        {"role": "user", "content": [dict(IMAGE_PART) for _ in images]},
        {"role": "assistant", "content": [text_part(text)]},
    ]
    meta = document if isinstance(document, dict) else {}
    source = meta.get("source", "")
    return Sample(messages, images, source if isinstance(source, str) else "", meta)


IMAGE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "gif", "webp", "bmp", "tif", "tiff"})


TEXT_SUFFIXES = ("txt", "caption")
"""Members that answer for a foreign sample's images, in order of preference."""


def split_name(name: str) -> tuple[str, str] | None:
    """'a/000.1.jpg' -> ('a/000', '1.jpg'); None for a name that belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return (folder + slash + stem, suffix) if stem and dot else None


def kind_of(name: str) -> str:
    """The last suffix in lower case: what a member holds, by its name."""
    return name.rpartition(".")[2].lower()


def samples(shard: str, members: Iterator[TarMember]) -> Iterator[tuple[str, TarMember]]:
    """Each member with the key of its sample. Raises ShardError for names and samples twice."""
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
                    remedy="pack it again with the files of each sample side by side",
                )
            seen.add(key)
            current, names = key, set()
        if member.name in names:
            raise ShardError(shard, "the name stands twice", key=key, member=member.name)
        names.add(member.name)
        yield key, member
