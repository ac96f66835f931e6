"""Bombs for `ocrdata`: tars, names, images, compressed shards, Parquet, JSON."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ocrdata.images.modes import ImageMode
from ocrdata.reading.samples import load_sample
from ocrdata.reading.verify import ShardStatistics, find, verify_shards
from ocrdata.reading.view import open_shards
from ocrdata.sample import check as check_sample
from ocrdata.shards.arrow import SCHEMA, rows_digest
from ocrdata.shards.index import index_path
from ocrdata.shards.manifest import read_manifest
from ocrdata.shards.tar import BLOCK, END, header, padding
from ocrdata.sources.json_rows import RowFile
from ocrdata.sources.jsonl import RecordFormat
from ocrdata.storage.sealed import FORMAT, seal
from ocrdata.tokens.counts import SCHEMA as COUNTS_SCHEMA
from ocrdata.tokens.counts import CountsBuilder, read_counts, write_counts
from ocrdata.tokens.rendering import TurnCount
from ocrdata.tokens.tokenizer import load_tokenizer, train_tokenizer
from tests.support.bombs import Bomb, deep
from tests.support.claims import CLAIMS, SIDE
from tests.support.compressed import write_chats
from tests.support.rows import image, sample, write_set, write_shard
from tests.support.tarheaders import with_checksum
from tests.support.zstdfiles import bomb as zstd_bomb

ROWS = 600_000
LONG, TURNS = 100_000_000, 20_000_000
INDEX, PRINT = "0" * 32, "f" * 16


def train_on(folder: Path) -> None:
    """Fetch, verify and decode every sample, as training does."""
    shards = open_shards(str(folder))
    for position in range(len(shards)):
        load_sample(shards, position, source="x", mode=ImageMode(1024))


def check_all(folder: Path) -> None:
    """Raise the first error that verification finds."""
    for error in verify_shards(find(str(folder)), ShardStatistics()):
        raise error


def _picture(name: str, folder: Path, hostile: bool) -> None:
    make, ending, side = CLAIMS[name]
    data = make(side if hostile else SIDE)
    with tarfile.open(folder / "x.tar", "w") as tar:
        for member, content in ((f"a.{ending}", data), ("a.txt", b"text")):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    record = {"prompt": "q", "answer": "a", "image": f"a.{ending}"}
    (folder / f"a.{ending}").write_bytes(data)
    (folder / "line.jsonl").write_text(json.dumps(record))


def _convert(folder: Path) -> None:
    line = (folder / "line.jsonl").read_bytes()
    check_sample(RecordFormat(folder, "x")(line))


def _member(change: Callable[[tarfile.TarInfo, Path], None], folder: Path, hostile: bool) -> None:
    """A valid sample, then a member changed by `change`."""
    with tarfile.open(folder / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in (("a.png", image("PNG")), ("a.txt", b"text"), ("b.png", image("PNG")),
                           ("b.txt", b"text")):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if hostile and name == "b.png":
                change(info, folder)
            tar.addfile(info, io.BytesIO(data))


def _named(name: str) -> Callable[[tarfile.TarInfo, Path], None]:
    def change(info: tarfile.TarInfo, folder: Path) -> None:
        info.pax_headers = {"path": name.replace("FOLDER", str(folder.parents[1]))}

    return change


def _kind(kind: bytes) -> Callable[[tarfile.TarInfo, Path], None]:
    def change(info: tarfile.TarInfo, folder: Path) -> None:
        info.type, info.size, info.linkname = kind, 0, "/etc/passwd"

    return change


def _claim(size: int, kind: bytes, folder: Path, hostile: bool) -> None:
    """A tar of a few KiB with a member header that claims `size` bytes."""
    write_shard(folder / "x.tar", [sample(0)])
    if hostile:
        block = header("b.png", 3)
        block = (
            block[:124] + b"\x80" + size.to_bytes(11, "big") + block[136:156] + kind + block[157:]
        )
        whole = (folder / "x.tar").read_bytes()[: -len(END)]
        (folder / "x.tar").write_bytes(whole + with_checksum(block) + bytes(BLOCK) + END)
    index_path(folder / "x.tar").path.unlink()


def _extended(folder: Path, hostile: bool) -> None:
    """A PAX header with a comment of 96 MiB, which is in the file."""
    size = 96 << 20 if hostile else 40
    record = b"%d comment=" % size
    record += b"c" * (size - len(record) - 1) + b"\n"
    head = header("pax", size)
    with (folder / "x.tar").open("wb") as file:
        file.write(with_checksum(head[:156] + b"x" + head[157:]))
        file.write(record + bytes(padding(size)))
        for name, data in (("a.png", image("PNG")), ("a.txt", b"text")):
            file.write(header(name, len(data)) + data + bytes(padding(len(data))))
        file.write(END)


def _compressed(says: bool, folder: Path, hostile: bool) -> None:
    write_chats(folder / "x.tar.zst", 3)
    index_path(folder / "x.tar.zst").path.unlink()
    if hostile:
        zstd_bomb(folder / "x.tar.zst", declares_size=says)


def _repeat(path: Path) -> None:
    """Rewrite a Parquet file as its first row `ROWS` times, with unchanged metadata."""
    table = pq.read_table(path)
    metadata = pq.read_metadata(path).metadata
    part = table.take([0] * (ROWS // 10)).replace_schema_metadata(
        {FORMAT: metadata[FORMAT.encode()]}
    )
    with pq.ParquetWriter(
        path, part.schema, compression="zstd", write_page_checksum=True
    ) as writer:
        for _ in range(10):
            writer.write_table(part)
    assert path.stat().st_size < 1 << 20


def _index(folder: Path, hostile: bool) -> None:
    write_shard(folder / "x-000.tar", [sample(0), sample(1)])
    if hostile:
        _repeat(index_path(folder / "x-000.tar").path)


def _by_key(folder: Path) -> None:
    open_shards(str(folder)).by_key("000000001")


def _counts(folder: Path, hostile: bool) -> None:
    builder = CountsBuilder()
    builder.add([TurnCount(1, 2, 0)] * 9)
    write_counts(folder / "c.parquet", builder.finish(), rows_digest=INDEX, fingerprint=PRINT)
    if hostile:
        _repeat(folder / "c.parquet")


def _read_counts(folder: Path) -> None:
    read_counts(folder / "c.parquet", rows_digest=INDEX, fingerprint=PRINT, tar_size=10_240)


def _sealed(path: Path, table: pa.Table, **says: object) -> None:
    """Replace the rows of a Parquet file beside a shard, with a valid digest in its metadata."""
    said = json.loads(pq.read_schema(path).metadata[FORMAT.encode()]) | says
    document = json.dumps(seal(said | {"rows_digest": rows_digest(table)}))
    pq.write_table(table.replace_schema_metadata({FORMAT: document}), path, compression="zstd")


def _changed(change: Callable[[dict[str, Any]], object], folder: Path, hostile: bool) -> None:
    """An index of one row with a value that its tar cannot contain."""
    write_shard(folder / "x-000.tar", [sample(0)])
    path = index_path(folder / "x-000.tar").path
    if hostile:
        (row,) = pq.read_table(path).to_pylist()
        change(row)
        _sealed(path, pa.Table.from_pylist([row], SCHEMA))


def _claiming(folder: Path, hostile: bool) -> None:
    """As `_changed`, with a manifest, and an index that claims a tar of 1 TiB."""
    write_set(folder, "x", [1])
    path = index_path(folder / "x-000.tar").path
    if hostile:
        (row,) = pq.read_table(path).to_pylist()
        table = pa.Table.from_pylist([row | {"source": "x" * LONG}], SCHEMA)
        _sealed(path, table, shard_size=1 << 40)


def _turns(folder: Path, hostile: bool) -> None:
    """Token counts of one sample of twenty million turns."""
    builder = CountsBuilder()
    builder.add([TurnCount(1, 2, 0)])
    path = folder / "c.parquet"
    write_counts(path, builder.finish(), rows_digest=INDEX, fingerprint=PRINT)
    if hostile:
        ones = pa.array(np.ones(TURNS, np.int32))
        kind = COUNTS_SCHEMA.field("turns").type
        inner = pa.StructArray.from_arrays([ones] * 3, fields=list(kind.value_type))
        lists = pa.ListArray.from_arrays(pa.array([0, TURNS], pa.int32()), inner, type=kind)
        _sealed(path, pa.table([lists], schema=COUNTS_SCHEMA))


def _key_json(shape: str, folder: Path, hostile: bool) -> None:
    sound = sample(0, ()).to_json().decode()
    meta = f'"meta": {{"x": {deep(shape) if hostile else 1}}}'
    text = sound[: sound.rindex('"meta"')] + meta + "}"
    data = text.encode()
    block = header("a.json", len(data)) + data + bytes(padding(len(data)))
    (folder / "x.tar").write_bytes(block + END)


def _line(shape: str, folder: Path, hostile: bool) -> None:
    text = f'{{"prompt": "q", "answer": "a", "x": {deep(shape) if hostile else 1}}}'
    (folder / "line.jsonl").write_text(text)
    (folder / "array.json").write_text(f"[{text}, {text}]")


def _rows(folder: Path) -> None:
    rows = RowFile(folder / "array.json")
    assert len(list(rows.rows(0, rows.count))) == 2


def _manifest(shape: str, folder: Path, hostile: bool) -> None:
    write_set(folder, "x", [1])
    if hostile:
        whole = (folder / "x.json").read_text()
        (folder / "x.json").write_text(whole.rstrip()[:-1] + f', "x": {deep(shape)}}}')


def _footer(shape: str, folder: Path, hostile: bool) -> None:
    write_shard(folder / "x-000.tar", [sample(0)])
    if hostile:
        path = index_path(folder / "x-000.tar").path
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({FORMAT: deep(shape)}), path)


def _tokenizer(shape: str, folder: Path, hostile: bool) -> None:
    train_tokenizer(["What?"], 266).save(folder / "tokenizer.json")
    if hostile:
        (folder / "tokenizer.json").write_text(f'{{"model": {deep(shape)}}}')


NAMES = (
    ("..", _named("../outside.png"), r"outside\.png.*'\.\.'"),
    ("deep ..", _named("b/../../../outside.png"), r"outside\.png.*'\.\.'"),
    ("absolute", _named("FOLDER/outside.png"), r"outside\.png.*absolute"),
    ("NUL", _named("b\0.png"), "NUL"),
    ("a name twice", _named("a.png"), r"a\.png.*duplicate"),
    ("symbolic link", _kind(tarfile.SYMTYPE), "symbolic link"),
    ("hard link", _kind(tarfile.LNKTYPE), "hard link"),
    ("character device", _kind(tarfile.CHRTYPE), "character device"),
    ("block device", _kind(tarfile.BLKTYPE), "block device"),
    ("pipe", _kind(tarfile.FIFOTYPE), "a pipe"),
)
DEEP = (
    ("KEY.json", _key_json, train_on, r"a\.json.*recursion"),
    ("line", _line, _convert, "JSON.*recursion"),
    ("array", _line, _rows, "nested"),
    ("manifest", _manifest, lambda folder: read_manifest(folder / "x.json"), "JSON.*recursion"),
    ("index", _footer, train_on, r"index\.parquet.*JSON.*recursion"),
    ("tokenizer", _tokenizer, load_tokenizer, r"tokenizer\.json.*recursion"),
)
BOMBS = (
    *(Bomb(f"image {name}", partial(_picture, name), train_on, "pixels|Image size")
      for name in CLAIMS),
    *(Bomb(f"image {name}, converted", partial(_picture, name), _convert, "pixels|Image size")
      for name in CLAIMS),
    *(Bomb(f"name {name}", partial(_member, change), train_on, says)
      for name, change, says in NAMES),
    *(Bomb(f"name {name}, checked", partial(_member, change), check_all, says)
      for name, change, says in NAMES),
    Bomb("8 TiB", partial(_claim, 8 << 40, b"0"), train_on, "8,796,093,022,208 bytes"),
    Bomb("8 TiB of PAX", partial(_claim, 8 << 40, b"x"), train_on, "header.* 8,796,093,022,208"),
    Bomb("96 MiB of PAX", _extended, train_on, "extended header.* 100,663,296 bytes"),
    Bomb("1 GiB in 32 KiB", partial(_compressed, True), train_on, "decompress.* 1,073,741,824"),
    Bomb("1 GiB in 32 KiB, piped", partial(_compressed, False), train_on, "decomp.* 100,663,296"),
    Bomb("index", _index, train_on, "600,000 rows"),
    Bomb("index, by key", _index, _by_key, "600,000 rows"),
    Bomb("token counts", _counts, _read_counts, "600,000 rows"),
    Bomb("index, a long source", partial(_changed, lambda row: row.update(source="x" * LONG)),
         train_on, "columns.* 100,"),
    Bomb("index, a million members",
         partial(_changed, lambda row: row.update(members=row["members"][:1] * 1_000_000)),
         train_on, "columns.* 96,000,"),
    Bomb("index, of a tar of 1 TiB", _claiming, train_on, "columns.* 100,"),
    Bomb("token counts, many turns", _turns, _read_counts, "columns.* 1,440,000,"),
    *(Bomb(f"deep {name}, {shape}", partial(make, shape), read, says)
      for name, make, read, says in DEEP for shape in ("list", "object")),
)  # fmt: skip
