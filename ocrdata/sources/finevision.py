"""FineVision (hub: HuggingFaceM4/FineVision): conversations about images, in 185 subsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample, from_turns
from ocrdata.sources.base import safe_name
from ocrdata.sources.hub_source import HubSource, Request

REPOSITORY = "HuggingFaceM4/FineVision"


@dataclass(frozen=True)
class FineVisionRow:
    """A row of FineVision as a sample: all turns, all images before the first question (there are
    no placeholders in the texts), everything else in `meta`.

    `images` may be null, and hold several; ratings may be absent, null or hold nulls.
    """

    subset: str
    format: str = "finevision"
    needed: tuple[str, ...] = ("images", "texts")

    def __call__(self, row: dict[str, Any]) -> Sample:
        """Raises RejectedRow where an image has no bytes or there are no turns."""
        images = []
        for number, image in enumerate(row["images"] or []):
            data = image.get("bytes") if image else None
            if not data:
                raise RejectedRow(f"image {number}: no bytes")
            images.append(data)
        turns = [
            (turn.get("user") or "", turn.get("assistant") or "")
            for turn in row["texts"] or []
            if turn is not None
        ]
        if not turns:
            raise RejectedRow("no turns")
        meta = {
            name: value
            for name, value in sorted(row.items())
            if name not in ("images", "texts", "source") and value is not None
        }
        paths = [image.get("path") for image in row["images"] or []]
        if any(paths):
            meta["image_paths"] = paths
        return from_turns(turns, images, source=row.get("source") or self.subset, meta=meta)


def finevision(
    subset: str, *, repository: str, revision: str, recorded: Mapping[str, Any]
) -> HubSource:
    """One subset of FineVision or of a repository like it. Raises SourceError, UsageError."""
    request = Request(repository, subset, "train", revision)
    return HubSource(safe_name(subset), request, FineVisionRow(subset), recorded=recorded)
