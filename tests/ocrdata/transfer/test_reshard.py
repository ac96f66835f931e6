"""New sets of old ones: the samples and their bytes are the same, origins are right, parts share no
image, and damage stops or is listed."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ocrdata.conversion.convert import convert
from ocrdata.conversion.options import ConversionOptions
from ocrdata.errors import OcrError, RejectedRow, ShardError, TransportError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.runtime.progress import Progress
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.manifest import Manifest
from ocrdata.storage.fetching import fetcher
from ocrdata.transfer.inputs import open_inputs
from ocrdata.transfer.reshard import Recipe, ReshardSource, plan_outputs
from ocrdata.transfer.split import Parts
from tests.support.far import FarFolder
from tests.support.numbered import Numbered
from tests.support.pictures import damaged_jpeg
from tests.support.rows import flip, image, write_tar
from tests.support.sets import (
    images_of,
    numbers,
    origins,
    rows_digests,
    varied,
    write_samples,
    written,
)
from tests.support.shardcommand import made


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A plain and a compressed set."""
    folder = tmp_path_factory.mktemp("sets")
    return {
        "one": write_samples(folder, "one", [varied(number) for number in range(30)]),
        "two": write_samples(
            folder, "two", [varied(number) for number in range(100, 125)], ending=".tar.zst"
        ),
    }


def plan(specs: list[str], **recipe: Any) -> list[ReshardSource]:
    inputs, views = open_inputs(specs)
    return plan_outputs(inputs, views, Recipe(**recipe), Progress())


def reshard(specs: list[str], out: Path, name: str = "new", **more: Any) -> Manifest:
    """Make one new set of all samples; `more` are options of the conversion and of the recipe."""
    recipe = {key: more.pop(key) for key in list(more) if key in Recipe.__annotations__}
    (source,) = plan(specs, **recipe)
    return convert(source, ConversionOptions(out, name, **more))


@pytest.mark.parametrize("compress", [None, "zstd"])
@pytest.mark.parametrize("shard_samples", [7, 1024])
def test_merged_samples_are_the_same_in_order(
    sets: dict[str, str], tmp_path: Path, compress: str | None, shard_samples: int
) -> None:
    specs = [f"{sets['one']}[4:27]", sets["two"]]
    manifest = reshard(specs, tmp_path, shard_samples=shard_samples, compress=compress)
    before = [sample for spec in specs for sample in open_shards(spec)]
    after = written(tmp_path / "new.json")
    assert after == before
    assert [sample.key for sample in after] == [f"{n:09d}" for n in range(48)]
    assert len(manifest.shards) == -(-48 // shard_samples)
    assert manifest.shards[0].file == "new-000.tar" + (".zst" if compress else "")
    assert manifest.licence == "licence of one, licence of two"


def test_the_json_is_the_same_but_for_the_origin(sets: dict[str, str], tmp_path: Path) -> None:
    reshard([sets["two"]], tmp_path)
    new, old = open_shards(str(tmp_path / "new.json")), open_shards(sets["two"])
    for at in range(len(old)):
        before, after = old.members(at), new.members(at)
        assert list(before.values())[1:] == list(after.values())[1:]  # the images
        document = json.loads(next(iter(after.values())))
        assert list(document["meta"])[-1] == "origin"
        del document["meta"]["origin"]
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        assert text.encode() == next(iter(before.values()))


def test_origins_name_set_shard_and_key(sets: dict[str, str], tmp_path: Path) -> None:
    reshard([f"first={sets['one']}[::3]", f"{sets['two']}[20:]"], tmp_path)
    expected = [("first", f"one-{n // 8:03d}.tar", f"{n:09d}") for n in range(0, 30, 3)]
    expected += [("two", f"two-{n // 8:03d}.tar.zst", f"{n:09d}") for n in range(20, 25)]
    assert origins(tmp_path / "new.json") == expected


def test_resharding_a_reshard_keeps_origins_and_rows(sets: dict[str, str], tmp_path: Path) -> None:
    reshard([sets["one"], sets["two"]], tmp_path / "a", shard_samples=7, compress="zstd")
    once = origins(tmp_path / "a" / "new.json")
    reshard([str(tmp_path / "a" / "new.json")], tmp_path / "b", shard_samples=10)
    reshard([str(tmp_path / "b" / "new.json")], tmp_path / "c", shard_samples=7)
    reshard([sets["one"], sets["two"]], tmp_path / "d", shard_samples=7)
    assert origins(tmp_path / "b" / "new.json") == origins(tmp_path / "c" / "new.json") == once
    assert rows_digests(tmp_path / "c" / "new.json") == rows_digests(tmp_path / "d" / "new.json")


def test_a_source_is_small_and_survives_pickling(sets: dict[str, str]) -> None:
    (source,) = plan([sets["one"], sets["two"]], where="images > 0", dedupe="images")
    copy = pickle.loads(pickle.dumps(source))
    assert copy.provenance == source.provenance
    assert [row for row, _ in copy.rows(3, 9)] == list(range(3, 9))
    assert list(copy.rows(3, 9)) == list(source.rows(0, source.count()))[3:9]


def test_filter_and_duplicates_are_recorded(sets: dict[str, str], tmp_path: Path) -> None:
    specs = [sets["one"], sets["two"]]
    manifest = reshard(specs, tmp_path, where="meta.rating >= 2", dedupe="images")
    samples = [sample for spec in specs for sample in open_shards(spec)]
    ratings = [sample.meta.get("rating") for sample in samples]
    left_out = manifest.provenance["left_out"]
    assert left_out["where_null"] == ratings.count(None)
    assert left_out["where"] == sum(rating == 1 for rating in ratings)
    assert manifest.totals["samples"] == len(samples) - sum(left_out.values())
    assert manifest.provenance["rules"] == {"where": "sql-1", "dedupe": "images-1"}
    assert manifest.provenance["where"] == "meta.rating >= 2"
    lines = list(map(json.loads, (tmp_path / "new.left-out.jsonl").read_text().splitlines()))
    assert len(lines) == left_out["duplicates"] > 0
    places = [("one", f"one-{n // 8:03d}.tar", f"{n:09d}") for n in range(30)]
    places += [("two", f"two-{n // 8:03d}.tar.zst", f"{n:09d}") for n in range(25)]
    known = dict(zip(places, samples, strict=True))
    kept = origins(tmp_path / "new.json")
    for line in lines:
        of = (line["of"]["set"], line["of"]["shard"], line["of"]["key"])
        place = (line["set"], line["shard"], line["key"])
        assert known[of].images == known[place].images != []
        assert of in kept and place not in kept


def test_dedupe_is_idempotent(sets: dict[str, str], tmp_path: Path) -> None:
    first = reshard([sets["one"], sets["two"]], tmp_path / "a", dedupe="images")
    second = reshard([str(tmp_path / "a" / "new.json")], tmp_path / "b", dedupe="images")
    assert second.provenance["left_out"] == {}
    assert [shard.rows_digest for shard in first.shards] == [
        shard.rows_digest for shard in second.shards
    ]
    assert not (tmp_path / "b" / "new.left-out.jsonl").exists()


@pytest.mark.parametrize("where", ["", "turns >= 2"])
def test_parts_are_all_samples_and_share_no_image(
    sets: dict[str, str], tmp_path: Path, where: str
) -> None:
    parts = Parts.parse("a=0.5,b=0.3,c=0.2")
    sources = plan([sets["one"], sets["two"]], where=where, parts=parts, seed=3)
    found = {}
    for source in sources:
        convert(source, ConversionOptions(tmp_path, f"new-{source.part}", shard_samples=9))
        found[source.part] = open_shards(str(tmp_path / f"new-{source.part}.json"))
    together = sorted(number for view in found.values() for number in numbers(view))
    assert together == [
        number for number in (*range(30), *range(100, 125))
        if not where or varied(number).turns >= 2
    ]  # fmt: skip
    images = {part: images_of(view) for part, view in found.items()}
    for part, other in (("a", "b"), ("a", "c"), ("b", "c")):
        assert not images[part] & images[other], (part, other)
    for source in sources:
        assert numbers(found[source.part]) == sorted(numbers(found[source.part]))
        assert source.provenance["split"] == "a=1/2,b=3/10,c=1/5"
        assert source.provenance["seed"] == 3


def test_duplicates_are_reported_by_the_part_that_has_their_images(
    sets: dict[str, str], tmp_path: Path
) -> None:
    parts = Parts.parse("a=0.5,b=0.5")
    sources = plan([sets["one"], sets["two"]], dedupe="images", parts=parts)
    reported = 0
    for source in sources:
        convert(source, ConversionOptions(tmp_path, source.part))
        kept = set(origins(tmp_path / f"{source.part}.json"))
        report = tmp_path / f"{source.part}.left-out.jsonl"
        for line in map(json.loads, report.read_text().splitlines() if report.exists() else ()):
            assert (line["of"]["set"], line["of"]["shard"], line["of"]["key"]) in kept
            reported += 1
    (whole,) = plan([sets["one"], sets["two"]], dedupe="images")
    assert reported == len(whole.selection.duplicates) > 0


@pytest.mark.parametrize("where", ["", "meta.number % 5 > 1", "key > '000000006'"])
def test_sets_at_a_url_give_the_same_files(
    sets: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Single samples and stretches, plain and compressed; each index is fetched once."""
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    recipe = {"where": where, "dedupe": "images", "shard_samples": 9}
    reshard([f"{sets['one']}[:28]", sets["two"]], tmp_path / "near", **recipe)
    with FarFolder(Path(sets["one"]).parent) as far:
        specs = [f"{far.url}/one.json?key=secret", f"{far.url}/two.json?key=secret"]
        reshard([f"{specs[0]}[:28]", specs[1]], tmp_path / "far", **recipe)
        fetched = Counter(path for path in far.paths if path.endswith(".parquet"))
        assert len(fetched) == 8 and set(fetched.values()) == {1}
        assert fetcher().held == 0
    near, there = made(tmp_path / "near"), made(tmp_path / "far")
    assert near == there and "new.json" in near
    assert not any(b"secret" in data for data in there.values())


def test_nothing_left_is_an_error(sets: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="false for 30 and null for 0"):
        plan([sets["one"]], where="images > 9")
    with pytest.raises(UsageError, match=r"one\.json\[0:0\].*no samples"):
        plan([f"{sets['one']}[5:5]"], where="images > 0")
    with pytest.raises(UsageError, match="b gets none of 3 samples"):
        plan([f"{sets['one']}[:3]"], parts=Parts.parse("a=0.9,b=0.1"))


def test_other_peoples_tars(tmp_path: Path) -> None:
    files = []
    for number in range(5):
        meta = json.dumps({"url": f"u{number}", "width": number}).encode()
        files += [
            (f"s/{number}.jpg", image("JPEG", 8 + number)),
            (f"s/{number}.txt", f"caption {number}".encode()),
            (f"s/{number}.json", meta),
            (f"s/{number}.cls", b"3"),
        ]
    write_tar(tmp_path / "00000.tar", files[:12])
    write_tar(tmp_path / "00001.tar", files[12:])
    specs = [str(tmp_path / "00000.tar"), str(tmp_path / "00001.tar")]
    reshard(specs, tmp_path / "out", name="laion", where="meta.width >= 1")
    found = open_shards(str(tmp_path / "out" / "laion.json"))
    assert [sample.images[0] for sample in found] == [image("JPEG", 8 + n) for n in range(1, 5)]
    assert [sample.messages[1]["content"][0]["text"] for sample in found] == [
        f"caption {number}" for number in range(1, 5)
    ]
    assert [sample.meta["url"] for sample in found] == [f"u{number}" for number in range(1, 5)]
    assert origins(tmp_path / "out" / "laion.json")[2] == (tmp_path.name, "00001.tar", "s/3")


BROKEN = 13
"""Its image is damaged, in one read with its neighbours; the JSON of sample 3 is."""


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    """A set of 20 samples, two of which are damaged."""
    spec = write_samples(tmp_path / "damaged", "one", [varied(number) for number in range(20)])
    view = open_shards(spec)
    for at, member in ((BROKEN, 1), (3, 0)):
        found = view.row(at).members[member]
        flip(tmp_path / "damaged" / f"one-00{at // 8}.tar", found.offset + 9)
    return spec


def test_damage_stops_with_the_name_of_the_sample(damaged: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError) as caught:
        reshard([f"{damaged}[4:]"], tmp_path / "out")
    assert caught.value.key == f"{BROKEN:09d}" and "one-001.tar" in caught.value.shard
    assert not (tmp_path / "out" / "new.json").exists()


def test_skipped_damage_is_listed_and_everything_else_is_there(
    damaged: str, tmp_path: Path
) -> None:
    manifest = reshard(
        [damaged], tmp_path, skip_damaged=True, max_reject_fraction=0.1, shard_samples=6
    )
    assert numbers(written(tmp_path / "new.json")) == [n for n in range(20) if n not in (3, BROKEN)]
    assert manifest.rejects["rows"] == 2 and manifest.provenance["bad_samples"] == "skip"
    lines = list(map(json.loads, (tmp_path / "new.rejects.jsonl").read_text().splitlines()))
    assert [line["row"] for line in lines] == [3, BROKEN]
    assert all(
        f"one: one-00{row // 8}.tar: sample {row:09d}: checksum" in line["reason"]
        for row, line in zip((3, BROKEN), lines, strict=True)
    )
    with pytest.raises(OcrError, match="--max-reject-fraction"):
        reshard([damaged], tmp_path, "few", skip_damaged=True, max_reject_fraction=0.05)


def test_skipping_is_for_damage_not_for_files_that_cannot_be_read(
    damaged: str, tmp_path: Path
) -> None:
    (source,) = plan([damaged], skip_damaged=True)
    assert next(source.rows(0, 1))[0] == 0
    (tmp_path / "damaged" / "one-001.tar").unlink()
    with pytest.raises(TransportError, match="one-001"):
        list(source.rows(4, 20))


def test_a_sample_that_cannot_be_written_stops_or_is_listed(tmp_path: Path) -> None:
    """A caption of somebody's tar whose image cannot be decoded."""
    files = [("0.txt", b"ok"), ("0.jpg", image("JPEG")), ("1.txt", b"bad"), ("1.jpg", b"no image")]
    spec = str(write_tar(tmp_path / "x-000.tar", files))
    with pytest.raises(ShardError) as caught:
        reshard([spec], tmp_path / "out")
    assert (caught.value.key, caught.value.shard) == ("1", spec)
    assert "--bad-samples skip" in caught.value.remedy and "image 0" in caught.value.detail
    manifest = reshard([spec], tmp_path / "out", skip_damaged=True, max_reject_fraction=0.5)
    assert manifest.samples == 1
    line = json.loads((tmp_path / "out" / "new.rejects.jsonl").read_text())
    assert line["row"] == 1 and line["reason"].startswith("x: x-000.tar: sample 1: image 0")


@dataclass
class Photos(Numbered):
    """A source of JPEGs, of which the last is damaged."""

    def _row(self, row: int) -> Sample | RejectedRow:
        photo = image("JPEG", 40, 30 + row)
        images = [damaged_jpeg(photo) if row == self.total - 1 else photo]
        return from_turns([("q", "a")], images, source="photos", meta={})


def test_images_that_a_conversion_has_decoded_are_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []

    def check_image(data: bytes) -> None:
        decoded.append(data)

    monkeypatch.setattr("ocrdata.sample.check_image", check_image)
    whole = convert(Numbered(20), ConversionOptions(tmp_path / "a", "whole"))
    assert len(decoded) == whole.totals["images"] > 0
    decoded.clear()
    manifest = reshard([str(tmp_path / "a" / "whole.json")], tmp_path / "b", shard_samples=9)
    assert not decoded and manifest.totals["images"] == whole.totals["images"]
    # Without the manifest, or where it knows of damage, nothing is taken on trust.
    reshard([str(tmp_path / "a" / "whole-000.tar")], tmp_path / "c")
    assert not decoded  # the manifest beside it lists the shard
    (tmp_path / "a" / "whole.json").unlink()
    reshard([str(tmp_path / "a" / "whole-000.tar")], tmp_path / "d")
    assert len(decoded) == whole.totals["images"]
    before = convert(Photos(4), ConversionOptions(tmp_path / "a", "photos"))
    after = reshard([str(tmp_path / "a" / "photos.json")], tmp_path / "e", shard_samples=2)
    assert before.totals["damaged_jpegs"] == after.totals["damaged_jpegs"] == 1
    (line,) = (tmp_path / "e" / "new.damaged.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 3


def test_a_changed_input_is_told_from_changed_settings(
    sets: dict[str, str], tmp_path: Path
) -> None:
    """What an unfinished conversion left may be continued if its rows are the same."""
    write_samples(tmp_path, "one", [varied(number) for number in range(16)])
    spec = str(tmp_path / "one.json")
    (first,) = plan([spec])
    write_samples(tmp_path, "one", [varied(number) for number in [*range(8), *range(50, 58)]])
    (second,) = plan([spec])
    changed = {key for key in first.provenance if first.provenance[key] != second.provenance[key]}
    assert changed == {"sets"} and changed <= set(second.content)
    options = ConversionOptions(tmp_path / "out", "new", shard_samples=8)
    convert(second, options)
    with pytest.raises(UsageError, match="input that has changed"):
        convert(first, options)
    with pytest.raises(UsageError, match="shard_samples was 8, now 4"):
        convert(second, replace(options, shard_samples=4))
