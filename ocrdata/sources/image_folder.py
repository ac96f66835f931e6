"""A folder of images: described in tables beside them, or each with a caption of the same name.

Tables are `metadata.jsonl` or `metadata.csv`, the layout of `datasets`' imagefolder: each row names
its image as `file_name`, relative to the table's folder. Where there is no table, each image is a
row: `a.jpg` with its caption in `a.txt` (or `a.caption`) and other fields in `a.json`, which is how
img2dataset writes files.

Rows are in the order of the files' names, numbers by their value; subfolders are included, hidden
files are not. The names of the files are held in memory, about 0.3 KB for each image.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import xxhash

from ocrdata.errors import RejectedRow, SourceError, UsageError
from ocrdata.sample import Sample
from ocrdata.shards.members import IMAGE_SUFFIXES, TEXT_SUFFIXES, caption_text, kind_of
from ocrdata.shards.names import natural
from ocrdata.sources.annotations import AnnotationFormat
from ocrdata.sources.base import ROW_BYTES, attempt, mean_image_bytes, safe_name
from ocrdata.sources.conversations import Image, record_images
from ocrdata.sources.csv_rows import CsvFile, record_of
from ocrdata.sources.image_files import ImageFolder, digest_of_files, is_data_url
from ocrdata.sources.json_rows import RowFile
from ocrdata.sources.jsonl import parse_record
from ocrdata.storage.files import read_file
from ocrdata.storage.location import Location

TABLES = ("metadata.jsonl", "metadata.csv")
OTHER_TABLES = ("metadata.parquet", "metadata.json", "metadata.tsv")

SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
"""Folders that hold one split of a data set each."""

FILE_NAMES = ("file_name", "file_names", "filename", "filenames", "image_file_name")
"""Fields of a table's row that name its image or images."""


class Annotated(NamedTuple):
    """What a row says: its images are in `folder`, unless they are bytes."""

    folder: Path
    record: Mapping[str, Any]
    images: Sequence[Image]
    caption: str | None = None


class ImageFolderSource:
    """The rows of one folder. Raises UsageError if it has neither tables nor captions."""

    content = ("rows_xxh3_128", "images_xxh3_128")

    def __init__(self, folder: Path, form: AnnotationFormat) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
        self.name = safe_name(folder.absolute().name)
        self._folder, self._form = folder, form
        names = list_files(folder)
        self._images = [name for name in names if kind_of(name) in IMAGE_SUFFIXES]
        self._splits = sorted({name.split("/")[0] for name in names if "/" in name} & SPLITS)
        tables = [name for name in names if PurePosixPath(name).name in TABLES]
        self._rows: Tables | Captions = (
            Tables(folder, tables) if tables else Captions(folder, names)
        )

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Tables and captions by their content, images by their names and sizes."""
        return {
            "format": "imagefolder",
            "rows_xxh3_128": self._rows.digest,
            "images_xxh3_128": self._images_digest,
            **{key: value for key, value in vars(self._form).items() if value},
            "licence": "unknown",
        }

    @cached_property
    def _images_digest(self) -> str:
        return digest_of_files((name, self._folder / name) for name in self._images)

    def count(self) -> int:
        """Number of rows in the tables, or of images and captions."""
        return self._rows.count

    def size(self, start: int, stop: int) -> int:
        """Estimated bytes in shards."""
        images = mean_image_bytes(self, start, stop)
        text = self._rows.text_bytes / self._rows.count
        return round((images + text + ROW_BYTES) * (stop - start))

    def files(self, start: int, stop: int) -> Iterator[Path]:
        """The images of rows `[start, stop)`."""
        return named_files(self._rows, start, stop)

    def notes(self) -> Sequence[str]:
        """Splits that become one set, and images that no table names."""
        notes = []
        if len(self._splits) > 1:
            notes.append(
                f"{', '.join(self._splits)} become one set; convert {self._splits[0]} alone with "
                f"--path {self._folder / self._splits[0]}"
            )
        if isinstance(self._rows, Tables):
            named = set(named_files(self._rows, 0, self._rows.count))
            left = [name for name in self._images if self._folder / name not in named]
            if left:
                notes.append(f"{len(left):,} images are in no table, first {left[0]}")
        return notes

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`."""
        return attempt(self._rows.rows(start, stop), self._make)

    def _make(self, row: Any) -> Sample:
        found = self._rows.read(row)
        return self._form.sample(
            found.record,
            found.images,
            ImageFolder(found.folder).read,
            caption=found.caption,
            origin=self.name,
        )


class Tables:
    """The rows of all tables in a folder, one table after the other."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        paths = [folder / name for name in names]
        for first, second in pairwise(paths):
            if first.parent == second.parent:
                raise UsageError(f"{first.parent} has {first.name} and {second.name}; keep one")
        self._tables = [CsvFile(p) if p.suffix == ".csv" else RowFile(p) for p in paths]
        self._ends = list(accumulate(table.count for table in self._tables))
        self.count, self.text_bytes = self._ends[-1], sum(table.size for table in self._tables)
        digest = xxhash.xxh3_128()
        for name, table in zip(names, self._tables, strict=True):
            digest.update(f"{name}\0{table.digest}\n".encode("utf-8", "surrogatepass"))
        self.digest = digest.hexdigest()

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, tuple[Path, Any]]]:
        """Numbers and rows of `[start, stop)`, each with the folder of its table."""
        for number in range(bisect_right(self._ends, start), len(self._tables)):
            table = self._tables[number]
            before = self._ends[number] - table.count
            if before >= stop:
                return
            for row, content in table.rows(max(0, start - before), stop - before):
                yield before + row, (table.path.parent, content)

    def read(self, row: tuple[Path, Any]) -> Annotated:
        """A row as it is used. Raises RejectedRow."""
        folder, content = row
        record = parse_record(content) if isinstance(content, bytes) else record_of(content)
        name = next((name for name in FILE_NAMES if record.get(name)), "")
        named = record.get(name) if name else record_images(record)
        images: list[Any] = named if isinstance(named, list) else [named]
        if not images:
            raise RejectedRow(f"no file_name; its fields are {', '.join(record)}"[:300])
        if not all(isinstance(image, str | bytes) for image in images):
            raise RejectedRow(f"{name} is neither a name nor a list of names")
        return Annotated(folder, record, images)


class Captions:
    """A row for each image and each caption in a folder; those of the same name belong together."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        self._texts = {name for name in names if kind_of(name) in (*TEXT_SUFFIXES, "json")}
        found: dict[str, list[str]] = {}
        for name in names:
            if kind_of(name) in IMAGE_SUFFIXES or kind_of(name) in TEXT_SUFFIXES:
                found.setdefault(_stem(name), []).append(name)
        for name in names:
            if kind_of(name) == "json" and _stem(name) in found:
                found[_stem(name)].append(name)
        if not any(kind_of(name) in IMAGE_SUFFIXES for names in found.values() for name in names):
            raise UsageError(f"{folder}: no images in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self._rows = list(found.values())
        if not any(len(row) > 1 for row in self._rows):
            other = next((name for name in names if PurePosixPath(name).name in OTHER_TABLES), "")
            raise UsageError(
                f"{folder}: its images have no texts: neither {' nor '.join(TABLES)} "
                f"{f'(but {other}, which is not read) ' if other else ''}nor a .txt, .caption or "
                ".json of the same name beside an image"
            )
        self.count = len(self._rows)

    @cached_property
    def digest(self) -> str:
        """A digest of the texts and of the rows they belong to."""
        digest = xxhash.xxh3_128()
        for row in self._rows:
            for name in row:
                digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
                if name in self._texts:
                    digest.update(xxhash.xxh3_128_digest(self._text(name)))
        return digest.hexdigest()

    @cached_property
    def text_bytes(self) -> int:
        """Bytes of all texts."""
        return sum((self._folder / name).stat().st_size for name in self._texts)

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, list[str]]]:
        """Numbers and files of rows `[start, stop)`."""
        return enumerate(self._rows[start:stop], start)

    def read(self, row: list[str]) -> Annotated:
        """A row as it is used. Raises RejectedRow."""
        images = [name for name in row if kind_of(name) in IMAGE_SUFFIXES]
        captions = [name for name in row if kind_of(name) in TEXT_SUFFIXES]
        records = [name for name in row if kind_of(name) == "json"]
        for what, names in (("image", images), ("caption", captions), ("JSON file", records)):
            if len(names) > 1:
                raise RejectedRow(f"more than one {what} of the same name: {', '.join(names)}")
        if not images:
            raise RejectedRow(f"{captions[0]}: no image of the same name")
        if not captions and not records:
            raise RejectedRow(f"{images[0]}: no caption of the same name")
        record = parse_record(self._text(records[0])) if records else {}
        try:
            caption = caption_text(self._text(captions[0])) if captions else None
        except UnicodeDecodeError as exc:
            raise RejectedRow("the caption is not valid UTF-8") from exc
        return Annotated(self._folder, {"file_name": images[0], **record}, images, caption)

    def _text(self, name: str) -> bytes:
        try:
            return read_file(self._folder / name)
        except OSError as exc:
            raise SourceError(f"{self._folder / name}: {exc.strerror}") from exc


def named_files(table: Tables | Captions, start: int, stop: int) -> Iterator[Path]:
    """The image files that rows `[start, stop)` name."""
    for _, row in table.rows(start, stop):
        try:
            found = table.read(row)  # type: ignore[arg-type]  # a row of the same table
            for image in found.images:
                if isinstance(image, str) and not is_data_url(image):
                    yield ImageFolder(found.folder).find(image)
        except RejectedRow:
            continue


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def list_files(folder: Path) -> list[str]:
    """The files in a folder and its subfolders, as paths from it, in natural order.

    Hidden ones are left out; links to folders are followed, once each. Raises SourceError.
    """
    found: list[Location] = []
    seen = set[str]()

    def fail(exc: OSError) -> None:
        raise SourceError(f"{exc.filename}: cannot be read: {exc.strerror}") from exc

    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = os.path.relpath(place, folder)
        found += [
            Location(os.path.normpath(os.path.join(inner, name)))
            for name in files
            if not name.startswith(".")
        ]
    return [location.text for location in natural(found)]
