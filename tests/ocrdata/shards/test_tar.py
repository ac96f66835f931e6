import contextlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import ShardError, TruncatedError
from ocrdata.shards.tar import BLOCK, END, Walker, header, padding, unsafe_name
from tests.support.tarheaders import with_checksum

ascii_names = st.from_regex(r"[A-Za-z0-9_ .-]{1,60}(/[A-Za-z0-9_ .-]{1,60}){0,4}", fullmatch=True)
names = st.one_of(ascii_names, st.text("aé漢/.b", min_size=1, max_size=160)).filter(
    lambda name: not unsafe_name(name) and not name.endswith("/")
)
members = st.lists(
    st.tuples(names, st.binary(max_size=1500)), max_size=6, unique_by=lambda pair: pair[0]
)


def walker(data: bytes) -> Walker:
    def read(offset: int, size: int) -> bytes:
        assert offset >= 0 and offset + size <= len(data), "reads past the end"
        return data[offset : offset + size]

    return Walker("x.tar", read, len(data))


def walked(data: bytes) -> list[tuple[str, bytes]]:
    return [
        (member.name, data[member.offset : member.offset + member.size])
        for member in walker(data).all()
        if member.regular
    ]


def built(files: list[tuple[str, bytes]]) -> bytes:
    return b"".join(header(n, len(d)) + d + bytes(padding(len(d))) for n, d in files) + END


@settings(deadline=None)
@given(members)
def test_what_we_write_is_read_by_python_and_by_us(files: list[tuple[str, bytes]]) -> None:
    data = built(files)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = tar.getmembers()
        read = [(info.name, tar.extractfile(info).read()) for info in infos]  # type: ignore[union-attr]
    assert read == [(name, payload) for name, payload in files] == walked(data)
    for info in infos:
        assert (info.mode, info.mtime, info.uid, info.gid, info.uname) == (0o644, 0, 0, 0, "")


@settings(deadline=None)
@given(members, st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_python_writes_is_read_by_us(files: list[tuple[str, bytes]], form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        kept = []
        for name, payload in files:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            try:
                tar.addfile(info, io.BytesIO(payload))
            except ValueError:  # ustar cannot hold the name
                continue
            kept.append((name, payload))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert walked(buffer.getvalue()) == kept


def test_names_and_sizes_that_do_not_fit_ustar_get_a_pax_header() -> None:
    assert len(header("000000001.json", 8**11 - 1)) == BLOCK
    assert len(header("x" * 100 + "/" + "y" * 100, 0)) == BLOCK
    for name, size in (("x" * 101, 0), ("é", 0), ("big", 8**11), ("a/" * 90 + "b" * 99, 0)):
        data = header(name, size)
        assert len(data) == 3 * BLOCK
        with tarfile.open(fileobj=io.BytesIO(data + END)) as tar:
            info = tar.next()
        assert info is not None
        assert (info.name, info.size) == (name, size)


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a\0b"])
def test_unsafe_names_are_not_written(name: str) -> None:
    with pytest.raises(ValueError, match="member name"):
        header(name, 0)


def changed(at: int, new: bytes, name: str = "a.txt", size: int = 3) -> bytes:
    """A tar of one member whose header has other bytes at one place and a right checksum."""
    block = header(name, size)
    return with_checksum(block[:at] + new + block[at + len(new) :]) + b"abc" + bytes(509) + END


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (b"1", "hard link"),
        (b"2", "symbolic link"),
        (b"3", "character device"),
        (b"4", "block device"),
        (b"6", "a pipe"),
        (b"K", "long name"),
        (b"S", "sparse"),
        (b"Z", "unknown type"),
    ],
)
def test_only_regular_files(kind: bytes, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        walked(changed(156, kind))


@pytest.mark.parametrize(
    ("name", "message"), [("/a.txt", "absolute"), ("../a.txt", r"'\.\.'"), ("", "is empty")]
)
def test_names_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        walked(changed(0, name.encode().ljust(100, b"\0")))


def pax(records: bytes, kind: bytes = b"x", claim: int | None = None) -> bytes:
    head = header("pax", len(records) if claim is None else claim)
    head = with_checksum(head[:156] + kind + head[157:])
    return (
        head
        + records
        + bytes(padding(len(records)))
        + header("a.txt", 3)
        + b"abc"
        + bytes(509)
        + END
    )


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (b"12 path=a\0b\n", "NUL"),
        (b"12 path=../\n", r"'\.\.'"),
        (b"9 path=\xff\n", "byte 0 .*UTF-8"),
        (b"99 path=a\n", "malformed"),
        (b"path=a\n", "malformed"),
        (b"10 path=ab\r", "malformed"),
        (b"11 size=-1\n", "byte 0 .*size"),
        (b"24 GNU.sparse.major=1\n\0\0", "sparse|malformed"),
        (b"22 GNU.sparse.major=1\n", "sparse"),
    ],
)
def test_bad_pax_headers(records: bytes, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        walked(pax(records))


def test_a_global_comment_is_ignored() -> None:
    assert walked(pax(b"15 comment=abc\n", kind=b"g")) == [("a.txt", b"abc")]


def test_more_bad_headers() -> None:
    for data, message in (
        (pax(b"9 path=b\n", kind=b"g"), "global.*byte 0"),
        (pax(b"", claim=2 << 20), "extended header at byte 512 .*2,097,152 bytes"),
        (pax(b"", claim=1 << 19), "extended header at byte 512 "),
        (pax(b"9 path=b\n")[: 2 * BLOCK] + END, "extended header.*byte 0"),
        (changed(124, b"00000000009z"), "byte 0 .*numeric"),
        (changed(124, b"\xff" * 12), "byte 0 .*numeric"),
        (changed(124, b"77777777777\0"), "8,589,934,591 bytes"),
        (changed(124, b"\x80" + (8 << 40).to_bytes(11, "big")), "8,796,093,022,208 bytes"),
        (changed(0, b"\xff"), "byte 0 .*UTF-8"),
        (built([("a.txt", b"abc")])[:-BLOCK] + b"x" * BLOCK, "data after the end mark"),
        (built([("a.txt", b"abc")])[:-BLOCK], "no end mark"),
        (b"\x01" * 1024, "byte 0"),
    ):
        with pytest.raises(ShardError, match=message):
            walked(data)


def test_old_signed_checksums_are_understood() -> None:
    block = header("a.txt", 3)
    block = b"\xc3\xa9.txt" + block[6:148] + b" " * 8 + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    block = block[:148] + b"%06o\0 " % signed + block[156:]
    assert walked(block + b"abc" + bytes(509) + END) == [("é.txt", b"abc")]


def test_a_part_is_filled_exactly() -> None:
    data = built([("a.json", b"{}"), ("a.png", b"x" * 600)])
    assert [member.name for member in walker(data).part(0, 2560)] == ["a.json", "a.png"]
    with pytest.raises(ShardError, match="a zero block"):
        list(walker(data).part(0, len(data)))
    with pytest.raises(TruncatedError, match="600 bytes"):
        list(walker(data).part(0, 2048))


def test_every_cut_is_found() -> None:
    data = built([("a.json", b"{}"), ("a.png", os.urandom(700)), ("b.json", b"")])
    for cut in range(len(data)):
        with pytest.raises(ShardError):
            walked(data[:cut])


@settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(0, 3))
def test_any_bytes_end_as_members_or_as_our_error(junk: bytes, whole: int) -> None:
    data = built([("a.json", b"{}")] * whole)[: -len(END)] + junk
    with contextlib.suppress(ShardError):
        walked(data)


@settings(deadline=None)
@given(st.integers(0, 2559), st.integers(0, 7))
def test_a_flipped_bit_of_a_header_is_found(at: int, bit: int) -> None:
    data = bytearray(built([("a.json", b"{}"), ("a.png", b"y" * 100)]))
    before = walked(bytes(data))
    data[at] ^= 1 << bit
    in_payload = 512 <= at < 1024 or 1536 <= at < 2048
    if in_payload:
        walked(bytes(data))  # payloads are the business of digests
    elif (at % 512, bit) in ((148, 4), (154, 5), (155, 5)) and at < 2048:
        # In the checksum itself: its first zero, and the NUL and space that end it, become a space
        # or one another, and the number stays what it was. All other bits are tried below.
        assert walked(bytes(data)) == before
    else:
        with pytest.raises(ShardError):
            assert walked(bytes(data)) == before


def test_gnu_tar_agrees(tmp_path: Path) -> None:
    files = [("000000001.json", b"{}"), ("d/" + "n" * 120 + ".png", b"z" * 9), ("é.txt", b"")]
    (tmp_path / "x.tar").write_bytes(built(files))
    done = subprocess.run(
        ["tar", "-xf", "x.tar"], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    assert done.stderr == ""
    assert [(name, (tmp_path / name).read_bytes()) for name, _ in files] == files
