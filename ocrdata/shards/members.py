"""Which members of a tar form a sample, and what they mean.

Our samples have a `KEY.json` with messages. In anybody else's WebDataset, a text member beside
images becomes a conversation: the user shows the images, the assistant answers with the text, and a
JSON member becomes the meta. Other members can be read as bytes, but not as a sample.

What follows the key in a name is its *field*, as webdataset calls it, here in lower case: 'jpg',
'1.png', 'seg.png', 'txt'. The fields alone decide what the members mean (`roles`), never their
order in the tar: packing a shard again with another tool changes no sample.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ocrdata.errors import ShardError
from ocrdata.sample import IMAGE_PART, Message, Sample, has_valid_weight, text_part
from ocrdata.shards.tar import TarMember

IMAGE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "gif", "webp", "bmp", "tif", "tiff"})

IMAGE_NAMES = ("image", "img", "input", "page")
"""Names that an image may have in a sample without images named by their extension alone, the
preferred one first. Under any other name it is another field: seg.png, depth.png."""

TEXT_SUFFIXES = ("txt", "caption")
"""Fields of foreign samples that hold the answer to their images, the preferred one first."""

_IMAGE = re.compile(
    rf"(?:({'|'.join(IMAGE_NAMES)})\.)?(?:([0-9]{{1,18}})\.)?(?:{'|'.join(sorted(IMAGE_SUFFIXES))})"
)


class Roles(NamedTuple):
    """What the members of a sample are, as positions among them. `images` are in their order,
    `unused` are no part of the sample, and `problem` says why the fields are ambiguous, or ""."""

    images: tuple[int, ...]
    json: int | None
    caption: int | None
    unused: tuple[int, ...]
    problem: str


def split_name(name: str) -> tuple[str, str] | None:
    """'a/000.1.jpg' -> ('a/000', '1.jpg'); None for a name that belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return (folder + slash + stem, suffix) if stem and dot else None


def kind_of(name: str) -> str:
    """The last suffix of a name in lower case: 'a/000.1.JPG' -> 'jpg'."""
    return name.rpartition(".")[2].lower()


def fields_of(names: Iterable[str]) -> tuple[str, ...]:
    """The fields of a sample's members: ['a/000.JSON', 'a/000.1.jpg'] -> ('json', '1.jpg')."""
    return tuple(name.rpartition("/")[2].partition(".")[2].lower() for name in names)


@lru_cache(maxsize=64)
def roles(fields: tuple[str, ...]) -> Roles:
    """What the members with these fields are.

    A field is an image if it is an image extension alone (number 0) or NUMBER.extension; where
    there is none, if it is that after one of IMAGE_NAMES. Images are in the order of their numbers.
    """
    numbered: dict[str, list[tuple[int, str, int]]] = {}
    for at, field in enumerate(fields):
        if (match := _IMAGE.fullmatch(field)) is not None:
            numbered.setdefault(match[1] or "", []).append((int(match[2] or 0), field, at))
    chosen = next((name for name in ("", *IMAGE_NAMES) if name in numbered), "")
    images = sorted(numbered.get(chosen, []))
    texts = {field: at for at, field in enumerate(fields) if field in ("json", *TEXT_SUFFIXES)}
    caption = next((texts[field] for field in TEXT_SUFFIXES if field in texts), None)
    used = {texts.get("json"), caption, *(at for _, _, at in images)}
    return Roles(
        images=tuple(at for _, _, at in images),
        json=texts.get("json"),
        caption=caption,
        unused=tuple(at for at in range(len(fields)) if at not in used),
        problem=_ambiguity(fields, images),
    )


def _ambiguity(fields: Sequence[str], images: Sequence[tuple[int, str, int]]) -> str:
    repeated = next((field for field, count in Counter(fields).items() if count > 1), None)
    if repeated is not None:
        return f"two members are its {repeated}, differing only in capital letters"
    for (number, one, _), (other_number, other, _) in itertools.pairwise(images):
        if number == other_number:
            return f"two images have the same number, {number}: {one} and {other}"
    return ""


def image_names(names: Sequence[str]) -> list[str]:
    """The members that are a sample's images, in their order.

    ['a.10.jpg', 'a.txt', 'a.2.jpg', 'a.jpg', 'a.seg.png'] -> ['a.jpg', 'a.2.jpg', 'a.10.jpg']
    """
    return [names[at] for at in roles(fields_of(names)).images]


def follows_our_layout(key: str, names: Sequence[str]) -> bool:
    """Whether the members are KEY.json, KEY.png, KEY.1.jpg, ... in this order, as our writer names
    them. Then no rule for other people's tars applies, and no change of one concerns them."""
    if names[0] != f"{key}.json":
        return False
    for number, name in enumerate(names[1:]):
        stem, _, suffix = name.rpartition(".")
        if stem != (f"{key}.{number}" if number else key) or suffix.lower() not in IMAGE_SUFFIXES:
            return False
    return True


def caption_text(raw: bytes) -> str:
    """The text of a caption, without a byte order mark. Raises UnicodeDecodeError."""
    return raw.decode().lstrip("\ufeff")


def is_blank(raw: bytes) -> bool:
    """Whether a caption has no text: there is no answer to learn from it."""
    try:
        return not caption_text(raw).strip()
    except UnicodeDecodeError:
        return False


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
    """The sample that these members (bytes by name, in any order) form. Raises ShardError."""
    names, start = list(members), len(key) + 1
    # The same as fields_of(names), in a third of the time.
    found = roles(tuple([name[start:].lower() for name in names]))
    if found.problem:
        raise ShardError(shard, found.problem, key=key, remedy="rename one of them in the tar")
    images = [members[names[at]] for at in found.images]
    document: Any = None
    if found.json is not None:
        name = names[found.json]
        try:
            document = json.loads(members[name])
        except (ValueError, RecursionError) as exc:
            detail = f"invalid JSON: {str(exc)[:200]}"
            raise ShardError(shard, detail, key=key, member=name) from exc
        if isinstance(document, dict) and isinstance(document.get("messages"), list):
            return _conversation(shard, key, document, images)
    if images and found.caption is not None:
        return _captioned(shard, key, members, names[found.caption], document)
    raise ShardError(
        shard,
        "not a conversation: it has neither a .json with messages nor a .txt or .caption beside an "
        f"image; its members are {', '.join(sorted(members))}",
        key=key,
        remedy=_remedy(shard, document, images=bool(images)),
    )


def _remedy(shard: str, document: Any, *, images: bool) -> str:
    """What to do about a sample that is not a conversation of ours."""
    if isinstance(document, dict):
        return f"{_converted(shard)} reads other records too; --answer names the field of the text"
    if images:
        return f"{_converted(shard)} --answer FIELD takes the text from another field"
    return "its members can be read as bytes, with members()"


def _converted(shard: str) -> str:
    return f"python tools/make_shards.py webdataset --path {shlex.quote(shard)}"


def _conversation(shard: str, key: str, document: dict[str, Any], images: list[bytes]) -> Sample:
    source, meta = document.get("source", ""), document.get("meta", {})
    if not (isinstance(source, str) and isinstance(meta, dict)):
        raise ShardError(shard, "source must be a string and meta an object", key=key)
    placed = image_parts_in(document["messages"])
    if placed is None:
        raise ShardError(
            shard,
            "invalid messages: each needs a role and a list of text and image parts, may have a "
            "weight of 0 or 1, and has no other fields",
            key=key,
            remedy=f"{_converted(shard)} converts other kinds of messages",
        )
    if placed != len(images):
        detail = f"the messages refer to {placed} images, the tar holds {len(images)}"
        raise ShardError(shard, detail, key=key)
    return Sample(document["messages"], images, source, meta, key)


def image_parts_in(messages: list[Any]) -> int | None:
    """How many images the messages refer to; None if they are not in our form.

    Other fields, unless null, are not: a call of a tool, or the name of another image, would be
    left out without a word.
    """
    placed = 0
    for message in messages:
        if not isinstance(message, dict) or not _is_ours(message):
            return None
        for part in message["content"]:
            kind = part.get("type") if isinstance(part, dict) else None
            fields = _PART_FIELDS.get(kind) if isinstance(kind, str) else None
            if fields is None or (len(part) > len(fields) and _has_others(part, fields)):
                return None
            if kind == "image":
                placed += 1
            elif not isinstance(part.get("text"), str):
                return None
    return placed


_MESSAGE_FIELDS = frozenset({"role", "content", "weight"})
_PART_FIELDS = {"image": frozenset({"type"}), "text": frozenset({"type", "text"})}


def _is_ours(message: Message) -> bool:
    """Whether the fields of a message, but for the parts in its content, are in our form."""
    return (
        isinstance(message.get("role"), str)
        and isinstance(message.get("content"), list)
        and (
            len(message) == 2
            or (has_valid_weight(message) and not _has_others(message, _MESSAGE_FIELDS))
        )
    )


def _has_others(fields: Mapping[str, Any], known: frozenset[str]) -> bool:
    return any(value is not None and name not in known for name, value in fields.items())


def _captioned(
    shard: str, key: str, members: Mapping[str, bytes], caption: str, document: object
) -> Sample:
    try:
        text = caption_text(members[caption])
    except UnicodeDecodeError as exc:
        detail = "the caption is not valid UTF-8"
        raise ShardError(shard, detail, key=key, member=caption) from exc
    if not text.strip():
        raise ShardError(shard, "the caption is blank: no answer to learn", key=key, member=caption)
    images = [members[name] for name in image_names(list(members))]
    messages = [
        {"role": "user", "content": [dict(IMAGE_PART) for _ in images]},
        {"role": "assistant", "content": [text_part(text)]},
    ]
    meta = document if isinstance(document, dict) else {}
    source = meta.get("source", "")
    return Sample(messages, images, source if isinstance(source, str) else "", meta, key)
