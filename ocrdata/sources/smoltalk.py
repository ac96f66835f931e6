"""SmolTalk and every other data set of conversations with a `messages` column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocrdata.sources.base import safe_name
from ocrdata.sources.conversations import IMAGE_FIELDS
from ocrdata.sources.hub_source import HubSource, Request
from ocrdata.sources.table_rows import TableRow

REPOSITORY = "HuggingFaceTB/smol-smoltalk"


def chat_row(origin: str) -> TableRow:
    """Converts a row of `messages: list<struct<role, content>>` to a sample, with the images of a
    column of the usual name; other columns go to `meta`."""
    images = {name: name for name in IMAGE_FIELDS}
    return TableRow(origin, {"messages": "messages"}, images, format="smoltalk")


def default_name(config: str | None, split: str) -> str:
    """The name of the shards: smoltalk-train, smoltalk-all-test."""
    return safe_name("-".join(["smoltalk", *([config] if config else []), split]))


def smoltalk(
    config: str | None, split: str, *, repository: str, revision: str, recorded: Mapping[str, Any]
) -> HubSource:
    """One split of a data set of conversations. Raises SourceError and UsageError."""
    origin = repository.rpartition("/")[2]
    request = Request(repository, config, split, revision)
    return HubSource(default_name(config, split), request, chat_row(origin), recorded=recorded)
