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
    """Converts a row of FineVision to a sample: all turns, all images before the first question
    (the texts have no placeholders), everything else in `meta`.

    `images` may be null or have several; ratings may be missing, null or contain nulls.
    """

    subset: str
    format: str = "finevision"
    needed: tuple[str, ...] = ("images", "texts")

    def __call__(self, row: dict[str, Any]) -> Sample:
        """Raises RejectedRow if an image has no bytes or the row has no turns."""
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
    """One subset of FineVision, or of a repository with the same columns. Raises SourceError and
    UsageError."""
    request = Request(repository, subset, "train", revision)
    return HubSource(safe_name(subset), request, FineVisionRow(subset), recorded=recorded)
