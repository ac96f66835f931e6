"""Repositories for `tests.support.hub` in the layouts of FineVision and SmolTalk, of real or
made-up data."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.numbered import square

SHARED = Path(__file__).parents[3] / "shared" / "data"
FINEVISION = "HuggingFaceM4/FineVision"
SMOLTALK = "HuggingFaceTB/smol-smoltalk"

IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
TEXTS = pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string())]))
RATINGS = ("relevance", "image_correspondence", "visual_dependency", "formatting")


def shared(name: str) -> Path:
    """A folder of the shared data; skips the test if it is missing."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is absent: the same code runs on made-up rows elsewhere")
    return SHARED / name


def records(file: Path, count: int | None = None) -> list[dict[str, Any]]:
    with file.open() as lines:
        return [json.loads(line) for _, line in zip(range(count or 1 << 40), lines, strict=False)]


def parquet(table: pa.Table, group: int) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=group)
    return buffer.getvalue()


def chart_rows(count: int | None = None) -> list[dict[str, Any]]:
    """The real charts in FineVision's columns: ratings present, null, and with nulls inside."""
    folder = shared("charts")
    rows = []
    for number, record in enumerate(records(folder / "charts.jsonl", count)):
        ratings = [None, [5, None], [4, 3]][number % 3]
        rows.append(
            {
                "images": [{"bytes": (folder / record["image"]).read_bytes(), "path": None}],
                "texts": record["texts"],
                "source": record["source"],
                **{f"{name}_ratings": ratings for name in RATINGS},
                **{f"{name}_min": None if ratings is None else 3 for name in RATINGS},
            }
        )
    return rows


def made_up_rows(count: int) -> list[dict[str, Any]]:
    """Small rows in FineVision's columns, with zero to two images and one to three turns."""
    rows = []
    for number in range(count):
        images = [
            {"bytes": square(colour, (20 + number % 7, 30)), "path": f"{number}.png"}
            for colour in ("red", "blue")[: number % 3]
        ]
        texts = [
            {"user": f"question {number}.{turn}", "assistant": f"answer {number}.{turn}"}
            for turn in range(1 + number % 3)
        ]
        rows.append(
            {
                "images": images or None,
                "texts": texts,
                "source": "made-up",
                "formatting_ratings": None if number % 2 else [5] * len(texts),
                "formatting_min": None if number % 2 else 5,
            }
        )
    return rows


def noise(number: int) -> bytes:
    """A PNG of about 37 KB, as large as a chart is on average: downloading some takes a while."""
    pixels = np.random.default_rng(number).integers(0, 256, (110, 112, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def finevision_table(rows: Sequence[Mapping[str, Any]], *, reverse: bool = False) -> pa.Table:
    """A table with FineVision's types; `reverse` reverses the order of the columns."""
    types = {"images": IMAGES, "texts": TEXTS, "source": pa.string()}
    names = list(rows[0])
    for name in names:
        if name.endswith("_ratings"):
            types[name] = pa.list_(pa.int64())
        elif name.endswith("_min"):
            types[name] = pa.int64()
    if reverse:
        names.reverse()
    columns = {name: pa.array([row[name] for row in rows], types[name]) for name in names}
    return pa.table(columns)


def card(configs: Mapping[str, Mapping[str, str]], licence: str) -> bytes:
    """A data set card with the YAML that `datasets` reads; configs: {name: {split: pattern}}."""
    lines = ["---", f"license: {licence}", "configs:"]
    for name, splits in configs.items():
        lines += [f'- config_name: "{name}"', "  data_files:"]
        for split, pattern in splits.items():
            lines += [f"  - split: {split}", f'    path: "{pattern}"']
    return "\n".join([*lines, "---", "", "# A data set", ""]).encode()


def finevision_repository(
    subsets: Mapping[str, Sequence[Mapping[str, Any]]], *, group: int = 25
) -> dict[str, bytes]:
    """Two files per subset, several row groups each; the second has the columns in reverse
    order."""
    files = {}
    for name, rows in subsets.items():
        cut = len(rows) * 3 // 5
        first, second = rows[:cut], rows[cut:]
        files[f"{name}/train-00000-of-00002.parquet"] = parquet(finevision_table(first), group)
        table = finevision_table(second, reverse=True)
        files[f"{name}/train-00001-of-00002.parquet"] = parquet(table, group)
    configs = {name: {"train": f"{name}/train-*"} for name in subsets}
    return {"README.md": card(configs, "cc-by-4.0"), **files}


def chats(count: int) -> list[dict[str, Any]]:
    """The real conversations, or made-up ones if they are missing."""
    file = SHARED / "chat" / "chat.jsonl"
    if file.exists():
        return records(file, count)
    return [
        {
            "messages": [
                {"role": "user", "content": f"say {number}"},
                {"role": "assistant", "content": str(number)},
            ],
            "source": "made-up",
        }
        for number in range(count)
    ]


def smoltalk_repository(train: int, test: int, *, group: int = 100) -> dict[str, bytes]:
    """SmolTalk's columns: `messages: list<struct<content, role>>, source`."""
    rows = chats(train + test)
    messages = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
    table = pa.table(
        {
            "messages": pa.array([row["messages"] for row in rows], messages),
            "source": pa.array([row.get("source", "") for row in rows], pa.string()),
        }
    )
    cut = train * 2 // 3
    splits = {"train": "data/train-*", "test": "data/test-*"}
    return {
        "README.md": card({"default": splits}, "apache-2.0"),
        "data/train-00000-of-00002.parquet": parquet(table.slice(0, cut), group),
        "data/train-00001-of-00002.parquet": parquet(table.slice(cut, train - cut), group),
        "data/test-00000-of-00001.parquet": parquet(table.slice(train), group),
    }
