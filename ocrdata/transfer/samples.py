"""A sample of another set as it is written into a new one: unchanged, with its origin in the meta.

`meta.origin` names set, shard and key of the sample where it was first; a sample that has been
moved before keeps the origin it has. docs/formats.md describes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ocrdata.errors import ShardError
from ocrdata.sample import Sample
from ocrdata.shards.members import fields_of, roles, to_sample

ORIGIN = "origin"
"""The field of the meta."""

_OUR_FIELDS = frozenset({"messages", "source", "meta"})
_NAMES = frozenset({"set", "shard", "key"})


def sample_of(shard: str, key: str, members: Mapping[str, bytes]) -> Sample:
    """The sample that these members form, as `to_sample`, with all that its JSON says: other fields
    of somebody else's `KEY.json` become fields of the meta. Raises ShardError."""
    sample = to_sample(shard, key, members)
    names = list(members)
    at = roles(fields_of(names)).json
    if at is None or _is_whole(sample, members[names[at]]):
        return sample
    document = json.loads(members[names[at]])
    others: dict[str, Any] = {}
    if not isinstance(document, dict):
        others = {"json": document}
    elif isinstance(document.get("messages"), list):  # else the whole object is the meta
        others = {name: value for name, value in document.items() if name not in _OUR_FIELDS}
    if twice := sorted(others.keys() & sample.meta.keys()):
        detail = f"both its JSON and the meta in it have a field {twice[0]!r}"
        raise ShardError(shard, detail, key=key)
    return replace(sample, meta={**sample.meta, **others}) if others else sample


def unless_skipped(error: ShardError) -> ShardError:
    """The error of a damaged sample, with what can be done about it here."""
    remedy = "add --bad-samples skip to leave such samples out, and to list them"
    return type(error)(
        error.shard,
        error.detail,
        key=error.key,
        member=error.member,
        remedy=f"{remedy}; {error.remedy}" if error.remedy else remedy,
    )


def _is_whole(sample: Sample, document: bytes) -> bool:
    """Whether a sample says all that its JSON member does, as our own always do."""
    try:
        return sample.to_json() == document
    except ValueError:  # NaN, which its conversion rejects
        return False


def with_origin(sample: Sample, origin: Mapping[str, str]) -> Sample:
    """The sample with `origin` (set, shard, key) in its meta, unless it has one. An `origin` of the
    data set's own is kept inside the new one, as `was`."""
    known = sample.meta.get(ORIGIN)
    if _is_origin(known):
        return sample
    before = {"was": known} if ORIGIN in sample.meta else {}
    return replace(sample, meta={**sample.meta, ORIGIN: {**origin, **before}})


def _is_origin(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() - {"was"} == _NAMES
        and all(isinstance(value[name], str) for name in _NAMES)
    )
