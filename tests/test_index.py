import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.columns import SCHEMA, rows_digest
from ocrdata.errors import DiskError, ShardError
from ocrdata.format import FORMAT, seal
from ocrdata.image import ImageInfo
from ocrdata.index import (
    Index,
    index_path,
    read_header,
    read_index,
    read_key_range,
    write_index,
)
from ocrdata.indexfile import CACHE_VARIABLE, cached_index_path, find_index
from ocrdata.indexing import index_tar, split_name
from ocrdata.sample import Sample
from tests.rows import image, sample, samples, write_shard, write_tar


def same(one: Index, other: Index) -> bool:
    return one.header == other.header and bool(one.table.equals(other.table))


@settings(deadline=None, max_examples=60)
@given(st.lists(samples(), max_size=5), st.integers(0, 10**12))
def test_the_writer_gathers_what_is_found_in_the_tar(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Sample], start: int
) -> None:
    path = tmp_path_factory.mktemp("shard") / "x-000.tar"
    write_shard(path, rows, start)
    written, found = read_index(index_path(path)), index_tar(path)
    assert same(written, found)
    assert len(found) == len(rows)
    for position, row in enumerate(rows):
        assert found.row(position).turns == row.turns
        assert found.row(position).source == row.source
        assert len(found.row(position).images) == len(row.images)
    again = path.with_name("again.index.parquet")
    write_index(again, found)
    assert again.read_bytes() == index_path(path).read_bytes()


def test_a_row_says_everything_but_the_payload(tmp_path: Path) -> None:
    path = tmp_path / "x-000.tar"
    row = sample(7, ("PNG", "JPEG"))
    write_shard(path, [sample(6), row], start=6)
    index, data = read_index(index_path(path)), path.read_bytes()
    found = index.row(1)
    assert found.key == "000000007"
    assert (found.turns, found.source) == (1, "numbers")
    assert found.images == (ImageInfo("png", 15, 6), ImageInfo("jpg", 15, 7))
    names = [member.name for member in found.members]
    assert names == ["000000007.json", "000000007.png", "000000007.1.jpg"]
    payloads = [data[m.offset : m.offset + m.size] for m in found.members]
    assert payloads == [row.to_json(), *row.images]
    assert [xxhash.xxh3_128_digest(p) for p in payloads] == [m.digest for m in found.members]
    assert found.offset == index.row(0).offset + index.row(0).size
    assert found.offset + found.size == len(data) - 1024
    assert index.header.shard_digest == xxhash.xxh3_128_hexdigest(data)
    assert (index.find("000000007"), index.find("000000008")) == (1, None)


def test_any_tool_reads_it(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1, ())])
    table = pq.read_table(tmp_path / "x-000.index.parquet")
    rows = table.to_pylist()
    assert list(rows[0]) == ["key", "offset", "size", "members", "images", "turns", "source"]
    assert list(rows[0]["members"][0]) == ["name", "offset", "size", "xxh3_128"]
    assert rows[0]["images"] == [{"format": "png", "width": 8, "height": 6}]
    assert rows[1]["images"] == []
    said = json.loads(table.schema.metadata[FORMAT.encode()])
    assert said["version"] == "1.0"
    assert said["shard_size"] == (tmp_path / "x-000.tar").stat().st_size
    assert set(said) == {
        "format", "version", "shard_size", "shard_digest", "samples", "rows_digest", "digest",
    }  # fmt: skip


def test_counts_and_keys_come_from_the_footer(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", map(sample, range(5, 9)), start=5)
    path = tmp_path / "x-000.index.parquet"
    assert read_header(path) == read_index(path).header
    assert read_header(path).samples == 4
    assert read_key_range(path) == ("000000005", "000000008")
    write_shard(tmp_path / "none-000.tar", [])
    assert read_key_range(tmp_path / "none-000.index.parquet") is None


def test_keys_too_long_for_a_footer(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", [("k" * 5000 + ".txt", b"x")])
    low, high = read_key_range(find_index(tar)) or ("", "")
    assert low <= "k" * 5000 <= high


def test_the_rows_digest_is_what_its_definition_says(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1, ()), sample(2, ("GIF", "PNG"))])
    table = pq.read_table(tmp_path / "x-000.index.parquet", schema=SCHEMA)
    hasher = xxhash.xxh3_128()

    def number(*values: int) -> None:
        for value in values:
            hasher.update(value.to_bytes(8, "little"))

    def text(values: list[str]) -> None:
        number(*(len(value.encode()) for value in values))
        hasher.update("".join(values).encode())

    rows = table.to_pylist()
    text([row["key"] for row in rows])
    number(*(row["offset"] for row in rows), *(row["size"] for row in rows))
    number(*(len(row["members"]) for row in rows))
    members = [member for row in rows for member in row["members"]]
    text([member["name"] for member in members])
    number(*(m["offset"] for m in members), *(m["size"] for m in members))
    hasher.update(b"".join(member["xxh3_128"] for member in members))
    number(*(len(row["images"]) for row in rows))
    images = [image for row in rows for image in row["images"]]
    text([image["format"] for image in images])
    number(*(i["width"] for i in images), *(i["height"] for i in images))
    number(*(row["turns"] for row in rows))
    text([row["source"] for row in rows])
    assert rows_digest(table) == hasher.hexdigest()
    # It does not depend on how Arrow happens to hold the rows.
    parts = pa.concat_tables([table.slice(0, 1), table.slice(1, 2)])
    assert rows_digest(parts) == hasher.hexdigest()


def test_every_flipped_byte_is_an_error_or_harmless(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1, ("PNG", "GIF"))])
    path = tmp_path / "x-000.index.parquet"
    before, sound = path.read_bytes(), read_index(path)
    silent = []
    for at in range(0, len(before), 3):
        damaged = bytearray(before)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(bytes(damaged))
        try:
            if not same(read_index(path), sound):
                silent.append(at)
        except ShardError as exc:
            assert str(path) in str(exc)
    assert not silent


@pytest.mark.parametrize("cut", [0, 1, 4, 100, -100, -1])
def test_a_cut_index(tmp_path: Path, cut: int) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0)])
    path = tmp_path / "x-000.index.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    for read in (read_index, read_header, read_key_range):
        with pytest.raises(ShardError, match="index cannot be read"):
            read(path)


def rewritten(path: Path, change: dict[str, Any], table: pa.Table | None = None) -> None:
    """The index file with other metadata, properly sealed, or other rows."""
    old = pq.read_table(path)
    said = {**json.loads(old.schema.metadata[FORMAT.encode()]), **change}
    new = old if table is None else table
    pq.write_table(new.replace_schema_metadata({FORMAT: json.dumps(seal(said))}), path)


def test_a_newer_version_is_refused_in_one_line(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0)])
    path = tmp_path / "x-000.index.parquet"
    rewritten(path, {"version": "1.7"})
    assert read_index(path).header.version == "1.7"
    rewritten(path, {"version": "2.0"})
    with pytest.raises(ShardError, match=r"format version 2.0 is newer than this reader's 1.0"):
        read_index(path)
    rewritten(path, {"version": "x"})
    with pytest.raises(ShardError, match="'x' is no format version"):
        read_header(path)


def test_an_index_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.index.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ShardError, match="not an index"):
        read_index(path)
    write_shard(tmp_path / "x-000.tar", [sample(0)])
    path = tmp_path / "x-000.index.parquet"
    rewritten(path, {}, pa.table({"a": [1]}))
    with pytest.raises(ShardError, match="columns are not those of an index"):
        read_index(path)


def test_rows_that_were_changed(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1)])
    path = tmp_path / "x-000.index.parquet"
    rows = pq.read_table(path)
    rewritten(path, {}, rows.slice(0, 1))
    with pytest.raises(ShardError, match="the rows are not those"):
        read_index(path)


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("offset", 0, -512),
        ("offset", 1, 0),
        ("size", 1, 1 << 40),
        ("size", 0, 2**63 - 1),
        ("offset", 1, 2**63 - 1),
    ],
)
def test_rows_that_contradict_themselves(
    tmp_path: Path, column: str, row: int, value: int
) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1)])
    path = tmp_path / "x-000.index.parquet"
    values = pq.read_table(path).to_pylist()
    values[row][column] = value
    table = pa.Table.from_pylist(values, schema=SCHEMA)
    rewritten(path, {"rows_digest": rows_digest(table)}, table)
    with pytest.raises(ShardError, match="contradicts itself"):
        read_index(path)


def test_members_that_lie_elsewhere(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1)])
    path = tmp_path / "x-000.index.parquet"
    good = pq.read_table(path).to_pylist()
    for change in ({"offset": 1 << 30}, {"size": 1 << 30}, {"size": -1}, None):
        values = pq.read_table(path).to_pylist()
        if change is None:
            values[0]["members"] = []
        else:
            values[0]["members"][0] |= change
        table = pa.Table.from_pylist(values, schema=SCHEMA)
        rewritten(path, {"rows_digest": rows_digest(table)}, table)
        with pytest.raises(ShardError, match="contradicts itself"):
            read_index(path)
        table = pa.Table.from_pylist(good, schema=SCHEMA)
        rewritten(path, {"rows_digest": rows_digest(table)}, table)
        read_index(path)


def test_anybodys_tar_is_indexed(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "photos.tar",
        [
            ("README", b"no sample"),
            ("a/.hidden.png", b"no sample"),
            ("a/one.jpg", image("JPEG")),
            ("a/one.txt", b"a caption"),
            ("a/two.seg.PNG", b"not an image"),
            ("a/two.json", b'{"source": "web", "other": 1}'),
            ("b/one.cls", b"3"),
            ("b/one.bin", bytes(3 << 20)),
        ],
    )
    index = index_tar(tar)
    assert index.keys == ["a/one", "a/two", "b/one"]
    assert [index.row(at).turns for at in range(3)] == [1, 0, 0]
    assert [index.row(at).source for at in range(3)] == ["", "web", ""]
    assert index.row(0).images == (ImageInfo("jpg", 8, 6),)
    assert index.row(1).images == (ImageInfo("", 0, 0),)
    big = index.row(2).members[1]
    assert (big.size, big.digest) == (3 << 20, xxhash.xxh3_128_digest(bytes(3 << 20)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "b.png", "a.txt"], "sample a: member a.txt: members of one sample are not adj"),
        (["a.png", "a.txt", "a.png"], "sample a: member a.png: the name stands twice"),
        (["a.png", "../b.png"], r"member name '../b.png' holds a '\.\.'"),
    ],
)
def test_tars_that_are_no_data_set(tmp_path: Path, names: list[str], message: str) -> None:
    tar = write_tar(tmp_path / "x.tar", [(name, b"x") for name in names])
    with pytest.raises(ShardError, match=message):
        index_tar(tar)


@pytest.mark.parametrize("raw", [b"{", b"[1]", b'{"messages": 3}', b"[" * 10**5, b"\xff", b'{"source": "\\ud800"}'])
def test_json_that_is_not_ours_has_no_turns(tmp_path: Path, raw: bytes) -> None:
    tar = write_tar(tmp_path / "x.tar", [("a.json", raw)])
    assert index_tar(tar).row(0).turns == 0


def test_a_tar_without_its_end_is_not_indexed(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", [("a.png", image("PNG")), ("b.png", image("PNG"))])
    data = tar.read_bytes()
    tar.write_bytes(data[:1024])
    with pytest.raises(ShardError, match="truncated or damaged"):
        find_index(tar)
    assert not index_path(tar).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_names_and_samples() -> None:
    assert split_name("000000001.json") == ("000000001", "json")
    assert split_name("a.b/c.1.jpg") == ("a.b/c", "1.jpg")
    assert split_name("README") is None
    assert split_name("a/.DS_Store") is None


def test_an_index_is_made_once_beside_the_tar(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tar = write_tar(tmp_path / "x.tar", [("a.txt", b"x")])
    assert find_index(tar) == tmp_path / "x.index.parquet"
    assert "x.tar has no index; reading it whole, once" in caplog.text
    caplog.clear()
    assert find_index(tar) == tmp_path / "x.index.parquet"
    assert not caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.index.parquet", "x.tar"]


def test_an_index_goes_to_the_cache_where_it_cannot_lie_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    stem = "x" * 250  # its index's name is longer than a name may be
    tars = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        tars.append(write_tar(tmp_path / folder / f"{stem}.tar", [(f"{folder}.txt", b"x")]))
    files = [find_index(tar) for tar in tars]
    assert files == [cached_index_path(tar) for tar in tars]
    assert [read_index(file).keys for file in files] == [["one"], ["two"]]
    assert [find_index(tar) for tar in tars] == files
    assert len(list((tmp_path / "cache").iterdir())) == 2
    write_tar(tars[0], [("other.txt", b"longer than before" * 1000)])
    assert read_index(find_index(tars[0])).keys == ["other"]


def test_no_place_for_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    tar = write_tar(tmp_path / f"{'x' * 250}.tar", [("a.txt", b"x")])
    with pytest.raises(DiskError, match="not a folder"):
        find_index(tar)


def test_the_cache_is_in_the_home_folder_unless_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from ocrdata.indexfile import cache_folder

    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "ocr-shards"


def test_a_tar_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="the file is gone"):
        find_index(tmp_path / "absent.tar")
