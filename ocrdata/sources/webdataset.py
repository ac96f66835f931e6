"""Anybody's WebDataset tars, such as those of img2dataset, to our samples.

A sample is a group of members with one key, as in `ocrdata.shards.members`; its images are those
that a reader of the tar finds, as their original bytes. What is said about them is in `KEY.json` (a
conversation, a question and its answer, or meta) and `KEY.txt` or `KEY.caption`; --question and
--answer may also name other members, such as `outputs.txt`. Samples are numbered through all tars,
in the order in which the tars are named.

One pass reads the headers and the first 4 KiB of each member: it counts the samples, keeps the
position of every 64th, and gives the digest for the provenance. Payloads are read once, when they
are converted.
"""

from __future__ import annotations

import glob
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import xxhash

from ocrdata.errors import RejectedRow, ShardError, SourceError, SpecError
from ocrdata.sample import Sample
from ocrdata.shards.members import (
    caption_text,
    fields_of,
    image_parts_in,
    roles,
    samples,
    to_sample,
)
from ocrdata.shards.names import PLAIN, natural, set_name
from ocrdata.shards.ranges import expand_ranges, has_range
from ocrdata.shards.tar import TarMember, Walker
from ocrdata.sources.annotations import AnnotationFormat
from ocrdata.sources.base import ROW_BYTES, attempt, safe_name
from ocrdata.sources.conversations import Image
from ocrdata.sources.jsonl import parse_record
from ocrdata.storage.file import File, exists, is_folder, list_names, open_file
from ocrdata.storage.location import Location
from ocrdata.storage.signatures import TAR, recognise

STRIDE = 64
HEAD_BYTES = 4_096
"""Bytes of a member that its digest covers, besides its name and size: all of a text, and of an
image enough to tell it from another of the same size."""

_OURS = {"messages": list, "source": str, "meta": dict}
"""The fields of `KEY.json` that this project writes."""


def find_tars(patterns: Iterable[str]) -> list[Location]:
    """The tars that names, ranges, globs and folders stand for, in order. Raises SpecError."""
    found: list[Location] = []
    for pattern in patterns:
        place = Location.of(pattern)
        if is_folder(place):
            inside = (name for name in list_names(place) if not name.startswith("."))
            tars = natural(place / name for name in inside if name.endswith(PLAIN))
            sets = sorted({set_name(tar.name) or "(numbers)" for tar in tars})
            if len(sets) > 1:
                raise SpecError(
                    f"{place}: has tars of several sets ({', '.join(sets[:5])}); name one, as in "
                    f"'{place / sets[-1]}-*.tar' (--path)"
                )
        elif exists(place):
            tars = [place]
        elif has_range(pattern):
            tars = [Location(name) for name in expand_ranges(pattern)]
        else:
            tars = natural(map(Location, glob.glob(pattern, recursive=True)))
        if not tars:
            raise SpecError(f"{pattern}: no .tar there (--path)")
        found += tars
    for tar in found:
        if not exists(tar):
            raise SpecError(f"{tar}: no such file (--path)")
        if not tar.name.endswith(PLAIN):
            raise SpecError(f"{tar}: must be a plain .tar; decompress it first (--path)")
    twice = next((tar for tar, count in Counter(found).items() if count > 1), None)
    if twice is not None:
        raise SpecError(f"{twice} is given twice (--path)")
    return found


def default_name(patterns: Iterable[str]) -> str:
    """The name of the shards: that of the tars without their number, or, for tars that are named
    by a number alone, that of their folder."""
    first = find_tars(patterns)[0]
    name = set_name(first.name)
    return safe_name(name or first.path.absolute().parent.name)


class WebDatasetSource:
    """The samples of some tars. Raises SpecError, and ShardError for a damaged tar."""

    content = ("tars", "bytes", "xxh3_128")

    def __init__(self, patterns: Sequence[str], form: AnnotationFormat) -> None:
        self.name = default_name(patterns)
        self._form = form
        named = frozenset({form.question.lower(), form.answer.lower()})
        self._tars = [TarSamples(tar, named) for tar in find_tars(patterns)]
        self._ends = list(accumulate(tar.count for tar in self._tars))

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The tars by their names and members, not their folders."""
        digest = xxhash.xxh3_128()
        for tar in self._tars:
            digest.update(f"{tar.location.name}\0{tar.digest}\n".encode("utf-8", "surrogatepass"))
        return {
            "format": "webdataset",
            "tars": len(self._tars),
            "bytes": sum(tar.size for tar in self._tars),
            "xxh3_128": digest.hexdigest(),
            **{key: value for key, value in vars(self._form).items() if value},
            "licence": "unknown",
        }

    def count(self) -> int:
        """Number of samples in all tars."""
        return self._ends[-1]

    def size(self, start: int, stop: int) -> int:
        """Estimated bytes in shards: each sample as large as the mean of its tar."""
        total = 0.0
        for tar, inner in self._split(start, stop):
            total += len(inner) * (tar.size / tar.count + ROW_BYTES)
        return round(total)

    def notes(self) -> Sequence[str]:
        """The members that no sample uses, by their fields."""
        unused = sum((tar.unused for tar in self._tars), Counter[str]())
        named = [f"{count:,} .{field}" for field, count in unused.most_common(5)]
        return [f"members that are not used: {', '.join(named)}"] if named else []

    def files(self, start: int, stop: int) -> Iterator[Path]:
        """The tars of rows `[start, stop)`."""
        return (tar.location.path for tar, _ in self._split(start, stop))

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`. Raises ShardError if a tar is damaged there, SourceError if it has
        changed."""
        return attempt(self._members(start, stop), self._make)

    def _split(self, start: int, stop: int) -> Iterator[tuple[TarSamples, range]]:
        """Each tar with samples in `[start, stop)`, and their numbers in it."""
        for number in range(bisect_right(self._ends, start), len(self._tars)):
            tar = self._tars[number]
            before = self._ends[number] - tar.count
            if before >= stop:
                return
            if inner := range(max(0, start - before), min(tar.count, stop - before)):
                yield tar, inner

    def _members(self, start: int, stop: int) -> Iterator[tuple[int, TarSample]]:
        number = start
        for tar, inner in self._split(start, stop):
            for sample in tar.read(inner):
                yield number, sample
                number += 1

    def _make(self, found: TarSample) -> Sample:
        names, members = found.names, found.members
        fields = fields_of(names)
        used = roles(fields)
        if used.problem:
            raise RejectedRow(used.problem)
        record = {} if used.json is None else parse_record(members[names[used.json]])
        if _is_our_own(record):
            return _our_own(found)
        for name in (self._form.question, self._form.answer):
            if name.lower() in fields:
                record[name] = _text(members[names[fields.index(name.lower())]], name)
        caption = None
        if used.caption is not None and used.images:
            caption = _text(members[names[used.caption]], "the caption")
        if caption is None and not record:
            raise RejectedRow(f"no .json, .txt or .caption among its members: {', '.join(names)}")

        def read(image: Image) -> bytes:
            if isinstance(image, bytes) or image not in members:
                raise RejectedRow(f"{image[:80]!r} is none of its members")
            return members[image]

        images = [names[at] for at in used.images]
        sample = self._form.sample(record, images, read, caption=caption, origin=self.name)
        return replace(sample, meta={"key": found.key, **sample.meta})


def _text(data: bytes, name: str) -> str:
    try:
        return caption_text(data)
    except UnicodeDecodeError as exc:
        raise RejectedRow(f"{name} is not valid UTF-8") from exc


def _is_our_own(record: Mapping[str, Any]) -> bool:
    return (
        {"messages", "meta"} <= record.keys() <= _OURS.keys()
        and all(isinstance(value, _OURS[name]) for name, value in record.items())
        and image_parts_in(record["messages"]) is not None
    )


def _our_own(found: TarSample) -> Sample:
    """A sample that this project wrote; `<image>` in its texts is text."""
    try:
        return to_sample("", found.key, found.members)
    except ShardError as exc:
        raise RejectedRow(exc.detail) from exc


@dataclass(frozen=True)
class TarSample:
    """The names of one sample's members, in the order of the tar, and the bytes of those that are
    used."""

    key: str
    names: Sequence[str]
    members: Mapping[str, bytes]


class TarSamples:
    """The samples of one tar by number. `digest` covers names, sizes and first bytes of its
    members; `unused` counts the fields of members that are neither a part of a sample nor among
    `named`. Raises ShardError if the tar is damaged or no tar."""

    def __init__(self, location: Location, named: frozenset[str]) -> None:
        self.location, self._named = location, named
        try:
            self._count()
        except ShardError as exc:
            if other := recognise(location, TAR):
                raise ShardError(str(location), f"is not {TAR} but {other}") from exc
            raise

    def _count(self) -> None:
        location = self.location
        file = open_file(location)
        self.size, self._version = file.size, file.version
        self.count, self.unused = 0, Counter[str]()
        self._positions = array("q")
        digest = xxhash.xxh3_128()
        for _, members in _grouped(file, 0):
            if self.count % STRIDE == 0:
                self._positions.append(members[0].start)
            self.count += 1
            fields = fields_of([member.name for member in members])
            self.unused.update(fields[at] for at in self._unused(fields))
            for member in members:
                digest.update(f"{member.name}\0{member.size}\n".encode())
                digest.update(file.read(member.offset, min(member.size, HEAD_BYTES)))
        self.digest = digest.hexdigest()
        file.close()

    def read(self, numbers: range) -> Iterator[TarSample]:
        """The samples of these numbers. Raises ShardError and SourceError."""
        file = open_file(self.location)
        if file.version != self._version:
            raise SourceError(f"{self.location}: changed since its samples were counted")
        block = numbers.start // STRIDE
        number = block * STRIDE
        for key, members in _grouped(file, self._positions[block]):
            if number >= numbers.stop:
                break
            if number >= numbers.start:
                names = [member.name for member in members]
                unused = self._unused(fields_of(names))
                data = {
                    member.name: file.read(member.offset, member.size)
                    for at, member in enumerate(members)
                    if at not in unused
                }
                yield TarSample(key, names, data)
            number += 1
        file.close()

    def _unused(self, fields: tuple[str, ...]) -> list[int]:
        return [at for at in roles(fields).unused if fields[at] not in self._named]


def _grouped(file: File, start: int) -> Iterator[tuple[str, list[TarMember]]]:
    """Key and members of each sample from a position on."""
    walker = Walker(file.name, file.read, file.size)
    found = samples(file.name, walker.all(start))
    for key, group in groupby(found, key=lambda pair: pair[0]):
        yield key, [member for _, member in group]
