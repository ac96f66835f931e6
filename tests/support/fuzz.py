"""Properties of every parser of external bytes and texts: for any input, it returns a value or
raises an `OcrError`.

`make test` checks `PROPERTIES` with 200 examples each, `make torture` with 10,000. The files of a
property are made once and mutated in memory.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ocrdata.errors import OcrError, ShardError, SpecError
from ocrdata.reading.index_tar import index_tar
from ocrdata.reading.slices import parse_slice, split_slice
from ocrdata.reading.spec import resolve
from ocrdata.reading.view import open_shards
from ocrdata.shards.index import Index, index_path, read_header, read_index, read_key_range
from ocrdata.shards.manifest import is_manifest, read_manifest
from ocrdata.shards.tar import Walker
from tests.support.faulttargets import make_set

Check = Callable[[Any], None]


@dataclass(frozen=True)
class Property:
    """`prepare(folder)` makes the files and returns the check of one example of `values`."""

    name: str
    values: Callable[[], st.SearchStrategy[Any]]
    prepare: Callable[[Path], Check]


def examine(one: Property, folder: Path, examples: int) -> int:
    """Check a property in a folder; returns the number of examples checked."""
    check, count = one.prepare(folder), 0

    def counted(value: Any) -> None:
        nonlocal count
        check(value)
        count += 1

    limits = settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    limits(given(one.values())(counted))()
    return count


NASTY = {
    "overflow": b"1e999", "nan": b"NaN", "minus": b"-1", "lists": b"[" * 50_000, "bom": b"\xff\xfe",
    "objects": b'{"a":' * 5_000, "null": b"null", "digits": b"9" * 5_000, "zeros": bytes(600),
    "surrogate": b'"\\ud800"', "brace": b"}", "empty": b'""', "line": b"\n",
}  # fmt: skip
"""By name, so that reports of failures stay short."""

# Mutations: where (as a fraction of the length), what, and with which bytes.
EDIT = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["flip", "replace", "insert", "remove", "cut", "repeat"]),
    st.binary(min_size=1, max_size=8) | st.sampled_from(sorted(NASTY)),
)
Edit = tuple[float, str, bytes | str]
EDITS = st.lists(EDIT, min_size=1, max_size=4)


def mutated(data: bytes, edits: list[Edit]) -> bytes:
    """`data` with the edits applied."""
    for where, kind, what in edits:
        new = NASTY[what] if isinstance(what, str) else what
        at = int(where * len(data))
        if kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ 1 << new[0] % 8]) + data[at + 1 :]
        elif kind == "replace":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "remove":
            data = data[:at] + data[at + 16 * len(new) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "repeat":
            data = data[:at] + data[at : at + 64] * 2 + data[at + 64 :]
    return data


def walked(data: bytes) -> list[tuple[str, bytes]]:
    """Names and payloads by our walker; asserts that it reads no byte outside the tar."""

    def read(offset: int, size: int) -> bytes:
        assert offset >= 0 and size >= 0 and offset + size <= len(data)
        return data[offset : offset + size]

    members = list(Walker("x.tar", read, len(data)).all())
    return [(m.name, data[m.offset : m.offset + m.size]) for m in members if m.regular]


NAME = st.from_regex(r"[a-z0-9_]{1,120}(/[a-z0-9_]{1,99}){0,2}\.(json|png|1\.jpg)", fullmatch=True)
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def tars() -> st.SearchStrategy[Any]:
    """Members, and the tar format they are written in."""
    files = st.lists(st.tuples(NAME, st.binary(max_size=1200)), max_size=5)
    return st.tuples(files, st.sampled_from(FORMATS))


def written(files: list[tuple[str, bytes]], form: int) -> bytes:
    """A tar written by Python's tarfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError:
                assume(form != tarfile.USTAR_FORMAT)  # a name that ustar cannot hold
                raise
    return buffer.getvalue()


def well_formed_tar(_: Path) -> Check:
    """Our walker finds the same members as Python's tarfile."""

    def check(value: Any) -> None:
        data = written(*value)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            files = ((entry.name, tar.extractfile(entry)) for entry in tar.getmembers())
            theirs = [(name, file.read()) for name, file in files if file is not None]
        assert walked(data) == theirs == value[0]

    return check


def mutated_tar(folder: Path) -> Check:
    """Whatever the walker accepts can be indexed and opened, and nothing else. Some mutations get
    valid checksums, to reach the parts of the parser behind the checksum test."""
    path = folder / "y.tar"

    def check(value: Any) -> None:
        (files, form), edits, repaired = value
        data = mutated(written(files, form), edits)
        path.write_bytes(with_checksums(data) if repaired else data)
        valid = True
        try:
            found = walked(path.read_bytes())
        except ShardError as exc:
            assert exc.shard == "x.tar"
            valid = False
        try:
            index = index_tar(path)
            assert valid, "it was indexed, although the walker rejects it"
            payloads = dict(found)
            for at in range(len(index)):
                for member in index.members(at):
                    assert member.size == len(payloads[member.name])
            assert sum(1 for m in open_shards(str(path)).iter_members() for _ in m) <= len(found)
        except OcrError as exc:
            assert "y" in str(exc)
        index_path(path).path.unlink(missing_ok=True)

    return check


def with_checksums(data: bytes) -> bytes:
    """Give every block that looks like a header a valid checksum."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == 512:
            total = sum(block) - sum(block[148:156]) + 8 * 32
            blocks[number] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


def arbitrary_blocks(_: Path) -> Check:
    """A tar of arbitrary blocks is walked or is a ShardError."""

    def check(value: Any) -> None:
        try:
            walked(with_checksums(b"".join(value)))
        except ShardError as exc:
            assert exc.shard == "x.tar"

    return check


def blocks() -> st.SearchStrategy[Any]:
    """Blocks of zeros, of random bytes, and headers with random fields."""
    kind = st.sampled_from([b"0", b"5", b"x", b"g", b"L", b"K", b"1", b"\0", b"S", b"Z"])
    number = st.sampled_from([b"00000000003\0", b"\x80" + bytes(7) + b"\x10\0\0\0", b"\xff" * 12,
                              b"77777777777\0", b"00000000000 ", b"0000000001x\0"])  # fmt: skip
    name = st.binary(max_size=100)

    def header(value: tuple[bytes, bytes, bytes]) -> bytes:
        name, number, kind = value
        block = name.ljust(100, b"\0") + bytes(24) + number + b"0" * 12 + bytes(8) + kind
        return (block + bytes(100) + b"ustar\x0000").ljust(512, b"\0")

    record = st.sampled_from([b"12 path=abc\n", b"99 path=a\n", b"11 size=99\n",
                              b"20 GNU.sparse.x=1\n", b"5 a=\n", b"-1 a=b\n",
                              b"\xb2 a=b\n"])  # fmt: skip
    records = st.lists(record, max_size=3).map(lambda r: b"".join(r).ljust(512, b"\0"))
    noise = st.binary(max_size=512).map(lambda b: b.ljust(512, b"\0"))
    block = st.tuples(name, number, kind).map(header) | noise | records | st.just(bytes(512))
    return st.lists(block, max_size=12)


def mutated_index(folder: Path) -> Check:
    """The original rows, footer and key range, or an error."""
    make_set(folder)
    path = folder / "x-000.index.parquet"
    whole, good, head, keys = path.read_bytes(), read_index(path), read_header(path), ("", "")
    keys = read_key_range(path) or keys

    def check(edits: Any) -> None:
        path.write_bytes(mutated(whole, edits))
        for read in (read_index, read_header, read_key_range):
            try:
                found = read(path)
            except OcrError as exc:
                assert "x-000" in str(exc)
                continue
            if isinstance(found, Index):
                assert found.table.equals(good.table) and found.header == head
            if read is read_header:
                assert found == head

    return check


def mutated_manifest(folder: Path) -> Check:
    """The original manifest, or an error."""
    make_set(folder)
    path = folder / "x.json"
    whole, good = path.read_bytes(), read_manifest(path)

    def check(edits: Any) -> None:
        path.write_bytes(mutated(whole, edits))
        is_manifest(path)
        try:
            assert read_manifest(path) == good
        except ShardError as exc:
            assert exc.shard == str(path)

    return check


def any_spec(folder: Path) -> Check:
    """Any text resolves to files or raises an OcrError."""
    make_set(folder)

    def check(text: str) -> None:
        before = Path.cwd()
        os.chdir(folder)
        try:
            found = resolve(text)
            assert found.files
        except OcrError as exc:
            assert str(exc)
        finally:
            os.chdir(before)

    return check


def specs() -> st.SearchStrategy[Any]:
    """The syntax elements of specs in any order, and arbitrary text."""
    word = st.sampled_from(
        ["x-", "000", "001", "<000..001>", "{000..001}", "{x,y}-", ".tar", ".json", "*", "?", "[",
         "]", "[:3]", "[0:9:2]", "[::-1]", "[5]", "[1:", "<", ">", "{", "}", "..", "/", ".", "~",
         "https://", "s3://", "a" * 300, "9" * 5_000, "\0", "\ud800", "x-000.tar", " ", "-1", ":",
         "[!x]", "**", "\u0663", "{,}", "<1..0>", "<5..5>", "\n", "x"]
    )  # fmt: skip
    words = st.lists(word, max_size=8).map("".join)
    return (words | st.text(max_size=60)).filter(
        # Patterns over the whole disk and ranges of half a million names only take time.
        lambda text: not text.startswith("/") and "../" not in text and "..9999" not in text
    )


def any_slice(_: Path) -> Check:
    """A slice selects what it selects from a list."""
    items = list(range(20))

    def check(value: Any) -> None:
        start, stop, step = value
        text = ":".join("" if part is None else str(part) for part in (start, stop, step))
        base, found = split_slice(f"nowhere/x.tar[{text}]")
        assert base == "nowhere/x.tar"
        try:
            parsed = parse_slice("x", found)
        except SpecError:
            assert step == 0
            return
        assert parsed is not None
        assert items[parsed] == items[start:stop:step]
        assert list(range(20)[parsed]) == items[start:stop:step]

    return check


INTEGERS = st.none() | st.integers(-25, 25)

PROPERTIES: tuple[Property, ...] = (
    Property("well-formed tars", tars, well_formed_tar),
    Property("mutated tars", lambda: st.tuples(tars(), EDITS, st.booleans()), mutated_tar),
    Property("arbitrary blocks", blocks, arbitrary_blocks),
    Property("mutated index", lambda: EDITS, mutated_index),
    Property("mutated manifest", lambda: EDITS, mutated_manifest),
    Property("any spec", specs, any_spec),
    Property("any slice", lambda: st.tuples(INTEGERS, INTEGERS, INTEGERS), any_slice),
)  # fmt: skip
