"""FineVision (hub: HuggingFaceM4/FineVision): conversations about images, in 185 subsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample
from ocrdata.sources.base import safe_name
from ocrdata.sources.conversations import read_messages
from ocrdata.sources.hub_source import HubSource, Request
from ocrdata.sources.jsonl import make_sample
from ocrdata.sources.shapes import IMAGES, PAIRS, Shape
from ocrdata.sources.table_rows import image_list, image_names, only_bytes, turns_to_messages

REPOSITORY = "HuggingFaceM4/FineVision"


@dataclass(frozen=True)
class FineVisionRow:
    """Converts a row of FineVision to a sample: all turns, all images before the first question
    (the texts have no placeholders), everything else in `meta`.

    `images` may be null, one or several; ratings may be missing, null or contain nulls.
    """

    subset: str
    format: str = "finevision"
    shapes: Mapping[str, Shape] = field(default_factory=lambda: {"images": IMAGES, "texts": PAIRS})
    needed: tuple[str, ...] = ("images", "texts")

    def __call__(self, row: dict[str, Any]) -> Sample:
        """Raises RejectedRow if an image has no bytes or the row has no turns."""
        held = image_list(row["images"], "images")
        images = []
        for number, image in enumerate(held):
            data = image.get("bytes") if isinstance(image, dict) else image
            if not isinstance(data, bytes) or not data:
                raise RejectedRow(f"image {number}: no bytes")
            images.append(data)
        messages = turns_to_messages(row["texts"], "texts")
        found = read_messages(messages, images, placeholder="")
        record = {name: value for name, value in row.items() if value is not None}
        sample = make_sample(record, self.needed, found, only_bytes, self.subset)
        if names := image_names(held):
            sample.meta["image_paths"] = names
        return sample


def finevision(
    subset: str, *, repository: str, revision: str, recorded: Mapping[str, Any]
) -> HubSource:
    """One subset of FineVision, or of a repository with the same columns. Raises SourceError and
    UsageError."""
    request = Request(repository, subset, "train", revision)
    return HubSource(safe_name(subset), request, FineVisionRow(subset), recorded=recorded)
