"""SmolTalk and every other data set of conversations with a `messages` column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocrdata.sample import Sample
from ocrdata.sources.base import safe_name
from ocrdata.sources.conversations import IMAGE_FIELDS, PLACEHOLDER, read_messages
from ocrdata.sources.hub_source import HubSource, Request
from ocrdata.sources.jsonl import make_sample
from ocrdata.sources.shapes import MEDIA, MESSAGES, Shape
from ocrdata.sources.table_rows import only_bytes, records, row_images, without_nulls

REPOSITORY = "HuggingFaceTB/smol-smoltalk"


IMAGES_BY_NAME = {name: name for name in IMAGE_FIELDS}


@dataclass(frozen=True)
class ChatRow:
    """Converts a row of `messages: list<struct<role, content>>` to a sample; other columns, and the
    names of images, go to `meta`.

    If the table has a column of images, `<image>` in a text of the user is the place of one, as
    `read_messages` says; in a table without it is text.
    """

    origin: str
    format: str = "smoltalk"
    shapes: Mapping[str, Shape] = field(default_factory=lambda: {**MEDIA, "messages": MESSAGES})
    needed: tuple[str, ...] = ("messages",)

    def __call__(self, row: dict[str, Any]) -> Sample:
        """Raises RejectedRow."""
        images, names = row_images(row, IMAGES_BY_NAME)
        messages = without_nulls(records(row["messages"], "messages"))
        placeholder = PLACEHOLDER if IMAGES_BY_NAME.keys() & row.keys() else ""
        found = read_messages(messages or [], images, placeholder=placeholder)
        record = {name: value for name, value in row.items() if value is not None}
        sample = make_sample(record, tuple(self.shapes), found, only_bytes, self.origin)
        if names:
            sample.meta["image_paths"] = names
        return sample


def default_name(config: str | None, split: str) -> str:
    """The name of the shards: smoltalk-train, smoltalk-all-test."""
    return safe_name("-".join(["smoltalk", *([config] if config else []), split]))


def smoltalk(
    config: str | None, split: str, *, repository: str, revision: str, recorded: Mapping[str, Any]
) -> HubSource:
    """One split of a data set of conversations. Raises SourceError and UsageError."""
    origin = repository.rpartition("/")[2]
    request = Request(repository, config, split, revision)
    return HubSource(default_name(config, split), request, ChatRow(origin), recorded=recorded)
