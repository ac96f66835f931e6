"""JPEGs that decode although they are damaged: kept and named, or rejected."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocrdata.commands.make_shards import main
from ocrdata.conversion.convert import convert, convert_one
from ocrdata.conversion.options import ConversionOptions
from ocrdata.errors import OcrError, RejectedRow, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter
from tests.support.numbered import RED, Numbered
from tests.support.pictures import damaged_jpeg
from tests.support.shardcommand import made

WORDS = "Corrupt JPEG data: premature end of data segment"
DAMAGED = {3: 0, 7: 1, 11: 1}
"""Row -> number of its damaged image."""


@cache
def photo() -> bytes:
    blocks = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))).save(out, "JPEG")
    return out.getvalue()


@dataclass
class Photos(Numbered):
    """Rows of a PNG and a JPEG, or two JPEGs."""

    def _row(self, row: int) -> Sample | RejectedRow:
        images = [photo(), photo()] if row % 2 else [RED, photo()]
        if row in DAMAGED:
            images[DAMAGED[row]] = damaged_jpeg(photo())
        return from_turns([(f"What is {row}?", "It.")], images, source="photos", meta={})


@pytest.fixture
def options(tmp_path: Path) -> ConversionOptions:
    return ConversionOptions(tmp_path / "out", "set", shard_samples=5, max_reject_fraction=0.3)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_damaged_jpegs_are_kept_and_named(options: ConversionOptions) -> None:
    manifest = convert(Photos(13), options)
    assert manifest.totals["damaged_jpegs"] == 3 and manifest.rejects["rows"] == 0
    assert lines(options.out / "set.damaged.jsonl") == [
        {"row": row, "image": image, "reason": WORDS} for row, image in DAMAGED.items()
    ]
    samples = dict(Photos(13).rows(0, 13))
    shards = open_shards(str(options.out / "set.json"))
    assert [shards[n] for n in range(13)] == [samples[n] for n in range(13)]
    plain = options.out.parent / "plain.tar"
    with ShardWriter(plain) as writer:
        for row in range(5):
            writer.write(make_key(row), samples[row])  # type: ignore[arg-type]  # none is rejected
        writer.close()
    assert (options.out / "set-000.tar").read_bytes() == plain.read_bytes()


def test_damaged_jpegs_are_rejected_on_request(options: ConversionOptions) -> None:
    manifest = convert(Photos(13), replace(options, damaged_jpegs="reject"))
    assert manifest.totals["damaged_jpegs"] == 0 and manifest.totals["samples"] == 10
    assert manifest.provenance["damaged_jpegs"] == "reject"
    assert lines(options.out / "set.rejects.jsonl") == [
        {"row": row, "reason": f"image {image}: damaged JPEG: {WORDS}"}
        for row, image in DAMAGED.items()
    ]
    assert not (options.out / "set.damaged.jsonl").exists()
    with pytest.raises(UsageError, match=r"damaged_jpegs was 'reject', now None"):
        convert(Photos(13), options)


def test_too_many_damaged_rows_end_the_conversion(options: ConversionOptions) -> None:
    few = replace(options, damaged_jpegs="reject", max_reject_fraction=0.1)
    with pytest.raises(OcrError, match=rf"2 of 13 rows .*image 0: damaged JPEG: {WORDS}"):
        convert(Photos(13), few)


def test_a_stopped_conversion_keeps_its_counts(options: ConversionOptions) -> None:
    whole = replace(options, out=options.out.parent / "whole")
    convert(Photos(13), whole)
    convert_one(Photos(13), options, 1)
    convert(Photos(13), options)
    assert made(options.out) == made(whole.out)


def test_a_shard_of_a_version_that_looked_for_no_damage_is_made_again(
    options: ConversionOptions, tmp_path: Path
) -> None:
    source = Photos(13, log=tmp_path / "log")
    convert_one(source, options, 1)
    record = options.out / ".set.making" / "001.json"
    old = json.loads(record.read_text())
    del old["damaged"]
    record.write_text(json.dumps(old))
    assert convert(source, options).totals["damaged_jpegs"] == 3
    assert (tmp_path / "log").read_text().splitlines() == ["5 10", "0 13"]


def test_no_damage_no_file(options: ConversionOptions) -> None:
    assert convert(Photos(3), options).totals["damaged_jpegs"] == 0
    assert not (options.out / "set.damaged.jsonl").exists()


@pytest.mark.parametrize("flag", [[], ["--damaged-jpegs", "reject"]])
def test_the_command(flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.jpg").write_bytes(photo())
    (images / "bad.jpg").write_bytes(damaged_jpeg(photo()))
    rows = [
        {"images": [name], "texts": [{"user": "<image>What?", "assistant": "It."}]}
        for name in ("good.jpg", "bad.jpg")
    ]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    words = ["jsonl", "--path", str(tmp_path / "my.jsonl"), "--images", str(images)]
    words += ["--out", str(out), "--name", "my", "--max-reject-fraction", "0.5", *flag]
    assert main(words) == 0
    printed = capsys.readouterr().out
    command = json.loads((out / "my.json").read_text())["provenance"]["command"]
    if flag:
        assert f"image 0: damaged JPEG: {WORDS}".replace("0", "N") in printed
        assert "--damaged-jpegs reject" in command
    else:
        assert re_damaged(printed, out)
        assert "--damaged-jpegs" not in command


def re_damaged(printed: str, out: Path) -> bool:
    return any(
        line.split()[:3] == ["damaged", "1", "JPEGs,"] and str(out / "my.damaged.jsonl") in line
        for line in printed.splitlines()
    )
