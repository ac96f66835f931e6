"""SmolTalk and every other data set of text conversations with a `messages` column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample, text_part
from ocrdata.sources.base import safe_name
from ocrdata.sources.hub_source import HubSource, Request

REPOSITORY = "HuggingFaceTB/smol-smoltalk"


@dataclass(frozen=True)
class ChatRow:
    """Converts a row of `messages: list<struct<role, content>>` to a sample; other columns go to
    `meta`. There are no placeholders: `<image>` in a text stays text.
    """

    origin: str
    format: str = "smoltalk"
    needed: tuple[str, ...] = ("messages",)

    def __call__(self, row: dict[str, Any]) -> Sample:
        """Raises RejectedRow if a message has no role or no content."""
        messages = []
        for number, message in enumerate(row["messages"] or []):
            role, content = (message or {}).get("role"), (message or {}).get("content")
            if not isinstance(role, str) or not isinstance(content, str):
                raise RejectedRow(f"message {number}: no role or no content")
            messages.append({"role": role, "content": [text_part(content)]})
        meta = {
            name: value
            for name, value in sorted(row.items())
            if name not in ("messages", "source") and value is not None
        }
        return Sample(messages, source=row.get("source") or self.origin, meta=meta)


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
