"""SmolTalk and every other text set with a `messages` column."""

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
    """A row of `messages: list<struct<role, content>>` as a sample; other columns go to `meta`.

    Nothing in a text is a placeholder: a literal `<image>` stays text.
    """

    origin: str
    format: str = "smoltalk"
    needed: tuple[str, ...] = ("messages",)

    def __call__(self, row: dict[str, Any]) -> Sample:
        """Raises RejectedRow where a message has no role or no content."""
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
    """smoltalk-train, smoltalk-all-test."""
    return safe_name("-".join(["smoltalk", *([config] if config else []), split]))


def smoltalk(
    config: str | None, split: str, *, repository: str, revision: str, recorded: Mapping[str, Any]
) -> HubSource:
    """One split of a chat set. Raises SourceError, UsageError."""
    origin = repository.rpartition("/")[2]
    request = Request(repository, config, split, revision)
    return HubSource(default_name(config, split), request, ChatRow(origin), recorded=recorded)
