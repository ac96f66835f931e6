"""Tar archives, written in one way and parsed strictly.

Writing: ustar, mode 0644, owner 0, time 0, so that the same members give the same bytes; a PAX
header only where a name or size does not fit ustar. Parsing: the checksum and bounds of every
header and the end mark are checked; links, devices, absolute names and `..` are refused. Payload
bytes are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ocrdata.errors import ShardError, TruncatedError

BLOCK = 512
END = bytes(2 * BLOCK)
"""Two zero blocks: the end mark. Nothing follows it in our own tars."""

MAX_EXTENDED = 1 << 20
"""Largest PAX or long-name header that is read, in bytes: names are short."""

_USTAR_SIZE_LIMIT = 8**11
_REGULAR = (b"0", b"\0", b"7")
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"K": "a link with a long name",
    b"S": "a sparse file",
}
_OWNERS = b"0000644\x000000000\x000000000\x00"  # mode, user, group
_TIME = b"\x0000000000000\x00"  # ends the size before it
_MAGIC = bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x000000000\x00"
_ZERO = bytes(BLOCK)
_FIXED_SUM = sum(_OWNERS + _TIME + _MAGIC) + 8 * 0x20


class TarMember(NamedTuple):
    """One member. `start` is the byte of its first header in the archive, `offset` that of its
    payload."""

    name: str
    start: int
    offset: int
    size: int
    regular: bool

    @property
    def end(self) -> int:
        """The first byte after the member and its padding."""
        return self.offset + self.size + padding(self.size)


def padding(size: int) -> int:
    """Zero bytes between a payload of `size` bytes and the next block."""
    return -size % BLOCK


def header(name: str, size: int) -> bytes:
    """The header block, or blocks, of a regular member. Raises ValueError for an unsafe name."""
    reason = unsafe_name(name)
    if reason:
        raise ValueError(f"member name {name!r} {reason}")
    extended: dict[str, str] = {}
    split = _split_name(name)
    if split is None:
        extended["path"] = name
        split = name.encode("ascii", "replace")[:100], b""
    if size >= _USTAR_SIZE_LIMIT:
        extended["size"] = str(size)
    block = _block(split, size if size < _USTAR_SIZE_LIMIT else 0, b"0")
    if not extended:
        return block
    records = b"".join(_pax_record(key, value) for key, value in extended.items())
    prefix = _block((b"././@PaxHeader", b""), len(records), b"x")
    return prefix + records + bytes(padding(len(records))) + block


def _block(name: tuple[bytes, bytes], size: int, kind: bytes) -> bytes:
    """One ustar header block (POSIX.1-1988). The checksum of the constant fields is precomputed."""
    digits = b"%011o" % size
    checksum = _FIXED_SUM + sum(name[0]) + sum(name[1]) + sum(digits) + kind[0]
    return b"".join(
        (
            name[0].ljust(100, b"\0"),
            _OWNERS,
            digits,
            _TIME,
            b"%06o\0 " % checksum,
            kind,
            _MAGIC,
            name[1].ljust(167, b"\0"),
        )
    )


def _split_name(name: str) -> tuple[bytes, bytes] | None:
    """(name, prefix) as ustar stores them; None if the name does not fit."""
    if not name.isascii():
        return None
    raw = name.encode()
    if len(raw) <= 100:
        return raw, b""
    cut = raw.find(b"/", len(raw) - 101)
    if cut < 1 or cut > 155 or cut == len(raw) - 1:
        return None
    return raw[cut + 1 :], raw[:cut]


def _pax_record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def unsafe_name(name: str) -> str:
    """Why a member name is refused; "" if it is safe."""
    if not name:
        return "is empty"
    if "\0" in name:
        return "contains a NUL"
    if name.startswith("/"):
        return "is an absolute path"
    if ".." in name.split("/"):
        return "contains '..'"
    return ""


Read = Callable[[int, int], bytes]
"""read(offset, size): exactly that many bytes."""


class Walker:
    """Parses the headers of a tar of `size` bytes, read by `read` at rising offsets."""

    def __init__(self, shard: str, read: Read, size: int) -> None:
        self.shard, self.size = shard, size
        self._read = read

    def all(self, offset: int = 0) -> Iterator[TarMember]:
        """Every member from `offset` up to a valid end mark. Raises ShardError; TruncatedError if
        the end is missing."""
        while (member := self.member(offset, self.size)) is not None:
            yield member
            offset = member.end
        self.check_end(offset)

    def part(self, start: int, stop: int) -> Iterator[TarMember]:
        """The members that fill [start, stop) exactly. Raises ShardError if they do not."""
        while start < stop:
            member = self.member(start, stop)
            if member is None:
                raise ShardError(self.shard, f"a zero block at byte {start:,} instead of a header")
            yield member
            start = member.end

    def check_end(self, offset: int) -> None:
        """Check that two zero blocks follow at `offset`, and only zeros after them."""
        if self.size < offset + len(END):
            raise self._cut(f"no end mark (two zero blocks) at byte {offset:,}")
        while offset < self.size:
            count = min(1 << 20, self.size - offset)
            if any(self._read(offset, count)):
                raise ShardError(self.shard, f"data after the end mark, from byte {offset:,} on")
            offset += count

    def member(self, start: int, stop: int) -> TarMember | None:
        """The member whose headers start at `start` and which ends by `stop`; None at the end
        mark."""
        offset, name, size = start, "", -1
        while True:
            if offset + BLOCK > stop:
                raise self._cut(f"no room for a header at byte {offset:,}")
            block = self._read(offset, BLOCK)
            if block == _ZERO:
                if offset != start:
                    raise ShardError(
                        self.shard, f"an extended header without a member at byte {start:,}"
                    )
                return None
            self._check_sum(block, offset)
            kind = block[156:157]
            own_size = self._number(block[124:136], offset)
            offset += BLOCK
            if kind not in (b"x", b"g", b"L"):
                break
            data = self._extended(offset, own_size, stop)
            offset += own_size + padding(own_size)
            if kind == b"L":
                name = self._text(data.rstrip(b"\0"), start)
            else:
                found = self._pax(data, start)
                if kind == b"x":
                    name = found.get("path", name)
                    size = self._decimal(found["size"], start) if "size" in found else size
                elif "path" in found or "size" in found:
                    raise ShardError(
                        self.shard, f"a global PAX header sets a name or size at byte {start:,}"
                    )
        name = name or self._plain_name(block, start)
        size = own_size if size < 0 else size
        return self._fit(kind, TarMember(name, start, offset, size, True), stop)

    def _fit(self, kind: bytes, member: TarMember, stop: int) -> TarMember:
        reason = unsafe_name(member.name)
        if reason:
            raise ShardError(self.shard, f"member name {member.name!r} {reason}")
        if kind == b"5" or (kind in _REGULAR and member.name.endswith("/")):
            member = member._replace(size=0, regular=False)
        elif kind not in _REGULAR:
            what = _REFUSED.get(kind, f"of unknown type {kind!r}")
            raise ShardError(
                self.shard, f"is {what}; only regular files are read", member=member.name
            )
        if member.end > stop:
            raise self._cut(
                f"its {member.size:,} bytes start at byte {member.offset:,} and would end after "
                f"byte {stop:,}",
                member.name,
            )
        return member

    def _cut(self, detail: str, member: str = "") -> TruncatedError:
        return TruncatedError(
            self.shard,
            f"truncated or damaged: {detail}",
            member=member,
            remedy="recreate the shard, or copy it again",
        )

    def _check_sum(self, block: bytes, offset: int) -> None:
        stored = self._number(block[148:156], offset)
        found = sum(block) - sum(block[148:156]) + 8 * 0x20
        if stored == found:
            return
        # Some old tars sum signed bytes, which differs for names that are not ASCII.
        if stored != found - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
            raise ShardError(self.shard, f"checksum mismatch in the header at byte {offset:,}")

    def _number(self, field: bytes, offset: int) -> int:
        if field[0] & 0x80:  # base 256, for sizes of 8 GiB and more
            value = int.from_bytes(field[1:], "big")
            if field[0] == 0x80:
                return value
        else:
            digits = field.rstrip(b"\0 ").lstrip(b" ")
            if all(48 <= byte <= 55 for byte in digits):
                return int(digits or b"0", 8)
        raise ShardError(self.shard, f"the header at byte {offset:,} has a malformed numeric field")

    def _decimal(self, text: str, offset: int) -> int:
        if text.isascii() and text.isdigit() and len(text) < 20:
            return int(text)
        raise ShardError(self.shard, f"the header at byte {offset:,} has a malformed size")

    def _extended(self, offset: int, size: int, stop: int) -> bytes:
        if size > MAX_EXTENDED:
            raise ShardError(
                self.shard, f"the extended header at byte {offset:,} is too large: {size:,} bytes"
            )
        if offset + size + padding(size) > stop:
            raise self._cut(f"the extended header at byte {offset:,} ends after byte {stop:,}")
        return self._read(offset, size)

    def _pax(self, data: bytes, offset: int) -> dict[str, str]:
        found: dict[str, str] = {}
        at = 0
        while at < len(data):
            space = data.find(b" ", at, at + 9)
            digits = data[at:space] if space > at else b""
            length = int(digits) if digits.isdigit() else 0
            record = data[space + 1 : at + length]
            key, equals, value = record.partition(b"=")
            if at + length > len(data) or not equals or not value.endswith(b"\n"):
                raise ShardError(self.shard, f"the extended header at byte {offset:,} is malformed")
            if key.startswith(b"GNU.sparse"):
                raise ShardError(
                    self.shard, f"a sparse file at byte {offset:,}; only regular files are read"
                )
            if key in (b"path", b"size"):
                found[key.decode()] = self._text(value[:-1], offset)
            at += length
        return found

    def _plain_name(self, block: bytes, offset: int) -> str:
        name = block[:100].split(b"\0", 1)[0]
        prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
        return self._text(prefix + b"/" + name if prefix else name, offset)

    def _text(self, raw: bytes, offset: int) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as exc:
            raise ShardError(
                self.shard, f"the name in the header at byte {offset:,} is not valid UTF-8"
            ) from exc
